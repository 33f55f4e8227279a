//! Two real instances on one file, publishers that repeat themselves, and `kill -9`: every event takes effect exactly
//! once, what was acknowledged is never lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::trial::{Instance, Trial, kills, seed, until_async};
use proto::notifications::v1::notifications_client::NotificationsClient;
use proto::notifications::v1::{
    DeadLetter, Event, EventState, GetStatsRequest, GetStatsResponse, ListDeadLettersRequest, ListNotificationsRequest,
    Notification, PublishEventRequest, PublishEventResponse,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

const EXE: &str = env!("CARGO_BIN_EXE_notifications");

type Client = NotificationsClient<Channel>;

fn client(service: &Instance) -> Client {
    let endpoint = Endpoint::from_shared(service.grpc_url()).unwrap();
    NotificationsClient::new(
        endpoint
            .connect_timeout(Duration::from_secs(1))
            .timeout(Duration::from_secs(10))
            .connect_lazy(),
    )
}

fn event(subject: &str) -> Event {
    Event {
        event_id: Uuid::new_v4().to_string(),
        r#type: "order.paid".into(),
        version: 1,
        subject: subject.into(),
        source: "orders".into(),
        occurred_at: "2026-11-21T10:00:00Z".into(),
        payload: br#"{"total_cents":1250,"currency":"EUR"}"#.to_vec(),
    }
}

async fn publish(client: &mut Client, event: &Event) -> Result<PublishEventResponse, Status> {
    client
        .publish_event(PublishEventRequest {
            event: Some(event.clone()),
        })
        .await
        .map(tonic::Response::into_inner)
}

async fn stats(client: &mut Client) -> GetStatsResponse {
    client.get_stats(GetStatsRequest {}).await.unwrap().into_inner()
}

/// Waits until nothing is pending.
async fn settled(client: &Client) -> GetStatsResponse {
    until_async("nothing is pending", || {
        let mut client = client.clone();
        async move {
            let stats = stats(&mut client).await;
            assert_eq!(stats.events, stats.pending + stats.processed + stats.dead_letters);
            assert_eq!(stats.notifications, stats.processed);
            (stats.pending == 0).then_some(stats)
        }
    })
    .await
}

async fn notifications(client: &mut Client) -> Vec<Notification> {
    let (mut token, mut all) = (String::new(), Vec::new());
    loop {
        let request = ListNotificationsRequest {
            page_size: 100,
            page_token: token,
            ..Default::default()
        };
        let page = client.list_notifications(request).await.unwrap().into_inner();
        all.extend(page.notifications);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

async fn dead_letters(client: &mut Client) -> Vec<DeadLetter> {
    client
        .list_dead_letters(ListDeadLettersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .dead_letters
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publications_over_two_instances_have_one_effect_each() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let (one, two) = tokio::join!(trial.start(), trial.start());
    let clients = [client(&one), client(&two)];
    let events: Arc<Vec<_>> = Arc::new((0..10).map(|n| event(&format!("o{n}"))).collect());
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let (mut client, events) = (clients[n % 2].clone(), Arc::clone(&events));
            tokio::spawn(async move { publish(&mut client, &events[n % 10]).await.unwrap().duplicate })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        first += usize::from(!task.await.unwrap());
    }
    assert_eq!(first, 10);
    let stats = settled(&clients[0]).await;
    assert_eq!((stats.events, stats.notifications, stats.duplicates), (10, 10, 190));
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_gives_every_event_exactly_one_effect() {
    let kills = kills(8);
    let mut random = StdRng::seed_from_u64(seed());
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path())
        .env("CHANNEL_FAULT", "errors=20%")
        .env("RETRY_BASE", "1ms");
    let acknowledged = Arc::new(Mutex::new(HashMap::<String, Event>::new()));
    for round in 0..kills {
        let (mut one, mut two) = tokio::join!(trial.start(), trial.start());
        let stop = Arc::new(AtomicBool::new(false));
        let before = acknowledged.lock().await.len();
        let tasks: Vec<_> = (0..6)
            .map(|n| {
                let mut client = client(if n % 2 == 0 { &one } else { &two });
                let mut random = StdRng::seed_from_u64(random.random());
                let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut next = event(&format!("o{round}.{n}"));
                    while !stop.load(Ordering::SeqCst) {
                        // As a relay does: what was not acknowledged is sent again, and sometimes what was, too.
                        if let Ok(answer) = publish(&mut client, &next).await {
                            assert_ne!(answer.state(), EventState::Unspecified);
                            acknowledged.lock().await.insert(next.event_id.clone(), next.clone());
                            if random.random_bool(0.8) {
                                next = event(&format!("o{round}.{n}"));
                            }
                        }
                    }
                })
            })
            .collect();
        let wanted = before + random.random_range(5..60);
        until_async("the load is real", || async {
            (acknowledged.lock().await.len() >= wanted).then_some(())
        })
        .await;
        one.kill();
        if random.random_bool(0.5) {
            two.kill();
        }
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
    }
    let service = trial.start().await;
    let mut client = client(&service);
    let stats = settled(&client).await;
    let effects = notifications(&mut client).await;
    let by_event: HashSet<&str> = effects.iter().map(|effect| effect.event_id.as_str()).collect();
    assert_eq!(by_event.len(), effects.len(), "an event has two effects");
    assert_eq!(effects.len() as u64, stats.notifications);
    let dead: HashSet<String> = dead_letters(&mut client)
        .await
        .into_iter()
        .filter_map(|letter| Some(letter.event?.event_id))
        .collect();
    for id in acknowledged.lock().await.keys() {
        assert!(
            by_event.contains(id.as_str()) || dead.contains(id),
            "{id} was acknowledged and is lost"
        );
    }
}
