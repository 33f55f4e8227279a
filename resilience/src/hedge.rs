//! When another attempt starts beside a slow one: after a fixed time, or at a quantile of what good answers took. Running
//! them is `pipeline::race`'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::error::BuildError;

/// The longest wait before another attempt: what is longer was meant in another unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Settings of hedging. Requests that must not be repeated are never hedged, and every extra attempt is taken out of the
/// retry budget.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct HedgeSettings {
    /// How long an attempt may take before another one starts. With `quantile`: until enough answers are known.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub delay: Duration,
    /// The share of answers, between 0 and 1, that come before another attempt starts: 0.95 hedges the slowest 5 %.
    pub quantile: Option<f64>,
    /// Extra attempts beside the first, from 1 to 10.
    pub max: u32,
}

impl Default for HedgeSettings {
    /// One extra attempt after two seconds.
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(2),
            quantile: None,
            max: 1,
        }
    }
}

impl HedgeSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// No delay or one of more than a day, a quantile outside (0, 1), more than ten extra attempts or none.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let refuse = |key, problem| Err(BuildError::new(name, key, problem));
        if self.delay.is_zero() || self.delay > LONGEST {
            return refuse("hedge.delay", "must be above zero and at most a day");
        }
        if self.quantile.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return refuse("hedge.quantile", "must be above 0 and below 1");
        }
        if self.max == 0 || self.max > 10 {
            return refuse("hedge.max", "must be from 1 to 10");
        }
        Ok(())
    }
}

/// Hedging as the calls of a policy meet it.
#[derive(Debug)]
pub(crate) struct Hedger {
    settings: Mutex<HedgeSettings>,
    latencies: Mutex<Latencies>,
    made: AtomicU64,
    won: AtomicU64,
}

impl Hedger {
    pub(crate) fn new(settings: HedgeSettings) -> Self {
        Self {
            settings: Mutex::new(settings),
            latencies: Mutex::new(Latencies::default()),
            made: AtomicU64::new(0),
            won: AtomicU64::new(0),
        }
    }

    /// How long to wait for `begun` attempts before another one starts; none when there may not be another.
    pub(crate) fn delay(&self, begun: u32) -> Option<Duration> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if begun > settings.max {
            return None;
        }
        let known = settings.quantile.and_then(|share| {
            let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.quantile(share)
        });
        Some(known.unwrap_or(settings.delay))
    }

    /// A good answer took so many nanoseconds.
    pub(crate) fn took(&self, nanos: u64) {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.add(clock::now(), nanos);
    }

    /// Counts an extra attempt.
    pub(crate) fn began(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an extra attempt that was faster than the first.
    pub(crate) fn won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reload(&self, settings: HedgeSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(crate) fn snapshot(&self) -> HedgeSnapshot {
        HedgeSnapshot {
            hedges: self.made.load(Ordering::Relaxed),
            won: self.won.load(Ordering::Relaxed),
            delay_seconds: self.delay(0).unwrap_or_default().as_secs_f64(),
        }
    }
}

/// Figures of hedging.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct HedgeSnapshot {
    /// Extra attempts since the start.
    pub hedges: u64,
    /// Those that answered first.
    pub won: u64,
    /// The wait before an extra attempt now, in seconds.
    pub delay_seconds: f64,
}

/// Buckets for one doubling of a latency: a quantile is right to an eighth.
const STEPS: u32 = 8;
const BUCKETS: usize = 64 * STEPS as usize;
/// How long one half of the memory is filled.
const HALF: Duration = Duration::from_secs(30);
/// Answers without which no quantile is believed.
const ENOUGH: u64 = 50;

/// What good answers of the last half minute to minute took, in logarithmic buckets.
#[derive(Debug)]
struct Latencies {
    halves: [Box<[u32; BUCKETS]>; 2],
    turned: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            halves: [Box::new([0; BUCKETS]), Box::new([0; BUCKETS])],
            turned: Duration::ZERO,
        }
    }
}

impl Latencies {
    fn add(&mut self, now: Duration, nanos: u64) {
        let since = now.saturating_sub(self.turned);
        if since >= HALF {
            self.halves.swap(0, 1);
            *self.halves[0] = [0; BUCKETS];
            if since >= HALF * 2 {
                *self.halves[1] = [0; BUCKETS];
            }
            self.turned = now;
        }
        let count = &mut self.halves[0][bucket(nanos)];
        *count = count.saturating_add(1);
    }

    /// The latency that `share` of the answers did not exceed.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let both = || self.halves[0].iter().zip(self.halves[1].iter());
        let all: u64 = both().map(|(new, old)| u64::from(*new) + u64::from(*old)).sum();
        if all < ENOUGH {
            return None;
        }
        let wanted = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, (new, old)) in both().enumerate() {
            seen += u64::from(*new) + u64::from(*old);
            if seen >= wanted {
                return Some(Duration::from_nanos(upper_end(index)));
            }
        }
        None
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(u64::from(STEPS));
    let octave = nanos.ilog2();
    // The three bits below the highest one.
    let step = (nanos >> (octave - STEPS.ilog2())) as u32 & (STEPS - 1);
    (octave * STEPS + step) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    let base = 1_u128 << octave;
    let end = base + (base * u128::from(step + 1)) / u128::from(STEPS);
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values(nanos in 8..u64::MAX) {
            let end = upper_end(bucket(nanos));
            prop_assert!(end >= nanos, "{end}");
            prop_assert!(end as f64 <= nanos as f64 * 1.126, "{end}");
        }
    }

    #[test]
    fn a_quantile_needs_enough_answers_and_forgets_old_ones() {
        let mut latencies = Latencies::default();
        let at = |seconds| Duration::from_secs(seconds);
        for answer in 0..49 {
            latencies.add(at(100), answer * 1_000_000);
        }
        assert_eq!(latencies.quantile(0.5), None);
        latencies.add(at(100), 1_000_000_000);
        let half = latencies.quantile(0.5).expect("fifty answers").as_millis();
        assert!((24..=28).contains(&half), "{half}");
        assert!(latencies.quantile(0.99).expect("fifty answers") >= at(1));
        // Half a minute later they still count, a minute later they do not.
        latencies.add(at(140), 1_000_000);
        assert!(latencies.quantile(0.99).expect("fifty answers") >= at(1));
        for _ in 0..50 {
            latencies.add(at(171), 1_000_000);
        }
        assert!(latencies.quantile(0.99).expect("fifty answers") < at(1));
    }
}
