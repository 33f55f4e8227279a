//! The saga of one order as a pure state machine: order -> payment -> delivery, with refund and cancel as
//! compensations (Garcia-Molina and Salem, "Sagas", 1987). It decides what is done next and which events follow; who
//! runs it, and where it is recorded, is not decided here.
//!
//! Invariants, whatever the order of crashes, duplicates and timeouts:
//! - a charge whose outcome is unknown is asked for again under the same key, never given up;
//! - an order is final only when it was delivered and charged, or its charge was refunded, or it never had a charge;
//! - an accepted cancel ends in `cancelled` or `refunded`, never in `delivered`.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{EventKind, Status, UnknownWord};

/// Where one order's saga stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// What is to be done, or is being done.
    pub step: Step,
    /// What others see.
    pub status: Status,
    /// How often the step was begun.
    pub attempts: u32,
    /// The customer wants out.
    pub cancel_requested: bool,
    /// Payments' name for the charge, once known.
    pub charge_id: Option<String>,
    /// Why it ended other than delivered, or will.
    pub reason: Option<Reason>,
    /// More about the reason or about the last failed attempt: for people.
    pub detail: Option<String>,
}

/// Why an order was not delivered: words for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its customer cancelled it.
    CancelledByCustomer,
    /// Payments said no.
    PaymentDeclined,
    /// Payments cannot carry out such a charge or refund.
    PaymentImpossible,
    /// Delivery said no.
    DeliveryRefused,
    /// Its charge had been refunded in an earlier life of the order, before a restore.
    RefundedBefore,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Take the money.
    Charge,
    /// Send the goods.
    Deliver,
    /// Give the money back.
    Refund,
    /// Nothing: the status is final.
    Done,
}

/// What came of a step, or what a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The money was taken, now or by an earlier attempt.
    Charged {
        /// Payments' name for the charge.
        charge_id: String,
    },
    /// The charge exists and was given back already (an earlier life of this order, before a restore).
    ChargedAndRefunded {
        /// Payments' name for the charge.
        charge_id: String,
    },
    /// Payments said no. Nothing was taken.
    Declined {
        /// Payments' reason.
        reason: String,
    },
    /// Payments will never be able to. Nothing was taken.
    Impossible {
        /// Payments' reason.
        reason: String,
    },
    /// The goods are on their way.
    Delivered,
    /// Delivery said no.
    Refused {
        /// Delivery's reason.
        reason: String,
    },
    /// The money was given back, now or by an earlier attempt.
    Refunded,
    /// Nobody knows what came of the attempt: timeout, lost connection, crash.
    Unknown {
        /// What was seen.
        reason: String,
    },
}

/// What an outcome led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The saga afterwards.
    pub saga: Saga,
    /// What others are told, in this order.
    pub events: Vec<EventKind>,
    /// What follows.
    pub next: Next,
}

/// What follows an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The saga's step is to be run at once.
    Run,
    /// The step is to be tried again later.
    Retry,
    /// The status is final.
    Finished,
}

impl Default for Saga {
    fn default() -> Self {
        Self {
            step: Step::Charge,
            status: Status::Pending,
            attempts: 0,
            cancel_requested: false,
            charge_id: None,
            reason: None,
            detail: None,
        }
    }
}

impl Saga {
    /// The saga as it is recorded before its step is run (once more).
    #[must_use]
    pub fn begin(mut self) -> Self {
        if self.step == Step::Deliver && self.cancel_requested {
            self.enter(Step::Refund);
        }
        if self.step != Step::Done {
            self.attempts += 1;
        }
        self
    }

    /// The saga after `outcome` of `step`. `None`: the outcome belongs to a step that is over; it changes nothing.
    pub fn after(&self, step: Step, outcome: &Outcome) -> Option<Change> {
        if self.step != step || step == Step::Done {
            return None;
        }
        let mut saga = self.clone();
        let (events, next) = match (step, outcome) {
            (_, Outcome::Unknown { reason }) => {
                if saga.reason.is_none() {
                    saga.detail = Some(reason.clone());
                }
                (vec![], Next::Retry)
            }
            (Step::Charge, Outcome::Charged { charge_id }) => {
                saga.charge_id = Some(charge_id.clone());
                saga.status = Status::Paid;
                saga.detail = None;
                saga.enter(if saga.cancel_requested {
                    Step::Refund
                } else {
                    Step::Deliver
                });
                (vec![EventKind::Paid], Next::Run)
            }
            (Step::Charge, Outcome::ChargedAndRefunded { charge_id }) => {
                saga.charge_id = Some(charge_id.clone());
                saga.finish(Status::Refunded, Some((Reason::RefundedBefore, None)));
                (vec![EventKind::Paid, EventKind::Refunded], Next::Finished)
            }
            (Step::Charge, Outcome::Declined { reason }) => {
                saga.finish(Status::Cancelled, Some((Reason::PaymentDeclined, Some(reason.clone()))));
                (vec![EventKind::Cancelled], Next::Finished)
            }
            (Step::Charge, Outcome::Impossible { reason }) => {
                saga.finish(Status::Failed, Some((Reason::PaymentImpossible, Some(reason.clone()))));
                (vec![EventKind::Cancelled], Next::Finished)
            }
            (Step::Deliver, Outcome::Delivered) if saga.cancel_requested => {
                saga.enter(Step::Refund);
                (vec![], Next::Run)
            }
            (Step::Deliver, Outcome::Delivered) => {
                saga.finish(Status::Delivered, None);
                (vec![EventKind::Delivered], Next::Finished)
            }
            (Step::Deliver, Outcome::Refused { reason }) => {
                saga.reason = Some(Reason::DeliveryRefused);
                saga.detail = Some(reason.clone());
                saga.enter(Step::Refund);
                (vec![], Next::Run)
            }
            (Step::Refund, Outcome::Refunded) => {
                let why = match saga.reason {
                    Some(Reason::DeliveryRefused) => (Reason::DeliveryRefused, saga.detail.take()),
                    _ => (Reason::CancelledByCustomer, None),
                };
                saga.finish(Status::Refunded, Some(why));
                (vec![EventKind::Refunded], Next::Finished)
            }
            (Step::Refund, Outcome::Impossible { reason }) => {
                // Payments does not know the charge (its own store went back in time): nothing is charged.
                saga.finish(Status::Failed, Some((Reason::PaymentImpossible, Some(reason.clone()))));
                (vec![EventKind::Cancelled], Next::Finished)
            }
            _ => return None,
        };
        Some(Change { saga, events, next })
    }

    /// The saga after its customer asked to cancel.
    pub fn cancel(&self) -> Cancel {
        match self.status {
            Status::Cancelled | Status::Refunded => Cancel::Already,
            Status::Delivered | Status::Failed => Cancel::TooLate,
            Status::Pending | Status::Paid if self.cancel_requested => Cancel::Already,
            Status::Pending | Status::Paid => {
                let mut saga = self.clone();
                saga.cancel_requested = true;
                if saga.step == Step::Charge && saga.attempts == 0 {
                    // Nobody ever asked for the money, and nobody will.
                    saga.finish(Status::Cancelled, Some((Reason::CancelledByCustomer, None)));
                    Cancel::Accepted(Change {
                        saga,
                        events: vec![EventKind::Cancelled],
                        next: Next::Finished,
                    })
                } else {
                    Cancel::Accepted(Change {
                        saga,
                        events: vec![],
                        next: Next::Run,
                    })
                }
            }
        }
    }

    fn enter(&mut self, step: Step) {
        self.step = step;
        self.attempts = 0;
    }

    fn finish(&mut self, status: Status, why: Option<(Reason, Option<String>)>) {
        self.enter(Step::Done);
        self.status = status;
        (self.reason, self.detail) = why.map_or((None, None), |(reason, detail)| (Some(reason), detail));
    }
}

/// What came of the wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// It will be cancelled or refunded.
    Accepted(Change),
    /// It was, or will be, already.
    Already,
    /// It was delivered, or failed.
    TooLate,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Charge, Self::Deliver, Self::Refund, Self::Done];

    /// As in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Deliver => "deliver",
            Self::Refund => "refund",
            Self::Done => "done",
        }
    }
}

impl FromStr for Step {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CancelledByCustomer,
        Self::PaymentDeclined,
        Self::PaymentImpossible,
        Self::DeliveryRefused,
        Self::RefundedBefore,
    ];

    /// As in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CancelledByCustomer => "cancelled_by_customer",
            Self::PaymentDeclined => "payment_declined",
            Self::PaymentImpossible => "payment_impossible",
            Self::DeliveryRefused => "delivery_refused",
            Self::RefundedBefore => "refunded_before",
        }
    }
}

impl FromStr for Reason {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl Outcome {
    /// As in the step log and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Charged { .. } => "charged",
            Self::ChargedAndRefunded { .. } => "charged_and_refunded",
            Self::Declined { .. } => "declined",
            Self::Impossible { .. } => "impossible",
            Self::Delivered => "delivered",
            Self::Refused { .. } => "refused",
            Self::Refunded => "refunded",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// How long to wait after the `attempts`-th unknown outcome: 200 ms doubled each time up to 30 s, of which the upper
/// half is chance. `luck` is in 0..1.
pub fn backoff(attempts: u32, luck: f64) -> Duration {
    let full = Duration::from_millis(200).saturating_mul(1 << attempts.saturating_sub(1).min(10));
    full.min(Duration::from_secs(30))
        .mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(saga: Saga, outcome: &Outcome) -> Change {
        let saga = saga.begin();
        let step = saga.step;
        saga.after(step, outcome).expect("the outcome fits the step")
    }

    fn charged() -> Outcome {
        Outcome::Charged { charge_id: "c1".into() }
    }

    #[test]
    fn the_good_way() {
        let paid = run(Saga::default(), &charged());
        assert_eq!(
            (paid.saga.status, paid.saga.step, paid.next),
            (Status::Paid, Step::Deliver, Next::Run)
        );
        let done = run(paid.saga, &Outcome::Delivered);
        assert_eq!((done.saga.status, done.next), (Status::Delivered, Next::Finished));
        assert_eq!(done.events, [EventKind::Delivered]);
    }

    #[test]
    fn a_decline_cancels_without_charge() {
        let done = run(
            Saga::default(),
            &Outcome::Declined {
                reason: "over the limit".into(),
            },
        );
        assert_eq!((done.saga.status, done.saga.charge_id), (Status::Cancelled, None));
        assert_eq!(done.events, [EventKind::Cancelled]);
    }

    #[test]
    fn a_refused_delivery_is_refunded_with_its_reason() {
        let paid = run(Saga::default(), &charged());
        let refused = run(
            paid.saga,
            &Outcome::Refused {
                reason: "no such place".into(),
            },
        );
        assert_eq!((refused.saga.step, refused.next), (Step::Refund, Next::Run));
        let done = run(refused.saga, &Outcome::Refunded);
        assert_eq!(
            (done.saga.status, done.saga.reason),
            (Status::Refunded, Some(Reason::DeliveryRefused))
        );
        assert_eq!(done.saga.detail.as_deref(), Some("no such place"));
    }

    #[test]
    fn an_unknown_outcome_stays_in_its_step() {
        let saga = run(
            Saga::default(),
            &Outcome::Unknown {
                reason: "timeout".into(),
            },
        );
        assert_eq!(
            (saga.saga.step, saga.next, saga.saga.attempts),
            (Step::Charge, Next::Retry, 1)
        );
    }

    #[test]
    fn a_cancel_before_the_first_attempt_never_charges() {
        let Cancel::Accepted(change) = Saga::default().cancel() else {
            panic!("accepted")
        };
        assert_eq!((change.saga.status, change.next), (Status::Cancelled, Next::Finished));
    }

    #[test]
    fn a_cancel_while_charging_is_refunded() {
        let Cancel::Accepted(change) = Saga::default().begin().cancel() else {
            panic!("accepted")
        };
        assert_eq!(change.saga.status, Status::Pending);
        let paid = change.saga.after(Step::Charge, &charged()).unwrap();
        assert_eq!(paid.saga.step, Step::Refund);
        assert_eq!(run(paid.saga, &Outcome::Refunded).saga.status, Status::Refunded);
    }

    #[test]
    fn a_cancel_while_delivering_is_refunded() {
        let delivering = run(Saga::default(), &charged()).saga.begin();
        let Cancel::Accepted(change) = delivering.cancel() else {
            panic!("accepted")
        };
        let after = change.saga.after(Step::Deliver, &Outcome::Delivered).unwrap();
        assert_eq!((after.saga.step, after.saga.status), (Step::Refund, Status::Paid));
        // Also when the instance that was delivering died: the next attempt refunds.
        assert_eq!(change.saga.begin().step, Step::Refund);
    }

    #[test]
    fn what_is_final_stays() {
        let done = run(run(Saga::default(), &charged()).saga, &Outcome::Delivered).saga;
        assert_eq!(done.cancel(), Cancel::TooLate);
        assert!(Step::ALL.into_iter().all(|step| done.after(step, &charged()).is_none()));
    }

    #[test]
    fn backoff_rises_to_its_cap() {
        assert_eq!(backoff(1, 1.0), Duration::from_millis(200));
        assert_eq!(backoff(2, 0.0), Duration::from_millis(200));
        assert_eq!(backoff(40, 1.0), Duration::from_secs(30));
    }
}
