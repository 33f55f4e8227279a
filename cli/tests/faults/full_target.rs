//! Full disks where something is brought back to, and where opsctl keeps its own things.

use std::fs;
use std::path::Path;

use crate::disk::Disks;
use crate::sandbox::{Sandbox, content};
use crate::truth::{code_of, declare, noise, snapshots};

const LIST: [&str; 3] = ["snapshot", "list", "--json"];

/// Forty files that do not compress, 200 KiB each.
fn many_files(sandbox: &Sandbox) {
    for file in 0..40 {
        let name = format!("data/uploads/{file}.bin");
        fs::write(sandbox.path(name), noise(file, 200 << 10)).expect("our own file");
    }
}

/// What no restore may leave: names of its own.
#[track_caller]
fn whole_files_only(folder: &Path, original: &Path) {
    let original = content(original);
    for (name, bytes) in content(folder) {
        assert!(original.get(&name) == Some(&bytes), "{} is half a file", name.display());
    }
}

fn locks(sandbox: &Sandbox) -> usize {
    content(&sandbox.path("repo/locks")).len()
}

#[test]
fn a_full_target_ends_a_restore_that_goes_on_when_there_is_room() {
    let test = "a_full_target_ends_a_restore_that_goes_on_when_there_is_room";
    let sandbox = Sandbox::with_stores();
    let Some(disks) = Disks::mount(&sandbox, &[("small", 3 << 10)], test) else {
        return;
    };
    many_files(&sandbox);
    // Larger than the disk, in many pieces.
    fs::write(sandbox.path("data/uploads/large"), noise(99, 5 << 20)).expect("our own file");
    let uploads = sandbox.path("data/uploads");
    disks.run(&["backup", "files"]).ended(0);
    let restore = ["restore", "files", "--into", "small/back", "--yes", "--json"];
    let ran = disks.run(&restore).ended(1);
    assert_eq!(code_of(&ran), "disk_full");
    assert!(ran.stderr.contains("the disk is full at"), "{}", ran.stderr);
    whole_files_only(&disks.path("small/back/uploads"), &uploads);
    assert_eq!(locks(&sandbox), 0);
    disks.fill("small", 0);
    let ran = disks.run(&restore).ended(1);
    assert_eq!(code_of(&ran), "disk_full");
    disks.empty("small");
    disks.grow("small", 32 << 10);
    let ran = disks.run(&restore).ended(0).json();
    assert!(content(&disks.path("small/back/uploads")) == content(&uploads), "{ran}");
    sandbox.judged_by_restic(test);
}

#[test]
fn a_full_disk_ends_a_restore_in_place_and_nothing_is_replaced() {
    let test = "a_full_disk_ends_a_restore_in_place_and_nothing_is_replaced";
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
    sandbox.write("opsctl.toml", &text.replace("data/shop.db", "small/shop.db"));
    let Some(disks) = Disks::mount(&sandbox, &[("small", 5 << 10)], test) else {
        return;
    };
    // SQLite follows the link to where the disks are, and ends up here: it gets files of ours.
    let (made, live) = (sandbox.path("made.db"), disks.path("small/shop.db"));
    let rows = || {
        fs::copy(&live, sandbox.path("seen.db")).expect("the database");
        Sandbox::rows(&sandbox.path("seen.db"))
    };
    let database = rusqlite::Connection::open(&made).expect("a database");
    database
        .execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT); INSERT INTO orders (item) VALUES ('book'), ('pen'); CREATE TABLE filling (bytes BLOB); INSERT INTO filling VALUES (randomblob(3000000));")
        .expect("a large row");
    fs::copy(&made, &live).expect("there is room");
    disks.run(&["backup", "db"]).ended(0);
    database
        .execute_batch("INSERT INTO orders (item) VALUES ('later')")
        .expect("a row");
    fs::copy(&made, &live).expect("there is room");
    let before = content(&disks.path("small"));
    let ran = disks.run(&["restore", "db", "--replace", "--yes", "--json"]).ended(1);
    assert_eq!(code_of(&ran), "disk_full");
    assert_eq!(rows(), ["book", "pen", "later"]);
    assert!(
        content(&disks.path("small")).keys().eq(before.keys()),
        "left: {:?}",
        content(&disks.path("small")).keys()
    );
    disks.run(&["recover"]).ended(0);
    let runs = disks.run(&["run", "list", "--active", "--json"]).ended(0).json();
    assert_eq!(runs["runs"], serde_json::json!([]));
    assert_eq!(locks(&sandbox), 0);
    disks.grow("small", 12 << 10);
    disks.run(&["restore", "db", "--replace", "--yes"]).ended(0);
    assert_eq!(rows(), ["book", "pen"]);
}

#[test]
fn a_full_scratch_place_ends_a_drill_that_proves_nothing() {
    let test = "a_full_scratch_place_ends_a_drill_that_proves_nothing";
    let sandbox = Sandbox::with_stores();
    let Some(disks) = Disks::mount(&sandbox, &[("small", 1 << 10)], test) else {
        return;
    };
    let drill = ["drill", "restore", "files", "--scratch", "small", "--json"];
    let unproved = |code: &str| {
        let ran = disks.run(&drill).ended(1);
        assert_eq!(code_of(&ran), code, "{}", ran.stderr);
        assert_eq!(content(&disks.path("small")).len(), 0);
        assert_eq!(fs::read_dir(disks.path("small")).expect("a folder").count(), 0);
        assert_eq!(
            content(&sandbox.path(".opsctl/scratch")).len(),
            0,
            "no note of it stays"
        );
        let listed = disks.run(&LIST).ended(0).json();
        assert!(
            listed["snapshots"][0]["proved"].is_null() || listed["snapshots"][0]["proved"] == false,
            "{listed}"
        );
        assert_eq!(locks(&sandbox), 0);
    };
    // Small files take more room than they have bytes: that is found out on the way.
    for file in 0..600 {
        fs::write(sandbox.path(format!("data/uploads/{file}")), format!("file {file}")).expect("our own file");
    }
    disks.run(&["backup", "files"]).ended(0);
    unproved("disk_full");
    // What is too large is known before.
    many_files(&sandbox);
    disks.run(&["backup", "files"]).ended(0);
    let ran = disks.run(&drill[..5]).ended(1).says("it needs");
    assert!(ran.stderr.contains("--scratch FOLDER"), "{}", ran.stderr);
    disks.run(&["drill", "restore", "files"]).ended(0);
}

#[test]
fn a_full_state_folder_keeps_nobody_from_a_backup_that_needs_none() {
    let test = "a_full_state_folder_keeps_nobody_from_a_backup_that_needs_none";
    let sandbox = Sandbox::with_stores();
    let Some(disks) = Disks::mount(&sandbox, &[(".opsctl", 1 << 10)], test) else {
        return;
    };
    declare(
        &sandbox,
        "[schedule.save]\njob = \"backup\"\ntarget = \"files\"\ncron = \"* * * * *\"\n",
    );
    let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("a database");
    database
        .execute_batch("CREATE TABLE filling (bytes BLOB); INSERT INTO filling VALUES (randomblob(3000000));")
        .expect("a large row");
    drop(database);
    // The copy of the database does not fit.
    let ran = disks.run(&["backup", "db", "--json"]).ended(1);
    assert_eq!(code_of(&ran), "disk_full");
    assert!(
        ran.stderr.contains("as much free space as the database"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        content(&disks.path(".opsctl/staging")).len(),
        0,
        "no half of a copy stays"
    );
    assert_eq!(snapshots(disks.run(&LIST)), [""; 0]);

    disks.fill(".opsctl", 0);
    disks.run(&["backup", "files"]).ended(0);
    // One that fails keeps no other from being saved.
    let both = disks.run(&["backup", "--json"]).ended(1);
    assert_eq!(code_of(&both), "disk_full");
    assert_eq!(snapshots(disks.run(&LIST)).len(), 2);
    disks.run(&["restore", "files", "--into", "back"]).ended(0);
    assert!(content(&sandbox.path("back/uploads")) == content(&sandbox.path("data/uploads")));
    for needing in [
        &["drill", "restore", "files", "--json"][..],
        &["schedule", "run", "--once", "--json"],
    ] {
        let ran = disks.run(needing).ended(1);
        assert_eq!(code_of(&ran), "disk_full", "{needing:?}: {}", ran.stderr);
    }
    disks.empty(".opsctl");
    disks.run(&["schedule", "run", "--once"]).ended(0);
    disks.run(&["drill", "restore", "files"]).ended(0);
    sandbox.judged_by_restic(test);
}
