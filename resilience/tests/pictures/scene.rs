//! What all scenes need: a clock that starts at zero, a record of what happened, numbers that only look random.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Goes on to a whole hour after the process's first, so that no scene depends on how long the ones before took.
pub async fn next_hour() {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    const HOUR: u64 = 3600;
    let first = *FIRST.get_or_init(Instant::now);
    // The first use of a policy sets the origin of its clock.
    resilience::Budget::new(1.0, 1.0).deposit();
    let past = first.elapsed().as_secs() / HOUR + 1;
    sleep_until(first + Duration::from_secs(past * HOUR)).await;
}

/// Time of a scene in seconds. Clones share.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    start: Instant,
}

impl Stage {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Waits for a moment.
    pub async fn at(self, seconds: f64) {
        sleep_until(self.start + Duration::from_secs_f64(seconds)).await;
    }

    /// Does something every `step` seconds from zero to before `end`, each time beside what still runs.
    pub async fn every<F, Fut>(self, step: f64, end: f64, mut act: F)
    where
        F: FnMut(f64) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = Vec::new();
        for index in 0_u32.. {
            let moment = f64::from(index) * step;
            if moment >= end - 1e-9 {
                break;
            }
            self.at(moment).await;
            tasks.push(tokio::spawn(act(moment)));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}

/// Counts by time slot and kind. Clones share.
#[derive(Debug, Clone)]
pub struct Tally {
    width: f64,
    kinds: usize,
    slots: Arc<Mutex<BTreeMap<u64, Vec<f64>>>>,
}

impl Tally {
    /// Slots of `width` seconds for `kinds` of events.
    pub fn new(width: f64, kinds: usize) -> Self {
        Self {
            width,
            kinds,
            slots: Arc::default(),
        }
    }

    pub fn add(&self, at: f64, kind: usize) {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.entry((at / self.width + 1e-6) as u64);
        slot.or_insert_with(|| vec![0.0; self.kinds])[kind] += 1.0;
    }

    /// Begin and counts of each slot.
    pub fn bars(&self) -> Vec<(f64, Vec<f64>)> {
        let slots = self.slots.lock().unwrap();
        slots
            .iter()
            .map(|(slot, counts)| (*slot as f64 * self.width, counts.clone()))
            .collect()
    }

    /// One kind a second, at the middle of each slot up to `end`.
    pub fn rate(&self, kind: usize, end: f64) -> Vec<(f64, f64)> {
        let slots = self.slots.lock().unwrap();
        (0..(end / self.width) as u64)
            .map(|slot| {
                let count = slots.get(&slot).map_or(0.0, |counts| counts[kind]);
                ((slot as f64 + 0.5) * self.width, count / self.width)
            })
            .collect()
    }
}

/// Points of a line. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Points(Arc<Mutex<Vec<(f64, f64)>>>);

impl Points {
    pub fn add(&self, at: f64, value: f64) {
        self.0.lock().unwrap().push((at, value));
    }

    pub fn all(&self) -> Vec<(f64, f64)> {
        self.0.lock().unwrap().clone()
    }
}

/// Numbers in 0..1 that are the same in every run (Knuth's linear congruence).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}
