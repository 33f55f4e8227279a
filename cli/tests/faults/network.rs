//! A network that is cut for a while and for good, and a server that is killed and comes back, in the middle of what is done
//! with a bucket.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use peers::faults::{Answer, Fault, Limits};

use crate::cloud::{Cloud, concerns, is};
use crate::sandbox::{Ran, Sandbox, content, eventually};
use crate::truth::{code_of, declare, noise, saved, snapshots};

const LIST: [&str; 3] = ["snapshot", "list", "--json"];

/// What is interrupted, and the request in whose middle.
struct Job {
    /// The name of the repository that the requests are about.
    name: &'static str,
    words: &'static [&'static str],
    method: &'static str,
    below: &'static str,
}

const JOBS: [Job; 4] = [
    Job {
        name: "saved",
        words: &["backup", "files", "--json"],
        method: "PUT",
        below: "data/",
    },
    Job {
        name: "restored",
        words: &["restore", "files", "--into", "back", "--yes", "--json"],
        method: "GET",
        below: "data/",
    },
    Job {
        name: "pruned",
        words: &[
            "repository",
            "prune",
            "--grace",
            "0s",
            "--max-unused",
            "0",
            "--yes",
            "--json",
        ],
        method: "PUT",
        below: "index/",
    },
    Job {
        name: "copied",
        words: &["repository", "copy", "--to", "offsite", "--json"],
        method: "PUT",
        below: "data/",
    },
];

/// A project for a job: with a snapshot, and something for the job to do. What it may list afterwards comes along.
fn project(cloud: &Cloud, job: &Job) -> (Sandbox, String) {
    let first = if job.name == "copied" { "original" } else { job.name };
    let sandbox = cloud.sandbox(first);
    let keys = cloud.keys_of("copied");
    declare(
        &sandbox,
        &format!("[repository.offsite]\n{keys}\npassword = {{ file = \"password\" }}\n"),
    );
    let file = |name: &str, seed| {
        fs::write(sandbox.path("data/uploads").join(name), noise(seed, 2 << 20)).expect("our own file");
    };
    file("one", 1);
    file("goes", 2);
    let id = saved(sandbox.run(&["backup", "files", "--json"]));
    fs::remove_file(sandbox.path("data/uploads/goes")).expect("our own file");
    match job.name {
        "saved" => file("two", 3),
        "pruned" => {
            let last = saved(sandbox.run(&["backup", "files", "--json"]));
            sandbox.run(&["repository", "forget", &id, "--yes"]).ended(0);
            return (sandbox, last);
        }
        _ => {}
    }
    (sandbox, id)
}

/// Cuts every request about a repository once the job is at its work, as often as is left. Returns what is left.
fn cut(cloud: &Cloud, job: &'static Job, times: usize) -> Arc<AtomicUsize> {
    let left = Arc::new(AtomicUsize::new(times));
    let (returned, mut begun) = (Arc::clone(&left), false);
    cloud.network.rule(move |request| {
        begun = begun || is(request, job.method, job.name, job.below);
        if !begun || !concerns(request, job.name) {
            return None;
        }
        let less = |left: usize| left.checked_sub(1);
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        // In the middle of what is sent, in the middle of what is answered.
        Some(match request.length {
            0 => Fault::AnswerCut(1000),
            length => Fault::RequestCut(length / 2),
        })
    });
    returned
}

/// All is there, whole, and nothing is left that nobody knows of.
fn whole(cloud: &Cloud, job: &Job, sandbox: &Sandbox, test: &str) {
    let expected = content(&sandbox.path("data/uploads"));
    let repository = if job.name == "copied" { "offsite" } else { "here" };
    sandbox
        .run(&[
            "restore",
            "files",
            "--repository",
            repository,
            "--into",
            "whole",
            "--yes",
        ])
        .ended(0);
    let back = content(&sandbox.path("whole/uploads"));
    if job.name == "restored" {
        assert!(content(&sandbox.path("back/uploads")) == back, "{test}");
    } else if job.name != "copied" {
        assert!(back == expected, "{test}");
    }
    assert_eq!(cloud.objects(job.name, "locks/"), [""; 0], "{test}");
    cloud.judged_by_restic(job.name, test);
}

#[test]
fn a_network_that_is_cut_for_a_while_costs_nothing_but_time() {
    let test = "a_network_that_is_cut_for_a_while_costs_nothing_but_time";
    let Some(cloud) = Cloud::start(test) else { return };
    std::thread::scope(|scope| {
        for job in &JOBS {
            let cloud = &cloud;
            scope.spawn(move || {
                let (sandbox, _) = project(cloud, job);
                let left = cut(cloud, job, 6);
                sandbox.run(job.words).ended(0);
                assert_eq!(left.load(Ordering::Relaxed), 0, "{}: it was cut", job.name);
                whole(cloud, job, &sandbox, test);
            });
        }
    });
}

/// Interrupts a job once it was cut some times.
fn give_up(sandbox: &Sandbox, job: &Job, left: &AtomicUsize) {
    let mut child = sandbox.command(job.words);
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("opsctl starts");
    eventually("some cuts", || left.load(Ordering::Relaxed) < usize::MAX - 4);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let ran = Ran::of(child.wait_with_output().expect("our own child"));
    assert_eq!(ran.code, 130, "{}: {}", job.name, ran.stderr);
    assert!(ran.stderr.contains("run the same command again"), "{}", ran.stderr);
}

/// In a soak it is waited until the command gives up; else somebody does who has less patience.
#[test]
fn a_network_that_stays_cut_costs_nothing_that_was_acknowledged() {
    let test = "a_network_that_stays_cut_costs_nothing_that_was_acknowledged";
    let Some(cloud) = Cloud::start(test) else { return };
    let soak = std::env::var_os("OPSCTL_SOAK").is_some();
    std::thread::scope(|scope| {
        for job in &JOBS {
            let cloud = &cloud;
            scope.spawn(move || {
                let (sandbox, acknowledged) = project(cloud, job);
                let left = cut(cloud, job, usize::MAX);
                if soak {
                    let ran = sandbox.run(job.words).ended(7);
                    assert_eq!(code_of(&ran), "store_unavailable", "{}: {}", job.name, ran.stderr);
                    assert!(ran.stderr.contains("does not answer"), "{}", ran.stderr);
                } else {
                    give_up(&sandbox, job, &left);
                }
                left.store(0, Ordering::Relaxed);
                assert_eq!(snapshots(sandbox.run(&LIST)), [acknowledged], "{}", job.name);
                sandbox.run(&["repository", "check", "--read-data"]).ended(0);
                // The same command does the rest, and takes the lock of the one that could not give it back.
                sandbox.run(job.words).ended(0);
                whole(cloud, job, &sandbox, test);
            });
        }
    });
}

#[test]
fn a_bucket_without_room_is_full_and_can_be_read() {
    let test = "a_bucket_without_room_is_full_and_can_be_read";
    let Some(cloud) = Cloud::start(test) else { return };
    let job = &JOBS[0];
    let (sandbox, acknowledged) = project(&cloud, job);
    let body = "<Error><Code>XMinioStorageFull</Code><Message>no room</Message></Error>";
    let full = Fault::Instead(Answer::new(507, "application/xml", body));
    cloud
        .network
        .strike(usize::MAX, full, |request| request.method == "PUT");
    let ran = sandbox.run(job.words).ended(1);
    assert_eq!(code_of(&ran), "disk_full", "{}", ran.stderr);
    sandbox.run(&["restore", "files", "--into", "back"]).ended(0);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    assert_eq!(snapshots(sandbox.run(&LIST)), [acknowledged]);
    cloud.network.heal();
    sandbox.run(job.words).ended(0);
    whole(&cloud, job, &sandbox, test);
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_waited_for() {
    let test = "a_server_that_is_killed_and_comes_back_is_waited_for";
    let Some(mut cloud) = Cloud::start(test) else { return };
    let sandbox = cloud.sandbox("saved");
    fs::write(sandbox.path("data/uploads/large"), noise(1, 40 << 20)).expect("our own file");
    // So slow that there is a middle.
    cloud.network.limit(Limits {
        bytes_per_second: Some(12 << 20),
        ..Limits::default()
    });
    sandbox.run(&["repository", "init"]).ended(0);
    let jobs: [(&[&str], &'static str); 2] = [
        (&["backup", "files"], "PUT"),
        (&["restore", "files", "--into", "back"], "GET"),
    ];
    for (words, method) in jobs {
        let before = cloud.network.seen().len();
        let mut child = sandbox.command(words);
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("opsctl starts");
        eventually("a transfer", || {
            let seen = cloud.network.seen();
            seen[before..]
                .iter()
                .any(|request| is(request, method, "saved", "data/"))
        });
        assert!(child.try_wait().expect("our own child").is_none(), "{words:?} is over");
        cloud.kill_and_start_again();
        Ran::of(child.wait_with_output().expect("our own child")).ended(0);
        assert_eq!(cloud.objects("saved", "locks/"), [""; 0]);
    }
    assert!(content(&sandbox.path("back/uploads")) == content(&sandbox.path("data/uploads")));
    cloud.judged_by_restic("saved", test);
}
