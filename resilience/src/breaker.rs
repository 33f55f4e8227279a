//! The circuit breaker: stops asking a dependency that fails, and finds out carefully when it works again.
//! It does not retry, and does not time out: what it is told to record is what it knows.
//!
//! While it is closed a call takes no lock and writes nothing that another thread writes: it reads the packed state
//! ([`word`]), and counts in its thread's part of the window (`sharded`). Transitions and probes are rare and go through
//! a state machine behind a lock ([`core`]).

mod builder;
mod core;
#[cfg(feature = "testing")]
mod forced;
mod hot;
mod last_calls;
mod permit;
mod row;
mod settings;
mod snapshot;
mod word;

#[cfg(all(test, not(resilience_loom)))]
mod model;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::core::{Admission, Core, Phase, Refused};
use self::hot::{Flags, Hot};
use self::last_calls::LastCalls;
use self::permit::Role;
use self::row::Row;
use self::snapshot::{History, OUTCOMES, Outcome};
use self::word::{Seen, Word};
use crate::clock::{self, millis};
use crate::error::{BuildError, By, Error, Rejected};
use crate::event::{Event, Listener};
use crate::sharded::Sharded;
use crate::verdict::{Classify, Verdict};

pub use self::builder::BreakerBuilder;
pub(crate) use self::permit::Token;
pub use self::permit::{Pass, Permit, Refusal};
pub use self::settings::{BreakerSettings, HalfOpen, OnDrop, SlowCalls};
pub use self::snapshot::{BreakerCounts, BreakerSnapshot, Change, State};

/// Lanes of the window.
const OK: usize = 0;
const FAILED: usize = 1;
const SLOW: usize = 2;

const NANOS_IN_MILLI: u64 = 1_000_000;

/// A circuit breaker. Clones share.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

struct Inner {
    word: Word,
    hot: Hot,
    window: Sharded<3, OUTCOMES>,
    row: Row,
    name: Arc<str>,
    listener: Option<Arc<dyn Listener>>,
    last_calls: Mutex<LastCalls>,
    control: Mutex<Control>,
}

/// What changes rarely.
struct Control {
    core: Core,
    settings: BreakerSettings,
    /// Time limit of an attempt, where the breaker is in a pipeline.
    attempt: Option<Duration>,
    history: History,
}

/// Calls in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    all: u64,
    failed: u64,
    slow: u64,
}

/// What a person can force a breaker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse all calls.
    Open,
    /// Let all calls pass.
    Closed,
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.inner.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Breaker {
    /// Starts a breaker's description. Defaults: half of at least 20 calls in 30 s fail; open 5 s, doubling up to 60 s;
    /// 3 probes of 30 s each.
    pub fn builder(name: impl Into<Arc<str>>) -> BreakerBuilder {
        BreakerBuilder::new(name.into())
    }

    /// The breaker of these settings, closed.
    ///
    /// # Errors
    /// See [`BreakerSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: BreakerSettings) -> Result<Self, BuildError> {
        Self::builder(name).settings(settings).build()
    }

    /// Goes by other settings from now on; state and counts stay. A window of time of another length keeps what lies
    /// within it; one of calls keeps the latest; one of the other kind starts empty.
    ///
    /// # Errors
    /// See [`BreakerSettings::check`]; then nothing changed.
    pub fn reload(&self, settings: BreakerSettings) -> Result<(), BuildError> {
        settings.check(&self.inner.name)?;
        let inner = &*self.inner;
        let now = clock::coarse_millis();
        let mut control = self.control();
        inner.hot.set(&settings, control.attempt);
        inner.window.set_bucket_millis(bucket_millis(settings.window));
        if let Some(size) = settings.last_calls {
            let mut last_calls = inner.last_calls();
            if control.settings.last_calls.is_none() {
                last_calls.clear();
            }
            last_calls.resize(size);
        }
        control.settings = settings;
        // Fewer probes may be enough now.
        let Control { core, settings, .. } = &mut *control;
        core.decide(settings, now, fastrand::f64());
        self.publish(control, now);
        Ok(())
    }

    /// Name of the breaker.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// State now.
    pub fn state(&self) -> State {
        if self.inner.word.load().is_closed() {
            State::Closed
        } else {
            self.control().core.state(clock::coarse_millis())
        }
    }

    /// Whether calls pass as usual: closed, or forced to be.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state(), State::Closed | State::ForcedClosed)
    }

    /// Asks for one call. Say with the permit how it ended; dropping it says that it was cancelled.
    ///
    /// # Errors
    /// [`Rejected`] while it is open or all probes are out.
    pub fn acquire(&self) -> Result<Permit, Rejected> {
        Ok(Permit::new(self.clone(), self.admit()?))
    }

    /// As [`Breaker::acquire`], and cheaper: nothing is counted up or down but the call.
    ///
    /// # Errors
    /// [`Refusal`] while it is open or all probes are out.
    #[inline]
    pub fn try_acquire(&self) -> Result<Pass<'_>, Refusal> {
        Ok(Pass::new(self, self.try_admit()?))
    }

    /// Whether a call would be refused because the breaker is open; takes no probe. For a check in front of what leads
    /// to the calls that are recorded.
    ///
    /// # Errors
    /// [`Refusal`] while it is open.
    #[inline]
    pub fn gate(&self) -> Result<(), Refusal> {
        let seen = self.inner.word.load();
        if seen.is_closed() || self.inner.hot.flags().only_observes() {
            return Ok(());
        }
        let now = clock::coarse_millis();
        if let Some(refused) = seen.refuses(now) {
            return Err(self.refuse(refused));
        }
        let refused = self.control().core.refuses(now);
        refused.map_or(Ok(()), |refused| Err(self.refuse(refused)))
    }

    /// As [`Breaker::acquire`], for those who hold the breaker anyway: every token must come back through
    /// [`Breaker::settle`].
    pub(crate) fn admit(&self) -> Result<Token, Rejected> {
        self.try_admit().map_err(|refusal| refusal.named(self))
    }

    /// As [`Breaker::admit`], without an error that has a name.
    #[inline]
    pub(crate) fn try_admit(&self) -> Result<Token, Refusal> {
        let seen = self.inner.word.load();
        let flags = self.inner.hot.flags();
        // What nearly all calls are is compiled into the caller.
        if seen.admits_all() && !flags.times() {
            return Ok(Token::plain(seen.generation(), 0));
        }
        self.admit_any(seen, flags)
    }

    /// As [`Breaker::try_admit`], by one who may know the time on the coarse clock.
    #[inline]
    pub(crate) fn try_admit_at(&self, coarse: impl FnOnce() -> u64) -> Result<Token, Refusal> {
        let seen = self.inner.word.load();
        let flags = self.inner.hot.flags();
        if seen.admits_all() && !flags.times_exactly() {
            let started = if flags.times() { coarse() } else { 0 };
            return Ok(Token::plain(seen.generation(), started.saturating_mul(NANOS_IN_MILLI)));
        }
        self.admit_any(seen, flags)
    }

    #[inline(never)]
    fn admit_any(&self, seen: Seen, flags: Flags) -> Result<Token, Refusal> {
        if seen.admits_all() {
            return Ok(Token::plain(seen.generation(), flags.start()));
        }
        if !flags.only_observes() {
            if let Some(refused) = seen.refuses(clock::coarse_millis()) {
                return Err(self.refuse(refused));
            }
        }
        self.admit_by_core(flags)
    }

    #[cold]
    fn admit_by_core(&self, flags: Flags) -> Result<Token, Refusal> {
        let now = clock::coarse_millis();
        let mut control = self.control();
        let Control { core, settings, .. } = &mut *control;
        let admission = core.admit(settings, now);
        let seen = core.seen();
        self.publish(control, now);
        match admission {
            Admission::Plain => Ok(Token::plain(seen.generation(), flags.start())),
            Admission::Probe(number) => Ok(Token::new(seen.generation(), Role::Probe(number), flags.start())),
            Admission::Refused(_) if flags.only_observes() => {
                self.inner.count(Outcome::Spared);
                Ok(Token::new(seen.generation(), Role::Spared, flags.start()))
            }
            Admission::Refused(refused) => Err(self.refuse(refused)),
        }
    }

    #[inline]
    fn refuse(&self, Refused(left): Refused) -> Refusal {
        self.inner.count(Outcome::Rejected);
        self.event(&Event::Rejected {
            name: &self.inner.name,
            by: By::Breaker,
        });
        Refusal {
            retry_after: left.map(Duration::from_millis),
        }
    }

    /// Says how the call of a token ended; `None` when it was dropped before an answer.
    #[expect(
        clippy::inline_always,
        reason = "out of line the verdict goes through memory: 5 ns of 13"
    )]
    #[inline(always)]
    pub(crate) fn settle(&self, token: Token, verdict: Option<Verdict>) {
        let flags = self.inner.hot.flags();
        // What nearly all calls are, so that the caller hands over numbers and nothing that lies in memory.
        if matches!(verdict, Some(Verdict::Success)) && flags.success_is_plain() && self.is_current(token) {
            self.succeeded(token.generation(), flags);
        } else {
            self.settle_any(token, verdict, flags);
        }
    }

    #[inline(never)]
    fn succeeded(&self, generation: u32, flags: Flags) {
        self.count(generation, clock::coarse_millis(), flags, Ending::SUCCESS);
    }

    /// Whether a result is of this generation, and counts as a call among many.
    #[inline]
    fn is_current(&self, token: Token) -> bool {
        token.is_plain_of(self.inner.word.load().generation())
    }

    #[inline(never)]
    fn settle_any(&self, token: Token, verdict: Option<Verdict>, flags: Flags) {
        let (now, took) = flags.time_since(token.started);
        let ending = Ending::of(verdict, took, &self.inner.hot);
        if !self.is_current(token) {
            self.settle_otherwise(token, verdict, ending, now);
        } else if ending.failed.is_none() {
            self.inner.count(ending.outcome);
        } else {
            self.count(token.generation(), now, flags, ending);
            // A fast success cannot raise either ratio.
            if ending.failed == Some(true) || ending.slow {
                self.consider(token.generation(), ending, flags, now);
            }
        }
    }

    /// Counts a call that says something of the dependency.
    #[expect(
        clippy::inline_always,
        reason = "for a plain success nearly all of it is known before it runs: 2 ns of 8"
    )]
    #[inline(always)]
    fn count(&self, generation: u32, now: u64, flags: Flags, ending: Ending) {
        let inner = &*self.inner;
        let failed = ending.failed == Some(true);
        if flags.has_last_calls() {
            inner.last_calls().add(generation, failed, ending.slow);
            inner.count(ending.outcome);
        } else {
            inner.window.write(move |shard| {
                let Some(bucket) = shard.bucket(inner.window.bucket_millis(), generation, now) else {
                    return shard.count(Outcome::Stale as usize);
                };
                bucket.add(if failed { FAILED } else { OK });
                if ending.slow {
                    bucket.add(SLOW);
                }
                shard.count(ending.outcome as usize);
            });
        }
        if flags.has_row() && !failed {
            inner.row.succeeded(generation);
        }
    }

    /// Opens if there were too many failures or slow calls with this one.
    #[cold]
    fn consider(&self, generation: u32, ending: Ending, flags: Flags, now: u64) {
        let inner = &*self.inner;
        let row = if ending.in_row && flags.has_row() {
            inner.row.failed(generation)
        } else {
            0
        };
        if inner.word.load().is_closed() && inner.hot.is_too_much(inner.calls(generation, now, flags), row) {
            let mut control = self.control();
            let Control { core, settings, .. } = &mut *control;
            core.trip(settings, now, generation, fastrand::f64());
            self.publish(control, now);
        }
    }

    /// The result of a probe, of a call that was only spared, or of an earlier generation.
    #[cold]
    fn settle_otherwise(&self, token: Token, verdict: Option<Verdict>, ending: Ending, now: u64) {
        let counts = match token.role() {
            Role::Spared => true,
            Role::Plain => false,
            Role::Probe(number) => {
                let good = ending.failed.map(|failed| !failed && !ending.slow);
                let mut control = self.control();
                let Control { core, settings, .. } = &mut *control;
                let counts = core.probed(settings, now, number, good, fastrand::f64());
                self.publish(control, now);
                counts
            }
        };
        self.inner.count(match verdict {
            Some(_) if !counts => Outcome::Stale,
            _ => ending.outcome,
        });
    }

    /// Calls `op` if the breaker lets it, and records what `classify` makes of the result.
    ///
    /// # Errors
    /// [`Error::Rejected`], or the operation's own error.
    pub async fn call<T, E, Fut>(&self, classify: &impl Classify<T, E>, op: impl FnOnce() -> Fut) -> Result<T, Error<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let pass = self.try_acquire().map_err(|refusal| refusal.named(self))?;
        let result = op().await;
        pass.record(classify.classify(result.as_ref()));
        result.map_err(Error::Inner)
    }

    /// Forces a state, which ends by itself after `ttl`, or at [`Breaker::release`]. Afterwards it is closed, with
    /// nothing remembered.
    pub fn force(&self, force: Force, ttl: Option<Duration>) {
        let until = ttl.map(|ttl| clock::coarse_millis().saturating_add(millis(ttl)));
        self.enter(match force {
            Force::Open => Phase::ForcedOpen { until },
            Force::Closed => Phase::ForcedClosed { until },
        });
    }

    /// Refuses all calls until [`Breaker::release`].
    pub fn force_open(&self) {
        self.force(Force::Open, None);
    }

    /// Lets all calls pass until [`Breaker::release`].
    pub fn force_closed(&self) {
        self.force(Force::Closed, None);
    }

    /// Ends a forced state, or an open one: closed, with nothing remembered.
    pub fn release(&self) {
        self.enter(Phase::Closed);
    }

    fn enter(&self, phase: Phase) {
        let mut control = self.control();
        control.core.force(phase);
        self.publish(control, clock::coarse_millis());
    }

    /// Tells the breaker the time limit of an attempt, after which a call that is dropped counts as a failure by default.
    pub(crate) fn set_attempt_limit(&self, limit: Option<Duration>) {
        let mut control = self.control();
        control.attempt = limit;
        self.inner.hot.set(&control.settings, limit);
    }

    /// Figures now.
    pub fn snapshot(&self) -> BreakerSnapshot {
        let inner = &*self.inner;
        let now = clock::coarse_millis();
        let totals = inner.window.totals();
        let control = self.control();
        let calls = inner.calls(control.core.generation(), now, inner.hot.flags());
        BreakerSnapshot {
            state: control.core.state(now),
            observe_only: control.settings.observe_only,
            forced_for_ms: control.core.forced_for(now),
            failure_ratio: if calls.all == 0 {
                0.0
            } else {
                calls.failed as f64 / calls.all as f64
            },
            window_calls: calls.all,
            window_failures: calls.failed,
            window_slow: calls.slow,
            calls: totals.into(),
            transitions: control.history.counts(),
            last_transitions: control.history.last(now),
            settings: control.settings.clone(),
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.inner.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets calls see what the state machine did; counts and tells a change of state, after the lock is given back.
    fn publish(&self, mut control: MutexGuard<'_, Control>, now: u64) {
        self.inner.word.publish(control.core.seen());
        let state = control.core.state(now);
        let changed = control.history.note(state, now);
        drop(control);
        if let Some((from, to)) = changed {
            let name = &*self.inner.name;
            tracing::debug!(name, from = from.as_str(), to = to.as_str(), "circuit breaker");
            self.event(&Event::Transition { name, from, to });
        }
    }

    #[inline]
    fn event(&self, event: &Event<'_>) {
        if let Some(listener) = &self.inner.listener {
            listener.event(event);
        }
    }
}

impl Inner {
    #[inline]
    fn count(&self, outcome: Outcome) {
        self.window.write(move |shard| shard.count(outcome as usize));
    }

    /// What the window holds of a generation.
    fn calls(&self, generation: u32, now: u64, flags: Flags) -> Calls {
        if flags.has_last_calls() {
            return self.last_calls().sums(generation);
        }
        let [ok, failed, slow] = self.window.sums(generation, now);
        Calls {
            all: ok + failed,
            failed,
            slow,
        }
    }

    fn last_calls(&self) -> MutexGuard<'_, LastCalls> {
        self.last_calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call ended, as far as the breaker cares.
#[derive(Debug, Clone, Copy)]
struct Ending {
    /// `None` when it says nothing of the dependency.
    failed: Option<bool>,
    slow: bool,
    /// Whether a failure belongs to a row of them. A server that asks for less is not ill: it counts for the ratio.
    in_row: bool,
    outcome: Outcome,
}

impl Ending {
    const SUCCESS: Self = Self {
        failed: Some(false),
        slow: false,
        in_row: false,
        outcome: Outcome::Success,
    };

    fn of(verdict: Option<Verdict>, took: u64, hot: &Hot) -> Self {
        let slow = took != 0 && hot.is_slow(took);
        let ending = |failed, in_row, outcome| Self {
            failed,
            slow,
            in_row,
            outcome,
        };
        match verdict {
            Some(Verdict::Success) if slow => ending(Some(false), false, Outcome::Slow),
            Some(Verdict::Success) => ending(Some(false), false, Outcome::Success),
            Some(Verdict::Failure(_)) => ending(Some(true), true, Outcome::Failure),
            Some(Verdict::Overload { .. }) => ending(Some(true), false, Outcome::Failure),
            Some(Verdict::Ignore | Verdict::Begun | Verdict::LocalReject) => ending(None, false, Outcome::Ignored),
            // A call that was given up after it took too long says that the dependency hangs.
            None if took != 0 && hot.is_hung(took) => ending(Some(true), true, Outcome::Cancelled),
            None => ending(None, false, Outcome::Cancelled),
        }
    }
}

impl Flags {
    /// What a token remembers of the time, in nanoseconds.
    #[inline]
    fn start(self) -> u64 {
        if self.times_exactly() {
            nanos(clock::now())
        } else if self.times() {
            clock::coarse_millis().saturating_mul(NANOS_IN_MILLI)
        } else {
            0
        }
    }

    /// Milliseconds now, and nanoseconds since `started`; 0 if that was not taken.
    #[inline]
    fn time_since(self, started: u64) -> (u64, u64) {
        let (now, nanos) = if self.times_exactly() {
            let nanos = nanos(clock::now());
            (nanos / NANOS_IN_MILLI, nanos)
        } else {
            let now = clock::coarse_millis();
            (now, now.saturating_mul(NANOS_IN_MILLI))
        };
        let took = if started == 0 { 0 } else { nanos.saturating_sub(started) };
        (now, took)
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Length of a tenth of the window.
fn bucket_millis(window: Duration) -> u64 {
    (millis(window) / 10).max(1)
}
