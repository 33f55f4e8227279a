//! What one request makes of each thing that can go wrong: what passes is tried again and not for ever, what stays is
//! said at once, and nothing is taken for done that is not.

use std::sync::Arc;
use std::time::Duration;

use backups::store::S3Store;
use backups::store::s3::{Patience, S3Options};
use backups::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use peers::faults::{Fault, Limits};
use tokio::time::Instant;

use crate::service::{Service, error, key, method, refused};
use crate::world::noise;

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_within_limits() {
    let Some(service) = Service::start("what_passes_is_tried_again_within_limits").await else {
        return;
    };
    let store = service.store();
    let name = key("data/ab/abcd");
    for (status, code) in [
        (503, "SlowDown"),
        (500, "InternalError"),
        (504, ""),
        (400, "RequestTimeout"),
    ] {
        service.proxy.heal();
        service.proxy.strike(3, refused(status, code), method("PUT"));
        let before = service.count("PUT");
        let outcome = store.put(&name, "content".into()).await;
        assert!(outcome.is_ok(), "{status} {code}: {outcome:?}");
        assert_eq!(service.count("PUT") - before, 4, "{status} {code}");
        store.delete(&name).await.unwrap();
    }
    service.proxy.heal();
    service
        .proxy
        .strike(usize::MAX, refused(503, "SlowDown"), method("PUT"));
    let before = service.count("PUT");
    let outcome = store.put(&name, "content".into()).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    assert!(service.count("PUT") - before <= 9, "as often as allowed");
    service.proxy.heal();
    assert!(store.get(&name).await.unwrap_err().is_not_found(), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_said_at_once() {
    let Some(service) = Service::start("what_stays_is_said_at_once").await else {
        return;
    };
    let store = service.store();
    let name = key("data/ab/abcd");
    service.proxy.strike(usize::MAX, refused(403, "AccessDenied"), |_| true);
    let refused_puts = store.put(&name, "content".into()).await;
    assert!(
        matches!(refused_puts, Err(StoreError::Denied { .. })),
        "{refused_puts:?}"
    );
    assert!(matches!(store.delete(&name).await, Err(StoreError::Denied { .. })));
    assert!(matches!(store.get(&name).await, Err(StoreError::Denied { .. })));
    assert_eq!(service.proxy.seen().len(), 3, "each was asked once");
    assert!(matches!(store.stat(&name).await, Err(StoreError::Denied { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_empty_repository() {
    let Some(service) = Service::without_bucket("a_bucket_that_is_not_there_is_no_empty_repository").await else {
        return;
    };
    let store = service.store();
    let name = key("config");
    for outcome in [
        store.put(&name, "x".into()).await.err(),
        store.get(&name).await.err(),
        store.stat(&name).await.err(),
        store.list("", None, 1).await.err(),
    ] {
        assert!(matches!(outcome, Some(StoreError::NoPlace { .. })), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_goes_on_where_it_ended() {
    let Some(service) = Service::start("an_answer_that_is_cut_goes_on_where_it_ended").await else {
        return;
    };
    let store = service.store();
    let (name, body) = (key("data/ab/abcd"), noise(1, 8 << 20));
    store.put(&name, body.clone().into()).await.unwrap();
    // Cut more often than a request is retried: each brings something.
    service.proxy.strike(20, Fault::AnswerCut(300_000), method("GET"));
    assert_eq!(store.get(&name).await.unwrap(), body);
    assert_eq!(service.count("GET"), 21);
    let passed: u64 = service
        .proxy
        .seen()
        .iter()
        .filter_map(|request| request.header("range"))
        .map(|range| {
            range
                .trim_start_matches("bytes=")
                .split('-')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .max()
        .unwrap();
    assert!(passed >= 15 * 300_000, "it went on from {passed}");
    service.proxy.strike(3, Fault::AnswerCut(1000), method("GET"));
    assert_eq!(store.get_range(&name, 5000, 10_000).await.unwrap(), body[5000..15_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_replaced_while_it_is_read_is_never_mixed() {
    let Some(service) = Service::start("an_object_that_is_replaced_while_it_is_read_is_never_mixed").await else {
        return;
    };
    let store = service.store();
    let (name, first, second) = (key("data/ab/abcd"), noise(1, 1 << 20), noise(2, 1 << 20));
    store.put(&name, first.into()).await.unwrap();
    let (admin, replaced) = (service.admin(), second.clone());
    let mut before = true;
    let runtime = tokio::runtime::Handle::current();
    service.proxy.rule(move |request| {
        if request.method != "GET" || !std::mem::take(&mut before) {
            return None;
        }
        let (admin, body) = (admin.clone(), replaced.clone());
        // While the first answer is on its way.
        runtime.spawn(async move {
            let put = admin.put_object().bucket(crate::service::BUCKET);
            put.key(format!("{}/data/ab/abcd", crate::service::PREFIX))
                .body(body.into())
                .send()
                .await
                .unwrap();
        });
        Some(Fault::AnswerCut(200_000))
    });
    let read = store.get(&name).await.unwrap();
    assert!(
        read == second || read == noise(1, 1 << 20),
        "the parts of two objects were mixed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_is_cut_or_whose_answer_is_lost_is_ours() {
    let Some(service) = Service::start("a_put_that_is_cut_or_whose_answer_is_lost_is_ours").await else {
        return;
    };
    let store = service.store();
    let body = noise(1, 3 << 20);
    for (round, fault) in [Fault::RequestCut(1 << 20), Fault::AnswerLost, Fault::AnswerLost]
        .into_iter()
        .enumerate()
    {
        let name = key(&format!("data/ab/{round}"));
        service.proxy.strike(2, fault.clone(), method("PUT"));
        let outcome = store.put(&name, body.clone().into()).await;
        assert!(outcome.is_ok(), "{fault:?}: {outcome:?}");
        assert_eq!(store.get(&name).await.unwrap(), body);
    }
    // What somebody else wrote is not ours, even if it has the same length.
    let name = key("locks/theirs");
    store.put(&name, "theirs".into()).await.unwrap();
    service.proxy.strike(1, Fault::AnswerLost, method("PUT"));
    let outcome = store.put(&name, "ours!!".into()).await;
    assert!(matches!(outcome, Err(StoreError::Exists { .. })), "{outcome:?}");
    assert_eq!(store.get(&name).await.unwrap(), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_is_not_still() {
    let Some(service) = Service::start("slow_is_not_still").await else {
        return;
    };
    let patience = Patience {
        idle: Duration::from_secs(1),
        ..service.options().patience
    };
    let store = S3Store::new(S3Options {
        patience,
        ..service.options()
    });
    let (name, body) = (key("data/ab/abcd"), noise(1, 1 << 20));
    service.proxy.limit(Limits {
        latency: Duration::from_millis(100),
        bytes_per_second: Some(256 << 10),
    });
    let begun = Instant::now();
    store.put(&name, body.clone().into()).await.unwrap();
    assert_eq!(store.get(&name).await.unwrap(), body);
    assert!(
        begun.elapsed() > Duration::from_secs(6),
        "the limit is one: {:?}",
        begun.elapsed()
    );
    assert_eq!(
        (service.count("PUT"), service.count("GET")),
        (1, 1),
        "nothing was given up"
    );
    service.proxy.limit(Limits::default());
    service.proxy.strike(1, Fault::Silence, method("GET"));
    let begun = Instant::now();
    assert_eq!(store.get(&name).await.unwrap(), body);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_clock_is_the_services() {
    let Some(service) = Service::start("the_stores_clock_is_the_services").await else {
        return;
    };
    let ahead = SignedDuration::from_hours(1);
    let dated = move || {
        let then = Timestamp::now() + ahead;
        then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    service.proxy.strike(
        usize::MAX,
        Fault::Edited(Arc::new(move |answer| answer.header("date", &dated()))),
        |_| true,
    );
    let told = service.store().time().await.unwrap();
    let apart = (Timestamp::now() + ahead).duration_since(told).abs();
    assert!(apart < SignedDuration::from_secs(5), "{told}");

    service.proxy.heal();
    let skewed = error(403, "RequestTimeTooSkewed").header("date", &dated());
    service.proxy.strike(usize::MAX, Fault::Instead(skewed), |_| true);
    let store = service.store();
    let name = key("config");
    for outcome in [store.put(&name, "x".into()).await.err(), store.stat(&name).await.err()] {
        let Some(StoreError::ClockSkew { ours, theirs, .. }) = &outcome else {
            panic!("{outcome:?}");
        };
        let apart = theirs.unwrap().duration_since(*ours);
        assert!((apart - ahead).abs() < SignedDuration::from_secs(5), "{outcome:?}");
    }
    assert_eq!(service.count("PUT"), 1, "it is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_is_said_to_be_and_one_that_comes_back_is_used() {
    let Some(mut service) =
        Service::start("a_service_that_is_gone_is_said_to_be_and_one_that_comes_back_is_used").await
    else {
        return;
    };
    let store = service.store();
    let name = key("data/ab/abcd");
    store.put(&name, "content".into()).await.unwrap();
    service.server.stop().await;
    let gone = store.get(&name).await;
    assert!(matches!(gone, Err(StoreError::Unavailable { .. })), "{gone:?}");
    service.server.start_again().await.unwrap();
    assert_eq!(store.get(&name).await.unwrap(), "content");
}

/// A lock is also given back when its owner is dropped, from another runtime while this one stands still.
#[tokio::test]
async fn a_lock_that_is_dropped_is_given_back() {
    let Some(service) = Service::start("a_lock_that_is_dropped_is_given_back").await else {
        return;
    };
    let direct = S3Options {
        endpoint: Some(service.server.url("s3")),
        ..service.options()
    };
    let store: Arc<dyn Store> = Arc::new(S3Store::new(direct));
    let repository = crate::world::init(&store).await;
    let lock = backups::repo::Lock::acquire(&repository, backups::repo::LockMode::Exclusive, Timestamp::now());
    let lock = lock.await.unwrap();
    assert_eq!(backups::store::list_all(&*store, "locks/").await.unwrap().len(), 1);
    drop(lock);
    assert_eq!(backups::store::list_all(&*store, "locks/").await.unwrap(), []);
}
