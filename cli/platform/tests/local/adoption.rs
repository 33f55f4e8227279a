//! The supervisor's death harms nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opsctl_platform::Platform;
use opsctl_platform::local::down::{DownOptions, down, leftovers};
use opsctl_platform::process::Process;
use rustix::process::Signal;

use crate::stage::{Stage, get, spec, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_the_supervisor_is_killed_under_load() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let front = stage.front("orders").await;
    let before = stage.service("orders").await;
    let stop = Arc::new(AtomicBool::new(false));
    let good = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
            tokio::spawn(async move {
                let mut bad = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(front, "/").await {
                        Ok((200, _)) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        other => bad.push(other),
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                bad
            })
        })
        .collect();
    for round in 1..=3 {
        let supervisor = stage.supervisor();
        assert!(supervisor.signal(Signal::KILL).unwrap());
        until("it is dead", || async { !supervisor.alive() }).await;
        let status = stage.platform.status().await.unwrap();
        assert_eq!(status.supervisor, None, "status works and says so");
        assert_eq!(status.services[0].ready().count(), 2);
        let next = stage.platform.ensure_supervisor().await.unwrap();
        assert_ne!(next, supervisor);
        until("there was load", || async { good.load(Ordering::Relaxed) > round * 40 }).await;
    }
    let after = stage.service("orders").await;
    let uids = |service: &opsctl_platform::ServiceState| -> Vec<String> {
        service.instances.iter().map(|instance| instance.uid.clone()).collect()
    };
    assert_eq!(uids(&after), uids(&before), "adopted, not restarted");
    stop.store(true, Ordering::Relaxed);
    for task in load {
        let bad = task.await.unwrap();
        assert!(bad.is_empty(), "{bad:?}");
    }

    // An adopted instance that ends is replaced like any other.
    let victim = Process::find(after.instances[0].pid.unwrap()).unwrap();
    victim.signal(Signal::KILL).unwrap();
    until("it is replaced", || async {
        let now = stage.service("orders").await;
        now.ready_of("v1") == 2 && now.instances.iter().all(|i| i.uid != victim.uid())
    })
    .await;
    stage.down().await;
    assert_eq!(leftovers(stage.state()), []);
}

#[tokio::test]
async fn what_ran_without_a_supervisor_is_adopted_even_when_its_files_are_lost() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let before = stage.service("orders").await.instances;
    stage.supervisor().signal(Signal::KILL).unwrap();
    std::fs::remove_file(stage.state().path("instances.json")).unwrap();
    stage.platform.ensure_supervisor().await.unwrap();
    until("both are known", || async {
        stage.service("orders").await.ready_of("v1") == 2
    })
    .await;
    let after = stage.service("orders").await.instances;
    assert_eq!(
        after.iter().map(|i| &i.uid).collect::<Vec<_>>(),
        before.iter().map(|i| &i.uid).collect::<Vec<_>>()
    );
    stage.down().await;
}

#[tokio::test]
async fn the_proxy_comes_back_on_its_ports() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let front = stage.front("orders").await;
    let proxy = stage.platform.status().await.unwrap().proxy.unwrap();
    proxy.signal(Signal::KILL).unwrap();
    until("another proxy answers", || async {
        get(front, "/").await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    assert_ne!(stage.platform.status().await.unwrap().proxy, Some(proxy));
    stage.down().await;
}

#[tokio::test]
async fn down_works_when_supervisor_and_proxy_are_dead_or_stopped() {
    for signal in [Signal::KILL, Signal::STOP] {
        let stage = Stage::new();
        stage.up_well(&[spec("orders")]).await;
        let proxy = stage.platform.status().await.unwrap().proxy.unwrap();
        stage.supervisor().signal(signal).unwrap();
        proxy.signal(signal).unwrap();
        let options = DownOptions {
            services: Duration::from_secs(8),
            ..DownOptions::default()
        };
        down(&stage.platform, &options).await.unwrap();
        assert_eq!(leftovers(stage.state()), []);
    }
}

#[tokio::test]
async fn a_change_made_while_the_supervisor_is_dead_takes_effect() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    stage.supervisor().signal(Signal::KILL).unwrap();
    let field = opsctl_platform::Field::replicas("orders", "v1");
    let (two, three) = (serde_json::json!(2), serde_json::json!(3));
    assert!(
        stage
            .platform
            .compare_and_set(None, &field, Some(&two), Some(&three))
            .await
            .unwrap()
            .applied()
    );
    until("three run", || async {
        stage.service("orders").await.ready_of("v1") == 3
    })
    .await;
    stage.down().await;
}
