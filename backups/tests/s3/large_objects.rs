//! Objects in parts: the answer to the last request may be a lie, and nothing unfinished stays.

use std::sync::Arc;
use std::time::Duration;

use backups::store::S3Store;
use backups::store::s3::{Multipart, S3Options};
use backups::{Store, StoreError};
use jiff::SignedDuration;
use peers::faults::{Answer, Fault, Limits, Request};

use crate::service::{BUCKET, Service, error, key, name, refused};
use crate::world::noise;

fn store(service: &Service) -> S3Store {
    S3Store::new(S3Options {
        multipart: Multipart {
            above: 6 << 20,
            part: 5 << 20,
        },
        ..service.options()
    })
}

fn completes(request: &Request) -> bool {
    request.method == "POST" && request.path.contains("uploadId")
}

fn begins(request: &Request) -> bool {
    request.method == "POST" && request.path.contains("uploads")
}

fn aborts(request: &Request) -> bool {
    request.method == "DELETE" && request.path.contains("uploadId")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn sends_a_part(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("partNumber")
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_object_whatever_happens_on_the_way() {
    let Some(service) = Service::start("parts_become_one_object_whatever_happens_on_the_way").await else {
        return;
    };
    let store = store(&service);
    let body = noise(1, 17 << 20);
    let lie = |answer: Answer| {
        Answer {
            status: 200,
            ..error(500, "InternalError")
        }
        .header("x-was", &answer.status.to_string())
    };
    for (number, fault) in [
        // Status 200, an error in the body: it was not done.
        Fault::Instead(Answer {
            status: 200,
            ..error(200, "InternalError")
        }),
        // The same, and it was done.
        Fault::Edited(Arc::new(lie)),
        Fault::AnswerLost,
        refused(503, "SlowDown"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = key(&format!("data/ab/{number}"));
        service.proxy.heal();
        service.proxy.strike(1, fault.clone(), completes);
        service.proxy.strike(1, Fault::RequestCut(1 << 20), sends_a_part);
        let outcome = store.put(&name, body.clone().into()).await;
        assert!(outcome.is_ok(), "{fault:?}: {outcome:?}");
        assert_eq!(store.get(&name).await.unwrap(), body, "{fault:?}");
        assert_eq!(service.unfinished(&name).await, 0, "{fault:?}");
        let again = store.put(&name, noise(2, 17 << 20).into()).await;
        assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_that_are_completed_wins() {
    let Some(service) = Service::start("the_first_of_two_that_are_completed_wins").await else {
        return;
    };
    let (store, name) = (store(&service), key("data/ab/abcd"));
    let bodies = [noise(1, 7 << 20), noise(2, 7 << 20)];
    let puts = bodies.iter().map(|body| store.put(&name, body.clone().into()));
    let outcomes = futures::future::join_all(puts).await;
    let winner = outcomes.iter().position(Result::is_ok).expect("one wins");
    assert!(
        outcomes[1 - winner].as_ref().is_err_and(StoreError::is_exists),
        "{outcomes:?}"
    );
    assert_eq!(store.get(&name).await.unwrap(), bodies[winner]);
    assert_eq!(service.unfinished(&name).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_completed_is_aborted() {
    let Some(service) = Service::start("what_cannot_be_completed_is_aborted").await else {
        return;
    };
    let (store, name) = (store(&service), key("data/ab/abcd"));
    let body = noise(1, 12 << 20);
    service.proxy.strike(1, refused(403, "AccessDenied"), sends_a_part);
    let outcome = store.put(&name, body.clone().into()).await;
    assert!(matches!(outcome, Err(StoreError::Denied { .. })), "{outcome:?}");
    assert_eq!(service.unfinished(&name).await, 0);
    assert!(store.get(&name).await.unwrap_err().is_not_found());

    // Nobody waits for it any more.
    service.proxy.strike(1, Fault::Silence, completes);
    let seen = |fits: fn(&Request) -> bool| service.proxy.seen().iter().filter(|request| fits(request)).count();
    tokio::select! {
        outcome = store.put(&name, body.clone().into()) => panic!("nobody answers, and it ended: {outcome:?}"),
        () = until("it is to be completed", async || seen(completes) > 0) => {}
    }
    until("it is aborted", async || service.unfinished(&name).await == 0).await;

    // Nobody waits for it before it has begun.
    let (begun, aborted) = (seen(begins), seen(aborts));
    service.proxy.limit(Limits {
        latency: Duration::from_millis(300),
        ..Limits::default()
    });
    tokio::select! {
        outcome = store.put(&name, body.into()) => panic!("it was not to end: {outcome:?}"),
        () = until("it is to begin", async || seen(begins) > begun) => {}
    }
    until("it is aborted", async || {
        seen(aborts) > aborted && service.unfinished(&name).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_swept_when_it_is_old() {
    let Some(service) = Service::start("what_a_dead_process_left_is_swept_when_it_is_old").await else {
        return;
    };
    let (store, left) = (store(&service), key("data/ab/abcd"));
    let begun = service
        .admin()
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(name(&left));
    let id = begun.send().await.unwrap().upload_id.unwrap();
    // MinIO lists uploads by whole names alone, so its list is told here; the upload is real.
    let listed = |hours: i64| {
        let then = jiff::Timestamp::now() - SignedDuration::from_hours(hours);
        let body = format!(
            "<ListMultipartUploadsResult><Bucket>{BUCKET}</Bucket><IsTruncated>false</IsTruncated><Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{then:.0}</Initiated></Upload></ListMultipartUploadsResult>",
            name(&left)
        );
        Fault::Instead(Answer::new(200, "application/xml", body))
    };
    let lists = |request: &Request| request.method == "GET" && request.path.contains("uploads");
    let day = SignedDuration::from_hours(24);
    service.proxy.strike(1, listed(1), lists);
    assert_eq!(store.sweep(day).await.unwrap(), 0, "it may be under way");
    assert_eq!(service.unfinished(&left).await, 1);
    service.proxy.strike(1, listed(25), lists);
    assert_eq!(store.sweep(day).await.unwrap(), 1);
    assert_eq!(service.unfinished(&left).await, 0);
}
