//! Kills and stops of the processes of a drill and of a canary.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::dice::{Dice, kills};
use crate::lane::{Kind, Lane};
use crate::sandbox::eventually;
use crate::stage::{Role, Stage};

/// How many services are drilled at the same time.
const LANES: u64 = 3;

#[expect(clippy::disallowed_methods, reason = "how long a kill takes is printed")]
#[expect(clippy::print_stdout, reason = "how long a kill takes is printed")]
fn kill_all(test: &str, kind: Kind) {
    let mut dice = Dice::new(test);
    let names = |lane: u64| [format!("s{lane}a"), format!("s{lane}b")].to_vec();
    let services: Vec<String> = (0..LANES).flat_map(names).collect();
    let stage = Stage::up(&services);
    let started = Instant::now();
    let mut unclaimed = Vec::new();
    let mut ended = 0;
    let lanes: Vec<Lane<'_>> = (0..LANES)
        .map(|lane| Lane::new(&stage, kind, names(lane), dice.split()))
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .into_iter()
            .enumerate()
            .map(|(number, mut lane)| {
                let number = number as u64;
                let share = kills() / LANES + u64::from(number < kills() % LANES);
                scope.spawn(move || {
                    lane.work(share);
                    (lane.unclaimed, lane.ended)
                })
            })
            .collect();
        for thread in threads {
            let (runs, late) = thread.join().expect("a lane");
            unclaimed.extend(runs);
            ended += late;
        }
    });
    println!(
        "{test}: {ended} of {} had ended before the kill; {:.2} s for each",
        kills(),
        started.elapsed().as_secs_f64() / kills() as f64
    );
    let deadline = Instant::now() + Duration::from_secs(40);
    for run in unclaimed {
        while !stage.closed(&run) {
            assert!(Instant::now() < deadline, "run {run} is not over");
            stage.sandbox.run(&["recover"]).ended(0);
            crate::dice::pass(Duration::from_millis(100));
        }
    }
    eventually("a healthy platform", || {
        stage.sandbox.run(&["status", "--json"]).json()["healthy"] == true
    });
    stage.sandbox.run(&["recover"]).ended(0).says("nothing to do");
    stage.down();
}

#[test]
fn drill() {
    kill_all("drill", Kind::Drill);
}

#[test]
fn canary() {
    kill_all("canary", Kind::Canary);
}

/// A worker that is stopped for longer than its lease loses the right to change anything: its watchdog, or `recover` when
/// that is stopped too, undoes the run, and when both go on again nothing changes a second time.
#[test]
#[expect(clippy::disallowed_methods, reason = "a deadline that is longer than a lease")]
fn stopped() {
    const LEASE: Duration = Duration::from_secs(15);
    let mut dice = Dice::new("stopped");
    let names = ["watched", "alone", "drilled"].map(str::to_owned);
    let stage = Stage::up(&names);
    let traffic = names
        .each_ref()
        .map(|name| crate::traffic::Traffic::start(stage.port(name), "40/s"));
    let stable = names.each_ref().map(|name| stage.stable(name));
    let canary = |service: &'static str| {
        [
            &["deploy", "canary", service, "--version", "v2"][..],
            &crate::sandbox::HELD,
        ]
        .concat()
    };
    let start = |words: &[&str]| {
        let mut command = stage.sandbox.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("opsctl starts")
    };
    let mut terminals = [
        start(&canary("watched")),
        start(&canary("alone")),
        start(&["drill", "pod-kill", "drilled", "--for", "1m"]),
    ];
    for service in ["watched", "alone"] {
        eventually("its share", || stage.service(service)["canary"]["version"] == "v2");
    }
    let run = |service: &str| {
        eventually("its watchdog", || {
            let runs = stage.runs(service);
            runs.iter()
                .next_back()
                .and_then(|run| stage.record(run))
                .is_some_and(|record| !record["watchdog"].is_null())
        });
        stage.runs(service).pop_last().expect("a run")
    };
    let runs = names.each_ref().map(|name| run(name));
    let both = [Role::Worker, Role::Watchdog];
    let stop: [&[Role]; 3] = [&both[..1], &both, &both[..1]];
    crate::dice::pass(dice.between(Duration::ZERO, Duration::from_secs(1)));
    for (run, roles) in runs.iter().zip(stop) {
        assert_eq!(stage.signal(run, roles, Signal::STOP), roles.len());
    }

    // The watchdog waits for the lease, no longer.
    let since = Instant::now();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(since.elapsed() < LEASE * 2, "{what} did not happen");
            crate::dice::pass(Duration::from_millis(50));
        }
    };
    until("the share of a stopped judge ends", &|| {
        stage.service("watched")["canary"].is_null()
    });
    until("a stopped drill is closed", &|| stage.closed(&runs[2]));
    // Nobody watches this one, so `recover` has to find that its lease is over.
    until("recover", &|| stage.sandbox.run(&["recover", &runs[1]]).code == 0);
    println!("stopped: undone after {:.1} s", since.elapsed().as_secs_f64());
    for name in &names[1..] {
        eventually("the stable state", || stage.settled(name));
    }
    let done = runs.each_ref().map(|run| stage.record(run));

    for run in &runs {
        stage.signal(run, &both, Signal::CONT);
    }
    for (run, roles) in runs.iter().zip(stop) {
        eventually("the end of what was stopped", || {
            let left = stage.processes(run);
            left.iter().all(|(role, _)| !roles.contains(role))
        });
    }
    assert!(
        stage.service("watched")["canary"].is_null(),
        "a fenced worker has changed the share"
    );
    // The watchdog keeps the instances for somebody who would go on with them; nobody does.
    stage.sandbox.run(&["recover", &runs[0]]).ended(0);
    for (index, (name, stable)) in names.iter().zip(&stable).enumerate() {
        eventually("the stable state", || stage.settled(name));
        eventually("the end of its processes", || stage.processes(&runs[index]).is_empty());
        assert_eq!(stage.stable(name), *stable);
        let record = stage.record(&runs[index]);
        assert!(
            index == 0 || record == done[index],
            "a fenced worker has changed its record"
        );
        assert_eq!(record.expect("its record")["outcome"], "lost");
    }
    for (name, terminal) in names.iter().zip(&mut terminals) {
        let code = terminal.wait().expect("our own child").code();
        // On a busy machine a canary may be proven and held before everything stands still, and its terminal told so.
        let held = name != "drilled" && code == Some(0);
        assert!(held || code == Some(1), "{name}: its run was lost: {code:?}");
    }
    for (name, traffic) in names.iter().zip(&traffic) {
        let failures = traffic.failures();
        let allowed = if name == "drilled" { 3 } else { 0 };
        assert!(failures.len() <= allowed, "{name}: {failures:?}");
    }
    // The lock is free.
    let words = [
        "deploy",
        "canary",
        "alone",
        "--weight",
        "10",
        "--interval",
        "200ms",
        "--for",
        "1s",
        "--version",
        "v3",
    ];
    let code = stage.sandbox.run(&words).code;
    assert!(matches!(code, 0 | 9), "{code}");
    drop(traffic);
    stage.down();
}
