//! The thread that delivers: takes lines, pushes them, waits as an answer asks for, and settles every line in the
//! account. Callers are never held up by it. What an answer means is decided in [`parcel`](super::parcel).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::cause;
use super::client::{Answer, Client};
use super::entry::{Entry, Stamps};
use super::parcel::Parcel;
use super::wire::Encoder;
use crate::log::waiting::{LineLane, Lines};
use crate::metrics::Histogram;
use crate::sink::account::Fate;
use crate::sink::queue::{BatchLimits, Queue, Severity};
use crate::sink::retry::{Backoff, Verdict};

/// Longest wait between attempts once the service ends.
const LONGEST_AT_THE_END: Duration = Duration::from_millis(500);

/// Tells a person, beside Loki.
pub(crate) use crate::sink::Alarm;

/// Waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The first after a failure, at most.
    pub(crate) first: Duration,
    /// Each, at most.
    pub(crate) longest: Duration,
    /// While Loki cannot be used as it is set up.
    pub(crate) closed: Duration,
}

/// Pushes parcels until everything in them is settled.
pub(crate) struct Courier {
    pub(crate) client: Client,
    pub(crate) encoder: Encoder,
    pub(crate) waits: Waits,
    pub(crate) alarm: Alarm,
    /// Gets the time of each push.
    pub(crate) took: Option<Histogram>,
    /// Set once: when the time of the shutdown is over.
    pub(crate) end: watch::Receiver<Option<Instant>>,
    pub(crate) backoff: Backoff,
    /// The alarm was given and its cause is not over.
    pub(crate) alarmed: bool,
    /// The longest line that Loki takes, once it has said it. Bytes.
    pub(crate) longest: Option<usize>,
    /// At the end, whether lines are tried again as long as there is time: they are lost otherwise.
    pub(crate) insists: bool,
}

/// Takes lines from the queue and delivers them, until it is closed and empty or the time is over.
pub(crate) async fn run(queue: Arc<Queue<LineLane>>, limits: BatchLimits, mut courier: Courier) {
    let mut stamps = Stamps::default();
    let mut lines = Lines::default();
    while queue.take_async(limits, &mut lines).await {
        let mut entries = Entry::all_of(&mut lines);
        stamps.apply(&mut entries);
        let mut parcel = Parcel::new(entries, courier.longest);
        let settle = |count, fate| {
            queue.settle(count, fate);
        };
        if !courier.deliver(&mut parcel, &settle).await {
            parcel.give_up(&settle);
            return;
        }
    }
}

impl Courier {
    /// Pushes until everything is settled; `false` when the time was over before.
    pub(crate) async fn deliver(&mut self, parcel: &mut Parcel, settle: &dyn Fn(u64, Fate)) -> bool {
        while let Some(part) = parcel.next() {
            if self.end.borrow().is_some_and(|end| Instant::now() >= end) {
                return false;
            }
            let body = self.encoder.encode(part);
            let began = Instant::now();
            let answer = tokio::select! {
                answer = self.client.push(body) => answer,
                () = time_is_over(self.end.clone()) => {
                    parcel.not_answered();
                    return false;
                }
            };
            if let Some(took) = &self.took {
                took.observe_duration(began.elapsed());
            }
            let wait = match answer {
                Answer::Unreachable => self.failed(None),
                Answer::None => {
                    parcel.not_answered();
                    self.failed(None)
                }
                Answer::Given { verdict, status, text } => match verdict {
                    Verdict::Later { after } => self.failed(after),
                    Verdict::Closed => self.closed(status, &text),
                    Verdict::Bad if cause::wants_no_metadata(&text) && self.encoder.leave_out_metadata() => {
                        (self.alarm)(
                            Severity::Warn,
                            "Loki takes no structured metadata; lines are sent without it",
                        );
                        continue;
                    }
                    Verdict::Bad if cause::blames_the_settings(&text) => self.closed(status, &text),
                    _ => {
                        let settled = parcel.answered(verdict, &text);
                        settle(settled.delivered, Fate::Delivered);
                        for (count, reason) in settled.rejected {
                            settle(count, Fate::Rejected(reason));
                        }
                        self.longest = parcel.longest();
                        self.went_through();
                        continue;
                    }
                },
            };
            if !self.pause(wait).await {
                return false;
            }
        }
        true
    }

    fn went_through(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.alarmed) {
            (self.alarm)(Severity::Info, "Loki takes lines again");
        }
    }

    fn failed(&mut self, after: Option<Duration>) -> Duration {
        self.backoff.next(after, fastrand::f64())
    }

    /// Loki cannot be used as it is set up. Lines are kept, and a person is told once.
    fn closed(&mut self, status: u16, text: &str) -> Duration {
        if !std::mem::replace(&mut self.alarmed, true) {
            let text = crate::redact::limited(text.trim(), 200);
            let line = format!("Loki refuses every push with status {status}; lines are kept and sent later: {text}");
            (self.alarm)(Severity::Error, &line);
        }
        self.waits.closed.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Waits for more lines, but not when the service ends.
    pub(crate) async fn linger(&mut self, linger: Duration) {
        let mut end = self.end.clone();
        let ends = end.wait_for(Option::is_some);
        let _ = tokio::time::timeout(linger, ends).await;
    }

    /// Waits; `false` when there is no other attempt after it.
    async fn pause(&mut self, wait: Duration) -> bool {
        if self.end.borrow_and_update().is_none() {
            tokio::select! {
                () = tokio::time::sleep(wait) => return true,
                _ = self.end.changed() => {}
            }
            // The service ends: one attempt at once, then soon again.
            self.backoff = Backoff::new(self.waits.first.min(LONGEST_AT_THE_END), LONGEST_AT_THE_END);
            return true;
        }
        if !self.insists {
            return false;
        }
        let Some(end) = *self.end.borrow() else { return true };
        let next = Instant::now() + wait;
        if next >= end {
            return false;
        }
        tokio::time::sleep_until(next).await;
        true
    }
}

/// Ends a little before the time of the shutdown is over, so that what is left can be counted within it.
pub(crate) async fn time_is_over(mut end: watch::Receiver<Option<Instant>>) {
    let Ok(end) = end.wait_for(Option::is_some).await.map(|end| *end) else {
        // Nobody can end it any more: the sink itself is gone.
        return std::future::pending().await;
    };
    if let Some(end) = end {
        tokio::time::sleep_until(end).await;
    }
}
