//! [`BreakerBuilder`]: a breaker's settings, said one by one, and who is told of its changes.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::core::Core;
use super::hot::Hot;
use super::last_calls::LastCalls;
use super::row::Row;
use super::settings::{BreakerSettings, OnDrop, SlowCalls};
use super::snapshot::History;
use super::word::Word;
use super::{Breaker, Control, Inner, bucket_millis};
use crate::error::BuildError;
use crate::event::Listener;
use crate::sharded::Sharded;

/// Describes a breaker; see [`Breaker::builder`].
#[derive(Clone)]
#[must_use]
pub struct BreakerBuilder {
    name: Arc<str>,
    settings: BreakerSettings,
    attempt: Option<Duration>,
    listener: Option<Arc<dyn Listener>>,
}

impl fmt::Debug for BreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl BreakerBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            settings: BreakerSettings::default(),
            attempt: None,
            listener: None,
        }
    }

    /// All settings at once.
    pub fn settings(mut self, settings: BreakerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Share of failures that opens it, in (0, 1]. Also the share of probes that must not be reached in half-open,
    /// unless [`BreakerBuilder::half_open_ratio`] says otherwise.
    pub fn failure_ratio(mut self, ratio: f64) -> Self {
        self.settings.failure_ratio = ratio;
        self
    }

    /// Calls in the window below which no ratio opens it.
    pub fn min_calls(mut self, calls: u64) -> Self {
        self.settings.min_calls = calls;
        self
    }

    /// Window of time that slides.
    pub fn window(mut self, length: Duration) -> Self {
        self.settings.window = length;
        self.settings.last_calls = None;
        self
    }

    /// Window of the last `calls` calls instead of time.
    pub fn last_calls(mut self, calls: usize) -> Self {
        self.settings.last_calls = Some(calls);
        self
    }

    /// Opens also after so many failures in a row.
    pub fn consecutive(mut self, failures: u32) -> Self {
        self.settings.consecutive = Some(failures);
        self
    }

    /// Calls of `limit` or longer are slow; opens also when their share reaches `ratio`.
    pub fn slow_calls(mut self, limit: Duration, ratio: f64) -> Self {
        self.settings.slow = Some(SlowCalls { limit, ratio });
        self
    }

    /// Length of the first break and of the longest one; it doubles while probes fail, plus up to a quarter of jitter.
    pub fn open(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.open = first;
        self.settings.open_max = longest;
        self
    }

    /// Probes in half-open, and how long one may hold its place.
    pub fn half_open(mut self, probes: u32, lease: Duration) -> Self {
        self.settings.half_open.probes = probes;
        self.settings.half_open.lease = lease;
        self
    }

    /// Share of probes that must not fail, where it is not the share of calls.
    pub fn half_open_ratio(mut self, ratio: f64) -> Self {
        self.settings.half_open.ratio = Some(ratio);
        self
    }

    /// A call that is dropped after this time counts as a failure; earlier ones say nothing. Default: the slow limit
    /// or, in a pipeline, the attempt's time limit, whichever is shorter.
    pub fn drop_fails_after(self, limit: Duration) -> Self {
        self.on_drop(OnDrop::FailureAfter(limit))
    }

    /// What a dropped call says.
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.settings.on_drop = Some(on_drop);
        self
    }

    /// Only counts and tells; refuses nothing.
    pub fn observe_only(mut self) -> Self {
        self.settings.observe_only = true;
        self
    }

    /// Is told of every change.
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// What it is so far, without what is no plain data.
    pub(crate) fn plain(&self) -> &BreakerSettings {
        &self.settings
    }

    pub(crate) fn shared_listener(mut self, listener: Option<Arc<dyn Listener>>) -> Self {
        self.listener = self.listener.or(listener);
        self
    }

    pub(crate) fn attempt_limit(mut self, limit: Option<Duration>) -> Self {
        self.attempt = limit;
        self
    }

    /// The breaker, closed.
    ///
    /// # Errors
    /// See [`BreakerSettings::check`].
    pub fn build(self) -> Result<Breaker, BuildError> {
        let Self {
            name,
            settings,
            attempt,
            listener,
        } = self;
        settings.check(&name)?;
        let core = Core::new();
        let hot = Hot::default();
        let breaker = Breaker {
            inner: Arc::new(Inner {
                word: Word::new(core.seen()),
                hot,
                window: Sharded::new(bucket_millis(settings.window)),
                row: Row::default(),
                name,
                listener,
                last_calls: Mutex::new(LastCalls::new(settings.last_calls.unwrap_or(0))),
                control: Mutex::new(Control {
                    core,
                    settings,
                    attempt: None,
                    history: History::new(),
                }),
            }),
        };
        breaker.set_attempt_limit(attempt);
        Ok(breaker)
    }
}
