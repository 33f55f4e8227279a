//! `up`, what runs then, and `down`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use opsctl_platform::local::down::{leftovers, stop_services};
use opsctl_platform::local::logs::LogTail;
use opsctl_platform::local::up::{Cause, FrontDoor, UpOptions, up};
use opsctl_platform::local::{StateDir, ports};
use opsctl_platform::{InstanceState, Platform, PlatformError};

use crate::stage::{Stage, get, spec, twin, until, with_mode};

#[tokio::test]
async fn up_serves_and_down_leaves_nothing() {
    let stage = Stage::new();
    let mut caller = spec("orders");
    caller.depends_on = vec!["identity".to_owned()];
    let outcome = stage.up_well(&[spec("identity"), caller]).await;
    assert_eq!(outcome.ready.len(), 2);
    assert_eq!(outcome.added, ["identity", "orders"]);
    let front = stage.front("orders").await;
    let mut instances = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let (status, body) = get(front, "/").await.unwrap();
        assert_eq!(status, 200);
        instances.insert(body);
    }
    assert_eq!(instances.len(), 2, "both instances answer: {instances:?}");
    let orders = stage.service("orders").await;
    let pid = orders.instances[0].pid.unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let identity = stage.front("identity").await;
    for expected in [
        format!("IDENTITY_URL=http://{identity}"),
        format!("INSTANCE_ID={}", orders.instances[0].id),
        "SERVICE_VERSION=v1".to_owned(),
        format!(
            "TRACES_FILE={}",
            stage.state().spans("orders", &orders.instances[0].id).display()
        ),
        format!("DATA_DIR={}", stage.state().path("data/orders").display()),
        "DRAIN_DELAY=50ms".to_owned(),
    ] {
        assert!(
            environment.split('\0').any(|variable| variable == expected),
            "{expected} in {environment:?}"
        );
    }
    let status = stage.platform.status().await.unwrap();
    assert!(status.healthy() && status.proxy_answers, "{status:?}");
    assert_files_are_private(stage.state().root());

    let processes = leftovers(stage.state());
    assert_eq!(processes.len(), 6, "supervisor, proxy, four instances: {processes:?}");
    let down = stage.down().await;
    assert_eq!(down.services, ["identity", "orders"]);
    assert_eq!(down.killed, 0, "{}", stage.supervisor_log());
    assert!(processes.iter().all(|process| !process.alive()));
    assert_eq!(leftovers(stage.state()), []);
    for name in ["supervisor.sock", "proxy.sock", "admin"] {
        assert!(!stage.state().path(name).exists(), "{name} is left");
    }
    assert!(ports::is_free(front.port()) && ports::is_free(identity.port()));
    assert_eq!(stage.down().await.services, Vec::<String>::new(), "idempotent");
    assert!(!stage.platform.status().await.unwrap().up());

    stage.up_well(&[spec("orders")]).await;
    assert_eq!(stage.front("orders").await, front, "the port is remembered");
    stage.down().await;
}

fn assert_files_are_private(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let mode = std::fs::symlink_metadata(entry.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
        if entry.path().is_dir() {
            assert_files_are_private(&entry.path());
        }
    }
}

#[tokio::test]
async fn up_again_changes_nothing_and_a_changed_environment_replaces_without_a_gap() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let before = stage.service("orders").await;
    let outcome = stage.up_well(&[spec("orders")]).await;
    assert_eq!(outcome.added, Vec::<String>::new());
    assert_eq!(stage.service("orders").await.instances, before.instances);

    let front = stage.front("orders").await;
    let load = tokio::spawn(async move {
        let mut failures = Vec::new();
        for _ in 0..200 {
            match get(front, "/").await {
                Ok((200, _)) => {}
                other => failures.push(other),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        failures
    });
    let mut changed = spec("orders");
    changed.env.insert("COLOUR".to_owned(), "blue".to_owned());
    stage.up_well(&[changed]).await;
    until("the old instances are gone", || async {
        let now = stage.service("orders").await;
        now.settled()
            && now
                .instances
                .iter()
                .all(|i| before.instances.iter().all(|old| old.uid != i.uid))
    })
    .await;
    assert!(load.await.unwrap().is_empty());
    stage.down().await;
}

#[tokio::test]
async fn a_service_that_dies_at_once_is_named_with_its_last_words() {
    let stage = Stage::new();
    let started = tokio::time::Instant::now();
    let outcome = stage.up(&[spec("identity"), with_mode(spec("orders"), "die")]).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(
        outcome
            .ready
            .iter()
            .map(|ready| ready.service.as_str())
            .collect::<Vec<_>>(),
        ["identity"]
    );
    let failed = &outcome.failed[0];
    assert_eq!(
        (failed.service.as_str(), failed.ready, failed.replicas),
        ("orders", 0, 2)
    );
    assert_eq!(
        (failed.cause, failed.reason.as_str()),
        (Cause::Ended, "exited with status 1")
    );
    assert!(
        failed.last_lines.iter().any(|line| line.contains("told to die")),
        "{failed:?}"
    );
    let orders = stage.service("orders").await;
    assert!(
        orders
            .instances
            .iter()
            .any(|instance| instance.state == InstanceState::CrashLoop)
    );
    stop_services(&stage.platform, &outcome.added, Duration::from_secs(10))
        .await
        .unwrap();
    until("only supervisor and proxy are left", || async {
        leftovers(stage.state()).len() == 2
    })
    .await;
    stage.down().await;
}

#[tokio::test]
async fn a_service_that_never_becomes_ready_is_given_up_in_bounded_time() {
    let stage = Stage::new();
    let mut never = with_mode(spec("orders"), "never");
    never.start_limit = Duration::from_millis(200);
    let outcome = stage.up(&[never]).await;
    let failed = &outcome.failed[0];
    assert_eq!(
        (failed.cause, failed.reason.as_str()),
        (Cause::NeverReady, "was not ready in time")
    );
    stage.down().await;
    assert_eq!(leftovers(stage.state()), []);
}

#[tokio::test]
async fn a_missing_program_and_a_taken_port_are_refused_before_anything_starts() {
    let stage = Stage::new();
    let mut missing = spec("orders");
    missing.command[0] = "/no/such/program".to_owned();
    let error = up(&stage.platform, &[missing], &UpOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PlatformError::Io { path, .. } if path.ends_with("program")),
        "{error:?}"
    );

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut taken = spec("orders");
    taken.http = FrontDoor::Port(port);
    let error = up(&stage.platform, &[taken.clone()], &UpOptions::default(), |_| {})
        .await
        .unwrap_err();
    let PlatformError::PortTaken { port: named, holder } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*named, port);
    assert!(
        holder
            .as_ref()
            .unwrap()
            .contains(&format!("pid {}", std::process::id())),
        "{holder:?}"
    );
    assert_eq!(leftovers(stage.state()), []);
    drop(listener);
    stage.up_well(&[taken]).await;
    assert_eq!(stage.front("orders").await.port(), port);
    stage.down().await;
}

#[tokio::test]
async fn two_ups_at_once_exclude_each_other() {
    let stage = Stage::new();
    let (specs, options) = ([spec("orders")], UpOptions::default());
    let (one, two) = tokio::join!(
        up(&stage.platform, &specs, &options, |_| {}),
        up(&stage.platform, &specs, &options, |_| {})
    );
    let busy = [&one, &two]
        .iter()
        .filter(|result| matches!(result, Err(PlatformError::Busy { .. })))
        .count();
    assert_eq!((busy, one.is_ok() || two.is_ok()), (1, true), "{one:?} {two:?}");
    stage.down().await;
}

#[tokio::test]
async fn a_rebuild_does_not_change_what_runs() {
    let stage = Stage::new();
    let program = stage.path().join("orders");
    std::fs::copy(twin(), &program).unwrap();
    let mut copied = spec("orders");
    copied.command[0] = program.display().to_string();
    copied.copy = true;
    copied.version = None;
    let outcome = stage.up_well(&[copied]).await;
    let version = outcome.ready[0].version.clone();
    assert_eq!(version.len(), 12);
    std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    let victim = stage.service("orders").await.instances[0].clone();
    let process = opsctl_platform::process::Process::find(victim.pid.unwrap()).unwrap();
    process.signal(rustix::process::Signal::KILL).unwrap();
    until("it runs again", || async {
        let service = stage.service("orders").await;
        service.ready_of(&version) == 2 && service.instances.iter().all(|instance| instance.uid != victim.uid)
    })
    .await;
    stage.down().await;
}

#[tokio::test]
async fn a_promoted_version_is_what_up_uses() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let second = crate::stage::second();
    assert!(
        stage
            .platform
            .start_version(None, "orders", &second)
            .await
            .unwrap()
            .applied()
    );
    let field = opsctl_platform::Field::stable_version("orders");
    let (old, new) = (serde_json::json!("v1"), serde_json::json!("v2"));
    assert!(
        stage
            .platform
            .compare_and_set(None, &field, Some(&old), Some(&new))
            .await
            .unwrap()
            .applied()
    );
    assert!(
        stage
            .platform
            .stop_version(None, "orders", "v1")
            .await
            .unwrap()
            .applied()
    );
    let front = stage.front("orders").await;
    until("the second version answers", || async {
        get(front, "/")
            .await
            .is_ok_and(|(status, body)| status == 200 && body.contains(" v2 "))
    })
    .await;
    stage.down().await;
    let outcome = stage.up_well(&[spec("orders")]).await;
    assert_eq!(
        (outcome.ready[0].version.as_str(), outcome.ready[0].promoted),
        ("v2", true)
    );
    stage.down().await;
    let options = UpOptions {
        ignore_promoted: true,
        ..UpOptions::default()
    };
    let outcome = up(&stage.platform, &[spec("orders")], &options, |_| {}).await.unwrap();
    assert_eq!(
        (outcome.ready[0].version.as_str(), outcome.ready[0].promoted),
        ("v1", false)
    );
    stage.down().await;
}

#[tokio::test]
async fn logs_are_followed_by_service_and_instance() {
    let stage = Stage::new();
    stage.up_well(&[spec("identity"), spec("orders")]).await;
    let mut tail = LogTail::new(stage.state(), &["orders".to_owned()], None);
    let lines = tail.last(1).unwrap();
    assert_eq!(lines.len(), 2, "one line of each instance: {lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.service == "orders" && line.line.starts_with("starting"))
    );
    assert_eq!(tail.poll().unwrap(), []);
    stage.down().await;
    assert_eq!(
        tail.poll()
            .unwrap()
            .iter()
            .filter(|line| line.line == "draining")
            .count(),
        2
    );
}

#[tokio::test]
async fn a_folder_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(".opsctl");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(StateDir::open(&root), Err(PlatformError::Unsafe { .. })));
}

#[tokio::test]
async fn a_state_folder_with_a_long_path_works() {
    let stage = Stage::below(&["a-rather-long-name"; 8].join("/"));
    assert!(stage.state().supervisor_socket().as_os_str().len() > 108);
    stage.up_well(&[spec("orders")]).await;
    let admin = stage.service("orders").await.instances[0]
        .addresses
        .admin
        .clone()
        .unwrap();
    assert!(admin.starts_with("127.0.0.1:"), "{admin}");
    stage.down().await;
}
