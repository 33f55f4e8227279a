//! What every store of charges does, whatever it stores them in. `make` gives two handles of one new and empty store,
//! as two instances of the service hold them.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::charge::{Decline, decide};

/// Checks one implementation.
pub(super) async fn check<S: Store, F: Future<Output = (S, S)>>(make: impl Fn() -> F) {
    same_key_same_answer(make().await).await;
    a_key_stands_for_one_request(make().await).await;
    an_order_is_charged_once(make().await).await;
    a_decline_takes_nothing_and_blocks_nothing(make().await).await;
    a_charge_is_refunded_once(make().await).await;
    refunds_that_cannot_be(make().await).await;
    pages_hold_everything_once(make().await).await;
    strange_text_is_only_text(make().await).await;
    many_at_once_make_one_charge(make().await).await;
    many_at_once_make_one_refund(make().await).await;
    who_keeps_the_place_misses_nothing(make().await).await;
}

fn now() -> Timestamp {
    "2026-11-21T10:00:00.123456Z".parse().unwrap()
}

fn later() -> Timestamp {
    now() + SignedDuration::from_secs(60)
}

fn request(order: &str, key: &str, amount_cents: i64) -> Request {
    Request {
        order_id: order.into(),
        key: key.into(),
        amount_cents,
        currency: "EUR".into(),
    }
}

async fn charge(store: &impl Store, order: &str, key: &str, amount_cents: i64) -> Result<Answer, StoreError> {
    let request = request(order, key, amount_cents);
    let outcome = decide(&request);
    store.charge(request, outcome, now()).await
}

async fn list(store: &impl Store) -> Vec<Charge> {
    store
        .list(Query {
            after: 0,
            limit: 1000,
            order_id: None,
            standing: None,
        })
        .await
        .unwrap()
        .charges
}

async fn same_key_same_answer<S: Store>((one, two): (S, S)) {
    let first = charge(&one, "o1", "k1", 1250).await.unwrap();
    assert!(!first.replayed);
    assert_eq!(
        (first.charge.order_id.as_str(), first.charge.amount_cents),
        ("o1", 1250)
    );
    assert_eq!((first.charge.created_at, first.charge.refunded_at), (now(), None));
    assert_eq!(first.charge.id.get_version_num(), 7);
    let wanted = request("o1", "k1", 1250);
    let again = two.charge(wanted.clone(), Outcome::Charged, later()).await.unwrap();
    assert_eq!(
        again,
        Answer {
            replayed: true,
            ..first.clone()
        }
    );
    two.refund(Target::Order("o1".into()), "r1".into(), later())
        .await
        .unwrap();
    let after_refund = one.charge(wanted, Outcome::Charged, later()).await.unwrap();
    assert_eq!(
        after_refund,
        Answer {
            replayed: true,
            ..first
        },
        "a refund does not change what the key was answered"
    );
    assert_eq!(list(&one).await.len(), 1);
}

async fn a_key_stands_for_one_request<S: Store>((one, two): (S, S)) {
    charge(&one, "o1", "k1", 1250).await.unwrap();
    for other in [
        request("o1", "k1", 1251),
        request("o2", "k1", 1250),
        Request {
            currency: "USD".into(),
            ..request("o1", "k1", 1250)
        },
    ] {
        let error = two.charge(other, Outcome::Charged, now()).await.unwrap_err();
        assert!(matches!(error, StoreError::KeyReused), "{error}");
    }
    assert_eq!(list(&one).await.len(), 1);
}

async fn an_order_is_charged_once<S: Store>((one, two): (S, S)) {
    charge(&one, "o1", "k1", 1250).await.unwrap();
    let error = charge(&two, "o1", "k2", 1250).await.unwrap_err();
    assert!(matches!(error, StoreError::OrderCharged), "{error}");
    one.refund(Target::Order("o1".into()), "r1".into(), now())
        .await
        .unwrap();
    let error = charge(&two, "o1", "k2", 1250).await.unwrap_err();
    assert!(
        matches!(error, StoreError::OrderCharged),
        "also after its refund: {error}"
    );
    assert_eq!(list(&two).await.len(), 1);
}

async fn a_decline_takes_nothing_and_blocks_nothing<S: Store>((one, two): (S, S)) {
    let declined = charge(&one, "o1", "k1", 1_000_001).await.unwrap();
    assert_eq!(declined.charge.outcome, Outcome::Declined(Decline::OverLimit));
    let again = charge(&two, "o1", "k1", 1_000_001).await.unwrap();
    assert_eq!(
        again,
        Answer {
            replayed: true,
            ..declined
        }
    );
    let smaller = charge(&two, "o1", "k2", 1_000_000).await.unwrap();
    assert_eq!(smaller.charge.outcome, Outcome::Charged);
    let refunded = one
        .refund(Target::Order("o1".into()), "r1".into(), now())
        .await
        .unwrap();
    assert_eq!(
        refunded.charge.id, smaller.charge.id,
        "an order's refund finds the charge that took money"
    );
}

async fn a_charge_is_refunded_once<S: Store>((one, two): (S, S)) {
    let id = charge(&one, "o1", "k1", 1250).await.unwrap().charge.id;
    let first = one.refund(Target::Charge(id), "r1".into(), later()).await.unwrap();
    assert!(!first.replayed);
    assert_eq!(first.charge.refunded_at, Some(later()));
    let much_later = later() + SignedDuration::from_secs(60);
    for (target, key) in [
        (Target::Charge(id), "r1"),
        (Target::Order("o1".into()), "r1"),
        (Target::Charge(id), "r2"),
        (Target::Order("o1".into()), "r3"),
    ] {
        let again = two.refund(target, key.into(), much_later).await.unwrap();
        assert_eq!(
            again,
            Answer {
                replayed: true,
                ..first.clone()
            },
            "{key}"
        );
    }
    assert_eq!(list(&two).await, [first.charge]);
}

async fn refunds_that_cannot_be<S: Store>((one, two): (S, S)) {
    let unknown = Target::Charge(Uuid::now_v7());
    for target in [unknown.clone(), Target::Order("nowhere".into())] {
        let error = one.refund(target, "r1".into(), now()).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound), "{error}");
    }
    let declined = charge(&one, "o1", "k1", 2_000_000).await.unwrap().charge.id;
    let error = two
        .refund(Target::Charge(declined), "r1".into(), now())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NothingTaken), "{error}");
    let error = two
        .refund(Target::Order("o1".into()), "r1".into(), now())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error}");

    charge(&one, "o2", "k2", 1).await.unwrap();
    charge(&one, "o3", "k3", 1).await.unwrap();
    one.refund(Target::Order("o2".into()), "r1".into(), now())
        .await
        .unwrap();
    for target in [Target::Order("o3".into()), unknown] {
        let error = two.refund(target, "r1".into(), now()).await.unwrap_err();
        assert!(matches!(error, StoreError::KeyReused), "{error}");
    }
    let standing = list(&one).await.iter().map(Standing::of).collect::<Vec<_>>();
    assert_eq!(standing, [Standing::Declined, Standing::Refunded, Standing::Charged]);
}

async fn pages_hold_everything_once<S: Store>((one, two): (S, S)) {
    assert_eq!(
        one.list(Query {
            after: 0,
            limit: 5,
            order_id: None,
            standing: None
        })
        .await
        .unwrap(),
        Page::default()
    );
    for n in 0..25 {
        let store = if n % 2 == 0 { &one } else { &two };
        let amount = if n % 5 == 0 { 2_000_000 } else { 100 };
        charge(store, &format!("o{n}"), &format!("k{n}"), amount).await.unwrap();
    }
    one.refund(Target::Order("o7".into()), "r".into(), now()).await.unwrap();
    let mut orders = Vec::new();
    let (mut after, mut sizes) = (0, Vec::new());
    loop {
        let page = two
            .list(Query {
                after,
                limit: 10,
                order_id: None,
                standing: None,
            })
            .await
            .unwrap();
        sizes.push((page.charges.len(), page.more));
        orders.extend(page.charges.iter().map(|charge| charge.order_id.clone()));
        match page.last {
            Some(last) => after = last,
            None => break,
        }
    }
    assert_eq!(sizes, [(10, true), (10, true), (5, false), (0, false)]);
    assert_eq!(orders, (0..25).map(|n| format!("o{n}")).collect::<Vec<_>>());

    charge(&one, "late", "late", 1).await.unwrap();
    let page = two
        .list(Query {
            after,
            limit: 10,
            order_id: None,
            standing: None,
        })
        .await
        .unwrap();
    assert_eq!(
        page.charges[0].order_id, "late",
        "who keeps the place sees what came later"
    );

    for (standing, wanted) in [
        (Standing::Declined, 5),
        (Standing::Refunded, 1),
        (Standing::Charged, 20),
    ] {
        let query = Query {
            after: 0,
            limit: 100,
            order_id: None,
            standing: Some(standing),
        };
        let page = two.list(query).await.unwrap();
        assert_eq!((page.charges.len(), page.more), (wanted, false), "{standing:?}");
        assert!(page.charges.iter().all(|charge| Standing::of(charge) == standing));
    }
    let query = Query {
        after: 0,
        limit: 1,
        order_id: Some("o7".into()),
        standing: None,
    };
    let page = one.list(query).await.unwrap();
    assert_eq!(
        (page.charges.len(), page.more, page.charges[0].order_id.as_str()),
        (1, false, "o7")
    );
}

async fn strange_text_is_only_text<S: Store>((one, two): (S, S)) {
    // More than the service lets through: the store must not rely on it.
    for text in ["x'); DROP TABLE charges; --", "a\"b", "%_", "new\nline", "ünïcödé"] {
        let made = charge(&one, text, text, 7).await.unwrap();
        let query = Query {
            after: 0,
            limit: 10,
            order_id: Some(text.into()),
            standing: None,
        };
        assert_eq!(two.list(query).await.unwrap().charges, [made.charge]);
    }
}

async fn many_at_once_make_one_charge<S: Store>((one, two): (S, S)) {
    let (one, two) = (Arc::new(one), Arc::new(two));
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            tokio::spawn(async move { charge(&*store, "o1", "k1", 500).await.unwrap() })
        })
        .collect();
    let mut ids = HashSet::new();
    let mut first = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        ids.insert(answer.charge.id);
        first += usize::from(!answer.replayed);
    }
    assert_eq!((ids.len(), first, list(&*one).await.len()), (1, 1, 1));
}

async fn many_at_once_make_one_refund<S: Store>((one, two): (S, S)) {
    let (one, two) = (Arc::new(one), Arc::new(two));
    charge(&*one, "o1", "k1", 500).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            let key = format!("r{}", n % 8);
            tokio::spawn(async move { store.refund(Target::Order("o1".into()), key, now()).await.unwrap() })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        first += usize::from(!task.await.unwrap().replayed);
    }
    assert_eq!(first, 1);
}

async fn who_keeps_the_place_misses_nothing<S: Store>((one, two): (S, S)) {
    const CHARGES: usize = 200;
    let (one, two) = (Arc::new(one), Arc::new(two));
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                for m in 0..CHARGES / 8 {
                    let name = format!("{n}-{m}");
                    charge(&*store, &name, &name, 500).await.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut after) = (Vec::new(), 0);
    let mut all_stored = false;
    loop {
        let query = Query {
            after,
            limit: 10,
            order_id: None,
            standing: None,
        };
        let page = two.list(query).await.unwrap();
        after = page.last.unwrap_or(after);
        seen.extend(page.charges.into_iter().map(|charge| charge.order_id));
        if !page.more && all_stored {
            break;
        }
        // Once more after the last one was stored.
        all_stored = tasks.iter().all(tokio::task::JoinHandle::is_finished);
        tokio::task::yield_now().await;
    }
    let different: HashSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), different.len()), (CHARGES, CHARGES));
}
