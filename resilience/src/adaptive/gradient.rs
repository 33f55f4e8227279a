//! The rule by which the adaptive limit changes: pure, it takes the time as an argument and counts nobody.
//!
//! Source: Netflix concurrency-limits, `Gradient2Limit` and `WindowedLimit`. The average latency of a short window is
//! compared to a long average; where it is more than `tolerance` times as long, requests queue, and the limit falls in
//! that proportion, else it grows by `growth`. It differs in four things, each a fault that was reported there or at
//! Envoy's gradient:
//! - Timeouts and overload lower the limit by a tenth, once per round trip. (There, steady timeouts raise it to the top.)
//! - The long average does not learn from latencies beyond the tolerance, since under lasting overload it would follow
//!   them and the limit would creep to its top. Once the limit is at its lowest and answers are still late, the
//!   dependency has become slower: the limit stays there while the long average learns what is usual now.
//! - A long average that was measured under overload is taken back quickly once latencies are better.
//! - Where they cannot become better, since the limit lets the overload go on, nothing would show. So every `long_window`
//!   windows of use one is spent at half the limit, and a lower latency there is the usual one from then on.

use std::time::Duration;

use super::AdaptiveSettings;

/// What remains of the limit after a timeout or an overload; that of Netflix' `AIMDLimit`.
const BACKOFF: f64 = 0.9;
/// The limit falls at most to this part of itself in one window.
const STEEPEST: f64 = 0.5;
/// Samples that a window needs.
const MIN_SAMPLES: u32 = 10;
/// Windows whose plain mean starts the long average.
const WARM_UP: u32 = 10;
/// A long average above this many times the short one was measured under overload ...
const STALE: f64 = 2.0;
/// ... and shrinks by this factor a window.
const STALE_DECAY: f64 = 0.95;

/// The estimate and what it is made from.
#[derive(Debug)]
pub(super) struct Gradient {
    settings: AdaptiveSettings,
    limit: f64,
    /// Of the windows so far, in seconds.
    long: f64,
    windows: u32,
    /// Whether the lowest limit did not help.
    relearning: bool,
    /// Windows of use since the last one at half the limit.
    since_probe: u32,
    /// When such a window began, during it.
    probe: Option<Duration>,
    window: Window,
    /// When the limit was lowered by a failure. Calls that began by then say nothing of the lower limit.
    lowered: Option<Duration>,
}

#[derive(Debug, Default)]
struct Window {
    end: Option<Duration>,
    seconds: f64,
    samples: u32,
    most_in_flight: usize,
}

impl Gradient {
    pub(super) fn new(settings: AdaptiveSettings) -> Self {
        Self {
            limit: settings.initial as f64,
            settings,
            long: 0.0,
            windows: 0,
            relearning: false,
            since_probe: 0,
            probe: None,
            window: Window::default(),
            lowered: None,
        }
    }

    /// The whole limit.
    pub(super) fn limit(&self) -> usize {
        let limit = self.limit as usize;
        match self.probe {
            Some(_) => (limit / 2).max(self.settings.min),
            None => limit,
        }
    }

    /// The long average, once there is one.
    pub(super) fn usual_latency(&self) -> Option<Duration> {
        (self.windows > 0).then(|| Duration::from_secs_f64(self.long))
    }

    /// Keeps the estimate, as far as the new bounds allow, and what was learnt of latencies.
    pub(super) fn reload(&mut self, settings: AdaptiveSettings) {
        self.limit = self.limit.clamp(settings.min as f64, settings.max as f64);
        self.settings = settings;
    }

    /// A call was answered after `latency`, with `in_flight` calls at the time, itself included.
    pub(super) fn answered(&mut self, now: Duration, latency: Duration, in_flight: usize) {
        // What began before half the limit was in force stood in a longer queue.
        if self.probe.is_some_and(|began| now.saturating_sub(latency) < began) {
            return;
        }
        let window = &mut self.window;
        window.seconds += latency.as_secs_f64();
        window.samples = window.samples.saturating_add(1);
        window.most_in_flight = window.most_in_flight.max(in_flight);
        let end = *window.end.get_or_insert(now.saturating_add(self.settings.window));
        if now >= end && window.samples >= MIN_SAMPLES {
            // Two clock readings may be equal; a latency of nothing has no ratio.
            let short = (window.seconds / f64::from(window.samples)).max(1e-9);
            let used = window.most_in_flight as f64 >= self.limit / 2.0;
            self.window = Window::default();
            if self.probe.take().is_some() {
                self.long = self.long.min(short);
            } else {
                self.update(short, used);
                self.probe_if_due(now, used);
            }
        }
    }

    fn probe_if_due(&mut self, now: Duration, used: bool) {
        self.since_probe += u32::from(used && self.limit() > self.settings.min);
        if self.since_probe >= self.settings.long_window {
            self.since_probe = 0;
            self.probe = Some(now);
        }
    }

    /// A call that began at `started` timed out, or the dependency said that it has too much to do.
    pub(super) fn dropped(&mut self, now: Duration, started: Duration) {
        if self.lowered.is_none_or(|lowered| started > lowered) {
            self.lowered = Some(now);
            self.limit = (self.limit * BACKOFF).max(self.settings.min as f64);
        }
    }

    fn update(&mut self, short: f64, used: bool) {
        let tolerated = self.windows < WARM_UP || short <= self.settings.tolerance * self.long;
        self.relearning &= !tolerated;
        if tolerated || !used || self.relearning {
            self.learn(short);
        }
        if self.long > STALE * short {
            self.long *= STALE_DECAY;
        }
        // A limit that is not used says nothing of a higher one.
        if used && !self.relearning {
            self.step(short);
            self.relearning = !tolerated && self.limit() <= self.settings.min;
        }
    }

    /// Moves the limit.
    fn step(&mut self, short: f64) {
        let settings = &self.settings;
        let gradient = (settings.tolerance * self.long / short).clamp(STEEPEST, 1.0);
        let next = self.limit * gradient + settings.growth;
        let limit = self.limit + settings.smoothing * (next - self.limit);
        self.limit = limit.clamp(settings.min as f64, settings.max as f64);
    }

    /// Moves the long average: the plain mean at first, exponential later.
    fn learn(&mut self, short: f64) {
        self.windows = self.windows.saturating_add(1);
        let weight = if self.windows <= WARM_UP {
            1.0 / f64::from(self.windows)
        } else {
            2.0 / f64::from(self.settings.long_window.saturating_add(1))
        };
        self.long += weight * (short - self.long);
    }
}
