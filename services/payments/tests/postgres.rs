//! Real replicas over one real PostgreSQL: the server is killed and comes back, is there too late, lets nobody in. What
//! was answered is never lost, an order is charged exactly once, and no password is shown.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::trial::{Trial, kills, new_database, seed, until_async};
use peers::Server;
use peers::servers::Postgres;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use support::client::{EXE, charges, client, payment};
use support::shop::{CENTS, check, shop};
use tokio::sync::Mutex;

mod support {
    pub(crate) mod client;
    pub(crate) mod shop;
}

/// A replica that must not write anything to its disk.
fn replica(url: &str) -> Trial {
    Trial::new(EXE, "/nowhere/at/all".as_ref())
        .env("DATABASE_URL", url)
        .env("DATABASE_CONNECTIONS", "4")
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_lose_and_double_nothing_while_the_server_is_killed_and_started() {
    let test = "replicas_lose_and_double_nothing_while_the_server_is_killed_and_started";
    let Some(mut server) = Server::start(Postgres::default(), test).await else {
        return;
    };
    let url = new_database(&server.url("postgres")).await;
    let (one, two) = (replica(&url), replica(&url));
    // Both migrate at one moment.
    let (one, two) = tokio::join!(one.start(), two.start());
    let mut random = StdRng::seed_from_u64(seed());
    let told = Arc::new(Mutex::new(HashMap::new()));
    for round in 0..kills(3) {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let client = client(if n % 2 == 0 { &one } else { &two });
                let random = StdRng::seed_from_u64(random.random());
                tokio::spawn(shop(client, random, Arc::clone(&told), Arc::clone(&stop)))
            })
            .collect();
        let progress = async |what: &str| {
            let before = told.lock().await.len();
            until_async(what, || async { (told.lock().await.len() > before + 5).then_some(()) }).await;
        };
        progress("the load has begun").await;
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop().await;
        }
        let refused = || async { client(&one).process_payment(payment("x", "x", CENTS)).await.err() };
        let status = until_async("a call fails", refused).await;
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        // What all replicas share takes none of them out of balance.
        assert_eq!(one.get("/health/ready").await.unwrap().status, 200);
        server.start_again().await.unwrap();
        progress("the load goes on by itself").await;
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        let told = told.lock().await;
        check(&one, &told).await;
        check(&two, &told).await;
    }
    let used = one.metric("db_pool_connections{").await;
    assert!(used >= 1.0, "the pool is measured: {used}");
    one.check_log();
    assert!(!Path::new("/nowhere").exists(), "nothing is written to DATA_DIR");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_before_its_database_is_ready_when_that_is() {
    let test = "a_service_that_starts_before_its_database_is_ready_when_that_is";
    let Some(mut server) = Server::start(Postgres::default(), test).await else {
        return;
    };
    let url = new_database(&server.url("postgres")).await;
    server.stop().await;
    let service = replica(&url).launch().await;
    assert_eq!(service.get("/health/live").await.unwrap().status, 200);
    assert_eq!(service.get("/health/ready").await.unwrap().status, 503);
    let early = client(&service).process_payment(payment("o1", "k1", CENTS)).await;
    assert_eq!(early.unwrap_err().code(), tonic::Code::Unavailable);
    server.start_again().await.unwrap();
    service.until_ready().await;
    client(&service)
        .process_payment(payment("o1", "k1", CENTS))
        .await
        .unwrap();
    assert_eq!(charges(&mut client(&service)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_database_is_told_without_its_password() {
    let test = "what_is_wrong_with_the_database_is_told_without_its_password";
    let Some(server) = Server::start(Postgres::default().password("right"), test).await else {
        return;
    };
    let address = server.address("postgres");
    let folder = tempfile::tempdir().unwrap();
    for (url, code, words) in [
        (
            format!("postgres://postgres:hunter2@{address}/postgres"),
            2,
            "refuses this service",
        ),
        (
            format!("postgres://postgres:right@{address}/missing"),
            2,
            "refuses this service",
        ),
        (
            format!("postgres://postgres:hunter2@{address}/postgres?sslmode=require"),
            2,
            "TLS",
        ),
        ("postgres://postgres:hunter2/postgres".to_owned(), 2, "DATABASE_URL"),
    ] {
        let file = folder.path().join("url");
        std::fs::write(&file, &url).unwrap();
        for trial in [
            Trial::new(EXE, folder.path()).env("DATABASE_URL", &url),
            Trial::new(EXE, folder.path()).env("DATABASE_URL_FILE", file.to_str().unwrap()),
        ] {
            let (status, stdout, stderr) = trial.run_to_end().await;
            assert_eq!(status, Some(code), "{stderr}");
            assert!(stderr.contains(words), "{stderr}");
            assert!(!format!("{stdout}{stderr}").contains("hunter2"), "{stdout}{stderr}");
        }
    }
    assert!(!folder.path().join("payments.db").exists());
}
