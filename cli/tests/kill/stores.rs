//! Kills of backup, restore and restore in place.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dice::{Dice, kill_after, say};
use crate::place::Place;
use crate::sandbox::{Sandbox, content, eventually};

pub fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts")
}

/// How long a command takes that nobody kills.
#[expect(clippy::disallowed_methods, reason = "measures a real process")]
pub fn measured(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

/// A project with four megabytes that do not compress.
pub fn project(place: &Place, dice: &mut Dice) -> Sandbox {
    let sandbox = place.sandbox();
    for file in 0..40 {
        let bytes: Vec<u8> = (0..12_500).flat_map(|_| dice.next().to_le_bytes()).collect();
        fs::write(sandbox.path(format!("data/uploads/{file}.bin")), bytes).expect("our own file");
    }
    sandbox
}

#[test]
fn backup() {
    backup_at(&Place::folders(), "backup");
}

#[test]
fn backup_in_a_bucket() {
    let test = "backup_in_a_bucket";
    if let Some(place) = Place::bucket(test) {
        backup_at(&place, test);
    }
}

fn backup_at(place: &Place, test: &str) {
    let mut dice = Dice::new(test);
    let sandbox = project(place, &mut dice);
    let uploads = sandbox.path("data/uploads");
    let whole = measured(|| drop(sandbox.run(&["backup", "files"]).ended(0)));
    let mut ended = 0;
    for kill in 0..place.kills() {
        let changing = dice.next().to_le_bytes().repeat(100_000);
        fs::write(uploads.join("changing.bin"), changing).expect("our own file");
        let instant = dice.between(Duration::ZERO, whole.mul_f64(1.2));
        let mut child = spawn(sandbox.command(&["backup", "files", "--full"]));
        ended += u64::from(kill_after(&mut child, instant));
        if kill % 4 == 3 {
            sandbox.run(&["repository", "check", "--read-data"]).ended(0);
        }
    }
    say(format_args!(
        "{test}: {ended} of {} had ended before the kill",
        place.kills()
    ));
    // The next backup needs nobody's help, and what it saved is what is there.
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox.run(&["restore", "files", "--into", "last"]).ended(0);
    assert!(content(&sandbox.path("last/uploads")) == content(&uploads));
    place.judged_by_restic(&sandbox, "repo", "correct horse", test);
}

#[test]
fn restore() {
    restore_at(&Place::folders(), "restore");
}

#[test]
fn restore_in_a_bucket() {
    let test = "restore_in_a_bucket";
    if let Some(place) = Place::bucket(test) {
        restore_at(&place, test);
    }
}

fn restore_at(place: &Place, test: &str) {
    let mut dice = Dice::new(test);
    let sandbox = project(place, &mut dice);
    let original = content(&sandbox.path("data/uploads"));
    sandbox.run(&["backup", "files"]).ended(0);
    let whole = measured(|| drop(sandbox.run(&["restore", "files", "--into", "whole"]).ended(0)));
    let mut ended = 0;
    for kill in 0..place.kills() {
        let into = format!("out-{kill}");
        let command = ["restore", "files", "--into", &into, "--snapshot", "latest"];
        let instant = dice.between(Duration::ZERO, whole.mul_f64(1.2));
        ended += u64::from(kill_after(&mut spawn(sandbox.command(&command)), instant));
        // The same command goes on where the killed one stopped.
        sandbox.run(&["restore", "files", "--into", &into, "--yes"]).ended(0);
        assert!(content(&sandbox.path(&into).join("uploads")) == original, "kill {kill}");
        fs::remove_dir_all(sandbox.path(&into)).expect("our own folder");
    }
    say(format_args!(
        "{test}: {ended} of {} had ended before the kill",
        place.kills()
    ));
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    place.judged_by_restic(&sandbox, "repo", "correct horse", test);
}

#[test]
fn restore_replace() {
    restore_replace_at(&Place::folders(), "restore_replace");
}

#[test]
fn restore_replace_in_a_bucket() {
    let test = "restore_replace_in_a_bucket";
    if let Some(place) = Place::bucket(test) {
        restore_replace_at(&place, test);
    }
}

/// A restore in place is either whole or taken back, and the rows are one or the other.
fn restore_replace_at(place: &Place, test: &str) {
    let mut dice = Dice::new(test);
    let sandbox = place.sandbox();
    sandbox.run(&["backup", "db"]).ended(0);
    let live = sandbox.path("data/shop.db");
    let grow = || {
        let database = rusqlite::Connection::open(&live).expect("the database");
        database
            .execute_batch("INSERT INTO orders (item) VALUES ('later')")
            .expect("a row");
    };
    grow();
    let replace = ["restore", "db", "--replace", "--yes"];
    let whole = measured(|| drop(sandbox.run(&replace).ended(0)));
    for kill in 0..place.kills() {
        grow();
        let before = Sandbox::rows(&live);
        let instant = dice.between(Duration::ZERO, whole.mul_f64(1.2));
        kill_after(&mut spawn(sandbox.command(&replace)), instant);
        // The watchdog takes it back; `recover` does the same at once. Both may be at it.
        eventually("the undo", || {
            sandbox.run(&["recover"]).code == 0
                && sandbox.run(&["run", "list", "--active", "--json"]).json()["runs"] == serde_json::json!([])
        });
        let rows = Sandbox::rows(&live);
        assert!(rows == before || rows == ["book", "pen"], "kill {kill}: {rows:?}");
    }
}

#[test]
fn drill_restore() {
    drill_restore_at(&Place::folders(), "drill_restore");
}

#[test]
fn drill_restore_in_a_bucket() {
    let test = "drill_restore_in_a_bucket";
    if let Some(place) = Place::bucket(test) {
        drill_restore_at(&place, test);
    }
}

/// A restore drill changes nothing but its own folder, and that is gone when the next one begins.
fn drill_restore_at(place: &Place, test: &str) {
    let mut dice = Dice::new(test);
    let sandbox = project(place, &mut dice);
    let original = content(&sandbox.path("data/uploads"));
    sandbox.run(&["backup", "files"]).ended(0);
    let scratch = sandbox.path(".opsctl/scratch");
    let elsewhere = sandbox.path("elsewhere");
    let left = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    let whole = measured(|| drop(sandbox.run(&["drill", "restore", "files"]).ended(0)));
    let (mut ended, mut swept) = (0, 0);
    for kill in 0..place.kills() {
        let mut command = vec!["drill", "restore", "files"];
        if kill % 2 == 1 {
            command.extend(["--scratch", "elsewhere"]);
        }
        let mut child = spawn(sandbox.command(&command));
        let instant = if kill % 4 < 2 {
            // Most of the time goes into opening the repository; this one is to die while it restores.
            while left(&scratch) + left(&elsewhere) == 0 && child.try_wait().expect("our own child").is_none() {
                std::thread::yield_now();
            }
            dice.between(Duration::ZERO, whole.mul_f64(0.1))
        } else {
            dice.between(Duration::ZERO, whole.mul_f64(1.2))
        };
        ended += u64::from(kill_after(&mut child, instant));
        swept += u64::from(left(&scratch) + left(&elsewhere) > 0);
        // The next one begins elsewhere or here, sweeps both, and proves.
        sandbox.run(&["drill", "restore", "files"]).ended(0);
        assert_eq!((left(&scratch), left(&elsewhere)), (0, 0), "kill {kill}");
        let runs = sandbox.run(&["run", "list", "--active", "--json"]).json();
        assert_eq!(runs["runs"], serde_json::json!([]), "kill {kill}");
    }
    say(format_args!(
        "{test}: {ended} of {} had ended before the kill, {swept} left a folder",
        place.kills()
    ));
    assert!(
        swept > 0 || place.kills() < 4,
        "no kill came while there was something to sweep"
    );
    assert!(content(&sandbox.path("data/uploads")) == original);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    place.judged_by_restic(&sandbox, "repo", "correct horse", test);
}
