//! Kills of the process that ships: what was acknowledged before comes back, the next one goes on, and no moment comes
//! back as anything but a moment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::dice::{Dice, kill_after, pass, say};
use crate::place::Place;
use crate::sandbox::eventually;

/// A row, when its transaction began and when its commit was acknowledged.
struct Commit {
    id: i64,
    began: Timestamp,
    acknowledged: Timestamp,
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn sell(path: &Path, stop: &AtomicBool) -> Vec<Commit> {
    let database = Connection::open(path).expect("the database");
    database.busy_timeout(Duration::from_secs(30)).expect("a limit");
    let mut commits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = now();
        database
            .execute("INSERT INTO orders (item) VALUES (randomblob(300))", [])
            .expect("a row");
        let acknowledged = now();
        commits.push(Commit {
            id: database.last_insert_rowid(),
            began,
            acknowledged,
        });
        if commits.len() % 300 == 0 {
            let _ = database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        pass(Duration::from_millis(3));
    }
    commits
}

#[test]
fn shipping() {
    shipping_at(&Place::folders(), "shipping");
}

#[test]
fn shipping_to_a_bucket() {
    let test = "shipping_to_a_bucket";
    if let Some(place) = Place::bucket(test) {
        shipping_at(&place, test);
    }
}

fn shipping_at(place: &Place, test: &str) {
    let mut dice = Dice::new(test);
    let sandbox = place.sandbox();
    sandbox.run(&["repository", "init"]).ended(0);
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (sandbox.path("data/shop.db"), Arc::clone(&stop));
    let writer = std::thread::spawn(move || sell(&path, &stopped));
    let first = now();
    let ship = ["backup", "db", "--continuous", "--interval", "30ms", "-q"];
    let start = || {
        sandbox
            .command(&ship)
            .stdout(Stdio::null())
            .spawn()
            .expect("opsctl starts")
    };
    for _ in 0..place.kills() {
        let instant = dice.between(Duration::from_millis(200), Duration::from_millis(2500));
        assert!(!kill_after(&mut start(), instant), "it ends by nothing else");
    }
    // The next one needs nobody's help.
    let mut last = start();
    let begun = now();
    eventually("it ships again", || {
        let restored = sandbox.run(&["restore", "db", "--at", &now().to_string(), "--dry-run"]);
        restored.code == 0 && now().duration_since(begun).as_secs() >= 2
    });
    stop.store(true, Ordering::Relaxed);
    let commits = writer.join().expect("the writer");
    let signal = rustix::process::Signal::TERM;
    rustix::process::kill_process(rustix::process::Pid::from_child(&last), signal).expect("our own child");
    assert!(last.wait().expect("it ends").success());
    let end = now();

    let span = end.duration_since(first).as_millis() as u64;
    let mut moments: Vec<Timestamp> = (0..place.kills())
        .map(|_| first + Duration::from_millis(dice.next() % span))
        .collect();
    moments.push(end);
    let mut restored = 0;
    for (at, moment) in moments.iter().enumerate() {
        let (into, time) = (format!("out-{at}"), moment.to_string());
        let ran = sandbox.run(&[
            "restore",
            "db",
            "--at",
            &time,
            "--allow-older",
            "--into",
            &into,
            "--json",
        ]);
        if ran.code == 2 {
            // Before the first snapshot.
            assert!(ran.stderr.contains("is the earliest"), "{}", ran.stderr);
            continue;
        }
        restored += 1;
        let document = ran.ended(0).json();
        let reached: Timestamp = document["reached"]
            .as_str()
            .and_then(|time| time.parse().ok())
            .expect("a time");
        assert!(reached <= *moment);
        let highest = rows(&sandbox.path(&into).join("shop.db"));
        let known = commits
            .iter()
            .filter(|commit| commit.acknowledged < reached)
            .map(|commit| commit.id)
            .max();
        assert!(
            known.is_none_or(|known| known <= highest),
            "{known:?} was acknowledged before {reached}: {highest}"
        );
        let later = commits
            .iter()
            .find(|commit| commit.id <= highest && commit.began > *moment);
        assert!(later.is_none_or(|later| later.id < 3), "a row of after {moment}");
    }
    say(format_args!(
        "{test}: {restored} of {} moments could be restored",
        moments.len()
    ));
    assert_eq!(
        rows(&sandbox.path(format!("out-{}", moments.len() - 1)).join("shop.db")),
        commits.last().expect("rows").id
    );
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    place.judged_by_restic(&sandbox, "repo", "correct horse", test);
}

/// The highest row of a sound database that has every row up to it.
fn rows(path: &PathBuf) -> i64 {
    let database = Connection::open(path).expect("restored");
    let ask = |sql: &str| {
        database
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    let sound: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("an answer");
    assert_eq!(sound, "ok");
    let (count, highest) = (ask("SELECT count(*) FROM orders"), ask("SELECT max(id) FROM orders"));
    assert_eq!(count, highest);
    highest
}
