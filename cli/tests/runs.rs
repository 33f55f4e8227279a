//! Runs whose processes die at the worst moment, through the real binary: the watchdog alone, and then the worker; the
//! worker before it has taken the run up. Kills at random instants are in `kill.rs`.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs::{self, File};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{HELD, Sandbox, alive, eventually};
use serde_json::Value;

/// A service with two instances, up.
fn up() -> Sandbox {
    let sandbox = Sandbox::with_shop();
    sandbox.run(&["up"]).ended(0);
    sandbox
}

/// A canary that is going to be held, watched by a terminal.
fn canary(sandbox: &Sandbox) -> Child {
    let words = [&["deploy", "canary", "--version", "v2"][..], &HELD].concat();
    let mut command = sandbox.command(&words);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("opsctl starts")
}

/// A canary that has begun and that its worker cannot take up, because the lock of the state folder is held.
struct Unclaimed {
    sandbox: Sandbox,
    terminal: Child,
    run: String,
    lock: File,
}

impl Unclaimed {
    /// The lock has to be had between the instant in which the record is there and the one in which the worker claims it;
    /// when the worker was faster, the whole begins again.
    fn new() -> Self {
        const TRIES: usize = 20;
        for _ in 0..TRIES {
            let sandbox = up();
            let lock = File::options()
                .read(true)
                .write(true)
                .open(sandbox.path(".opsctl/state.lock"))
                .expect("the lock");
            let mut terminal = canary(&sandbox);
            loop {
                let ended = terminal.try_wait().expect("our own child");
                assert!(ended.is_none(), "{ended:?} without a record");
                if record(&sandbox).is_some() {
                    break;
                }
                std::thread::yield_now();
            }
            lock.lock().expect("the lock");
            let record = record(&sandbox).expect("the record");
            if record["worker"].is_null() {
                let run = record["id"].as_str().expect("an id").to_owned();
                return Self {
                    sandbox,
                    terminal,
                    run,
                    lock,
                };
            }
            lock.unlock().expect("our own lock");
            sandbox.run(&["deploy", "abort"]).ended(0);
            terminal.wait().expect("our own child");
        }
        panic!("the worker was faster {TRIES} times");
    }
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

/// The processes that are the worker of a run.
fn workers(run: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let found = processes.filter_map(|process| {
        let words = fs::read(process.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        (words.contains(&&b"judge"[..]) && words.contains(&run.as_bytes()))
            .then(|| process.file_name().to_str()?.parse().ok())?
    });
    found.collect()
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

#[test]
fn a_worker_killed_before_it_takes_the_run_up_is_noticed_at_once() {
    let Unclaimed {
        sandbox,
        mut terminal,
        run,
        lock,
    } = Unclaimed::new();
    eventually("the worker", || !workers(&run).is_empty());
    workers(&run).into_iter().for_each(kill);
    lock.unlock().expect("our own lock");
    eventually("the end of the command", || {
        terminal.try_wait().expect("our own child").is_some()
    });
    let output = terminal.wait_with_output().expect("our own child");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("did not start") && told.contains("killed by signal 9"),
        "{told}"
    );
    let record = record(&sandbox).expect("the record");
    assert_eq!(
        (&record["phase"], &record["outcome"]),
        (&"closed".into(), &"error".into()),
        "{record}"
    );
    assert!(record["worker"].is_null(), "it was too late: {record}");
    // Nothing is left: no orphan, no lock.
    let recovered = sandbox.run(&["recover"]).ended(0);
    assert!(recovered.stderr.contains("nothing to do"), "{}", recovered.stderr);
    sandbox.run(&["drill", "pod-kill", "--dry-run"]).ended(0);
}

#[test]
fn a_run_whose_starter_and_worker_are_dead_is_recovered_at_once() {
    let Unclaimed {
        sandbox,
        mut terminal,
        run,
        lock,
    } = Unclaimed::new();
    eventually("the worker", || !workers(&run).is_empty());
    terminal.kill().expect("our own child");
    terminal.wait().expect("our own child");
    let workers = workers(&run);
    workers.iter().copied().for_each(kill);
    // Until then it is no lie that they live.
    eventually("their end", || !workers.iter().copied().any(alive));
    lock.unlock().expect("our own lock");
    let recovered = sandbox.run(&["recover", "--json"]).ended(0).json();
    assert_eq!(recovered["runs"][0]["run"], run.as_str(), "{recovered}");
    assert_eq!(recovered["runs"][0]["state"], "undone");
    let record = record(&sandbox).expect("the record");
    assert_eq!(
        (&record["phase"], &record["outcome"]),
        (&"closed".into(), &"lost".into()),
        "{record}"
    );
}

#[test]
fn the_end_of_a_run_removes_old_ones_but_never_what_is_needed() {
    let sandbox = up();
    let taken_away = || {
        let mut terminal = canary(&sandbox);
        eventually("its share", || {
            sandbox.run(&["status", "--json"]).json()["services"][0]["canary"]["version"] == "v2"
        });
        sandbox.run(&["deploy", "abort"]).ended(0);
        terminal.wait().expect("our own child");
    };
    taken_away();
    let real = record(&sandbox).expect("the record");
    let stable = sandbox.run(&["status", "--json"]).json()["services"][0]["stable_version"].clone();
    let old = |number: usize, change: &dyn Fn(&mut Value)| {
        let mut record = real.clone();
        let id = format!("20010101-{number:06}-0000");
        record["id"] = id.as_str().into();
        record["kind"] = "drill/pod-kill".into();
        record["started_at"] = format!("2001-01-01T00:{:02}:{:02}Z", number / 60, number % 60).into();
        change(&mut record);
        sandbox.write(&format!(".opsctl/runs/{id}/record.json"), &record.to_string());
        id
    };
    let promotion = old(0, &|record| {
        record["kind"] = "canary".into();
        record["outcome"] = "passed".into();
        record["spec"]["version"]["version"] = stable.clone();
    });
    let incomplete = old(1, &|record| record["outcome"] = "undo_incomplete".into());
    let finished: Vec<String> = (2..132).map(|number| old(number, &|_| {})).collect();
    let ids = || -> Vec<String> {
        let runs = fs::read_dir(sandbox.path(".opsctl/runs")).expect("the runs").flatten();
        let mut ids: Vec<String> = runs.filter_map(|run| run.file_name().into_string().ok()).collect();
        ids.sort();
        ids
    };
    taken_away();
    // The two canaries are the youngest of the hundred.
    let expected = [&[promotion, incomplete][..], &finished[32..]].concat();
    eventually("the removal", || ids().len() == 102);
    assert_eq!(ids()[..100], expected);
}
