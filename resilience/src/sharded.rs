//! A window that slides and is counted by many threads at once without a lock and without a line of memory that two of
//! them write. It counts and decides nothing; `window` is its plain twin for use behind a lock.
//!
//! Every thread has a shard of its own ([`slot`]) and is the only one that writes it, with a load and a store. A shard
//! has ten buckets of time, anchored to multiples of the bucket's length so that nothing drifts. A bucket says in its
//! tag when it began and in which era; its owner empties it when its turn comes again. So a window is cleared by
//! counting on in a new era: nobody writes what another owns. Only a sum looks at all shards.

mod slot;

pub(crate) use self::slot::{count as slots, mine};

use std::sync::PoisonError;

use crate::sync::{AtomicU64, Mutex, Ordering, fence};

/// Buckets in a window.
const BUCKETS: u64 = 10;
/// An era is a number of so many bits, which may wrap.
pub(crate) const ERA_BITS: u32 = 29;
/// The rest of a tag is the bucket's begin in milliseconds: 397 days, then it wraps.
const BEGIN_BITS: u32 = 64 - ERA_BITS;
/// A tag that no bucket ever gets: an era is at least one behind it, or the window a year.
const UNUSED: u64 = u64::MAX;

/// Counts of `N` things over the last while, exact to a tenth of it, and of `T` things since the start.
#[derive(Debug)]
pub(crate) struct Sharded<const N: usize, const T: usize> {
    bucket_millis: AtomicU64,
    shards: Box<[Shard<N, T>]>,
    /// For the threads that got no shard of their own.
    rest: Shard<N, T>,
    /// Whoever holds it is the owner of `rest`.
    rest_owner: Mutex<()>,
}

/// The part of one thread. Lines of memory are fetched in pairs, hence 128.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard<const N: usize, const T: usize> {
    /// Era and length of the current bucket, its end and its place: what the usual path compares and nothing more.
    key: AtomicU64,
    end: AtomicU64,
    place: AtomicU64,
    totals: [AtomicU64; T],
    buckets: [Bucket<N>; BUCKETS as usize],
}

#[derive(Debug)]
struct Bucket<const N: usize> {
    tag: AtomicU64,
    counts: [AtomicU64; N],
}

impl<const N: usize, const T: usize> Sharded<N, T> {
    /// A window of ten buckets of `bucket_millis`, from 1 up to a week.
    pub(crate) fn new(bucket_millis: u64) -> Self {
        Self::with_shards(bucket_millis, slot::count())
    }

    fn with_shards(bucket_millis: u64, shards: usize) -> Self {
        Self {
            bucket_millis: AtomicU64::new(bucket_millis.max(1)),
            shards: (0..shards).map(|_| Shard::new()).collect(),
            rest: Shard::new(),
            rest_owner: Mutex::new(()),
        }
    }

    /// Changes the length. What was counted stays where it lies within the new one.
    pub(crate) fn set_bucket_millis(&self, millis: u64) {
        self.bucket_millis.store(millis.max(1), Ordering::Relaxed);
    }

    /// Length of a bucket; to be handed to [`Shard::bucket`].
    pub(crate) fn bucket_millis(&self) -> u64 {
        self.bucket_millis.load(Ordering::Relaxed)
    }

    /// Lets this thread write its shard.
    #[inline]
    pub(crate) fn write<R>(&self, write: impl FnOnce(&Shard<N, T>) -> R) -> R {
        self.write_as(slot::mine(), write)
    }

    /// As [`Sharded::write`], for the owner of `slot`.
    #[inline]
    fn write_as<R>(&self, slot: usize, write: impl FnOnce(&Shard<N, T>) -> R) -> R {
        match self.shards.get(slot) {
            Some(shard) => write(shard),
            None => self.write_rest(write),
        }
    }

    #[cold]
    fn write_rest<R>(&self, write: impl FnOnce(&Shard<N, T>) -> R) -> R {
        let _owner = self.rest_owner.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.rest)
    }

    /// Sums of `era` over the window that ends at `now`. Of two threads that each count and then sum, at least one
    /// sees both counts.
    pub(crate) fn sums(&self, era: u32, now: u64) -> [u64; N] {
        // Orders this thread's count before its reads, as the other one's fence does there.
        fence(Ordering::SeqCst);
        let length = self.bucket_millis();
        let begin = now - now % length;
        let mut sums = [0; N];
        for shard in self.all() {
            // A shard's key has the last era that it counted in: most shards of a machine with many cores are idle.
            if shard.key.load(Ordering::Relaxed) >> 32 != u64::from(era) {
                continue;
            }
            for bucket in &shard.buckets {
                let tag = bucket.tag.load(Ordering::Acquire);
                // A clock may be a tick ahead of this one, so a bucket may begin in the future.
                if era_of(tag) == era && begin_after(begin, tag).unsigned_abs() <= (BUCKETS - 1) * length {
                    for (sum, count) in sums.iter_mut().zip(&bucket.counts) {
                        *sum += count.load(Ordering::Relaxed);
                    }
                }
            }
        }
        sums
    }

    /// What was counted since the start.
    pub(crate) fn totals(&self) -> [u64; T] {
        let mut totals = [0; T];
        for shard in self.all() {
            for (total, count) in totals.iter_mut().zip(&shard.totals) {
                *total += count.load(Ordering::Relaxed);
            }
        }
        totals
    }

    fn all(&self) -> impl Iterator<Item = &Shard<N, T>> {
        self.shards.iter().chain(std::iter::once(&self.rest))
    }
}

impl<const N: usize, const T: usize> Shard<N, T> {
    fn new() -> Self {
        Self {
            key: AtomicU64::new(UNUSED),
            end: AtomicU64::new(0),
            place: AtomicU64::new(0),
            totals: std::array::from_fn(|_| AtomicU64::new(0)),
            buckets: std::array::from_fn(|_| Bucket {
                tag: AtomicU64::new(UNUSED),
                counts: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
        }
    }

    /// The bucket of `now` in `era`; none when this shard has gone on to a later era.
    #[inline]
    pub(crate) fn bucket(&self, bucket_millis: u64, era: u32, now: u64) -> Option<Counts<'_, N>> {
        let key = u64::from(era) << 32 | bucket_millis;
        if self.key.load(Ordering::Relaxed) != key || now >= self.end.load(Ordering::Relaxed) {
            self.turn(key, era, bucket_millis, now)?;
        }
        let bucket = self.buckets.get(self.place.load(Ordering::Relaxed) as usize)?;
        Some(Counts(&bucket.counts))
    }

    /// Adds one to a total.
    #[inline]
    pub(crate) fn count(&self, which: usize) {
        bump(&self.totals[which]);
    }

    /// Goes on to the bucket of `now`, and empties it if it has an earlier turn or era.
    #[cold]
    fn turn(&self, key: u64, era: u32, bucket_millis: u64, now: u64) -> Option<()> {
        let begin = now - now % bucket_millis;
        let place = begin / bucket_millis % BUCKETS;
        let bucket = &self.buckets[place as usize];
        let current = self.key.load(Ordering::Relaxed);
        if current != UNUSED && is_later((current >> 32) as u32, era) {
            return None;
        }
        let tag = tag(era, begin);
        let old = bucket.tag.load(Ordering::Relaxed);
        // In the shared shard another thread may be a turn ahead; then this one counts there.
        if old == UNUSED || era_of(old) != era || begin_after(begin, old) > 0 {
            for count in &bucket.counts {
                count.store(0, Ordering::Relaxed);
            }
            // Whoever sees this tag sees no count that is older.
            bucket.tag.store(tag, Ordering::Release);
        }
        self.key.store(key, Ordering::Relaxed);
        self.end.store(begin + bucket_millis, Ordering::Relaxed);
        self.place.store(place, Ordering::Relaxed);
        Some(())
    }
}

/// Counts of one bucket.
pub(crate) struct Counts<'a, const N: usize>(&'a [AtomicU64; N]);

impl<const N: usize> Counts<'_, N> {
    /// Adds one of `which`.
    #[inline]
    pub(crate) fn add(&self, which: usize) {
        bump(&self.0[which]);
    }
}

/// Adds one without a locked instruction: the caller is the only writer.
#[inline]
fn bump(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

fn tag(era: u32, begin: u64) -> u64 {
    u64::from(era) << BEGIN_BITS | begin & (u64::MAX >> ERA_BITS)
}

fn era_of(tag: u64) -> u32 {
    (tag >> BEGIN_BITS) as u32
}

/// Milliseconds from a bucket's begin to `begin`; negative when the bucket is ahead.
fn begin_after(begin: u64, tag: u64) -> i64 {
    i64::from_ne_bytes((begin.wrapping_sub(tag) << ERA_BITS).to_ne_bytes()) >> ERA_BITS
}

/// Whether era `a` is later than `b`, in numbers that wrap.
pub(crate) fn is_later(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b) << (32 - ERA_BITS);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(all(test, not(resilience_loom)))]
mod tests;

#[cfg(all(test, resilience_loom))]
mod loom;
