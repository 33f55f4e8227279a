//! The tour's customers: orders at a constant rate from sign-in to the end, and a ledger of every answer. What was lost
//! is counted against this ledger, never against what a service says of itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opsctl_load::{Outcome, Plan, Rate, Request, RequestSource, Silent, Summary, Target};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;

/// Far longer than any tour: the traffic ends when the tour does.
const LONGEST: Duration = Duration::from_mins(30);
/// An order's identifier is at the front of the answer.
const CAPTURED_BYTES: usize = 1024;

/// Running traffic.
#[derive(Debug)]
pub(crate) struct Traffic {
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    engine: JoinHandle<Result<Summary, opsctl_load::LoadError>>,
}

impl Traffic {
    /// Starts to send to `url` (the stable address of `orders`) as the customer with `token`.
    pub(crate) fn start(url: &str, rate: Rate, token: &str) -> Result<Self, Failure> {
        let target: Target = format!("{url}/orders")
            .parse()
            .map_err(|error| could_not_start(&error))?;
        let ledger = Arc::new(Ledger::new());
        let source = Arc::new(Customers {
            ledger: Arc::clone(&ledger),
            authorization: format!("Bearer {token}"),
        });
        let plan = Plan::new(target, rate, LONGEST, source);
        let stop = CancellationToken::new();
        let engine = tokio::spawn(opsctl_load::run(plan, Arc::new(Silent), stop.clone()));
        Ok(Self { ledger, stop, engine })
    }

    /// What was answered so far.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends the traffic and returns the engine's own account of it.
    pub(crate) async fn stop(self) -> Result<Summary, Failure> {
        self.stop.cancel();
        match self.engine.await {
            Ok(summary) => summary.map_err(|error| could_not_start(&error)),
            Err(error) => Err(Failure::bug("the tour's traffic stopped unexpectedly").because(&error)),
        }
    }
}

fn could_not_start(error: &opsctl_load::LoadError) -> Failure {
    Failure::bug("the tour's traffic could not be sent").because(error)
}

/// Every answer of a tour, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Ledger {
    started: Instant,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    samples: Vec<Sample>,
    accepted: Vec<Accepted>,
}

/// One answer, or the lack of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When the request was due, since the traffic began.
    pub(crate) due: Duration,
    /// From due to answered.
    pub(crate) response_time: Duration,
    /// Whether the customer got what was asked for.
    pub(crate) success: bool,
}

/// An order that a customer was promised with a 201.
#[derive(Debug, Clone)]
struct Accepted {
    id: String,
    at: Duration,
}

/// What a span of the tour came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    /// Requests that came due.
    pub(crate) requests: u64,
    /// Those without a good answer.
    pub(crate) errors: u64,
    /// The 95th percentile of the response times.
    pub(crate) p95: Duration,
}

impl Ledger {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            entries: Mutex::default(),
        }
    }

    /// Time since the traffic began: what the spans below are told in.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The answers to requests that were due in `from..to`.
    pub(crate) fn tally(&self, from: Duration, to: Duration) -> Tally {
        let entries = self.lock();
        let span: Vec<&Sample> = entries
            .samples
            .iter()
            .filter(|sample| sample.due >= from && sample.due < to)
            .collect();
        let mut times: Vec<Duration> = span.iter().map(|sample| sample.response_time).collect();
        times.sort_unstable();
        let p95 = times
            .get((times.len() * 95).div_ceil(100).saturating_sub(1))
            .copied()
            .unwrap_or_default();
        Tally {
            requests: span.len() as u64,
            errors: span.iter().filter(|sample| !sample.success).count() as u64,
            p95,
        }
    }

    /// A copy of every answer, for the report's pictures.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.lock().samples.clone()
    }

    /// The identifiers of the orders that were promised in `from..to`.
    pub(crate) fn accepted(&self, from: Duration, to: Duration) -> HashSet<String> {
        let entries = self.lock();
        let span = entries
            .accepted
            .iter()
            .filter(|order| order.at >= from && order.at < to);
        span.map(|order| order.id.clone()).collect()
    }

    /// The moment of the last failure before an unbroken row of `row` successes that began after `since`; that is when
    /// customers were served again. `None` while they are not.
    pub(crate) fn served_again(&self, since: Duration, row: usize) -> Option<Duration> {
        let entries = self.lock();
        let mut after: Vec<&Sample> = entries.samples.iter().filter(|sample| sample.due >= since).collect();
        after.sort_unstable_by_key(|sample| sample.due);
        let mut good = 0;
        let mut first_good = None;
        for sample in after {
            if sample.success {
                good += 1;
                first_good.get_or_insert(sample.due);
                if good >= row {
                    return first_good;
                }
            } else {
                good = 0;
                first_good = None;
            }
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // A panic of another thread leaves whole entries behind, never half of one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every second request places an order, the others look at the latest one.
struct Customers {
    ledger: Arc<Ledger>,
    authorization: String,
}

impl Customers {
    fn build(&self, seq: u64) -> Result<Request, opsctl_load::InvalidRequest> {
        let latest = self.ledger.lock().accepted.last().map(|order| order.id.clone());
        let request = match latest {
            Some(id) if seq % 2 == 1 => Request::get(&format!("/orders/{id}"))?,
            _ => Request::post_json("/orders", order(seq))?,
        };
        request.header("authorization", &self.authorization)
    }
}

fn order(seq: u64) -> String {
    const SKUS: [&str; 3] = ["book", "lamp", "chair"];
    serde_json::json!({
        "items": [{
            "sku": SKUS[seq as usize % SKUS.len()],
            "quantity": 1 + seq % 3,
            "unit_price_cents": 500 + 25 * (seq % 40),
        }],
        "currency": "EUR",
        "address": format!("{} Harbour Street", 1 + seq % 90),
    })
    .to_string()
}

impl RequestSource for Customers {
    fn request(&self, seq: u64) -> Request {
        self.build(seq)
            .expect("paths and headers are made of letters, digits and a token that was just received")
    }

    fn capture_body_bytes(&self) -> usize {
        CAPTURED_BYTES
    }

    fn observe(&self, _seq: u64, outcome: &Outcome<'_>) {
        let now = self.ledger.now();
        let (success, response_time) = match outcome {
            Outcome::Completed(response) => (self.is_success(response.status), response.response_time),
            Outcome::Failed(_) | Outcome::Dropped => (false, Duration::ZERO),
        };
        let mut entries = self.ledger.lock();
        if let Outcome::Completed(response) = outcome
            && response.status == 201
            && let Some(id) = order_id(response.body)
        {
            entries.accepted.push(Accepted { id, at: now });
        }
        entries.samples.push(Sample {
            due: now.saturating_sub(response_time),
            response_time,
            success,
        });
    }
}

/// The `id` of an order document, which may be cut off at its end.
fn order_id(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let rest = text
        .split_once("\"id\"")?
        .1
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    rest.split_once('"').map(|(id, _)| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Sample, order_id};
    use std::time::Duration;

    fn ledger(answers: &[(u64, bool)]) -> Ledger {
        let ledger = Ledger::new();
        for (due, success) in answers {
            ledger.lock().samples.push(Sample {
                due: Duration::from_secs(*due),
                response_time: Duration::from_millis(*due),
                success: *success,
            });
        }
        ledger
    }

    #[tokio::test(start_paused = true)]
    async fn a_span_counts_what_was_due_in_it() {
        let ledger = ledger(&[(1, true), (2, false), (3, true), (9, false)]);
        let tally = ledger.tally(Duration::from_secs(1), Duration::from_secs(4));
        assert_eq!(
            (tally.requests, tally.errors, tally.p95),
            (3, 1, Duration::from_millis(3))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn customers_are_served_again_at_the_first_of_an_unbroken_row() {
        let ledger = ledger(&[(1, false), (2, true), (3, false), (4, true), (5, true)]);
        assert_eq!(
            ledger.served_again(Duration::from_secs(1), 2),
            Some(Duration::from_secs(4))
        );
        assert_eq!(ledger.served_again(Duration::from_secs(1), 3), None);
    }

    #[test]
    fn an_identifier_is_read_from_a_document_that_is_cut_off() {
        assert_eq!(order_id(br#"{"id":"0199-a","status":"pend"#), Some("0199-a".to_owned()));
        assert_eq!(order_id(br#"{"error":"no"}"#), None);
    }
}
