//! What every [`Store`] must do: one suite that both the memory twin and SQLite are put through. `again` opens a second
//! handle on the same data, as another instance of the service would.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::domain::{Item, NewOrder, Status};

const TTL: Duration = Duration::from_secs(10);

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub(crate) fn lease(owner: &str, seconds: i64) -> Lease {
    Lease {
        owner: owner.into(),
        now: at(seconds),
        ttl: TTL,
    }
}

pub(crate) fn create(customer: &str, seconds: i64) -> Create {
    Create {
        id: OrderId::fresh(),
        customer: customer.into(),
        order: NewOrder {
            items: vec![Item {
                sku: "book".into(),
                quantity: 2,
                unit_price_cents: 1250,
            }],
            currency: "EUR".into(),
            address: "1 Main Street".into(),
            total_cents: 2500,
        },
        idempotency_key: None,
        now: at(seconds),
        lease: None,
        origin: Origin::from_json(Some(
            r#"{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
        )),
    }
}

async fn new(store: &dyn Store, create: Create) -> (Order, Option<Claim>) {
    match store.create(create).await.unwrap() {
        Created::New(order, claim) => (order, claim),
        other => panic!("not new: {other:?}"),
    }
}

fn charged() -> Outcome {
    Outcome::Charged {
        charge_id: "charge-1".into(),
    }
}

async fn events(store: &dyn Store, seconds: i64) -> Vec<ClaimedEvent> {
    store.claim_events(lease("relay", seconds), 100).await.unwrap()
}

fn settled(event: &ClaimedEvent, fate: Fate) -> Settled {
    Settled {
        seq: event.seq,
        number: event.number,
        fate,
    }
}

/// Runs every check; `make` gives an empty store and another handle on the same data.
pub(crate) async fn check<S: Store>(make: impl AsyncFn() -> (S, S)) {
    reads_what_was_written(&make().await).await;
    pages(&make().await).await;
    idempotency(&make().await).await;
    the_whole_way(&make().await).await;
    leases(&make().await).await;
    gives_back(&make().await).await;
    retries(&make().await).await;
    cancels(&make().await).await;
    outbox_order(&make().await).await;
    outbox_fates(&make().await).await;
    reconciliation(&make().await).await;
    forgets(&make().await).await;
    one_key_at_once(make().await).await;
    sagas_at_once(make().await).await;
    events_at_once(make().await).await;
}

async fn reads_what_was_written<S: Store>((store, again): &(S, S)) {
    store.probe().await.unwrap();
    let (order, claim) = new(store, create("ann", 0)).await;
    assert_eq!(claim, None);
    assert_eq!(order.saga.status, Status::Pending);
    assert_ne!(order.origin, Origin::default());
    assert_eq!(again.order(order.id).await.unwrap().as_ref(), Some(&order));
    assert_eq!(again.order(OrderId::fresh()).await.unwrap(), None);
    let published = events(again, 0).await;
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].event, Event::new(EventKind::Created, &order, at(0)));
    assert!(published[0].event.payload.contains(&order.id.to_string()));
    assert!(again.steps(order.id).await.unwrap().is_empty());
}

async fn pages<S: Store>((store, again): &(S, S)) {
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(new(store, create("ann", n)).await.0.id);
        new(store, create("bob", n)).await;
    }
    let page = |after, limit| async move {
        again
            .orders("ann", after, limit)
            .await
            .unwrap()
            .iter()
            .map(|o| o.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2).await, ids[..2]);
    assert_eq!(page(Some(ids[1]), 2).await, ids[2..4]);
    assert_eq!(page(Some(ids[3]), 10).await, ids[4..]);
    assert!(page(Some(ids[4]), 10).await.is_empty());
    assert!(again.orders("eve", None, 10).await.unwrap().is_empty());
}

async fn idempotency<S: Store>((store, again): &(S, S)) {
    let keyed = |customer: &str| Create {
        idempotency_key: Some("k1".into()),
        ..create(customer, 0)
    };
    let (first, _) = new(store, keyed("ann")).await;
    assert_eq!(again.create(keyed("ann")).await.unwrap(), Created::Replayed(first));
    let mut other = keyed("ann");
    other.order.address = "elsewhere".into();
    assert_eq!(again.create(other).await.unwrap(), Created::KeyReused);
    // The key is the customer's own.
    new(again, keyed("bob")).await;
    assert_eq!(again.orders("ann", None, 10).await.unwrap().len(), 1);
}

async fn the_whole_way<S: Store>((store, again): &(S, S)) {
    let (order, claim) = new(
        store,
        Create {
            lease: Some(lease("a", 0)),
            ..create("ann", 0)
        },
    )
    .await;
    let claim = claim.unwrap();
    assert_eq!(
        (claim.order, claim.step, order.saga.attempts),
        (order.id, Step::Charge, 1)
    );
    assert_eq!(again.order(order.id).await.unwrap().as_ref(), Some(&order));
    let Recorded::Continue(next) = store.record(claim, charged(), lease("a", 1), TTL).await.unwrap() else {
        panic!("delivery follows")
    };
    assert_eq!((next.claim.step, next.order.saga.status), (Step::Deliver, Status::Paid));
    assert_eq!(again.order(order.id).await.unwrap().as_ref(), Some(&next.order));
    let Recorded::Finished(done) = store
        .record(next.claim, Outcome::Delivered, lease("a", 2), TTL)
        .await
        .unwrap()
    else {
        panic!("finished")
    };
    assert_eq!(
        (done.saga.status, done.saga.charge_id.as_deref()),
        (Status::Delivered, Some("charge-1"))
    );
    assert_eq!(again.order(order.id).await.unwrap().as_ref(), Some(&*done));
    let steps = again.steps(order.id).await.unwrap();
    assert_eq!(
        steps.iter().map(|s| s.step).collect::<Vec<_>>(),
        [Step::Charge, Step::Deliver]
    );
    assert_eq!(
        (steps[0].begun_at, steps[0].ended_at, steps[0].outcome.as_deref()),
        (at(0), Some(at(1)), Some("charged"))
    );
    let kinds: Vec<_> = events(again, 3).await.iter().map(|e| e.event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Paid, EventKind::Delivered]);
    assert!(again.claim_sagas(lease("b", 1000), 10).await.unwrap().is_empty());
    assert_eq!(again.backlog(at(1000)).await.unwrap().open_sagas, 0);
}

async fn leases<S: Store>((store, again): &(S, S)) {
    for _ in 0..3 {
        new(store, create("ann", 0)).await;
    }
    let first = store.claim_sagas(lease("a", 1), 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert!(
        first
            .iter()
            .all(|c| c.order.saga.attempts == 1 && c.claim.step == Step::Charge)
    );
    // The other instance gets what is left, then nothing until the leases end.
    let second = again.claim_sagas(lease("b", 1), 10).await.unwrap();
    assert_eq!(second.len(), 1);
    assert!(again.claim_sagas(lease("b", 10), 10).await.unwrap().is_empty());
    let taken = again.claim_sagas(lease("b", 11), 10).await.unwrap();
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(|c| c.order.saga.attempts == 2));
    // Who lost the lease records nothing.
    let late = store
        .record(first[0].claim, charged(), lease("a", 12), TTL)
        .await
        .unwrap();
    assert_eq!(late, Recorded::Lost);
    let mine = taken.iter().find(|c| c.claim.order == first[0].claim.order).unwrap();
    let recorded = again.record(mine.claim, charged(), lease("b", 12), TTL).await.unwrap();
    assert!(matches!(recorded, Recorded::Continue(_)));
    // Nor does the same claim twice.
    assert_eq!(
        again.record(mine.claim, charged(), lease("b", 12), TTL).await.unwrap(),
        Recorded::Lost
    );
}

async fn gives_back<S: Store>((store, again): &(S, S)) {
    for _ in 0..3 {
        new(store, create("ann", 0)).await;
    }
    let first = store.claim_sagas(lease("a", 1), 2).await.unwrap();
    let others = store.claim_sagas(lease("b", 1), 1).await.unwrap();
    assert_eq!(again.hand_back("a", at(2)).await.unwrap(), 2);
    assert_eq!(again.hand_back("a", at(2)).await.unwrap(), 0, "nothing is left");
    // Long before the leases end.
    let taken = again.claim_sagas(lease("c", 2), 10).await.unwrap();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|claimed| claimed.claim.order != others[0].claim.order));
    let late = store
        .record(first[0].claim, charged(), lease("a", 2), TTL)
        .await
        .unwrap();
    assert_eq!(late, Recorded::Lost);
    let recorded = store
        .record(others[0].claim, charged(), lease("b", 2), TTL)
        .await
        .unwrap();
    assert!(
        matches!(recorded, Recorded::Continue(_)),
        "another's claim is left alone"
    );
}

async fn retries<S: Store>((store, again): &(S, S)) {
    let (order, _) = new(store, create("ann", 0)).await;
    let claimed = store.claim_sagas(lease("a", 0), 10).await.unwrap();
    let unknown = Outcome::Unknown {
        reason: "timeout".into(),
    };
    let recorded = store
        .record(claimed[0].claim, unknown, lease("a", 1), Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(recorded, Recorded::Later);
    assert_eq!(
        again.order(order.id).await.unwrap().unwrap().saga.detail.as_deref(),
        Some("timeout")
    );
    assert!(again.claim_sagas(lease("b", 5), 10).await.unwrap().is_empty());
    let claimed = again.claim_sagas(lease("b", 6), 10).await.unwrap();
    assert_eq!(claimed[0].order.saga.attempts, 2);
    assert_eq!(again.steps(order.id).await.unwrap()[0].attempts, 2);
}

async fn cancels<S: Store>((store, again): &(S, S)) {
    // Before anybody began: at once.
    let (order, _) = new(store, create("ann", 0)).await;
    assert_eq!(store.cancel(order.id, "bob", at(1)).await.unwrap(), Cancelled::Unknown);
    let Cancelled::Accepted(now) = store.cancel(order.id, "ann", at(1)).await.unwrap() else {
        panic!("accepted")
    };
    assert_eq!(now.saga.status, Status::Cancelled);
    assert_eq!(again.order(order.id).await.unwrap().as_ref(), Some(&*now));
    assert!(matches!(
        store.cancel(order.id, "ann", at(2)).await.unwrap(),
        Cancelled::Accepted(_)
    ));
    assert!(again.claim_sagas(lease("a", 100), 10).await.unwrap().is_empty());
    let kinds: Vec<_> = events(again, 3).await.iter().map(|e| e.event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Cancelled]);

    // While it is being charged: refunded, under the same claim.
    let (order, claim) = new(
        store,
        Create {
            lease: Some(lease("a", 0)),
            ..create("ann", 0)
        },
    )
    .await;
    let Cancelled::Accepted(now) = again.cancel(order.id, "ann", at(1)).await.unwrap() else {
        panic!("accepted")
    };
    assert_eq!((now.saga.status, now.saga.cancel_requested), (Status::Pending, true));
    let Recorded::Continue(next) = store
        .record(claim.unwrap(), charged(), lease("a", 2), TTL)
        .await
        .unwrap()
    else {
        panic!("refund follows")
    };
    assert_eq!(next.claim.step, Step::Refund);
    let recorded = store
        .record(next.claim, Outcome::Refunded, lease("a", 3), TTL)
        .await
        .unwrap();
    assert!(matches!(recorded, Recorded::Finished(order) if order.saga.status == Status::Refunded));

    // Too late.
    let (order, claim) = new(
        store,
        Create {
            lease: Some(lease("a", 0)),
            ..create("ann", 0)
        },
    )
    .await;
    let Recorded::Continue(next) = store
        .record(claim.unwrap(), charged(), lease("a", 2), TTL)
        .await
        .unwrap()
    else {
        panic!("delivery follows")
    };
    store
        .record(next.claim, Outcome::Delivered, lease("a", 3), TTL)
        .await
        .unwrap();
    assert!(matches!(
        store.cancel(order.id, "ann", at(4)).await.unwrap(),
        Cancelled::TooLate(_)
    ));
}

async fn outbox_order<S: Store>((store, again): &(S, S)) {
    let (_, claim) = new(
        store,
        Create {
            lease: Some(lease("a", 0)),
            ..create("ann", 0)
        },
    )
    .await;
    new(store, create("bob", 0)).await;
    let first = store.claim_events(lease("a", 1), 1).await.unwrap();
    assert_eq!(first[0].event.kind, EventKind::Created);
    store
        .record(claim.unwrap(), charged(), lease("a", 1), TTL)
        .await
        .unwrap();
    // ann's second event waits for her first; bob's does not.
    let second = again.claim_events(lease("b", 2), 10).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].event.order, first[0].event.order);
    // A dead relay's events go to the next one, in order.
    let taken = again.claim_events(lease("b", 11), 10).await.unwrap();
    let kinds: Vec<_> = taken.iter().map(|e| e.event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Paid]);
    // The dead relay, awake again, settles nothing.
    store
        .settle_events(vec![settled(&first[0], Fate::Dead { error: "late".into() })], at(12))
        .await
        .unwrap();
    assert!(again.dead_events(10).await.unwrap().is_empty());
    let fates = taken.iter().map(|e| settled(e, Fate::Published)).collect();
    again.settle_events(fates, at(12)).await.unwrap();
    assert_eq!(again.backlog(at(20)).await.unwrap().events, 1);
    assert_eq!(
        again.backlog(at(20)).await.unwrap().oldest_event,
        Duration::from_secs(20)
    );
}

async fn outbox_fates<S: Store>((store, again): &(S, S)) {
    let (order, _) = new(store, create("ann", 0)).await;
    let claimed = events(store, 0).await;
    let retry = Fate::Retry {
        after: Duration::from_secs(5),
        refused: true,
        error: "bad".into(),
    };
    store
        .settle_events(vec![settled(&claimed[0], retry)], at(1))
        .await
        .unwrap();
    assert!(events(again, 5).await.is_empty());
    let claimed = events(again, 6).await;
    assert_eq!(claimed[0].refusals, 1);
    store.cancel(order.id, "ann", at(6)).await.unwrap();
    again
        .settle_events(vec![settled(&claimed[0], Fate::Dead { error: "worse".into() })], at(7))
        .await
        .unwrap();
    let dead = store.dead_events(10).await.unwrap();
    assert_eq!(
        (dead[0].event.kind, dead[0].refusals, dead[0].error.as_str()),
        (EventKind::Created, 2, "worse")
    );
    // What follows a dead event is not held up by it.
    let claimed = events(again, 8).await;
    assert_eq!(
        claimed.iter().map(|e| e.event.kind).collect::<Vec<_>>(),
        [EventKind::Cancelled]
    );
    let backlog = again.backlog(at(8)).await.unwrap();
    assert_eq!((backlog.events, backlog.dead_events), (1, 1));
}

async fn reconciliation<S: Store>((store, again): &(S, S)) {
    let (order, _) = new(store, create("ann", 0)).await;
    let lost = OrderId::fresh();
    assert_eq!(again.known(vec![order.id, lost]).await.unwrap(), [order.id].into());
    let orphan = Orphan {
        charge_id: "c1".into(),
        order_id: lost.to_string(),
        amount_cents: 2500,
        currency: "EUR".into(),
        charged_at: "2026-01-01T00:00:00Z".into(),
        found_at: at(1),
        refunded_at: None,
        error: Some("payments is away".into()),
    };
    store.save_orphans(vec![orphan.clone()]).await.unwrap();
    assert_eq!(again.orphans().await.unwrap(), std::slice::from_ref(&orphan));
    let refunded = Orphan {
        found_at: at(9),
        refunded_at: Some(at(9)),
        error: None,
        ..orphan.clone()
    };
    again.save_orphans(vec![refunded]).await.unwrap();
    // Found once, refunded once; a later word does not take that back.
    store
        .save_orphans(vec![Orphan {
            found_at: at(11),
            refunded_at: Some(at(11)),
            error: None,
            ..orphan.clone()
        }])
        .await
        .unwrap();
    let expected = Orphan {
        refunded_at: Some(at(9)),
        error: None,
        ..orphan
    };
    assert_eq!(store.orphans().await.unwrap(), [expected]);
}

async fn forgets<S: Store>((store, again): &(S, S)) {
    let keyed = || Create {
        idempotency_key: Some("k1".into()),
        ..create("ann", 0)
    };
    new(store, keyed()).await;
    let claimed = events(store, 0).await;
    assert_eq!(store.forget(at(-1), 100).await.unwrap(), 0);
    store
        .settle_events(vec![settled(&claimed[0], Fate::Published)], at(1))
        .await
        .unwrap();
    new(store, create("ann", 2)).await;
    // The published event and the key go, the pending event and the orders stay.
    assert_eq!(again.forget(at(2), 100).await.unwrap(), 2);
    assert_eq!(events(again, 3).await.len(), 1);
    assert_eq!(again.orders("ann", None, 10).await.unwrap().len(), 2);
    new(again, keyed()).await;
}

/// Runs `work` in eight tasks, half of them on each of the two handles, and collects what they answer.
async fn at_once<S: Store, T, W>((store, again): (S, S), work: impl Fn(Arc<S>, usize) -> W) -> Vec<T>
where
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    let (store, again) = (Arc::new(store), Arc::new(again));
    let tasks: Vec<_> = (0..8)
        .map(|n| tokio::spawn(work(Arc::clone(if n % 2 == 0 { &store } else { &again }), n)))
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

async fn one_key_at_once<S: Store>(stores: (S, S)) {
    let created = at_once(stores, |store, _| async move {
        let create = Create {
            idempotency_key: Some("k1".into()),
            ..create("ann", 0)
        };
        store.create(create).await.unwrap()
    })
    .await;
    let (mut new, mut ids) = (0, HashSet::new());
    for created in created {
        match created {
            Created::New(order, _) => {
                new += 1;
                ids.insert(order.id);
            }
            Created::Replayed(order) => {
                ids.insert(order.id);
            }
            Created::KeyReused => panic!("it is the same request"),
        }
    }
    assert_eq!((new, ids.len()), (1, 1));
}

async fn sagas_at_once<S: Store>(stores: (S, S)) {
    for n in 0..40 {
        new(&stores.0, create("ann", n)).await;
    }
    let claimed = at_once(stores, |store, n| async move {
        let mut mine = Vec::new();
        // Not the first look that finds nothing: others may hold what they then leave.
        let mut empty = 0;
        while empty < 3 {
            let claimed = store.claim_sagas(lease(&format!("r{n}"), 50), 3).await.unwrap();
            empty = if claimed.is_empty() { empty + 1 } else { 0 };
            mine.extend(claimed.into_iter().map(|claimed| claimed.order.id));
        }
        mine
    })
    .await;
    let all: Vec<OrderId> = claimed.into_iter().flatten().collect();
    let different: HashSet<&OrderId> = all.iter().collect();
    assert_eq!((all.len(), different.len()), (40, 40), "each is claimed once");
}

async fn events_at_once<S: Store>(stores: (S, S)) {
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(new(&stores.0, create("ann", n)).await.0.id);
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    at_once(stores, |store, n| {
        let (ids, log) = (ids.clone(), Arc::clone(&log));
        async move {
            // Half of the replicas still write while the others tell.
            for id in ids.iter().skip(n).step_by(8) {
                store.cancel(*id, "ann", at(40)).await.unwrap();
                tell(&*store, &log).await;
            }
            let mut empty = 0;
            while empty < 3 {
                empty = if tell(&*store, &log).await { 0 } else { empty + 1 };
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 60, "each is told once");
    for id in ids {
        let of_order: Vec<_> = told
            .iter()
            .filter(|(order, _)| *order == id)
            .map(|(_, kind)| *kind)
            .collect();
        assert_eq!(of_order, [EventKind::Created, EventKind::Cancelled], "in order");
    }
}

/// Tells some events, as a relay does; false when there was none.
async fn tell(store: &impl Store, log: &Mutex<Vec<(OrderId, EventKind)>>) -> bool {
    let claimed = store.claim_events(lease("relay", 50), 3).await.unwrap();
    log.lock()
        .unwrap()
        .extend(claimed.iter().map(|claimed| (claimed.event.order, claimed.event.kind)));
    let fates = claimed.iter().map(|event| settled(event, Fate::Published)).collect();
    store.settle_events(fates, at(51)).await.unwrap();
    !claimed.is_empty()
}
