//! What a call holds of the stages of its policy, entering and leaving them one after the other. It waits for nothing
//! and knows no results, only verdicts: `track` does the rest.

use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::stage::{Entered, Held, Stage, TimeLimit};
use super::track::after;
use super::unsettled::Unsettled;
use crate::adaptive;
use crate::breaker;
use crate::bulkhead::Waiting;
use crate::clock;
use crate::deadline::Surroundings;
use crate::error::{By, Rejected, Scope};
use crate::rate::Slot;
use crate::throttle;
use crate::verdict::{Safety, Verdict};

/// What the stages need to know of a call. Moments are nanoseconds since it began.
pub(super) struct Trip<'a> {
    pub(super) inner: &'a Inner,
    pub(super) safety: Safety,
    /// Whether a failure of this call may be repeated.
    pub(super) repeats: bool,
    pub(super) started: Instant,
    /// Now, while that is known without looking at the clock.
    pub(super) now: Option<u64>,
    /// The same on the coarse clock, in milliseconds.
    pub(super) coarse: Option<u64>,
    pub(super) surroundings: Surroundings,
    /// Attempts begun so far.
    pub(super) attempts: u32,
    /// When the soonest limit outside of the track ends, or [`NEVER`].
    pub(super) outer_end: u64,
    /// When the call as a whole ends.
    pub(super) total_end: Option<u64>,
    /// What the track that ended last came to.
    pub(super) verdict: Verdict,
}

impl Trip<'_> {
    #[inline]
    pub(super) fn now(&mut self) -> u64 {
        let started = self.started;
        *self
            .now
            .get_or_insert_with(|| u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Milliseconds on the coarse clock.
    #[inline]
    fn coarse(&mut self) -> u64 {
        *self.coarse.get_or_insert_with(clock::coarse_millis)
    }

    /// The dependency was asked, or something was waited for.
    #[inline]
    pub(super) fn time_passed(&mut self) {
        (self.now, self.coarse) = (None, None);
    }

    #[inline]
    pub(super) fn moment(&self, nanos: u64) -> Instant {
        self.started + Duration::from_nanos(nanos)
    }
}

/// What is held of the stages from `first` to before `end`.
pub(super) struct Way {
    held: Holding,
    first: u8,
    end: u8,
    /// The stage of the soonest limit, and when it ends; [`NEVER`] without one.
    limit: u8,
    ends: u64,
}

/// No moment.
pub(super) const NEVER: u64 = u64::MAX;

/// What is held of each part. No policy has a part twice, so this takes a few words, and a call is moved about cheaply.
struct Holding {
    /// When the limits of the call and of its attempt end, or [`NEVER`].
    total: u64,
    attempt: u64,
    breaker: Option<breaker::Token>,
    measured: Option<adaptive::Token>,
    throttle: Option<throttle::Token>,
    /// Number of the attempt; zero outside of the retries.
    tries: u32,
    place: bool,
    #[cfg(feature = "fault-injection")]
    abort: bool,
}

impl Holding {
    const NOTHING: Self = Self {
        total: NEVER,
        attempt: NEVER,
        breaker: None,
        measured: None,
        throttle: None,
        tries: 0,
        place: false,
        #[cfg(feature = "fault-injection")]
        abort: false,
    };

    fn put(&mut self, held: Held) {
        match held {
            Held::Nothing => {}
            Held::Place => self.place = true,
            Held::Throttle(token) => self.throttle = Some(token),
            Held::Breaker(token) => self.breaker = Some(token),
            Held::Measured(token) => self.measured = Some(token),
            #[cfg(feature = "fault-injection")]
            Held::Abort => self.abort = true,
        }
    }

    /// What is held of a stage, which is left.
    #[inline]
    fn take(&mut self, stage: &Stage) -> Held {
        match stage {
            Stage::Bulkhead(_) if std::mem::take(&mut self.place) => Held::Place,
            Stage::Breaker(_) => self.breaker.take().map_or(Held::Nothing, Held::Breaker),
            Stage::Throttle(_) => self.throttle.take().map_or(Held::Nothing, Held::Throttle),
            Stage::ConcurrencyLimit(_) => self.measured.take().map_or(Held::Nothing, Held::Measured),
            #[cfg(feature = "fault-injection")]
            Stage::Faults(_) if std::mem::take(&mut self.abort) => Held::Abort,
            _ => Held::Nothing,
        }
    }

    /// When the limit of a stage ends, or [`NEVER`].
    fn limit(&mut self, stage: &Stage) -> Option<(&mut u64, Scope)> {
        match stage {
            Stage::Deadline(_) => Some((&mut self.total, Scope::Total)),
            Stage::AttemptTimeout(_) => Some((&mut self.attempt, Scope::Attempt)),
            _ => None,
        }
    }
}

/// How far the way inwards led.
pub(super) enum Inward {
    /// To the attempt.
    Attempt,
    Queue {
        at: usize,
        waiting: Waiting,
        until: Option<u64>,
    },
    Pause {
        until: u64,
        then: Then,
    },
    Refused {
        at: usize,
        rejected: Rejected,
    },
}

/// How far the way outwards led.
pub(super) enum Outward {
    /// Out of the policy.
    Out,
    /// Enters stage `at` again after a pause.
    Again { until: u64, at: usize },
    /// To the retries, stage `at`, with a refusal of ours: the result of the attempt before, if there is one, goes on.
    Refused(usize),
    /// To a stage `at` where the answer was lost on purpose.
    #[cfg(feature = "fault-injection")]
    Lost(usize),
}

/// What a pause is followed by.
pub(super) enum Then {
    Enter(usize),
    /// The stage whose slot is held goes on.
    Slot(usize, Slot),
    #[cfg(feature = "fault-injection")]
    Fault(usize, crate::Injected),
}

impl Then {
    /// It is not followed by anything.
    pub(super) fn give_back(&self, stages: &[Stage]) {
        if let Self::Slot(at, slot) = self {
            stages[*at].give_back(slot);
        }
    }
}

impl Way {
    #[inline]
    pub(super) fn new(first: usize, end: usize) -> Self {
        Self {
            held: Holding::NOTHING,
            first: first as u8,
            end: end as u8,
            limit: 0,
            ends: NEVER,
        }
    }

    #[inline]
    pub(super) fn end(&self) -> usize {
        usize::from(self.end)
    }

    /// When the soonest limit ends, and its stage: of two that end together the outer one.
    #[inline]
    pub(super) fn soonest(&self) -> Option<(u64, usize)> {
        (self.ends != NEVER).then_some((self.ends, usize::from(self.limit)))
    }

    /// When the soonest limit ends, or [`NEVER`].
    #[inline]
    pub(super) fn end_of_limits(&self) -> u64 {
        self.ends
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.held.put(held);
    }

    /// Enters the stages from `at` on.
    #[inline]
    pub(super) fn inward(&mut self, at: usize, trip: &mut Trip<'_>) -> Inward {
        let inner = trip.inner;
        let end = self.end();
        let mut at = at;
        while at < end {
            // The usual parts are entered here, so that nothing large is handed about for them.
            match &inner.stages[at] {
                Stage::Deadline(limit) => {
                    if !self.begin_limit(at, limit, Scope::Total, trip) {
                        return too_late(at, trip);
                    }
                }
                Stage::AttemptTimeout(limit) => {
                    if !self.begin_limit(at, limit, Scope::Attempt, trip) {
                        return too_late(at, trip);
                    }
                }
                Stage::Bulkhead(bulkhead) if bulkhead.try_enter() => self.held.place = true,
                Stage::Retry(retrier) => {
                    retrier.begin(|| trip.coarse());
                    self.held.tries = 1;
                }
                Stage::Breaker(breaker) => match breaker.try_admit_at(|| trip.coarse()) {
                    Ok(token) => self.held.breaker = Some(token),
                    Err(refusal) => {
                        let rejected = refusal.named(breaker);
                        return Inward::Refused { at, rejected };
                    }
                },
                other => match other.enter() {
                    Entered::In(held) => self.held.put(held),
                    entered => return turn(at, entered, trip),
                },
            }
            at += 1;
        }
        Inward::Attempt
    }

    /// Whether there is time left.
    #[inline]
    fn begin_limit(&mut self, at: usize, limit: &TimeLimit, scope: Scope, trip: &mut Trip<'_>) -> bool {
        let mut ends = limit.nanos().map(|limit| trip.now().saturating_add(limit));
        if scope == Scope::Total {
            if let Some(deadline) = trip.surroundings.deadline {
                let left = deadline.instant().saturating_duration_since(trip.started);
                let callers = u64::try_from(left.as_nanos()).unwrap_or(NEVER);
                ends = Some(ends.map_or(callers, |ends| ends.min(callers)));
            }
            trip.total_end = ends;
        }
        let Some(ends) = ends else {
            // A reload may have taken the limit of the attempt before away.
            self.begun_limit(scope, NEVER);
            return true;
        };
        if ends <= trip.now() {
            return false;
        }
        if ends < self.ends {
            self.ends = ends;
            self.limit = at as u8;
        }
        self.begun_limit(scope, ends);
        true
    }

    #[inline]
    fn begun_limit(&mut self, scope: Scope, ends: u64) {
        match scope {
            Scope::Total => self.held.total = ends,
            Scope::Attempt => self.held.attempt = ends,
        }
    }

    /// Leaves all stages with success. False when the answer was lost on purpose: from there the way goes on by
    /// [`Way::outward`].
    #[inline]
    pub(super) fn succeed(&mut self, trip: &mut Trip<'_>) -> bool {
        #[cfg(feature = "fault-injection")]
        if self.held.abort {
            return false;
        }
        matches!(
            self.outward(self.end(), Verdict::Success, trip, &mut None),
            Outward::Out
        )
    }

    /// Leaves the stages before `from` with a verdict.
    #[inline]
    pub(super) fn outward(
        &mut self,
        from: usize,
        verdict: Verdict,
        trip: &mut Trip<'_>,
        unsettled: &mut Option<Unsettled>,
    ) -> Outward {
        let inner = trip.inner;
        for at in (usize::from(self.first)..from).rev() {
            match &inner.stages[at] {
                Stage::Retry(retrier) => {
                    let number = std::mem::take(&mut self.held.tries);
                    retrier.attempted(verdict);
                    match verdict {
                        Verdict::Success | Verdict::Ignore | Verdict::Begun => {}
                        Verdict::LocalReject => return Outward::Refused(at),
                        Verdict::Failure(_) | Verdict::Overload { .. } => {
                            if let Some(until) = self.again(at, verdict, number, trip) {
                                return Outward::Again { until, at: at + 1 };
                            }
                        }
                    }
                }
                stage => match self.held.take(stage) {
                    Held::Nothing => {}
                    #[cfg(feature = "fault-injection")]
                    Held::Abort => return Outward::Lost(at),
                    held if verdict == Verdict::Begun => {
                        unsettled.get_or_insert_default().take(stage, held);
                    }
                    held => stage.leave(held, Some(verdict)),
                },
            }
        }
        Outward::Out
    }

    /// When there is another attempt after a failure, if there is one.
    #[cold]
    fn again(&mut self, at: usize, verdict: Verdict, number: u32, trip: &mut Trip<'_>) -> Option<u64> {
        let Stage::Retry(retrier) = &trip.inner.stages[at] else {
            return None;
        };
        // The limits further in are over.
        (self.ends, self.limit) = (NEVER, 0);
        for (at, stage) in trip.inner.stages[..at].iter().enumerate() {
            if let Some((ends, _)) = self.held.limit(stage) {
                if *ends < self.ends {
                    (self.ends, self.limit) = (*ends, at as u8);
                }
            }
        }
        let now = trip.now();
        let end = self.ends.min(trip.outer_end);
        let left = (end != NEVER).then(|| Duration::from_nanos(end.saturating_sub(now)));
        let delay = retrier.next(trip.inner, verdict, trip.safety, number, left)?;
        self.held.tries = number + 1;
        Some(after(now, delay))
    }

    /// Ends the limit of a stage: which one, and how long it was.
    pub(super) fn expire(&mut self, at: usize, stages: &[Stage]) -> (Scope, Duration) {
        let stage = &stages[at];
        let Some((ends, scope)) = self.held.limit(stage) else {
            return (Scope::Total, Duration::ZERO);
        };
        let callers = Duration::from_nanos(std::mem::replace(ends, NEVER));
        // The caller's deadline may come before the policy's own limit, and may be the only one.
        let own = match stage {
            Stage::Deadline(own) | Stage::AttemptTimeout(own) => own.get(),
            _ => None,
        };
        (scope, own.map_or(callers, |own| own.min(callers)))
    }

    /// Leaves the stages from `from` on without a verdict: the call was cut off or dropped.
    #[cold]
    pub(super) fn leave_all(&mut self, from: usize, stages: &[Stage]) {
        for at in (from..self.end()).rev() {
            let held = self.held.take(&stages[at]);
            stages[at].leave(held, None);
        }
    }
}

#[cold]
fn too_late(at: usize, trip: &Trip<'_>) -> Inward {
    Inward::Refused {
        at,
        rejected: Rejected {
            by: By::Deadline,
            name: trip.inner.name.clone(),
            retry_after: None,
        },
    }
}

/// A stage that is not entered at once.
#[cold]
fn turn(at: usize, entered: Entered, trip: &mut Trip<'_>) -> Inward {
    match entered {
        // Entered after all: whoever asks goes on behind it.
        Entered::In(_) => Inward::Attempt,
        Entered::Refused(rejected) => Inward::Refused { at, rejected },
        Entered::Queue(waiting, longest) => Inward::Queue {
            at,
            waiting,
            until: longest.map(|longest| after(trip.now(), longest)),
        },
        Entered::Later(wait, slot) => Inward::Pause {
            until: after(trip.now(), wait),
            then: Then::Slot(at, slot),
        },
        #[cfg(feature = "fault-injection")]
        Entered::Fault(injected) => Inward::Pause {
            until: after(trip.now(), injected.delay),
            then: Then::Fault(at, injected),
        },
    }
}
