//! The real binary, spoken to as its clients do: what it answers, refuses, retries, and how it starts and ends.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::HashSet;

use chassis::trial::{FORGED, Trial, until_async};
use proto::notifications::v1::{
    Event, EventState, ListNotificationsRequest, PublishEventRequest, PublishEventResponse, ReplayDeadLetterRequest,
};
use support::client::{EXE, client, dead_letters, event, notifications, publish, settled, stats};
use tonic::Code;
use uuid::Uuid;

mod support {
    pub(crate) mod client;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_becomes_one_notification() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path())
        .arg("--version-label")
        .arg("v3")
        .start()
        .await;
    let mut client = client(&service);
    let event = event("o1");
    let answer = client
        .publish_event(PublishEventRequest {
            event: Some(event.clone()),
        })
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("x-service-version").unwrap(), "v3");
    assert_eq!(
        answer.into_inner(),
        PublishEventResponse {
            duplicate: false,
            state: EventState::Pending.into()
        }
    );
    settled(&client).await;
    let again = publish(&mut client, &event).await.unwrap();
    assert_eq!(
        again,
        PublishEventResponse {
            duplicate: true,
            state: EventState::Processed.into()
        }
    );
    let shouted = Event {
        event_id: event.event_id.to_uppercase(),
        ..event.clone()
    };
    assert!(
        publish(&mut client, &shouted).await.unwrap().duplicate,
        "an id is the same in capitals"
    );
    let all = notifications(&mut client).await;
    assert_eq!(
        (all.len(), all[0].event_id.as_str(), all[0].subject.as_str()),
        (1, event.event_id.as_str(), "o1")
    );
    assert_eq!(all[0].text, "Your order o1 (12.50 EUR) has been paid.");
    let duplicate = "notifications_events_total{outcome=\"duplicate\"}";
    assert!((service.metric(duplicate).await - 2.0).abs() < 1e-9);
    service.check_probes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_own_code_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    let mut client = client(&service);
    let good = event("o1");
    publish(&mut client, &good).await.unwrap();
    for (event, code) in [
        (
            Event {
                subject: "o2".into(),
                ..good.clone()
            },
            Code::AlreadyExists,
        ),
        (
            Event {
                event_id: "x'); DROP TABLE events; --".into(),
                ..good.clone()
            },
            Code::InvalidArgument,
        ),
        (
            Event {
                event_id: String::new(),
                ..good.clone()
            },
            Code::InvalidArgument,
        ),
        (
            Event {
                r#type: "a\nb".into(),
                ..event("o")
            },
            Code::InvalidArgument,
        ),
        (
            Event {
                version: 0,
                ..event("o")
            },
            Code::InvalidArgument,
        ),
        (event(FORGED), Code::InvalidArgument),
        (
            Event {
                occurred_at: "yesterday".into(),
                ..event("o")
            },
            Code::InvalidArgument,
        ),
        (
            Event {
                payload: vec![b'x'; 65_537],
                ..event("o")
            },
            Code::InvalidArgument,
        ),
        (
            Event {
                payload: vec![b'x'; 1 << 20],
                ..event("o")
            },
            Code::OutOfRange,
        ),
    ] {
        assert_eq!(publish(&mut client, &event).await.unwrap_err().code(), code);
    }
    let nothing = client
        .publish_event(PublishEventRequest { event: None })
        .await
        .unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    let replay = |id: &str| {
        let (mut client, event_id) = (client.clone(), id.to_owned());
        async move {
            client
                .replay_dead_letter(ReplayDeadLetterRequest { event_id })
                .await
                .unwrap_err()
                .code()
        }
    };
    assert_eq!(replay(&Uuid::new_v4().to_string()).await, Code::NotFound);
    assert_eq!(replay(&good.event_id).await, Code::FailedPrecondition);
    assert_eq!(replay("1 OR 1=1").await, Code::InvalidArgument);
    let wrong = ListNotificationsRequest {
        page_token: "n1.-1".into(),
        ..Default::default()
    };
    assert_eq!(
        client.list_notifications(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let odd = event("'; DELETE FROM notifications; --");
    publish(&mut client, &odd).await.unwrap();
    let stats = settled(&client).await;
    assert_eq!((stats.events, stats.notifications), (2, 2));
    service.check_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_waits_as_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    let mut client = client(&service);
    let newer = Event {
        version: 2,
        ..event("o1")
    };
    let unknown = Event {
        r#type: "order.eaten".into(),
        ..event("o2")
    };
    let broken = Event {
        payload: b"{".to_vec(),
        ..event("o3")
    };
    for event in [&newer, &unknown] {
        assert_eq!(
            publish(&mut client, event).await.unwrap().state(),
            EventState::DeadLetter
        );
    }
    assert_eq!(
        publish(&mut client, &broken).await.unwrap().state(),
        EventState::Pending
    );
    settled(&client).await;
    let letters = dead_letters(&mut client).await;
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["unsupported_version", "unknown_type", "bad_payload"]);
    assert_eq!(
        letters[0].event.as_ref(),
        Some(&newer),
        "it is kept as it was published"
    );
    client
        .replay_dead_letter(ReplayDeadLetterRequest {
            event_id: newer.event_id.clone(),
        })
        .await
        .unwrap();
    let stats = settled(&client).await;
    assert_eq!(
        (stats.dead_letters, stats.notifications),
        (3, 0),
        "a replay that fails again is a dead letter again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_then_wait_for_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path())
        .env("MAX_ATTEMPTS", "3")
        .env("RETRY_BASE", "5ms");
    let service = trial.clone().env("CHANNEL_FAULT", "errors=100%").start().await;
    let mut broken = client(&service);
    let events: Vec<_> = (0..5).map(|n| event(&format!("o{n}"))).collect();
    for event in &events {
        publish(&mut broken, event).await.unwrap();
    }
    let stats = settled(&broken).await;
    assert_eq!((stats.dead_letters, stats.notifications), (5, 0));
    let letters = dead_letters(&mut broken).await;
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason == "attempts_exhausted" && letter.attempts == 3),
        "{letters:?}"
    );
    assert!((service.metric("notifications_sent_total{outcome=\"retry\"}").await - 10.0).abs() < 1e-9);
    drop(service);

    let service = trial
        .clone()
        .env("CHANNEL_FAULT", "errors=50%")
        .env("MAX_ATTEMPTS", "100")
        .start()
        .await;
    let mut flaky = client(&service);
    for event in &events {
        flaky
            .replay_dead_letter(ReplayDeadLetterRequest {
                event_id: event.event_id.clone(),
            })
            .await
            .unwrap();
    }
    let stats = settled(&flaky).await;
    assert_eq!((stats.dead_letters, stats.notifications), (0, 5));
    let ids: HashSet<_> = notifications(&mut flaky)
        .await
        .into_iter()
        .map(|n| n.event_id)
        .collect();
    assert_eq!(ids.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_loses_no_publication_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let mut service = trial
        .clone()
        .env("SERVICE_FAULT", "latency=400ms")
        .env("DRAIN_DELAY", "100ms")
        .start()
        .await;
    let clients = client(&service);
    let mut probe = clients.clone();
    stats(&mut probe).await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let mut client = clients.clone();
            tokio::spawn(async move { publish(&mut client, &event(&format!("o{n}"))).await })
        })
        .collect();
    until_async("the calls have begun", || async {
        let begun = service.metric("grpc_server_started_total").await;
        (begun >= 21.0).then_some(())
    })
    .await;
    service.terminate();
    for task in tasks {
        task.await.unwrap().expect("a call under way is answered");
    }
    assert_eq!(service.until_ended().await.code(), Some(0));
    let service = trial.start().await;
    let stats = settled(&client(&service)).await;
    assert_eq!((stats.events, stats.notifications), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_end_it_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    for (trial, words) in [
        (trial.clone().env("MAX_ATTEMPTS", "0"), "--max-attempts"),
        (trial.clone().env("RETRY_BASE", "fast"), "--retry-base"),
        (trial.clone().env("CHANNEL_FAULT", "errors=1"), "percent"),
    ] {
        let (code, _, stderr) = trial.run_to_end().await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(words), "{words} in {stderr}");
    }
}
