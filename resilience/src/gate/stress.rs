//! Threads that come, wait, give up and leave at one gate, or at the places of a bulkhead on it, while the limit changes:
//! nobody waits for ever, never are more inside than the limit, and at the end all places are free. A failure prints its
//! seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Gate;
use super::model::Subject;

const THREADS: u64 = 6;
const TURNS: usize = 3_000;
/// Far longer than any wait takes: whoever is not woken by then was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(20);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Room<S> {
    gate: S,
    inside: AtomicUsize,
    most: usize,
}

impl<S: Subject + std::fmt::Debug> Room<S> {
    fn stay(&self, thread: usize, random: &mut StdRng) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(inside <= self.most, "{inside} are inside of {}", self.most);
        if random.random_bool(0.3) {
            thread::yield_now();
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.gate.leave(thread);
    }

    /// Waits for a place, or gives up after some polls.
    fn wait(&self, thread: usize, random: &mut StdRng) {
        let Some(ticket) = self.gate.join(2) else { return };
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let gives_up = random.random_bool(0.3);
        while self.gate.poll(&ticket, &mut Context::from_waker(&waker)).is_pending() {
            if gives_up {
                thread::yield_now();
                return self.gate.cancel(&ticket);
            }
            let before = tokio::time::Instant::now();
            thread::park_timeout(FORGOTTEN);
            assert!(before.elapsed() < FORGOTTEN, "nobody woke a waiter: {:?}", self.gate);
        }
        self.stay(thread, random);
    }
}

pub(crate) fn run<S>(new: impl Fn(usize) -> S, seed: u64, limits: &'static [usize])
where
    S: Subject + Sync + std::fmt::Debug,
{
    let room = Room {
        gate: new(limits[0]),
        inside: AtomicUsize::new(0),
        most: limits.iter().copied().max().unwrap_or_default(),
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let room = &room;
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed * THREADS + thread);
                    let thread = thread as usize;
                    for turn in 0..TURNS {
                        if limits.len() > 1 && turn % 50 == 0 {
                            room.gate.set_limit(limits[random.random_range(0..limits.len())]);
                        } else if random.random_bool(0.5) {
                            room.wait(thread, &mut random);
                        } else if room.gate.try_enter(thread) {
                            room.stay(thread, &mut random);
                        }
                    }
                })
            })
            .collect();
        let failed = workers.into_iter().any(|worker| worker.join().is_err());
        assert!(!failed, "seed {seed}");
    });
    assert_eq!((room.gate.count().in_flight, room.gate.queued()), (0, 0), "seed {seed}");
}

#[test]
fn nobody_is_forgotten_and_no_place_is_lost() {
    for seed in 0..10 {
        run(Gate::new, seed, &[1]);
        run(Gate::new, seed, &[2]);
    }
}

#[test]
fn nobody_is_forgotten_when_the_limit_changes() {
    for seed in 0..10 {
        run(Gate::new, seed, &[1, 2, 3]);
    }
}
