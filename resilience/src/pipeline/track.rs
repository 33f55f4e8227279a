//! The way of a call through the stages of its policy: inwards to the attempt, outwards with its result, back inwards for
//! another attempt. One timer serves all time limits and waits of a track, and none is made before something has to be
//! waited for. What a single stage does is `stage`'s.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use super::race::Race;
#[cfg(feature = "fault-injection")]
use super::stage::LOST;
use super::stage::{Entered, Held, Stage};
use super::{Attempt, Inner, Op, Unsettled};
use crate::bulkhead::Waiting;
use crate::deadline::{self, Deadline, Surroundings};
use crate::error::{By, Error, Rejected, Scope};
use crate::rate::Slot;
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// The most stages that a policy can have: every part once.
pub(super) const MOST_STAGES: usize = super::Part::STANDARD.len();

/// A result, and what it says of the dependency.
pub(super) type Ended<T, E> = (Result<T, Error<E>>, Verdict);

/// What a track needs to know of the call.
pub(super) struct Env<'a, O, C: ?Sized> {
    pub(super) inner: &'a Inner,
    pub(super) op: &'a mut O,
    pub(super) classify: &'a C,
    pub(super) safety: Safety,
    pub(super) started: Instant,
    /// Nanoseconds since `started`, while that is known without looking at the clock.
    pub(super) now: Option<u64>,
    pub(super) surroundings: Surroundings,
    /// Attempts begun so far.
    pub(super) attempts: &'a mut u32,
    /// When a limit outside of the track ends, in nanoseconds since `started`.
    pub(super) outer_end: Option<u64>,
    /// When the call as a whole ends.
    pub(super) total_end: &'a mut Option<u64>,
}

impl<O, C: ?Sized> Env<'_, O, C> {
    /// Nanoseconds since the call began.
    pub(super) fn now(&mut self) -> u64 {
        let started = self.started;
        *self
            .now
            .get_or_insert_with(|| u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn moment(&self, nanos: u64) -> Instant {
        self.started + Duration::from_nanos(nanos)
    }
}

enum Step {
    Enter(usize),
    /// Waits for a place in the bulkhead, perhaps not for ever.
    Queue {
        at: usize,
        waiting: Waiting,
        until: Option<u64>,
    },
    Pause {
        until: u64,
        then: Then,
    },
    Attempt,
    /// Nothing is held any more.
    Over,
}

/// What a pause is followed by.
enum Then {
    Enter(usize),
    /// The stage whose slot is held goes on.
    Slot(usize, Slot),
    #[cfg(feature = "fault-injection")]
    Fault(usize, crate::Injected),
}

pin_project! {
    /// A call's way through the stages from `first` to before `end`.
    pub(super) struct Track<F, T, E> {
        #[pin]
        leaf: Option<Leaf<F, T, E>>,
        #[pin]
        timer: Option<Sleep>,
        armed: u64,
        first: usize,
        end: usize,
        held: [Held; MOST_STAGES],
        step: Step,
        // The result of the attempt before: it stands when there cannot be another one.
        last: Option<Ended<T, E>>,
    }
}

pin_project! {
    #[project = LeafProjection]
    enum Leaf<F, T, E> {
        Attempt { #[pin] future: TaskLocalFuture<Surroundings, F> },
        Race { race: Race<F, T, E> },
    }
}

impl<F, T, E> Track<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    /// `end` is the number of stages, or the place of the hedge: then several tracks run behind it.
    pub(super) fn new(first: usize, end: usize) -> Self {
        Self {
            leaf: None,
            timer: None,
            armed: 0,
            first,
            end,
            held: [Held::Nothing; MOST_STAGES],
            step: Step::Enter(first),
            last: None,
        }
    }

    pub(super) fn poll<O, C>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        env: &mut Env<'_, O, C>,
    ) -> Poll<Ended<T, E>>
    where
        O: Op<T, E, Future = F>,
        C: Classify<T, E> + ?Sized,
    {
        let mut this = self.project();
        let stages: &[Stage] = &env.inner.stages;
        loop {
            // Where the way outwards begins, and with what.
            let (from, result, verdict) = match this.step {
                Step::Enter(at) if *at == *this.end => {
                    let leaf = if *this.end == stages.len() {
                        let end = soonest(this.held).map(|(end, _)| end).into_iter();
                        let end = end.chain(env.outer_end).min();
                        begin_attempt(env, end)
                    } else {
                        Leaf::Race {
                            race: Race::new(*this.end),
                        }
                    };
                    this.leaf.set(Some(leaf));
                    *this.step = Step::Attempt;
                    continue;
                }
                Step::Enter(at) => {
                    let at = *at;
                    match enter(&stages[at], env) {
                        Entered::In(held) => {
                            this.held[at] = held;
                            *this.step = Step::Enter(at + 1);
                            continue;
                        }
                        Entered::Queue(waiting, longest) => {
                            let until = longest.map(|longest| after(env.now(), longest));
                            *this.step = Step::Queue { at, waiting, until };
                            continue;
                        }
                        Entered::Refused(rejected) => refused(at, rejected, env),
                        Entered::Later(wait, slot) => {
                            let until = after(env.now(), wait);
                            let then = Then::Slot(at, slot);
                            *this.step = Step::Pause { until, then };
                            continue;
                        }
                        #[cfg(feature = "fault-injection")]
                        Entered::Fault(injected) => {
                            let until = after(env.now(), injected.delay);
                            let then = Then::Fault(at, injected);
                            *this.step = Step::Pause { until, then };
                            continue;
                        }
                    }
                }
                Step::Queue { at, waiting, until } => {
                    let (at, until) = (*at, *until);
                    if Pin::new(waiting).poll(context).is_ready() {
                        env.now = None;
                        this.held[at] = Held::Place;
                        *this.step = Step::Enter(at + 1);
                        continue;
                    }
                    let Poll::Ready(due) = expired(&mut this.timer, this.armed, this.held, until, env, context) else {
                        return Poll::Pending;
                    };
                    env.now = None;
                    // The queue is left by dropping the ticket.
                    *this.step = Step::Attempt;
                    match due {
                        Due::Limit(limit) => {
                            let (result, verdict) = timed_out(limit, this.held, stages, env);
                            (limit, result, verdict)
                        }
                        Due::Pause => refused(at, stages[at].refuse(&env.inner.name), env),
                    }
                }
                Step::Pause { until, .. } => {
                    let until = *until;
                    let Poll::Ready(due) = expired(&mut this.timer, this.armed, this.held, Some(until), env, context)
                    else {
                        return Poll::Pending;
                    };
                    env.now = None;
                    let Step::Pause { then, .. } = std::mem::replace(this.step, Step::Attempt) else {
                        continue;
                    };
                    match (due, then) {
                        (Due::Limit(limit), then) => {
                            give_back(&then, stages);
                            let (result, verdict) = timed_out(limit, this.held, stages, env);
                            (limit, result, verdict)
                        }
                        (Due::Pause, Then::Enter(at)) => {
                            *this.step = Step::Enter(at);
                            continue;
                        }
                        (Due::Pause, Then::Slot(at, _)) => {
                            *this.step = Step::Enter(at + 1);
                            continue;
                        }
                        #[cfg(feature = "fault-injection")]
                        (Due::Pause, Then::Fault(at, injected)) => {
                            let Some(verdict) = injected.error else {
                                this.held[at] = if injected.abort { Held::Abort } else { Held::Nothing };
                                *this.step = Step::Enter(at + 1);
                                continue;
                            };
                            (at, Err(Error::Rejected(faulty(env))), verdict)
                        }
                    }
                }
                // Polled after its end, as no caller may: there is nothing to wait for.
                Step::Over => return Poll::Pending,
                Step::Attempt => {
                    let Some(leaf) = this.leaf.as_mut().as_pin_mut() else {
                        return Poll::Pending;
                    };
                    env.now = None;
                    let polled = match leaf.project() {
                        LeafProjection::Attempt { future } => future.poll(context).map(|result| judge(result, env)),
                        LeafProjection::Race { race } => {
                            let outer = env.outer_end;
                            env.outer_end = soonest(this.held).map(|(end, _)| end).into_iter().chain(outer).min();
                            let polled = race.poll(context, env);
                            env.outer_end = outer;
                            polled
                        }
                    };
                    match polled {
                        Poll::Ready((result, verdict)) => {
                            this.leaf.set(None);
                            (*this.end, result, verdict)
                        }
                        Poll::Pending => match expired(&mut this.timer, this.armed, this.held, None, env, context) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Due::Pause) => continue,
                            Poll::Ready(Due::Limit(at)) => {
                                abandon_leaf(&mut this.leaf, stages);
                                let (result, verdict) = timed_out(at, this.held, stages, env);
                                (at, result, verdict)
                            }
                        },
                    }
                }
            };
            // What lies further in was cut off.
            leave_all(stages, this.held, from, *this.end, None);
            let mut ended = (result, verdict);
            let mut unsettled = Unsettled::default();
            let mut again = None;
            for at in (*this.first..from).rev() {
                let held = std::mem::replace(&mut this.held[at], Held::Nothing);
                #[cfg(feature = "fault-injection")]
                if let Held::Abort = held {
                    ended = (Err(Error::Rejected(faulty(env))), LOST);
                    continue;
                }
                let (Stage::Retry(retrier), Held::Tries(number)) = (&stages[at], held) else {
                    if ended.1 != Verdict::Begun || !unsettled.take(&stages[at], held) {
                        stages[at].leave(held, Some(ended.1));
                    }
                    continue;
                };
                retrier.attempted(ended.1);
                if ended.1 == Verdict::LocalReject {
                    if let Some(last) = this.last.take() {
                        ended = last;
                        continue;
                    }
                }
                let end = soonest(&this.held[..at]).map(|(end, _)| end).into_iter();
                let end = end.chain(env.outer_end).min();
                let now = env.now();
                let left = end.map(|end| Duration::from_nanos(end.saturating_sub(now)));
                if let Some(delay) = retrier.next(env.inner, ended.1, env.safety, number, left) {
                    this.held[at] = Held::Tries(number + 1);
                    again = Some(Step::Pause {
                        until: after(now, delay),
                        then: Then::Enter(at + 1),
                    });
                    break;
                }
            }
            let Some(step) = again else {
                *this.step = Step::Over;
                this.timer.set(None);
                if let (false, Ok(value)) = (unsettled.is_empty(), &mut ended.0) {
                    env.op.begun(value, unsettled);
                }
                return Poll::Ready(ended);
            };
            *this.last = Some(ended);
            *this.step = step;
        }
    }

    /// Gives back what is held: for a call that is dropped, or that lost a race.
    pub(super) fn abandon(self: Pin<&mut Self>, stages: &[Stage]) {
        let mut this = self.project();
        match std::mem::replace(this.step, Step::Over) {
            Step::Over => return,
            Step::Pause { then, .. } => give_back(&then, stages),
            Step::Enter(_) | Step::Queue { .. } | Step::Attempt => {}
        }
        abandon_leaf(&mut this.leaf, stages);
        leave_all(stages, this.held, *this.first, *this.end, None);
    }
}

fn refused<T, E, O, C: ?Sized>(
    at: usize,
    rejected: Rejected,
    env: &Env<'_, O, C>,
) -> (usize, Result<T, Error<E>>, Verdict) {
    env.inner.rejected(rejected.by);
    (at, Err(Error::Rejected(rejected)), Verdict::LocalReject)
}

fn give_back(then: &Then, stages: &[Stage]) {
    if let Then::Slot(at, slot) = then {
        stages[*at].give_back(slot);
    }
}

/// What a call is told that was hit on purpose.
#[cfg(feature = "fault-injection")]
fn faulty<O, C: ?Sized>(env: &Env<'_, O, C>) -> Rejected {
    Rejected {
        by: By::Fault,
        name: env.inner.name.clone(),
        retry_after: None,
    }
}

fn begin_attempt<F, T, E, O, C: ?Sized>(env: &mut Env<'_, O, C>, end: Option<u64>) -> Leaf<F, T, E>
where
    F: Future<Output = Result<T, E>>,
    O: Op<T, E, Future = F>,
{
    *env.attempts += 1;
    let attempt = Attempt {
        number: *env.attempts,
        deadline: end.map(|end| Deadline::at(env.moment(end))),
        total: env.total_end.map(|end| Deadline::at(env.moment(end))),
    };
    let surroundings = Surroundings {
        deadline: attempt.deadline,
        retried: env.surroundings.retried || env.inner.repeats(env.safety),
    };
    Leaf::Attempt {
        future: deadline::within(surroundings, env.op.start(attempt)),
    }
}

fn judge<T, E, O, C>(result: Result<T, E>, env: &Env<'_, O, C>) -> Ended<T, E>
where
    C: Classify<T, E> + ?Sized,
{
    let verdict = env.classify.classify(result.as_ref());
    (result.map_err(Error::Inner), verdict)
}

fn enter<O, C: ?Sized>(stage: &Stage, env: &mut Env<'_, O, C>) -> Entered {
    let (limit, scope) = match stage {
        Stage::Deadline(limit) => (limit, Scope::Total),
        Stage::AttemptTimeout(limit) => (limit, Scope::Attempt),
        other => return other.enter(),
    };
    let own = limit.nanos().map(|limit| env.now().saturating_add(limit));
    let callers = match (scope, env.surroundings.deadline) {
        (Scope::Total, Some(deadline)) => {
            let left = deadline.instant().saturating_duration_since(env.started);
            Some(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
        }
        _ => None,
    };
    let Some(ends) = own.into_iter().chain(callers).min() else {
        return Entered::In(Held::Nothing);
    };
    if ends <= env.now() {
        return Entered::Refused(Rejected {
            by: By::Deadline,
            name: env.inner.name.clone(),
            retry_after: None,
        });
    }
    if scope == Scope::Total {
        *env.total_end = Some(ends);
    }
    Entered::In(Held::Limit { ends, scope })
}

/// The limit that ends first, and its stage: of two that end together the outer one.
fn soonest(held: &[Held]) -> Option<(u64, usize)> {
    let mut soonest: Option<(u64, usize)> = None;
    for (at, held) in held.iter().enumerate() {
        if let Held::Limit { ends, .. } = held {
            if soonest.is_none_or(|(other, _)| *ends < other) {
                soonest = Some((*ends, at));
            }
        }
    }
    soonest
}

fn after(now: u64, wait: Duration) -> u64 {
    now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}

/// What the timer was for.
enum Due {
    Pause,
    Limit(usize),
}

/// Waits for whatever comes first of the limits and the end of a pause.
fn expired<O, C: ?Sized>(
    timer: &mut Pin<&mut Option<Sleep>>,
    armed: &mut u64,
    held: &[Held],
    pause: Option<u64>,
    env: &Env<'_, O, C>,
    context: &mut Context<'_>,
) -> Poll<Due> {
    let limit = soonest(held);
    let (until, due) = match (limit, pause) {
        (Some((ends, at)), Some(pause)) if ends <= pause => (ends, Due::Limit(at)),
        (_, Some(pause)) => (pause, Due::Pause),
        (Some((ends, at)), None) => (ends, Due::Limit(at)),
        (None, None) => return Poll::Pending,
    };
    match timer.as_mut().as_pin_mut() {
        None => timer.set(Some(sleep_until(env.moment(until)))),
        Some(sleep) if *armed != until => sleep.reset(env.moment(until)),
        Some(_) => {}
    }
    *armed = until;
    match timer.as_mut().as_pin_mut() {
        Some(sleep) => sleep.poll(context).map(|()| due),
        None => Poll::Pending,
    }
}

fn timed_out<T, E, O, C: ?Sized>(
    at: usize,
    held: &mut [Held],
    stages: &[Stage],
    env: &mut Env<'_, O, C>,
) -> Ended<T, E> {
    env.now = None;
    let (scope, limit) = match (&stages[at], std::mem::replace(&mut held[at], Held::Nothing)) {
        (Stage::AttemptTimeout(limit), Held::Limit { scope, .. }) => (scope, limit.get().unwrap_or_default()),
        (_, Held::Limit { ends, scope }) => (scope, Duration::from_nanos(ends)),
        _ => (Scope::Total, Duration::ZERO),
    };
    env.inner.timed_out(scope);
    (Err(Error::Timeout { scope, limit }), Verdict::Failure(Kind::Timeout))
}

fn leave_all(stages: &[Stage], held: &mut [Held], from: usize, end: usize, verdict: Option<Verdict>) {
    for at in (from..end).rev() {
        let held = std::mem::replace(&mut held[at], Held::Nothing);
        stages[at].leave(held, verdict);
    }
}

fn abandon_leaf<F, T, E>(leaf: &mut Pin<&mut Option<Leaf<F, T, E>>>, stages: &[Stage])
where
    F: Future<Output = Result<T, E>>,
{
    if let Some(leaf) = leaf.as_mut().as_pin_mut() {
        if let LeafProjection::Race { race } = leaf.project() {
            race.abandon(stages);
        }
    }
    leaf.set(None);
}
