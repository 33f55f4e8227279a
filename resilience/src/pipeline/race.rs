//! Hedging: when an attempt is slow, another one runs beside it, and the first good answer wins. Losers are dropped, not
//! detached. Jeffrey Dean and Luiz André Barroso, "The Tail at Scale", 2013.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use super::Op;
use super::stage::Stage;
use super::track::{Ended, Track};
use super::way::Trip;
use crate::hedge::Hedger;
use crate::verdict::{Classify, Verdict};

/// The tracks of one call behind the hedge.
pub(super) struct Race<O: Op> {
    /// Place of the hedge among the stages.
    hedge: usize,
    /// Tracks that run, with the moments at which they began; the first one is the usual attempt.
    tracks: Vec<Running<O>>,
    begun: u32,
    timer: Option<Pin<Box<Sleep>>>,
    /// A failure that stands if nothing better comes.
    failed: Option<Ended<O>>,
}

struct Running<O: Op> {
    number: u32,
    since: u64,
    track: Pin<Box<Track<O>>>,
}

impl<O: Op> Race<O> {
    pub(super) fn new(hedge: usize) -> Self {
        Self {
            hedge,
            tracks: Vec::new(),
            begun: 0,
            timer: None,
            failed: None,
        }
    }

    pub(super) fn poll<C>(
        &mut self,
        context: &mut Context<'_>,
        trip: &mut Trip<'_>,
        op: &mut O,
        classify: &C,
    ) -> Poll<Ended<O>>
    where
        C: Classify<O::Value, O::Error> + ?Sized,
    {
        let inner = trip.inner;
        let Stage::Hedge(hedger) = &inner.stages[self.hedge] else {
            // A race is made for a hedge alone.
            return Poll::Pending;
        };
        if self.begun == 0 {
            self.begin(hedger, trip);
        }
        loop {
            let mut index = 0;
            while index < self.tracks.len() {
                let running = &mut self.tracks[index];
                let Poll::Ready(result) = running.track.as_mut().poll(context, trip, op, classify) else {
                    index += 1;
                    continue;
                };
                let ended = (result, trip.verdict);
                let done = self.tracks.remove(index);
                if matches!(ended.1, Verdict::Success | Verdict::Ignore | Verdict::Begun) {
                    hedger.took(trip.now().saturating_sub(done.since));
                    if done.number > 1 {
                        hedger.won();
                    }
                    self.abandon(&inner.stages);
                    return Poll::Ready(ended);
                }
                // An own refusal says less than the dependency's failure.
                let better = self
                    .failed
                    .as_ref()
                    .is_none_or(|(_, known)| *known == Verdict::LocalReject);
                if better {
                    self.failed = Some(ended);
                }
            }
            if self.tracks.is_empty() {
                return match self.failed.take() {
                    Some(failed) => Poll::Ready(failed),
                    None => Poll::Pending,
                };
            }
            match self.timer.as_mut().map(|timer| timer.as_mut().poll(context)) {
                Some(Poll::Ready(())) => {
                    self.timer = None;
                    trip.time_passed();
                    if !inner.may_hedge() {
                        return Poll::Pending;
                    }
                    hedger.began();
                    self.begin(hedger, trip);
                }
                Some(Poll::Pending) | None => return Poll::Pending,
            }
        }
    }

    fn begin(&mut self, hedger: &Hedger, trip: &mut Trip<'_>) {
        self.begun += 1;
        let since = trip.now();
        self.tracks.push(Running {
            number: self.begun,
            since,
            track: Box::pin(Track::new(self.hedge + 1, trip.inner.stages.len())),
        });
        self.timer = hedger
            .delay(self.begun)
            .map(|delay| Box::pin(sleep_until(trip.moment(since) + delay)));
    }

    pub(super) fn abandon(&mut self, stages: &[Stage]) {
        // The latest first: of those that wait for a rate limit only the last in line can give its slot back.
        for running in self.tracks.iter_mut().rev() {
            running.track.as_mut().abandon(stages);
        }
        self.tracks.clear();
    }
}
