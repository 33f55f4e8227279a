//! The circuit breaker: stops asking a dependency that fails, and finds out carefully when it works again.
//! It does not retry, and does not time out: what it is told to record is what it knows.

mod core;
#[cfg(test)]
mod model;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::core::{Core, Ending, Settings, WindowKind};
use crate::clock;
use crate::error::{BuildError, By, Error, Rejected};
use crate::event::{Event, Listener};
use crate::verdict::{Classify, Verdict};

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the break is over.
    Open,
    /// A few probes pass; they decide.
    HalfOpen,
    /// A person refuses all calls.
    ForcedOpen,
    /// A person lets all calls pass.
    ForcedClosed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
    ];

    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

/// A circuit breaker. Clones share.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    slow: Option<Duration>,
    drop_fails_after: Option<Duration>,
    listener: Option<Arc<dyn Listener>>,
    guarded: Mutex<Guarded>,
}

struct Guarded {
    core: Core,
    /// The state that was last told, so that every change is told once.
    told: State,
    counts: BreakerCounts,
    transitions: [[u64; 5]; 5],
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.inner.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Calls since the start, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BreakerCounts {
    /// Answered in time.
    pub success: u64,
    /// Failed.
    pub failure: u64,
    /// Answered, but slower than the limit.
    pub slow: u64,
    /// Answered in a way that says nothing of the dependency.
    pub ignored: u64,
    /// Dropped before an answer.
    pub cancelled: u64,
    /// Ended after the breaker had changed its state; without effect.
    pub stale: u64,
    /// Refused.
    pub rejected: u64,
}

/// Figures of a breaker.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct BreakerSnapshot {
    /// State now.
    pub state: State,
    /// Share of failures in the window, 0 when it is empty.
    pub failure_ratio: f64,
    /// Calls in the window.
    pub window_calls: u64,
    /// Calls since the start.
    pub calls: BreakerCounts,
    /// Changes since the start: `transitions[from][to]` in the order of [`State::ALL`].
    pub transitions: [[u64; 5]; 5],
}

impl Breaker {
    /// Starts a breaker's description. Defaults: half of at least 20 calls in 30 s fail; open 5 s, doubling up to 60 s;
    /// 3 probes of 30 s each.
    pub fn builder(name: impl Into<Arc<str>>) -> BreakerBuilder {
        BreakerBuilder {
            name: name.into(),
            settings: Settings {
                failure_ratio: 0.5,
                min_calls: 20,
                kind: WindowKind::Time(Duration::from_secs(30)),
                consecutive: None,
                slow: None,
                open: Duration::from_secs(5),
                open_max: Duration::from_secs(60),
                probes: 3,
                lease: Duration::from_secs(30),
            },
            drop_fails_after: None,
            listener: None,
        }
    }

    /// Name of the breaker.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// State now.
    pub fn state(&self) -> State {
        self.lock().core.state(clock::now())
    }

    /// Asks for one call. Say with the permit how it ended; dropping it says that it was cancelled.
    ///
    /// # Errors
    /// [`Rejected`] while it is open or all probes are out.
    pub fn acquire(&self) -> Result<Permit, Rejected> {
        let token = self.admit()?;
        Ok(Permit {
            breaker: self.clone(),
            token,
            ended: false,
        })
    }

    /// As [`Breaker::acquire`], for those who hold the breaker anyway: every token must come back through
    /// [`Breaker::settle`].
    pub(crate) fn admit(&self) -> Result<Token, Rejected> {
        let now = clock::now();
        let mut guarded = self.lock();
        let result = guarded.core.acquire(now);
        if result.is_err() {
            guarded.counts.rejected += 1;
        }
        self.tell(guarded, now);
        match result {
            Ok(token) => Ok(Token { token, started: now }),
            Err(retry_after) => {
                let rejected = Rejected {
                    by: By::Breaker,
                    name: Arc::clone(&self.inner.name),
                    retry_after,
                };
                self.event(&Event::Rejected {
                    name: &self.inner.name,
                    by: By::Breaker,
                });
                Err(rejected)
            }
        }
    }

    /// Says how the call of a token ended; `None` when it was dropped before an answer.
    pub(crate) fn settle(&self, token: Token, verdict: Option<Verdict>) {
        let now = clock::now();
        let took = now.saturating_sub(token.started);
        let ending = match verdict {
            Some(Verdict::Success) => Ending::Success,
            Some(Verdict::Failure(_) | Verdict::Overload { .. }) => Ending::Failure,
            Some(Verdict::Ignore | Verdict::LocalReject) => Ending::Ignored,
            // A call that was given up after it took too long says that the dependency hangs.
            None if self.inner.drop_fails_after.is_some_and(|limit| took >= limit) => Ending::Failure,
            None => Ending::Ignored,
        };
        let mut guarded = self.lock();
        let counted = guarded.core.record(now, token.token, ending, took, rand::random());
        let counts = &mut guarded.counts;
        match ending {
            _ if verdict.is_none() => counts.cancelled += 1,
            _ if !counted => counts.stale += 1,
            Ending::Success if self.inner.slow.is_some_and(|limit| took >= limit) => counts.slow += 1,
            Ending::Success => counts.success += 1,
            Ending::Failure => counts.failure += 1,
            Ending::Ignored => counts.ignored += 1,
        }
        self.tell(guarded, now);
    }

    /// Calls `op` if the breaker lets it, and records what `classify` makes of the result.
    ///
    /// # Errors
    /// [`Error::Rejected`], or the operation's own error.
    pub async fn call<T, E, Fut>(&self, classify: &impl Classify<T, E>, op: impl FnOnce() -> Fut) -> Result<T, Error<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let permit = self.acquire()?;
        let result = op().await;
        permit.record(classify.classify(result.as_ref()));
        result.map_err(Error::Inner)
    }

    /// Refuses all calls until [`Breaker::release`].
    pub fn force_open(&self) {
        self.force(Some(State::ForcedOpen));
    }

    /// Lets all calls pass until [`Breaker::release`].
    pub fn force_closed(&self) {
        self.force(Some(State::ForcedClosed));
    }

    /// Ends a forced state, or an open one: closed, with nothing remembered.
    pub fn release(&self) {
        self.force(None);
    }

    fn force(&self, state: Option<State>) {
        let mut guarded = self.lock();
        guarded.core.force(state);
        self.tell(guarded, clock::now());
    }

    /// Figures now.
    pub fn snapshot(&self) -> BreakerSnapshot {
        let now = clock::now();
        let guarded = self.lock();
        let (calls, failed) = guarded.core.window(now);
        BreakerSnapshot {
            state: guarded.core.state(now),
            failure_ratio: if calls == 0 { 0.0 } else { failed as f64 / calls as f64 },
            window_calls: calls,
            calls: guarded.counts,
            transitions: guarded.transitions,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Guarded> {
        self.inner.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and tells a change of state, after the lock is given back.
    fn tell(&self, mut guarded: std::sync::MutexGuard<'_, Guarded>, now: Duration) {
        let (from, to) = (guarded.told, guarded.core.state(now));
        if from == to {
            return;
        }
        guarded.told = to;
        guarded.transitions[from as usize][to as usize] += 1;
        drop(guarded);
        tracing::debug!(
            name = &*self.inner.name,
            from = from.as_str(),
            to = to.as_str(),
            "circuit breaker"
        );
        self.event(&Event::Transition {
            name: &self.inner.name,
            from,
            to,
        });
    }

    fn event(&self, event: &Event<'_>) {
        if let Some(listener) = &self.inner.listener {
            listener.event(event);
        }
    }
}

/// Right to make one call, as a plain value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    token: core::Token,
    started: Duration,
}

/// Right to make one call.
#[derive(Debug)]
#[must_use = "dropping a permit says that the call was cancelled"]
pub struct Permit {
    breaker: Breaker,
    token: Token,
    ended: bool,
}

impl Permit {
    /// Says how the call ended.
    pub fn record(mut self, verdict: Verdict) {
        self.ended = true;
        self.breaker.settle(self.token, Some(verdict));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.settle(self.token, None);
        }
    }
}

/// Describes a breaker; see [`Breaker::builder`].
#[derive(Clone)]
#[must_use]
pub struct BreakerBuilder {
    name: Arc<str>,
    settings: Settings,
    drop_fails_after: Option<Duration>,
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
    /// Share of failures that opens it, in (0, 1]. Also the share of probes that must not be reached in half-open.
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
        self.settings.kind = WindowKind::Time(length);
        self
    }

    /// Window of the last `calls` calls instead of time.
    pub fn last_calls(mut self, calls: usize) -> Self {
        self.settings.kind = WindowKind::Calls(calls);
        self
    }

    /// Opens also after so many failures in a row.
    pub fn consecutive(mut self, failures: u32) -> Self {
        self.settings.consecutive = Some(failures);
        self
    }

    /// Calls of `limit` or longer are slow; opens also when their share reaches `ratio`.
    pub fn slow_calls(mut self, limit: Duration, ratio: f64) -> Self {
        self.settings.slow = Some((limit, ratio));
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
        self.settings.probes = probes;
        self.settings.lease = lease;
        self
    }

    /// A call that is dropped after this time counts as a failure; earlier ones say nothing. Default: the slow limit,
    /// if there is one; in a pipeline the attempt's time limit.
    pub fn drop_fails_after(mut self, limit: Duration) -> Self {
        self.drop_fails_after = Some(limit);
        self
    }

    /// Is told of every change.
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    pub(crate) fn shared_listener(mut self, listener: Option<Arc<dyn Listener>>) -> Self {
        self.listener = self.listener.or(listener);
        self
    }

    pub(crate) fn attempt_limit(mut self, limit: Option<Duration>) -> Self {
        self.drop_fails_after = self.drop_fails_after.or(limit);
        self
    }

    /// Length of the time window, if it is one.
    pub(crate) fn window_length(&self) -> Option<Duration> {
        match self.settings.kind {
            WindowKind::Time(length) => Some(length),
            WindowKind::Calls(_) => None,
        }
    }

    /// The breaker, closed.
    ///
    /// # Errors
    /// Ratios outside (0, 1], no probes, an empty window, breaks of no length.
    pub fn build(self) -> Result<Breaker, BuildError> {
        let settings = &self.settings;
        let ratio = |ratio: f64| ratio > 0.0 && ratio <= 1.0;
        let problem = if !ratio(settings.failure_ratio) {
            Some(("breaker.failure_ratio", "must be above 0 and at most 1"))
        } else if settings
            .slow
            .is_some_and(|(limit, share)| limit.is_zero() || !ratio(share))
        {
            Some((
                "breaker.slow",
                "needs a time above zero and a ratio above 0 and at most 1",
            ))
        } else if settings.probes == 0 || settings.lease.is_zero() {
            Some(("breaker.half_open", "needs at least one probe and a lease above zero"))
        } else if matches!(settings.kind, WindowKind::Time(length) if length < Duration::from_millis(10)) {
            Some(("breaker.window", "must be at least 10 ms"))
        } else if settings.kind == WindowKind::Calls(0) || settings.min_calls == 0 {
            Some(("breaker.window", "and breaker.min_calls must be at least 1"))
        } else if matches!(settings.kind, WindowKind::Calls(calls) if (calls as u64) < settings.min_calls) {
            Some(("breaker.min_calls", "must not be more than the window's calls"))
        } else if settings.open.is_zero() || settings.open > settings.open_max {
            Some(("breaker.open", "must be above zero and at most breaker.open_max"))
        } else if settings.consecutive == Some(0) {
            Some(("breaker.consecutive", "must be at least 1"))
        } else {
            None
        };
        if let Some((key, problem)) = problem {
            return Err(BuildError::new(&self.name, key, problem));
        }
        let slow = self.settings.slow.map(|(limit, _)| limit);
        Ok(Breaker {
            inner: Arc::new(Inner {
                name: self.name,
                slow,
                drop_fails_after: self.drop_fails_after.or(slow),
                listener: self.listener,
                guarded: Mutex::new(Guarded {
                    core: Core::new(self.settings),
                    told: State::Closed,
                    counts: BreakerCounts::default(),
                    transitions: [[0; 5]; 5],
                }),
            }),
        })
    }
}
