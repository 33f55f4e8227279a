//! Changes of a database that are shipped while the disk of the repository fills up, and is emptied again.

use std::fs::{self, File};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::disk::Disks;
use crate::sandbox::{Sandbox, content, eventually};
use crate::truth::{judged_by_restic, mortal};

#[test]
fn shipping_onto_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let test = "shipping_onto_a_full_disk_says_so_and_goes_on_when_there_is_room";
    let sandbox = Sandbox::with_stores();
    let Some(disks) = Disks::mount(&sandbox, &[("repo", 4 << 10)], test) else {
        return;
    };
    let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("the database");
    let add = |item: &str| {
        let added = database.execute("INSERT INTO orders (item) VALUES (?1)", [item]);
        added.expect("a row");
    };
    let told = sandbox.path("told");
    let mut child = mortal(&disks.command(&["backup", "db", "--continuous", "--interval", "100ms", "--json"]));
    child.stdout(File::create(&told).expect("our own file"));
    child.stderr(File::create(sandbox.path("warned")).expect("our own file"));
    let mut child = child.spawn().expect("opsctl starts");
    let events = |kind: &str| -> Vec<Value> {
        let text = fs::read_to_string(&told).expect("our own file");
        // The last line may be half of one.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["type"] == kind).collect()
    };
    let time =
        |event: &Value, key: &str| -> Timestamp { event[key].as_str().expect("a time").parse().expect("a time") };
    // A moment at which the store had everything that is committed by now. States have whole milliseconds, rounded up.
    let shipped = || {
        let (now, mut told_at) = (Timestamp::now(), None);
        eventually("what was committed is shipped", || {
            let event = events("shipped").into_iter().find(|event| time(event, "until") > now);
            told_at = event.map(|event| time(&event, "time") + SignedDuration::from_millis(1));
            told_at.is_some()
        });
        told_at.expect("it was waited for").to_string()
    };
    eventually("the first snapshot", || !events("generation").is_empty());
    add("shipped");
    let before = shipped();

    disks.fill("repo", 0);
    add("while it was full");
    eventually("the failure", || !events("failing").is_empty());
    let failing = events("failing").remove(0);
    let said = failing["error"].as_str().expect("why");
    assert!(said.contains("no space left at"), "{failing}");
    assert!(child.try_wait().expect("our own child").is_none(), "it goes on trying");
    // What was acknowledged before can be had now.
    disks
        .run(&["restore", "db", "--at", &before, "--into", "before"])
        .ended(0);
    assert_eq!(
        Sandbox::rows(&sandbox.path("before/shop.db")),
        ["book", "pen", "shipped"]
    );

    disks.empty("repo");
    eventually("the end of the failure", || !events("recovered").is_empty());
    add("afterwards");
    let last = shipped();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let ended = child.wait().expect("our own child");
    assert!(ended.success(), "{:?}", fs::read_to_string(sandbox.path("warned")));
    disks.run(&["restore", "db", "--at", &last, "--into", "last"]).ended(0);
    let rows = Sandbox::rows(&sandbox.path("last/shop.db"));
    assert_eq!(rows, ["book", "pen", "shipped", "while it was full", "afterwards"]);
    assert_eq!(content(&disks.path("repo/locks")).len(), 0);
    judged_by_restic(&disks.path("repo").display().to_string(), &[], test);
}
