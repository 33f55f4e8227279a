//! The saga against a model of the world: whatever the order of crashes, lost and repeated calls, lost leases and
//! cancels, every order ends, and was charged exactly once, or refunded, or never charged.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use orders::domain::{EventKind, Item, NewOrder, Order, OrderId, Status};
use orders::saga::{Outcome, Step};
use orders::store::memory::MemoryStore;
use orders::store::{Cancelled, Claimed, Create, Created, Fate, Lease, Recorded, Settled, Store};
use proptest::prelude::*;

/// What the world does with one order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Good,
    Declined,
    Undeliverable,
}

/// How a worker's attempt goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Called, answered, recorded.
    Clean,
    /// The call never arrived; the worker sees a timeout.
    LostRequest,
    /// The call took effect; the worker sees a timeout.
    LostAnswer,
    /// The worker dies before it calls.
    DiesBefore,
    /// The worker dies after the call took effect.
    DiesAfter,
    /// The call arrives twice.
    Twice,
    /// The call took effect, and the worker sleeps with the outcome in its hands.
    Sleeps,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Claim { worker: usize },
    Attempt { worker: usize, way: Way },
    Wake { worker: usize },
    Cancel { order: usize },
    Advance { seconds: i64 },
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Clean),
        1 => Just(Way::LostRequest),
        1 => Just(Way::LostAnswer),
        1 => Just(Way::DiesBefore),
        1 => Just(Way::DiesAfter),
        1 => Just(Way::Twice),
        1 => Just(Way::Sleeps),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3_usize).prop_map(|worker| Op::Claim { worker }),
        6 => (0..3_usize, way()).prop_map(|(worker, way)| Op::Attempt { worker, way }),
        1 => (0..3_usize).prop_map(|worker| Op::Wake { worker }),
        1 => (0..3_usize).prop_map(|order| Op::Cancel { order }),
        3 => (1..15_i64).prop_map(|seconds| Op::Advance { seconds }),
    ]
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![Just(Nature::Good), Just(Nature::Declined), Just(Nature::Undeliverable)]
}

/// The model of payments: one charge a key, one refund a charge, as its contract says.
#[derive(Default)]
struct Payments {
    /// By idempotency key: the order, and the charge's name or a decline.
    answers: HashMap<String, (OrderId, Option<String>)>,
    refunded: HashSet<String>,
}

impl Payments {
    fn charge(&mut self, order: OrderId, nature: Nature) -> Outcome {
        let number = self.answers.len();
        let (_, answer) = self
            .answers
            .entry(order.charge_key())
            .or_insert_with(|| (order, (nature != Nature::Declined).then(|| format!("charge-{number}"))));
        match answer {
            Some(charge) if self.refunded.contains(charge) => Outcome::ChargedAndRefunded {
                charge_id: charge.clone(),
            },
            Some(charge) => Outcome::Charged {
                charge_id: charge.clone(),
            },
            None => Outcome::Declined {
                reason: "over_limit".into(),
            },
        }
    }

    fn refund(&mut self, charge: &str) -> Outcome {
        self.refunded.insert(charge.to_owned());
        Outcome::Refunded
    }

    fn charges_of(&self, order: OrderId) -> Vec<&String> {
        self.answers
            .values()
            .filter(|(of, _)| *of == order)
            .filter_map(|(_, charge)| charge.as_ref())
            .collect()
    }
}

#[derive(Default)]
struct Worker {
    claims: Vec<Claimed>,
    asleep: Vec<(Claimed, Outcome)>,
}

struct World {
    store: MemoryStore,
    payments: Payments,
    natures: HashMap<OrderId, Nature>,
    ids: Vec<OrderId>,
    workers: [Worker; 3],
    seconds: i64,
    cancelled: HashSet<OrderId>,
}

const TTL: Duration = Duration::from_secs(10);

impl World {
    async fn new(natures: &[Nature]) -> Self {
        let mut world = Self {
            store: MemoryStore::new(),
            payments: Payments::default(),
            natures: HashMap::new(),
            ids: Vec::new(),
            workers: Default::default(),
            seconds: 0,
            cancelled: HashSet::new(),
        };
        for nature in natures {
            let create = Create {
                id: OrderId::fresh(),
                customer: "ann".into(),
                order: NewOrder {
                    items: vec![Item {
                        sku: "book".into(),
                        quantity: 1,
                        unit_price_cents: 100,
                    }],
                    currency: "EUR".into(),
                    address: "here".into(),
                    total_cents: 100,
                },
                idempotency_key: None,
                now: world.now(),
                lease: None,
                origin: orders::origin::Origin::default(),
            };
            let Created::New(order, _) = world.store.create(create).await.unwrap() else {
                panic!("new")
            };
            world.natures.insert(order.id, *nature);
            world.ids.push(order.id);
        }
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.seconds).unwrap()
    }

    fn lease(&self, worker: usize) -> Lease {
        Lease {
            owner: format!("worker-{worker}"),
            now: self.now(),
            ttl: TTL,
        }
    }

    fn effect(&mut self, order: &Order, step: Step) -> Outcome {
        let nature = self.natures[&order.id];
        match step {
            Step::Charge => self.payments.charge(order.id, nature),
            Step::Deliver if nature == Nature::Undeliverable => Outcome::Refused {
                reason: "no way".into(),
            },
            Step::Deliver => Outcome::Delivered,
            Step::Refund => self
                .payments
                .refund(order.saga.charge_id.as_ref().expect("refunds follow charges")),
            Step::Done => panic!("nothing is done after the end"),
        }
    }

    async fn claim(&mut self, worker: usize) {
        let claimed = self.store.claim_sagas(self.lease(worker), 2).await.unwrap();
        self.workers[worker].claims.extend(claimed);
    }

    async fn record(&mut self, worker: usize, claimed: Claimed, outcome: Outcome) {
        let lease = self.lease(worker);
        let recorded = self
            .store
            .record(claimed.claim, outcome, lease, Duration::from_secs(2))
            .await
            .unwrap();
        if let Recorded::Continue(next) = recorded {
            self.workers[worker].claims.push(*next);
        }
    }

    async fn attempt(&mut self, worker: usize, way: Way) {
        let Some(claimed) = self.workers[worker].claims.pop() else {
            return;
        };
        let step = claimed.claim.step;
        let timeout = Outcome::Unknown {
            reason: "timeout".into(),
        };
        match way {
            Way::Clean => {
                let outcome = self.effect(&claimed.order, step);
                self.record(worker, claimed, outcome).await;
            }
            Way::Twice => {
                self.effect(&claimed.order, step);
                let outcome = self.effect(&claimed.order, step);
                self.record(worker, claimed, outcome).await;
            }
            Way::LostRequest => self.record(worker, claimed, timeout).await,
            Way::LostAnswer => {
                self.effect(&claimed.order, step);
                self.record(worker, claimed, timeout).await;
            }
            Way::DiesBefore => self.workers[worker] = Worker::default(),
            Way::DiesAfter => {
                self.effect(&claimed.order, step);
                self.workers[worker] = Worker::default();
            }
            Way::Sleeps => {
                let outcome = self.effect(&claimed.order, step);
                self.workers[worker].asleep.push((claimed, outcome));
            }
        }
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Claim { worker } => self.claim(worker).await,
            Op::Attempt { worker, way } => self.attempt(worker, way).await,
            Op::Wake { worker } => {
                if let Some((claimed, outcome)) = self.workers[worker].asleep.pop() {
                    self.record(worker, claimed, outcome).await;
                }
            }
            Op::Cancel { order } => {
                let id = self.ids[order];
                if let Cancelled::Accepted(_) = self.store.cancel(id, "ann", self.now()).await.unwrap() {
                    self.cancelled.insert(id);
                }
            }
            Op::Advance { seconds } => self.seconds += seconds,
        }
    }

    /// Lets one worker finish everything in peace; those who slept wake up in the middle of it.
    async fn settle(&mut self) {
        for _ in 0..20 {
            self.seconds += 11;
            for worker in 0..3 {
                while let Some((claimed, outcome)) = self.workers[worker].asleep.pop() {
                    self.record(worker, claimed, outcome).await;
                }
            }
            self.claim(0).await;
            while !self.workers[0].claims.is_empty() {
                self.attempt(0, Way::Clean).await;
            }
        }
    }

    async fn events_of(&self, id: OrderId) -> Vec<EventKind> {
        let lease = Lease {
            owner: "relay".into(),
            now: self.now(),
            ttl: TTL,
        };
        let all = self.store.claim_events(lease, 1000).await.unwrap();
        let retry = Fate::Retry {
            after: Duration::ZERO,
            refused: false,
            error: String::new(),
        };
        let back = all
            .iter()
            .map(|e| Settled {
                seq: e.seq,
                number: e.number,
                fate: retry.clone(),
            })
            .collect();
        self.store.settle_events(back, self.now()).await.unwrap();
        all.iter()
            .filter(|e| e.event.order == id)
            .map(|e| e.event.kind)
            .collect()
    }

    async fn check(&self) {
        for id in &self.ids {
            let order = self.store.order(*id).await.unwrap().expect("no order is lost");
            let charges = self.payments.charges_of(*id);
            let nature = self.natures[id];
            assert!(order.saga.status.is_final(), "{order:?} never ended");
            assert!(charges.len() <= 1, "{order:?} was charged more than once");
            let charge = charges.first().copied();
            let refunded = charge.is_some_and(|charge| self.payments.refunded.contains(charge));
            let events = self.events_of(*id).await;
            let expected: &[EventKind] = match order.saga.status {
                Status::Delivered => {
                    assert!(charge.is_some() && !refunded, "{order:?}: delivered means charged");
                    assert_eq!(nature, Nature::Good);
                    &[EventKind::Created, EventKind::Paid, EventKind::Delivered]
                }
                Status::Refunded => {
                    assert!(refunded, "{order:?}: refunded means refunded");
                    &[EventKind::Created, EventKind::Paid, EventKind::Refunded]
                }
                Status::Cancelled => {
                    assert_eq!(charge, None, "{order:?}: cancelled means never charged");
                    &[EventKind::Created, EventKind::Cancelled]
                }
                other => panic!("{order:?} ended as {other:?}"),
            };
            assert_eq!(events, expected, "{order:?}");
            if self.cancelled.contains(id) {
                assert_ne!(order.saga.status, Status::Delivered, "an accepted cancel holds");
            } else if nature == Nature::Good {
                assert_eq!(
                    order.saga.status,
                    Status::Delivered,
                    "a good order that nobody cancels is delivered"
                );
            }
            assert_eq!(order.saga.charge_id.as_ref(), charge);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn charged_exactly_once_or_refunded_or_never(
        natures in proptest::collection::vec(nature(), 3),
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(&natures).await;
            for op in ops {
                world.apply(op).await;
            }
            world.settle().await;
            world.check().await;
        });
    }
}
