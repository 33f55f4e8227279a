//! Which traces are recorded: `ParentBased(TraceIdRatio)`. Whoever begins a trace decides by its id, everybody below
//! follows. The ratio is lowered by itself under load and can be changed for a time while the process runs. Nothing is
//! chosen by what became of a request: that is the collector's tail sampling.

pub(crate) mod routes;
mod settings;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TraceId;
use tokio::time::Instant;

pub use settings::Sampler;

use crate::trace::Parent;
use crate::trace::ids;

/// Traces begun per second above which the ratio is lowered.
const BUSY: f64 = 10_000.0;
/// Above that, so many are sampled per second: 5 % at its beginning, and never less than 1 %.
const SAMPLED_WHEN_BUSY: f64 = 500.0;
/// How long traces are counted for a rate.
const WINDOW: Duration = Duration::from_secs(1);
/// The clock is looked at once in so many traces (a power of two).
const LOOK_EVERY: u64 = 64;

/// The sampler, and the handle to change it. Clones share.
#[derive(Debug, Clone)]
pub struct Sampling {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sampler: Sampler,
    /// The ratio in force, as a bound of the lower 63 bits of a trace id.
    bound: AtomicU64,
    /// Traces that began here.
    begun: AtomicU64,
    /// The ratio was changed for a time: each trace looks at the clock.
    changed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    begun_then: u64,
    per_second: f64,
    change: Option<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    ratio: f64,
    until: Instant,
}

/// What is sampled now.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SamplingStatus {
    /// `opsctl.sampling/v1`.
    pub schema: &'static str,
    /// Share of new traces that are sampled.
    pub ratio: f64,
    /// The share that it returns to.
    pub base: f64,
    /// Whether the share is lowered by itself above 10,000 new traces per second.
    pub automatic: bool,
    /// Whether callers' decisions are followed.
    pub follows_callers: bool,
    /// New traces per second, lately.
    pub begun_per_second: f64,
    /// Seconds until the base returns, when the share was changed.
    pub ttl_seconds: Option<f64>,
}

/// A ratio that is none.
#[derive(Debug, thiserror::Error)]
#[error("a ratio lies between 0 and 1, {ratio} does not")]
pub struct RatioError {
    /// What was given.
    pub ratio: f64,
}

impl Sampling {
    /// Samples as `sampler` says.
    pub(crate) fn new(sampler: Sampler) -> Self {
        Self {
            inner: Arc::new(Inner {
                bound: AtomicU64::new(bound(sampler.ratio)),
                sampler,
                begun: AtomicU64::new(0),
                changed: AtomicBool::new(false),
                state: Mutex::new(State {
                    since: Instant::now(),
                    begun_then: 0,
                    per_second: 0.0,
                    change: None,
                }),
            }),
        }
    }

    /// Whether a trace that begins here is sampled.
    #[inline]
    pub(crate) fn root(&self, trace: TraceId) -> bool {
        let inner = &*self.inner;
        let begun = inner.begun.fetch_add(1, Ordering::Relaxed);
        if begun & (LOOK_EVERY - 1) == 0 || inner.changed.load(Ordering::Relaxed) {
            self.look(begun + 1);
        }
        lower_bits(trace) < inner.bound.load(Ordering::Relaxed)
    }

    /// Whether a trace that comes from `parent` is sampled here.
    pub(crate) fn below(&self, parent: Parent) -> bool {
        let sampler = &self.inner.sampler;
        if !sampler.follows_parent {
            return lower_bits(parent.trace_id) < self.inner.bound.load(Ordering::Relaxed);
        }
        if parent.sampled && parent.remote && !sampler.trusts_callers {
            // Not by the trace id, which the caller chose.
            return ids::random::<u64>() >> 1 < self.inner.bound.load(Ordering::Relaxed);
        }
        parent.sampled
    }

    /// Samples `ratio` of the new traces for `ttl`, then the configured share again.
    ///
    /// # Errors
    /// A ratio outside of 0 to 1; nothing is changed then.
    pub fn set(&self, ratio: f64, ttl: Duration) -> Result<(), RatioError> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(RatioError { ratio });
        }
        let mut state = self.lock();
        let until = Instant::now() + ttl;
        state.change = Some(Change { ratio, until });
        self.inner.changed.store(true, Ordering::Relaxed);
        self.inner.bound.store(bound(ratio), Ordering::Relaxed);
        Ok(())
    }

    /// Samples the configured share again.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.change = None;
        self.put_in_force(&mut state, Instant::now());
    }

    /// What is in force.
    pub fn status(&self) -> SamplingStatus {
        let now = Instant::now();
        let mut state = self.lock();
        state.measure(self.inner.begun.load(Ordering::Relaxed), now);
        let ratio = self.put_in_force(&mut state, now);
        let sampler = &self.inner.sampler;
        SamplingStatus {
            schema: "opsctl.sampling/v1",
            ratio,
            base: sampler.ratio,
            automatic: sampler.automatic,
            follows_callers: sampler.follows_parent && sampler.trusts_callers,
            begun_per_second: state.per_second,
            ttl_seconds: state
                .change
                .map(|change| change.until.duration_since(now).as_secs_f64()),
        }
    }

    #[cold]
    fn look(&self, begun: u64) {
        let now = Instant::now();
        let mut state = self.lock();
        state.measure(begun, now);
        self.put_in_force(&mut state, now);
    }

    fn put_in_force(&self, state: &mut State, now: Instant) -> f64 {
        if state.change.is_some_and(|change| change.until <= now) {
            state.change = None;
        }
        let sampler = &self.inner.sampler;
        let ratio = match state.change {
            Some(change) => change.ratio,
            None if sampler.automatic => under_load(sampler.ratio, state.per_second),
            None => sampler.ratio,
        };
        self.inner.changed.store(state.change.is_some(), Ordering::Relaxed);
        self.inner.bound.store(bound(ratio), Ordering::Relaxed);
        ratio
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the rate of the window that is over.
    fn measure(&mut self, begun: u64, now: Instant) {
        let elapsed = now.duration_since(self.since);
        if elapsed >= WINDOW {
            self.per_second = begun.saturating_sub(self.begun_then) as f64 / elapsed.as_secs_f64();
            self.since = now;
            self.begun_then = begun;
        }
    }
}

/// The share that is sampled at that many new traces per second: the configured one up to 10,000, above that what gives
/// 500 a second, but between 1 and 5 %.
fn under_load(ratio: f64, per_second: f64) -> f64 {
    if per_second <= BUSY {
        return ratio;
    }
    (SAMPLED_WHEN_BUSY / per_second).clamp(0.01, 0.05).min(ratio)
}

/// A ratio as a bound of [`lower_bits`], as the SDKs of OpenTelemetry do it, so that all agree about one trace.
fn bound(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

fn lower_bits(trace: TraceId) -> u64 {
    // The lower half of the id, without its lowest bit.
    (u128::from_be_bytes(trace.to_bytes()) as u64) >> 1
}

#[cfg(test)]
mod tests;
