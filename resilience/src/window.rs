//! A window that slides: ten buckets of time, each cleared when its turn comes again, anchored to multiples of the
//! bucket's length so that nothing drifts. It counts and decides nothing.

use std::time::Duration;

/// Buckets in a window.
const BUCKETS: usize = 10;

/// Counts of `N` things over the last `length`, exact to a tenth of it.
#[derive(Debug, Clone)]
pub(crate) struct Window<const N: usize> {
    bucket_nanos: u128,
    buckets: [Bucket<N>; BUCKETS],
}

#[derive(Debug, Clone, Copy)]
struct Bucket<const N: usize> {
    turn: u128,
    counts: [u64; N],
}

impl<const N: usize> Window<N> {
    pub(crate) fn new(length: Duration) -> Self {
        let bucket_nanos = (length.as_nanos() / BUCKETS as u128).max(1);
        Self {
            bucket_nanos,
            buckets: [Bucket {
                turn: 0,
                counts: [0; N],
            }; BUCKETS],
        }
    }

    /// Adds one of `which`.
    pub(crate) fn add(&mut self, now: Duration, which: usize) {
        let turn = now.as_nanos() / self.bucket_nanos;
        let bucket = &mut self.buckets[(turn % BUCKETS as u128) as usize];
        if bucket.turn != turn {
            *bucket = Bucket { turn, counts: [0; N] };
        }
        bucket.counts[which] += 1;
    }

    /// Sums over the window that ends at `now`.
    pub(crate) fn sums(&self, now: Duration) -> [u64; N] {
        let turn = now.as_nanos() / self.bucket_nanos;
        let mut sums = [0; N];
        for bucket in &self.buckets {
            if bucket.turn <= turn && turn - bucket.turn < BUCKETS as u128 {
                for (sum, count) in sums.iter_mut().zip(bucket.counts) {
                    *sum += count;
                }
            }
        }
        sums
    }
}
