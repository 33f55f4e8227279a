//! The loop that gives events their effect: at once when this instance accepted one, within half a second when another
//! instance did and died. What an effect is, and that there is only one, is the store's matter.

use std::sync::Arc;
use std::time::Duration;

use chassis::Fault;
use health::Heartbeat;
use jiff::Timestamp;
use rand::Rng as _;
use telemetry::{Metrics, catalogue};
use tokio::sync::Notify;

use crate::event::{Event, Failure, Handler, Retry, Texts};
use crate::store::Store;

/// How often events of other instances are looked for.
const POLL: Duration = Duration::from_millis(500);
/// Events per round: bounds how long one transaction lasts.
const BATCH: usize = 100;
/// Without a finished round for so long, only a restart helps.
pub const STUCK: Duration = Duration::from_mins(1);

/// Tells the worker that an event is there. Clones ring the same bell.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Wakes the worker, now or when it next listens.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// A handler that fails as often as it is told, so that retries and dead letters can be seen.
#[derive(Debug, Clone, Copy)]
pub struct Faulty {
    /// Share of attempts that fail; its latency is not used.
    pub fault: Fault,
}

impl Handler for Faulty {
    fn handle(&self, event: &Event) -> Result<String, Failure> {
        if self.fault.errors > 0.0 && rand::rng().random_bool(self.fault.errors) {
            return Err(Failure::Passing(
                "this build was started with --channel-fault".to_owned(),
            ));
        }
        Texts.handle(event)
    }
}

/// Runs until it is dropped: an attempt that was begun is finished by the store, all others wait for the next process.
pub async fn run(
    store: Arc<dyn Store>,
    handler: Arc<dyn Handler>,
    retry: Retry,
    bell: Bell,
    heartbeat: Heartbeat,
    metrics: Metrics,
) {
    for outcome in ["sent", "retry", "dead"] {
        metrics.counter(catalogue::NOTIFICATIONS_SENT_TOTAL, [outcome]);
    }
    loop {
        let now = chassis::now();
        let next_due = match store.process(BATCH, Arc::clone(&handler), retry, now).await {
            Ok(processed) => {
                heartbeat.beat();
                for (outcome, count) in [
                    ("sent", processed.sent),
                    ("retry", processed.retried),
                    ("dead", processed.dead),
                ] {
                    metrics
                        .counter(catalogue::NOTIFICATIONS_SENT_TOTAL, [outcome])
                        .inc_by(count as u64);
                }
                if processed.dead > 0 {
                    tracing::warn!(count = processed.dead, "events became dead letters");
                }
                processed.next_due
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "events cannot be processed");
                None
            }
        };
        tokio::select! {
            () = bell.0.notified() => {}
            () = tokio::time::sleep(pause(next_due, now)) => {}
        }
    }
}

/// How long to wait for the next round when nobody rings.
fn pause(next_due: Option<Timestamp>, now: Timestamp) -> Duration {
    next_due
        .map_or(POLL, |due| {
            Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO)
        })
        .min(POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_ends_when_something_is_due_or_may_have_come() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (due_ms, pause_ms) in [
            (None, 500),
            (Some(-5), 0),
            (Some(0), 0),
            (Some(200), 200),
            (Some(60_000), 500),
        ] {
            let due = due_ms.map(|ms| now + jiff::SignedDuration::from_millis(ms));
            assert_eq!(pause(due, now), Duration::from_millis(pause_ms), "{due_ms:?}");
        }
    }
}
