//! Two real instances on one file, racing clients, and `kill -9`: an order is charged exactly once, what was answered is
//! never lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::trial::{Trial, kills, seed, until_async};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::client::{EXE, charges, client, payment, refund};
use support::shop::{CENTS, check, shop};
use tokio::sync::Mutex;
use tokio::time::Instant;

mod support {
    pub(crate) mod client;
    pub(crate) mod shop;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_with_one_key_over_two_instances_make_one_charge() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let (one, two) = tokio::join!(trial.start(), trial.start());
    let clients = [client(&one), client(&two)];
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let mut client = clients[n % 2].clone();
            tokio::spawn(async move {
                let order = format!("o{}", n % 4);
                let answer = client
                    .process_payment(payment(&order, &order, CENTS))
                    .await
                    .unwrap()
                    .into_inner();
                (answer.charge.unwrap().charge_id, answer.replayed)
            })
        })
        .collect();
    let (mut ids, mut first) = (HashSet::new(), 0);
    for task in tasks {
        let (id, replayed) = task.await.unwrap();
        ids.insert(id);
        first += usize::from(!replayed);
    }
    assert_eq!((ids.len(), first), (4, 4));
    let charges = charges(&mut clients[1].clone()).await;
    assert_eq!(
        charges
            .iter()
            .map(|charge| charge.charge_id.clone())
            .collect::<HashSet<_>>(),
        ids
    );
    assert_eq!(charges.len(), 4);

    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let mut client = clients[n % 2].clone();
            tokio::spawn(async move {
                !client
                    .refund_payment(refund("o0", &format!("r{}", n % 10)))
                    .await
                    .unwrap()
                    .into_inner()
                    .replayed
            })
        })
        .collect();
    let mut refunds = 0;
    for task in tasks {
        refunds += usize::from(task.await.unwrap());
    }
    assert_eq!(refunds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing_and_doubles_nothing() {
    let kills = kills(8);
    let mut random = StdRng::seed_from_u64(seed());
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let told = Arc::new(Mutex::new(HashMap::new()));
    let mut steady = trial.start().await;
    for round in 0..kills {
        let mut victim = trial.start().await;
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let client = client(if n % 2 == 0 { &steady } else { &victim });
                let random = StdRng::seed_from_u64(random.random());
                tokio::spawn(shop(client, random, Arc::clone(&told), Arc::clone(&stop)))
            })
            .collect();
        let before = told.lock().await.len();
        let moment = Instant::now() + Duration::from_millis(random.random_range(5..150));
        until_async("the load has begun, and the moment has come", || async {
            (told.lock().await.len() > before || round > 3)
                .then_some(())
                .filter(|()| Instant::now() >= moment)
        })
        .await;
        victim.kill();
        if round % 3 == 2 {
            // Both at once: nobody is left who could know better.
            steady.kill();
            steady = trial.start().await;
        }
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        check(&steady, &*told.lock().await).await;
    }
    assert!(told.lock().await.len() > 50, "the load was real");
}
