//! Spans to a collector: a queue bounded by bytes, and a thread of its own that sends batches and tries again what may be
//! tried again. Every span ends as delivered, rejected or dropped; one that was sent without an answer is not delivered.

#[cfg(feature = "opentelemetry-otlp")]
mod theirs;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::time::Instant;

use crate::InitError;
use crate::otlp::{self, Answer, Client, Target, Transport};
use crate::report::{DropReason, RejectReason};
use crate::sink::account::Fate;
use crate::sink::queue::{BatchLimits, Queue, QueueLimits, Severity};
use crate::sink::retry::Backoff;
use crate::sink::{Alarm, thread};
use crate::trace::finished::{Finished, Spans, request};

/// First and longest wait before a batch is sent again.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a person is left alone with the next trouble after one was told.
const QUIET: Duration = Duration::from_secs(10);

/// Starts the exporter's thread and gives the queue before it. The collector need not be there.
pub(crate) fn start(
    target: Target,
    resource: Resource,
    queue: QueueLimits,
    batch: BatchLimits,
    alarm: Alarm,
) -> Result<Arc<Queue<Spans>>, InitError> {
    let queue = Queue::new("otlp_traces", queue, None);
    let of_thread = Arc::clone(&queue);
    // What is wrong is told at once, and not by a thread that ends.
    otlp::probe(|| Wire::new(&target, &resource))?;
    let run = move || async move {
        if let Ok(wire) = Wire::new(&target, &resource) {
            let sender = Sender {
                wire,
                resource,
                queue: of_thread,
                alarm,
                told: RefCell::default(),
            };
            sender.run(batch).await;
        }
    };
    thread::spawn("telemetry-otlp", run).map_err(|source| InitError::Thread { source })?;
    Ok(queue)
}

/// What speaks with the collector.
enum Wire {
    Ours(Box<Transport>),
    #[cfg(feature = "opentelemetry-otlp")]
    Theirs(Box<theirs::Theirs>),
}

impl Wire {
    fn new(target: &Target, resource: &Resource) -> Result<Self, InitError> {
        match target.client {
            Client::Own => Ok(Self::Ours(Box::new(Transport::new(target)?))),
            #[cfg(feature = "opentelemetry-otlp")]
            Client::OpentelemetryOtlp => Ok(Self::Theirs(Box::new(theirs::Theirs::new(target, resource)?))),
            #[cfg(not(feature = "opentelemetry-otlp"))]
            Client::OpentelemetryOtlp => {
                let _ = resource;
                let expected = "own: telemetry is built without its feature opentelemetry-otlp";
                Err(InitError::setting(
                    "telemetry.otlp.client",
                    "opentelemetry-otlp",
                    expected,
                ))
            }
        }
    }
}

struct Sender {
    wire: Wire,
    resource: Resource,
    queue: Arc<Queue<Spans>>,
    alarm: Alarm,
    /// The trouble that was told last, if it lasts, and when.
    told: RefCell<Option<(String, Instant)>>,
}

impl Sender {
    async fn run(&self, limits: BatchLimits) {
        let mut batch = Vec::new();
        while self.queue.take_async(limits, &mut batch).await {
            match &self.wire {
                Wire::Ours(transport) => self.deliver(transport, &batch).await,
                #[cfg(feature = "opentelemetry-otlp")]
                Wire::Theirs(theirs) => {
                    let fate = theirs.send(&batch, self.queue.deadline()).await;
                    self.queue.settle(batch.len() as u64, fate);
                }
            }
            batch.clear();
        }
    }

    /// Sends a batch until it is settled. Parts of it, where the collector finds it too large.
    async fn deliver(&self, transport: &Transport, batch: &[Finished]) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.persist(transport, part).await {
                Verdict::Settled => {}
                Verdict::TooLarge if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Verdict::TooLarge => {
                    self.queue.settle(1, Fate::Rejected(RejectReason::TooLarge));
                }
            }
        }
    }

    /// Sends one request again and again, as long as the collector is not there or has no room: the queue in front
    /// bounds what that costs. At the end of the shutdown's time the queue's seal settles what is in our hands.
    async fn persist(&self, transport: &Transport, part: &[Finished]) -> Verdict {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let message = request(&self.resource, part);
        let all = part.len() as u64;
        loop {
            let deadline = self.queue.deadline();
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // It was tried and is lost: the collector could not be reached in time.
                self.queue.settle(all, Fate::Dropped(DropReason::Unreachable));
                return Verdict::Settled;
            }
            match transport.send(message.clone(), deadline).await {
                Answer::Taken { rejected, why } => {
                    let rejected = rejected.min(all);
                    self.note((rejected > 0).then_some(why));
                    self.queue.settle(rejected, Fate::Rejected(RejectReason::Partial));
                    self.queue.settle(all - rejected, Fate::Delivered);
                    return Verdict::Settled;
                }
                Answer::Refused { reason, why } => {
                    self.note(Some(why));
                    self.queue.settle(all, Fate::Rejected(reason));
                    return Verdict::Settled;
                }
                Answer::TooLarge => return Verdict::TooLarge,
                Answer::Later { after, why } => {
                    self.note(Some(why));
                    self.pause(backoff.next(after, fastrand::f64())).await;
                }
            }
        }
    }

    /// Tells a person why spans are not taken, and once that they are again.
    fn note(&self, trouble: Option<String>) {
        let mut told = self.told.borrow_mut();
        let Some(why) = trouble else {
            if told.take().is_some() {
                (self.alarm)(Severity::Info, "the collector takes spans again");
            }
            return;
        };
        let now = Instant::now();
        let known = |(before, at): &(String, Instant)| *before == why || now.duration_since(*at) < QUIET;
        if !told.as_ref().is_some_and(known) {
            (self.alarm)(Severity::Warn, &format!("the collector does not take spans: {why}"));
            *told = Some((why, now));
        }
    }

    /// Waits, but not beyond the end of the shutdown's time, which may come meanwhile.
    async fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let step = Duration::from_millis(50);
        loop {
            let now = Instant::now();
            let end = self.queue.deadline().map_or(until, |deadline| deadline.min(until));
            if now >= end {
                return;
            }
            tokio::time::sleep((end - now).min(step)).await;
        }
    }
}

enum Verdict {
    Settled,
    TooLarge,
}
