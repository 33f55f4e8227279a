//! Runs whose worker, watchdog or supervisor is killed or stopped at any point: everything is as before afterwards, or
//! the run says what is not.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use opsctl_platform::local::Role;
use opsctl_platform::process::Process;
use opsctl_platform::run::{
    Cancel, Journal, Loss, Outcome, Phase, Reason, Recovered, RunError, RunRecord, Tail, lock, orphans, recover,
    request_cancel,
};
use opsctl_platform::{Field, LeaseHolder, Platform};
use rustix::process::Signal;
use serde_json::json;

use crate::stage::{Stage, spec, until};

const RUN: &str = "test-run";

/// A run of the twin's worker on `orders`, not started yet.
async fn prepare(stage: &Stage, id: &str, watched: bool, ttl: f64) {
    let spec = json!({ "service": "orders", "watched": watched, "ttl": ttl });
    let mut record = RunRecord::new(id, "test", "service/orders", spec, stage.platform.now());
    record.locks = vec![lock::name_for_service("orders")];
    stage.platform.create_record(&record).await.unwrap();
}

fn spawn(stage: &Stage, role: Role<'_>) -> Process {
    stage.platform.launcher().unwrap().spawn(role, stage.state()).unwrap()
}

async fn start(stage: &Stage, watched: bool, ttl: f64) -> (Process, Option<Process>) {
    prepare(stage, RUN, watched, ttl).await;
    let worker = spawn(stage, Role::Worker { run: RUN });
    let watchdog = watched.then(|| spawn(stage, Role::Watchdog { run: RUN }));
    (worker, watchdog)
}

/// Lets the worker pass a step.
fn go(stage: &Stage, step: usize) {
    std::fs::write(stage.state().run_dir(RUN).join(format!("go-{step}")), "").unwrap();
}

async fn reached(stage: &Stage, kind: &str, step: usize) {
    until(&format!("the worker is {kind} step {step}"), || async {
        let mut tail = Tail::new(stage.state().journal(RUN));
        tail.poll()
            .unwrap()
            .iter()
            .any(|event| event.kind == kind && event.data["step"] == json!(step))
    })
    .await;
}

async fn closed(stage: &Stage) -> RunRecord {
    until("the run is closed", || async {
        stage
            .platform
            .record(RUN)
            .await
            .unwrap()
            .is_some_and(|record| record.phase == Phase::Closed)
    })
    .await;
    stage.platform.record(RUN).await.unwrap().unwrap()
}

/// Makes room for another run of the same name, which no real run has: a watchdog that had not quite ended would find the
/// new one.
async fn forget(stage: &Stage, watchdog: Process) {
    until("the watchdog has ended", || async { !watchdog.alive() }).await;
    std::fs::remove_dir_all(stage.state().run_dir(RUN)).unwrap();
}

/// Nothing that the twin's worker changes is changed.
async fn assert_as_before(stage: &Stage) {
    let replicas = stage.platform.get(&Field::replicas("orders", "v1")).await.unwrap();
    let hold = stage.platform.get(&Field::hold("orders")).await.unwrap();
    assert_eq!((replicas, hold), (Some(json!(2)), None));
    let name = lock::name_for_service("orders");
    let busy = lock::busy(stage.platform.as_ref(), &name).await.unwrap();
    assert_eq!(busy, None, "another run may start");
    until("the lease is given back", || async {
        stage.platform.lease(&name).await.unwrap().is_none()
    })
    .await;
    until("all instances run", || async {
        stage.service("orders").await.settled()
    })
    .await;
}

#[tokio::test]
async fn a_run_that_ends_by_itself_leaves_nothing() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (_, watchdog) = start(&stage, true, 15.0).await;
    for step in [0, 1, 2, 9] {
        go(&stage, step);
    }
    assert_eq!(closed(&stage).await.outcome, Some(Outcome::Passed));
    assert_as_before(&stage).await;
    let watchdog = watchdog.unwrap();
    until("the watchdog has ended", || async { !watchdog.alive() }).await;
    stage.down().await;
}

#[tokio::test]
async fn a_worker_killed_at_any_boundary_is_undone_by_its_watchdog() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    for (kind, step) in [("before", 0), ("after", 0), ("after", 1), ("after", 2)] {
        let (worker, watchdog) = start(&stage, true, 15.0).await;
        for passed in 0..=step {
            if kind == "after" {
                go(&stage, passed);
            }
        }
        reached(&stage, kind, step).await;
        assert!(worker.signal(Signal::KILL).unwrap());
        let began = tokio::time::Instant::now();
        let record = closed(&stage).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(record.outcome, Some(Outcome::Lost), "{kind} {step}");
        assert_as_before(&stage).await;
        forget(&stage, watchdog.unwrap()).await;
    }
    stage.down().await;
}

#[tokio::test]
async fn a_worker_killed_at_random_instants_is_undone_by_its_watchdog() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    let mut state = seed;
    for _ in 0..8 {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        prepare(&stage, RUN, true, 15.0).await;
        for step in [0, 1, 2] {
            go(&stage, step);
        }
        let worker = spawn(&stage, Role::Worker { run: RUN });
        let watchdog = spawn(&stage, Role::Watchdog { run: RUN });
        reached(&stage, "before", 0).await;
        tokio::time::sleep(Duration::from_micros(mixed % 60_000)).await;
        worker.signal(Signal::KILL).unwrap();
        assert_eq!(closed(&stage).await.outcome, Some(Outcome::Lost));
        assert_as_before(&stage).await;
        forget(&stage, watchdog).await;
    }
    stage.down().await;
}

#[tokio::test]
async fn a_stopped_worker_is_fenced_and_changes_nothing_when_it_wakes() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (worker, _) = start(&stage, true, 1.0).await;
    go(&stage, 0);
    reached(&stage, "before", 1).await;
    worker.signal(Signal::STOP).unwrap();
    assert_eq!(closed(&stage).await.outcome, Some(Outcome::Lost));
    assert_as_before(&stage).await;
    go(&stage, 1);
    worker.signal(Signal::CONT).unwrap();
    until("the worker has ended", || async { !worker.alive() }).await;
    assert_as_before(&stage).await;
    let events = opsctl_platform::run::read_events(&stage.state().journal(RUN)).unwrap();
    assert!(
        events
            .iter()
            .all(|event| event.kind != "after" || event.data["step"] == json!(0)),
        "{events:?}"
    );
    stage.down().await;
}

/// As one of ours is between the instant in which it has the lock and the one in which the file names it.
#[tokio::test]
async fn whoever_is_stopped_with_the_lock_and_without_a_name_holds_nobody_up() {
    let stage = Stage::new();
    let mut holder = std::process::Command::new("flock")
        .args(["--close", "state.lock", "sleep", "60"])
        .current_dir(stage.state().root())
        .process_group(0)
        .spawn()
        .unwrap();
    let process = Process::find(holder.id()).unwrap();
    until("it has the lock", || async {
        stage.state().lock_holder("state.lock") == Some(process)
    })
    .await;
    process.signal(Signal::STOP).unwrap();
    until("it is stopped", || async { process.stopped() }).await;
    prepare(&stage, RUN, false, 15.0).await;
    assert!(stage.platform.record(RUN).await.unwrap().is_some());
    assert!(!process.alive(), "nobody else could have the lock");
    let group = rustix::process::Pid::from_child(&holder);
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    holder.wait().unwrap();
}

#[tokio::test]
async fn without_its_watchdog_a_dead_run_is_an_orphan_that_recover_undoes() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (worker, watchdog) = start(&stage, true, 15.0).await;
    go(&stage, 0);
    go(&stage, 1);
    reached(&stage, "after", 1).await;
    assert!(
        orphans(stage.platform.as_ref()).await.unwrap().is_empty(),
        "it is worked on"
    );
    let journal = Journal::open(stage.state().journal(RUN), RUN).unwrap();
    let running = recover(stage.platform.as_ref(), RUN, &journal).await.unwrap();
    assert!(matches!(running, Recovered::Running(_)), "{running:?}");
    watchdog.unwrap().signal(Signal::KILL).unwrap();
    worker.signal(Signal::KILL).unwrap();
    until("both are dead", || async {
        !worker.alive() && !watchdog.unwrap().alive()
    })
    .await;
    let orphans = orphans(stage.platform.as_ref()).await.unwrap();
    assert_eq!(
        (orphans.len(), orphans[0].loss, orphans[0].watched),
        (1, Loss::Dead, false)
    );
    let status = stage.platform.status().await.unwrap();
    assert_eq!(status.orphans.keys().collect::<Vec<_>>(), [RUN]);
    let Recovered::Closed { record, report } = recover(stage.platform.as_ref(), RUN, &journal).await.unwrap() else {
        panic!("it is recovered");
    };
    assert!(report.complete());
    assert_eq!(record.outcome, Some(Outcome::Lost));
    assert_as_before(&stage).await;
    let again = recover(stage.platform.as_ref(), RUN, &journal).await.unwrap();
    assert_eq!(again, Recovered::Nothing, "idempotent");
    stage.down().await;
}

#[tokio::test]
async fn a_value_that_somebody_else_changed_is_reported_and_left_alone() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (worker, _) = start(&stage, false, 15.0).await;
    go(&stage, 0);
    go(&stage, 1);
    reached(&stage, "after", 1).await;
    worker.signal(Signal::KILL).unwrap();
    until("it is dead", || async { !worker.alive() }).await;
    let replicas = Field::replicas("orders", "v1");
    let operators = stage
        .platform
        .compare_and_set(None, &replicas, Some(&json!(1)), Some(&json!(4)))
        .await
        .unwrap();
    assert!(operators.applied());
    let journal = Journal::memory(RUN);
    for _ in 0..2 {
        let Recovered::Closed { record, report } = recover(stage.platform.as_ref(), RUN, &journal).await.unwrap()
        else {
            panic!("it is recovered, also again");
        };
        assert_eq!(record.outcome, Some(Outcome::UndoIncomplete));
        let conflicts: Vec<_> = report.conflicts().map(|step| &step.field).collect();
        assert_eq!(conflicts, [&replicas]);
    }
    assert_eq!(stage.platform.get(&replicas).await.unwrap(), Some(json!(4)));
    assert_eq!(
        stage.platform.get(&Field::hold("orders")).await.unwrap(),
        None,
        "the other is undone"
    );
    stage.down().await;
}

#[tokio::test]
async fn two_runs_on_one_service_exclude_each_other_until_the_first_is_dead() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (worker, _) = start(&stage, false, 15.0).await;
    go(&stage, 0);
    reached(&stage, "after", 0).await;
    let busy = lock::busy(stage.platform.as_ref(), &lock::name_for_service("orders"))
        .await
        .unwrap();
    assert_eq!(busy.unwrap().holder.pid, worker.pid);

    let begin = |id: &'static str| {
        let platform = stage.platform.clone() as std::sync::Arc<dyn Platform>;
        async move {
            let mut record = RunRecord::new(id, "test", "service/orders", json!({}), platform.now());
            record.locks = vec![lock::name_for_service("orders")];
            let me = Process::current();
            let holder = LeaseHolder {
                run: id.to_owned(),
                host: opsctl_platform::process::host(),
                pid: me.pid,
                start_ticks: me.start_ticks,
            };
            let ttl = Duration::from_secs(15);
            opsctl_platform::run::Run::begin(platform, record, holder, ttl, Journal::memory(id)).await
        }
    };
    let Err(RunError::Locked { lease }) = begin("second").await else {
        panic!("the first runs")
    };
    assert_eq!(lease.holder.run, RUN);
    let refused = stage.platform.record("second").await.unwrap().unwrap();
    assert_eq!(refused.outcome, Some(Outcome::Locked));

    worker.signal(Signal::KILL).unwrap();
    until("it is dead", || async { !worker.alive() }).await;
    let third = begin("third").await.unwrap();
    assert_eq!(
        stage.platform.record(RUN).await.unwrap().unwrap().outcome,
        Some(Outcome::Lost),
        "undone first"
    );
    let replicas = stage.platform.get(&Field::replicas("orders", "v1")).await.unwrap();
    assert_eq!(replicas, Some(json!(2)));
    third.close(Outcome::Passed, "done").await.unwrap();
    assert_as_before(&stage).await;
    stage.down().await;
}

#[tokio::test]
async fn a_cancelled_worker_undoes_and_says_aborted() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    start(&stage, true, 15.0).await;
    go(&stage, 0);
    reached(&stage, "before", 1).await;
    let cancel = Cancel {
        by: "somebody".to_owned(),
        at: stage.platform.now(),
        reason: Reason::Interrupt,
    };
    request_cancel(stage.platform.as_ref(), RUN, cancel.clone())
        .await
        .unwrap();
    let record = closed(&stage).await;
    assert_eq!(
        (record.outcome, record.cancel.clone()),
        (Some(Outcome::Aborted), Some(cancel.clone()))
    );
    assert_as_before(&stage).await;
    assert_eq!(
        request_cancel(stage.platform.as_ref(), RUN, cancel).await.unwrap(),
        None,
        "it is over"
    );
    stage.down().await;
}

#[tokio::test]
async fn down_aborts_what_runs() {
    let stage = Stage::new();
    stage.up_well(&[spec("orders")]).await;
    let (worker, watchdog) = start(&stage, true, 15.0).await;
    go(&stage, 0);
    reached(&stage, "before", 1).await;
    let down = stage.down().await;
    assert_eq!((down.runs, down.incomplete), (vec![RUN.to_owned()], vec![]));
    let record = stage.platform.record(RUN).await.unwrap().unwrap();
    assert_eq!(record.outcome, Some(Outcome::Aborted));
    until("worker and watchdog have ended", || async {
        !worker.alive() && !watchdog.unwrap().alive()
    })
    .await;
}
