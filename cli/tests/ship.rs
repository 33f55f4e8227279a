//! Canaries through the real binary: followed to promotion, rolled back, aborted, held, undecided, detached, interrupted;
//! and the way back after the bake.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/traffic.rs"]
mod traffic;

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{HELD, Sandbox, eventually};
use serde_json::Value;
use traffic::Traffic;

/// A service with two instances, up; its port.
fn up() -> (Sandbox, u16) {
    let sandbox = Sandbox::with_shop();
    let up = sandbox.run(&["up", "--json"]).ended(0).json();
    let port = up["ready"][0]["ports"]["http"].as_u64().expect("a port") as u16;
    (sandbox, port)
}

const QUICK: [&str; 6] = ["--steps", "30:1s,60:1s,100", "--interval", "200ms", "--bake", "1s"];

fn canary<'a>(version: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["deploy", "canary", "--version", version][..], more].concat()
}

fn shop(sandbox: &Sandbox) -> Value {
    sandbox.run(&["status", "--json"]).json()["services"][0].clone()
}

fn runs_alone(sandbox: &Sandbox, version: &str) {
    eventually("one version alone", || {
        let shop = shop(sandbox);
        let instances = shop["instances"].as_array().expect("instances").clone();
        shop["canary"].is_null()
            && shop["stable_version"] == version
            && instances.len() == 2
            && instances
                .iter()
                .all(|instance| instance["version"] == version && instance["ready"] == true)
    });
}

/// A canary that is watched by a terminal, and has its share.
fn watched(sandbox: &Sandbox, version: &str) -> Child {
    let words = canary(version, &HELD);
    let child = sandbox
        .command(&words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    eventually("its share", || shop(sandbox)["canary"]["version"] == version);
    child
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("our own child");
}

#[test]
fn a_good_version_is_promoted_and_the_way_back_is_a_roll_out() {
    let (sandbox, port) = up();
    let first = shop(&sandbox)["stable_version"].as_str().expect("a version").to_owned();
    sandbox
        .run(&["deploy", "rollback"])
        .ended(2)
        .says("there was no canary yet");
    let traffic = Traffic::start(port, "150/s");
    let report = sandbox
        .run(&[canary("v2", &QUICK), vec!["--json"]].concat())
        .ended(0)
        .json();
    assert_eq!(report["schema"], "opsctl.canary/v1");
    assert_eq!(report["status"], "promoted");
    assert_eq!(report["verdict"], "pass");
    runs_alone(&sandbox, "v2");
    assert!(sandbox.run(&["deploy", "status"]).ended(0).stdout.contains("promoted"));

    // The bake is over and nothing of the first version runs any more.
    let report = sandbox.run(&["deploy", "rollback", "--json"]).ended(0).json();
    assert_eq!(report["schema"], "opsctl.rollback/v1");
    assert_eq!(report["from"], "v2");
    assert_eq!(report["to"], first.as_str());
    assert_eq!(report["outcome"], "passed");
    runs_alone(&sandbox, &first);
    let status = sandbox.run(&["deploy", "status", "--json"]).ended(4).json();
    assert_eq!(status["status"], "rolled_back");
    assert_eq!(status["stable_now"], first.as_str());
    assert_eq!(
        (&status["rollback"]["to"], &status["rollback"]["outcome"]),
        (&report["to"], &"passed".into())
    );
    let status = sandbox.run(&["deploy", "status"]).ended(4).stdout;
    assert!(!status.contains("promoted"), "{status}");
    assert!(status.contains(&format!("rollback  to {first}, passed")), "{status}");
    // Nobody noticed any of it.
    assert_eq!(traffic.failures(), Vec::<String>::new());
    // And `up` starts what was gone back to.
    sandbox
        .run(&["deploy", "rollback"])
        .ended(2)
        .says("no run tells what ran before");
    sandbox.run(&["run", "list"]).ended(0);
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    assert_eq!(runs["runs"][1]["kind"], "rollback");
    drop(traffic);
    sandbox.run(&["down"]).ended(0);
    sandbox.run(&["up"]).ended(0);
    runs_alone(&sandbox, &first);
}

#[test]
fn a_bad_version_is_taken_away() {
    let (sandbox, port) = up();
    let first = shop(&sandbox)["stable_version"].as_str().expect("a version").to_owned();
    sandbox
        .run(&["deploy", "status"])
        .ended(0)
        .says("there was no canary yet");
    let _traffic = Traffic::start(port, "150/s");
    let report = sandbox
        .run(&[canary("bad", &QUICK), vec!["--json"]].concat())
        .ended(4)
        .json();
    assert_eq!(report["status"], "rolled_back");
    assert_eq!(report["verdict"], "fail");
    runs_alone(&sandbox, &first);
    let status = sandbox.run(&["deploy", "status"]).ended(4);
    assert!(status.stdout.contains("rolled back"), "{}", status.stdout);
    // One that dies at once never gets traffic.
    let dead = sandbox
        .run(&[canary("dead", &QUICK), vec!["--json"]].concat())
        .ended(4)
        .json();
    assert_eq!(dead["status"], "rolled_back");
    runs_alone(&sandbox, &first);
}

#[test]
fn a_held_canary_is_aborted_or_promoted_by_hand() {
    let (sandbox, port) = up();
    let first = shop(&sandbox)["stable_version"].as_str().expect("a version").to_owned();
    let _traffic = Traffic::start(port, "150/s");
    let hold = ["--weight", "30", "--interval", "200ms", "--for", "5s", "--bake", "1s"];
    let held = sandbox.run(&canary("v2", &hold)).ended(0);
    assert!(held.stdout.contains("held"), "{}", held.stdout);
    assert_eq!(shop(&sandbox)["canary"]["percent"], 30);
    sandbox.run(&canary("v3", &hold)).ended(8).says("opsctl run attach");
    sandbox.run(&["deploy", "status"]).ended(0);
    sandbox.run(&["deploy", "abort"]).ended(0);
    runs_alone(&sandbox, &first);
    sandbox.run(&["deploy", "status"]).ended(4);
    sandbox.run(&["deploy", "abort"]).ended(0).says("nothing to do");

    sandbox.run(&canary("v3", &hold)).ended(0);
    sandbox.run(&["deploy", "promote"]).ended(0);
    runs_alone(&sandbox, "v3");

    // While it bakes, the way back takes no roll-out.
    let hold = ["--weight", "30", "--interval", "200ms", "--for", "5s", "--bake", "10m"];
    sandbox.run(&canary("v4", &hold)).ended(0);
    let mut promote = sandbox
        .command(&["deploy", "promote", "-q"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    eventually("the promotion", || shop(&sandbox)["stable_version"] == "v4");
    sandbox.run(&["deploy", "rollback"]).ended(0);
    runs_alone(&sandbox, "v3");
    assert_eq!(promote.wait().expect("our own child").code(), Some(4));
}

#[test]
fn without_traffic_nothing_is_proven() {
    let (sandbox, _) = up();
    let first = shop(&sandbox)["stable_version"].as_str().expect("a version").to_owned();
    let weight = ["--weight", "10", "--interval", "200ms", "--for", "1s"];
    sandbox
        .run(&canary("v2", &weight))
        .ended(9)
        .says("goes on in the background")
        .says("opsctl deploy abort shop");
    assert_eq!(shop(&sandbox)["canary"]["percent"], 10);
    sandbox.run(&["deploy", "abort"]).ended(0);
    runs_alone(&sandbox, &first);
    let steps = [
        "--steps",
        "10:500ms,100",
        "--interval",
        "200ms",
        "--on-inconclusive",
        "rollback",
    ];
    sandbox.run(&canary("v2", &steps)).ended(9);
    runs_alone(&sandbox, &first);
}

#[test]
fn shares_that_are_none() {
    let (sandbox, _) = up();
    for (weight, hint) in [
        ("0", "opsctl deploy abort"),
        ("140", "opsctl deploy promote"),
        ("-5", "for example `--weight 10`"),
        ("ten", "for example `--weight 10`"),
    ] {
        let canary = canary("v2", &["--weight", weight]);
        sandbox.run(&canary).ended(2).says(hint);
    }
    for steps in ["50:1m,10:1m", "100", "10,100", ""] {
        let canary = canary("v2", &["--steps", steps]);
        sandbox
            .run(&canary)
            .ended(2)
            .says("for example `--steps 10:15m,50:15m,100`");
    }
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    assert_eq!(runs["runs"], serde_json::json!([]), "nothing was started");
}

#[test]
fn a_hang_up_detaches_and_an_interrupt_aborts() {
    let (sandbox, port) = up();
    let first = shop(&sandbox)["stable_version"].as_str().expect("a version").to_owned();
    let _traffic = Traffic::start(port, "20/s");
    let mut terminal = watched(&sandbox, "v2");
    send(&terminal, Signal::HUP);
    assert_eq!(terminal.wait().expect("our own child").code(), Some(0));
    let active = || sandbox.run(&["run", "list", "--active", "--json"]).json()["runs"].clone();
    let worker = active()[0]["worker"]["process"]["pid"].as_u64().expect("a worker");
    assert!(
        std::path::Path::new(&format!("/proc/{worker}")).exists(),
        "the worker goes on"
    );
    assert_eq!(shop(&sandbox)["canary"]["version"], "v2");
    sandbox.run(&["deploy", "abort"]).ended(0);
    runs_alone(&sandbox, &first);

    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut terminal = watched(&sandbox, "v3");
        send(&terminal, signal);
        assert_eq!(terminal.wait().expect("our own child").code(), Some(code));
        assert_eq!(active(), serde_json::json!([]));
        runs_alone(&sandbox, &first);
    }
}
