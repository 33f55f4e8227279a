//! The way of a call through the stages of its policy: inwards to the attempt, outwards with its result, back inwards for
//! another attempt. One timer serves all time limits and waits of a track, and none is made before something has to be
//! waited for. What a single stage does is `stage`'s, what is held of them is `way`'s.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::race::Race;
#[cfg(feature = "fault-injection")]
use super::stage::LOST;
use super::stage::{Held, Stage};
use super::unsettled::Unsettled;
use super::way::{Inward, NEVER, Outward, Then, Trip, Way};
use super::{Attempt, Op};
use crate::bulkhead::Waiting;
use crate::deadline::{self, Deadline, Surroundings, Within};
#[cfg(feature = "fault-injection")]
use crate::error::By;
use crate::error::{Error, Rejected};
use crate::verdict::{Classify, Kind, Verdict};

/// What a call under a policy comes to.
pub(super) type Outcome<O> = Result<<O as Op>::Value, Error<<O as Op>::Error>>;
/// A result, and what it says of the dependency.
pub(super) type Ended<O> = (Outcome<O>, Verdict);

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

pin_project! {
    /// A call's way through some stages.
    pub(super) struct Track<O: Op> {
        #[pin]
        leaf: Option<Leaf<O>>,
        #[pin]
        timer: Option<Sleep>,
        // For when the timer is set.
        armed: u64,
        way: Way,
        step: Step,
        // The result of the attempt before: it stands when there cannot be another one.
        last: Option<Ended<O>>,
    }
}

pin_project! {
    #[project = LeafProjection]
    enum Leaf<O: Op> {
        Attempt { #[pin] future: Within<O::Future> },
        Race { race: Race<O> },
    }
}

impl<O: Op> Track<O> {
    /// From stage `first` to before `end`: the number of stages, or the place of the hedge, behind which several tracks run.
    #[inline]
    pub(super) fn new(first: usize, end: usize) -> Self {
        Self {
            leaf: None,
            timer: None,
            armed: 0,
            way: Way::new(first, end),
            step: Step::Enter(first),
            last: None,
        }
    }

    #[inline]
    pub(super) fn poll<C>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        trip: &mut Trip<'_>,
        op: &mut O,
        classify: &C,
    ) -> Poll<Outcome<O>>
    where
        C: Classify<O::Value, O::Error> + ?Sized,
    {
        let mut this = self.project();
        loop {
            // Where the way outwards begins, and with what.
            let (from, ended) = match this.step {
                Step::Attempt => {
                    let Some(leaf) = this.leaf.as_mut().as_pin_mut() else {
                        return Poll::Pending;
                    };
                    trip.time_passed();
                    let polled = match leaf.project() {
                        LeafProjection::Attempt { future } => match future.poll(context) {
                            Poll::Ready(result) => {
                                let verdict = classify.classify(result.as_ref());
                                this.leaf.set(None);
                                // The usual end, without moving the result about.
                                if verdict == Verdict::Success && this.way.succeed(trip) {
                                    *this.step = Step::Over;
                                    trip.verdict = verdict;
                                    return Poll::Ready(result.map_err(Error::Inner));
                                }
                                Poll::Ready((result.map_err(Error::Inner), verdict))
                            }
                            Poll::Pending => Poll::Pending,
                        },
                        LeafProjection::Race { race } => {
                            let outer = trip.outer_end;
                            trip.outer_end = outer.min(this.way.end_of_limits());
                            let polled = race.poll(context, trip, op, classify);
                            trip.outer_end = outer;
                            polled
                        }
                    };
                    match polled {
                        Poll::Ready(ended) => {
                            this.leaf.set(None);
                            (this.way.end(), ended)
                        }
                        Poll::Pending => match due(&mut this.timer, this.armed, this.way, None, trip, context) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Due::Pause) => continue,
                            Poll::Ready(Due::Limit(at)) => {
                                abandon_leaf(&mut this.leaf, &trip.inner.stages);
                                (at, timed_out::<O>(at, this.way, trip))
                            }
                        },
                    }
                }
                Step::Enter(at) => match this.way.inward(*at, trip) {
                    Inward::Attempt => {
                        let end = this.way.end_of_limits().min(trip.outer_end);
                        this.leaf.set(Some(begin(this.way.end(), end, trip, op)));
                        *this.step = Step::Attempt;
                        continue;
                    }
                    Inward::Queue { at, waiting, until } => {
                        *this.step = Step::Queue { at, waiting, until };
                        continue;
                    }
                    Inward::Pause { until, then } => {
                        *this.step = Step::Pause { until, then };
                        continue;
                    }
                    Inward::Refused { at, rejected } => (at, refused::<O>(rejected, trip)),
                },
                Step::Queue { at, waiting, until } => {
                    let (at, until) = (*at, *until);
                    if Pin::new(waiting).poll(context).is_ready() {
                        trip.time_passed();
                        this.way.hold(Held::Place);
                        *this.step = Step::Enter(at + 1);
                        continue;
                    }
                    let Poll::Ready(due) = due(&mut this.timer, this.armed, this.way, until, trip, context) else {
                        return Poll::Pending;
                    };
                    trip.time_passed();
                    // The queue is left by dropping the ticket.
                    *this.step = Step::Attempt;
                    match due {
                        Due::Limit(limit) => (limit, timed_out::<O>(limit, this.way, trip)),
                        Due::Pause => {
                            let rejected = trip.inner.stages[at].refuse(&trip.inner.name);
                            (at, refused::<O>(rejected, trip))
                        }
                    }
                }
                Step::Pause { until, .. } => {
                    let until = Some(*until);
                    let Poll::Ready(due) = due(&mut this.timer, this.armed, this.way, until, trip, context) else {
                        return Poll::Pending;
                    };
                    trip.time_passed();
                    let Step::Pause { then, .. } = std::mem::replace(this.step, Step::Attempt) else {
                        continue;
                    };
                    match (due, then) {
                        (Due::Limit(limit), then) => {
                            then.give_back(&trip.inner.stages);
                            (limit, timed_out::<O>(limit, this.way, trip))
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
                                this.way.hold(if injected.abort { Held::Abort } else { Held::Nothing });
                                *this.step = Step::Enter(at + 1);
                                continue;
                            };
                            (at, (Err(Error::Rejected(faulty(trip))), verdict))
                        }
                    }
                }
                // Polled after its end, as no caller may: there is nothing to wait for.
                Step::Over => return Poll::Pending,
            };
            // What lies further in was cut off.
            if from < this.way.end() {
                this.way.leave_all(from, &trip.inner.stages);
            }
            let mut ended = ended;
            let mut from = from;
            let mut unsettled = None;
            let again = loop {
                match this.way.outward(from, ended.1, trip, &mut unsettled) {
                    Outward::Out => break None,
                    Outward::Again { until, at } => break Some((until, at)),
                    Outward::Refused(at) => {
                        // The last result stands when there cannot be another one.
                        if let Some(last) = this.last.take() {
                            ended = last;
                        }
                        from = at;
                    }
                    #[cfg(feature = "fault-injection")]
                    Outward::Lost(at) => {
                        ended = (Err(Error::Rejected(faulty(trip))), LOST);
                        from = at;
                    }
                }
            };
            if let Some((until, at)) = again {
                *this.last = Some(ended);
                let then = Then::Enter(at);
                *this.step = Step::Pause { until, then };
                continue;
            }
            *this.step = Step::Over;
            if let Some(unsettled) = unsettled {
                hand_over(op, &mut ended, unsettled);
            }
            trip.verdict = ended.1;
            return Poll::Ready(ended.0);
        }
    }

    /// Gives back what is held: for a call that is dropped, or that lost a race.
    #[inline]
    pub(super) fn abandon(self: Pin<&mut Self>, stages: &[Stage]) {
        let mut this = self.project();
        match std::mem::replace(this.step, Step::Over) {
            Step::Over => return,
            Step::Pause { then, .. } => then.give_back(stages),
            Step::Enter(_) | Step::Queue { .. } | Step::Attempt => {}
        }
        abandon_leaf(&mut this.leaf, stages);
        this.way.leave_all(0, stages);
    }
}

#[inline]
fn begin<O: Op>(place: usize, end: u64, trip: &mut Trip<'_>, op: &mut O) -> Leaf<O> {
    if place < trip.inner.stages.len() {
        return Leaf::Race { race: Race::new(place) };
    }
    trip.attempts += 1;
    let attempt = Attempt {
        number: trip.attempts,
        deadline: (end != NEVER).then(|| Deadline::at(trip.moment(end))),
        total: trip.total_end.map(|end| Deadline::at(trip.moment(end))),
    };
    let surroundings = Surroundings {
        deadline: attempt.deadline,
        retried: trip.surroundings.retried || trip.repeats,
    };
    Leaf::Attempt {
        future: deadline::within(surroundings, op.start(attempt)),
    }
}

#[cold]
fn refused<O: Op>(rejected: Rejected, trip: &Trip<'_>) -> Ended<O> {
    trip.inner.rejected(rejected.by);
    (Err(Error::Rejected(rejected)), Verdict::LocalReject)
}

#[cold]
fn timed_out<O: Op>(at: usize, way: &mut Way, trip: &mut Trip<'_>) -> Ended<O> {
    trip.time_passed();
    let (scope, limit) = way.expire(at, &trip.inner.stages);
    trip.inner.timed_out(scope);
    (Err(Error::Timeout { scope, limit }), Verdict::Failure(Kind::Timeout))
}

/// What a call is told that was hit on purpose.
#[cfg(feature = "fault-injection")]
fn faulty(trip: &Trip<'_>) -> Rejected {
    Rejected {
        by: By::Fault,
        name: trip.inner.name.clone(),
        retry_after: None,
    }
}

#[cold]
fn hand_over<O: Op>(op: &mut O, ended: &mut Ended<O>, unsettled: Unsettled) {
    if let Ok(value) = &mut ended.0 {
        op.begun(value, unsettled);
    }
}

/// What the timer was for.
enum Due {
    Pause,
    Limit(usize),
}

/// Waits for whatever comes first of the limits and the end of a pause.
fn due(
    timer: &mut Pin<&mut Option<Sleep>>,
    armed: &mut u64,
    way: &Way,
    pause: Option<u64>,
    trip: &Trip<'_>,
    context: &mut Context<'_>,
) -> Poll<Due> {
    let limit = way.soonest();
    let (until, due) = match (limit, pause) {
        (Some((ends, at)), Some(pause)) if ends <= pause => (ends, Due::Limit(at)),
        (_, Some(pause)) => (pause, Due::Pause),
        (Some((ends, at)), None) => (ends, Due::Limit(at)),
        (None, None) => return Poll::Pending,
    };
    match timer.as_mut().as_pin_mut() {
        None => timer.set(Some(sleep_until(trip.moment(until)))),
        Some(sleep) if *armed != until => sleep.reset(trip.moment(until)),
        Some(_) => {}
    }
    *armed = until;
    match timer.as_mut().as_pin_mut() {
        Some(sleep) => sleep.poll(context).map(|()| due),
        None => Poll::Pending,
    }
}

fn abandon_leaf<O: Op>(leaf: &mut Pin<&mut Option<Leaf<O>>>, stages: &[Stage]) {
    if let Some(leaf) = leaf.as_mut().as_pin_mut() {
        if let LeafProjection::Race { race } = leaf.project() {
            race.abandon(stages);
        }
    }
    leaf.set(None);
}

/// A wait after a moment, in nanoseconds.
pub(super) fn after(now: u64, wait: Duration) -> u64 {
    now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}
