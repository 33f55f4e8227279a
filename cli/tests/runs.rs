//! Runs whose processes die at the worst moment, through the real binary: the watchdog alone, and then the worker; the
//! worker before it has taken the run up. Kills at random instants are in `kill.rs`.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Sandbox, eventually, tiny_service};
use serde_json::Value;

/// A service with two instances, up.
fn up() -> Sandbox {
    let sandbox = Sandbox::new();
    let tiny = tiny_service().display().to_string();
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\n[service.shop]\nhealth = {{ http = \"/healthz\" }}\nobjectives = {{ availability = \"80%\" }}\n\
             [service.shop.local]\ncommand = [{tiny:?}]\nreplicas = 2\n\
             [service.shop.canary]\ncommand = [{tiny:?}, \"--release\", \"{{version}}\"]\n"
        ),
    );
    sandbox.run(&["up"]).ended(0);
    sandbox
}

/// A canary that is going to be held, watched by a terminal.
fn canary(sandbox: &Sandbox) -> Child {
    sandbox
        .command(&[
            "deploy",
            "canary",
            "--version",
            "v2",
            "--weight",
            "30",
            "--interval",
            "200ms",
            "--for",
            "10m",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("opsctl starts")
}

/// The record of the only run.
fn record(sandbox: &Sandbox) -> Option<Value> {
    let run = fs::read_dir(sandbox.path(".opsctl/runs")).ok()?.flatten().next()?;
    serde_json::from_slice(&fs::read(run.path().join("record.json")).ok()?).ok()
}

fn pid(process: &Value) -> Option<i32> {
    i32::try_from(process["pid"].as_i64()?).ok()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a process id"), Signal::KILL).expect("a process of ours");
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_watchdog_that_was_killed_is_started_again_and_undoes() {
    let sandbox = up();
    let mut terminal = canary(&sandbox);
    let share = || sandbox.run(&["status", "--json"]).json()["services"][0]["canary"].clone();
    eventually("its share", || share()["version"] == "v2");
    let watchdog = || record(&sandbox).and_then(|record| pid(&record["watchdog"]));
    let first = watchdog().expect("a watchdog");
    kill(first);
    eventually("another watchdog", || {
        watchdog().is_some_and(|pid| pid != first && alive(pid))
    });
    let worker = record(&sandbox)
        .and_then(|record| pid(&record["worker"]["process"]))
        .expect("a worker");
    kill(worker);
    // The share would lapse by itself, but nobody would write down that it is undone.
    eventually("the undo", || {
        record(&sandbox).is_some_and(|record| {
            let undo = record["undo"].as_array().cloned().unwrap_or_default();
            record["phase"] == "undoing"
                && undo
                    .iter()
                    .any(|step| step["field"].to_string().contains("canary") && step["result"]["state"] == "undone")
        })
    });
    assert!(share().is_null());
    sandbox.run(&["recover"]).ended(0);
    terminal.wait().expect("our own child");
}
