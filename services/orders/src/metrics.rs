//! The service's own metrics, taken from the catalogue. Requests are measured by `telemetry`'s layers, policies by its
//! bridge.

use std::time::Duration;

use telemetry::{Counter, Gauge, Histogram, Metrics};

use crate::domain::{Order, Status};
use crate::saga::{Outcome, Step};
use crate::store::{Backlog, age};

/// Handles of all series. Clones share.
#[derive(Debug, Clone)]
pub struct OrderMetrics {
    registry: Metrics,
    created: Counter,
    replayed: Counter,
    open: Gauge,
    pending: Gauge,
    oldest: Gauge,
    dead: Gauge,
    relayed: [Counter; 2],
    reconciled: [Counter; 2],
    refunds: Counter,
    durations: Vec<(Status, Histogram, Counter)>,
}

impl OrderMetrics {
    /// Registers every series, so that the first increment is seen.
    pub fn new(registry: &Metrics) -> Self {
        let results = |handle| ["ok", "error"].map(|result| registry.counter(handle, [result]));
        for step in ["payment", "delivery", "refund"] {
            for outcome in ["ok", "refused", "retry", "failed"] {
                registry.counter(catalogue::SAGA_STEPS_TOTAL, [step, outcome]);
            }
        }
        let durations = Status::ALL
            .into_iter()
            .filter(|status| status.is_final())
            .map(|status| {
                let word = status.as_str();
                (
                    status,
                    registry.histogram(catalogue::SAGA_DURATION_SECONDS, [word]),
                    registry.counter(catalogue::ORDERS_FINISHED_TOTAL, [word]),
                )
            });
        Self {
            created: registry.counter(catalogue::ORDERS_CREATED_TOTAL, []),
            replayed: registry.counter(catalogue::ORDERS_REPLAYED_TOTAL, []),
            open: registry.gauge(catalogue::ORDERS_OPEN, []),
            pending: registry.gauge(catalogue::OUTBOX_PENDING, []),
            oldest: registry.gauge(catalogue::OUTBOX_OLDEST_AGE_SECONDS, []),
            dead: registry.gauge(catalogue::DEAD_LETTERS, []),
            relayed: results(catalogue::OUTBOX_RELAYED_TOTAL),
            reconciled: results(catalogue::RECONCILIATION_RUNS_TOTAL),
            refunds: registry.counter(catalogue::RECONCILIATION_REFUNDS_TOTAL, []),
            durations: durations.collect(),
            registry: registry.clone(),
        }
    }

    pub(crate) fn created(&self) {
        self.created.inc();
    }

    pub(crate) fn replayed(&self) {
        self.replayed.inc();
    }

    pub(crate) fn step(&self, step: Step, outcome: &Outcome) {
        let step = match step {
            Step::Charge => "payment",
            Step::Deliver => "delivery",
            Step::Refund => "refund",
            Step::Done => return,
        };
        let outcome = match outcome {
            Outcome::Charged { .. } | Outcome::ChargedAndRefunded { .. } | Outcome::Delivered | Outcome::Refunded => {
                "ok"
            }
            Outcome::Declined { .. } | Outcome::Refused { .. } => "refused",
            Outcome::Unknown { .. } => "retry",
            Outcome::Impossible { .. } => "failed",
        };
        self.registry
            .counter(catalogue::SAGA_STEPS_TOTAL, [step, outcome])
            .inc();
    }

    pub(crate) fn finished(&self, order: &Order) {
        if let Some((_, duration, count)) = self.durations.iter().find(|(status, ..)| *status == order.saga.status) {
            duration.observe_duration(age(order.created_at, order.updated_at));
            count.inc();
        }
    }

    pub(crate) fn relayed(&self, ok: u64, failed: u64) {
        self.relayed[0].inc_by(ok);
        self.relayed[1].inc_by(failed);
    }

    pub(crate) fn reconciled(&self, ok: bool, refunds: u64) {
        self.reconciled[usize::from(!ok)].inc();
        self.refunds.inc_by(refunds);
    }

    pub(crate) fn backlog(&self, backlog: Backlog) {
        self.open.set(backlog.open_sagas as f64);
        self.pending.set(backlog.events as f64);
        self.oldest.set(round(backlog.oldest_event));
        self.dead.set(backlog.dead_events as f64);
    }
}

fn round(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}
