//! Two real instances on one file, publishers that repeat themselves, and `kill -9`: every event takes effect exactly
//! once, what was acknowledged is never lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::trial::{Trial, kills, seed, until_async};
use proto::notifications::v1::{Event, EventState};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::client::{EXE, client, dead_letters, event, notifications, publish, settled};
use tokio::sync::Mutex;

mod support {
    pub(crate) mod client;
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
