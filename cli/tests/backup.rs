//! Backup, snapshots, restore beside and checks through the real binary: the good way, and every bad input that must be
//! one clear error with nothing lost.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sandbox::Sandbox;

fn files_in(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_in(entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Changes one byte in the middle of a file.
fn damage(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    let mut permissions = fs::metadata(path).expect("a file").permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "our own temporary file")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).expect("our own file");
    fs::write(path, bytes).expect("our own file");
}

#[test]
fn what_was_saved_comes_back() {
    let sandbox = Sandbox::with_stores();
    let document = sandbox.run(&["backup", "--json"]).ended(0).json();
    assert_eq!(document["schema"], "opsctl.backup/v1");
    assert_eq!(document["datastores"].as_array().map(Vec::len), Some(2));
    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(2));

    let restored = sandbox.run(&["restore", "db"]).ended(0);
    assert_eq!(
        Sandbox::rows(&PathBuf::from(restored.stdout.trim()).join("shop.db")),
        ["book", "pen"]
    );
    sandbox.run(&["restore", "db"]).ended(5).says("exists already");
    sandbox.run(&["restore", "files", "--into", "elsewhere"]).ended(0);
    for name in ["a.txt", "deep/b.bin"] {
        assert_eq!(
            fs::read(sandbox.path("elsewhere/uploads").join(name)).expect("restored"),
            fs::read(sandbox.path("data/uploads").join(name)).expect("the original")
        );
    }
    sandbox
        .run(&["restore", "files", "--into", "elsewhere"])
        .ended(5)
        .says("`--yes` is required");
    sandbox
        .run(&["restore", "files", "--into", "elsewhere", "--yes"])
        .ended(0);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
}

#[test]
fn looking_at_snapshots() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox.write("data/uploads/new.txt", "new\n");
    sandbox.run(&["backup", "files"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "files", "--json"]).ended(0).json();
    let first = list["snapshots"][0]["snapshot"].as_str().expect("an id").to_owned();
    let diff = sandbox.run(&["snapshot", "diff", &first[..8]]).ended(0);
    assert!(diff.stdout.contains("+ uploads/new.txt"), "{}", diff.stdout);
    assert!(
        sandbox
            .run(&["snapshot", "ls"])
            .ended(0)
            .stdout
            .contains("uploads/deep/b.bin")
    );
    assert_eq!(
        sandbox
            .run(&["snapshot", "dump", "latest", "uploads/a.txt"])
            .ended(0)
            .stdout,
        "alpha\n"
    );
    sandbox
        .run(&["snapshot", "dump", "latest", "uploads/none"])
        .ended(2)
        .says("opsctl snapshot ls");
    sandbox
        .run(&["snapshot", "show", "ffffffff"])
        .ended(2)
        .says("opsctl snapshot list");
    sandbox.run(&["restore", "db"]).ended(2).says("opsctl backup db");
}

#[test]
fn a_missing_or_wrong_password() {
    let sandbox = Sandbox::with_stores();
    let password = sandbox.path("password");
    fs::rename(&password, sandbox.path("kept")).expect("our own file");
    sandbox
        .run(&["backup"])
        .ended(2)
        .says("the password of repository `here` is not there");
    assert!(
        !sandbox.path("repo/config").exists(),
        "no repository without a password"
    );
    assert!(!password.exists(), "only init makes a password file");
    fs::rename(sandbox.path("kept"), &password).expect("our own file");
    sandbox.run(&["backup"]).ended(0);
    fs::write(&password, "battery staple\n").expect("our own file");
    for command in [
        &["backup"][..],
        &["restore", "db"],
        &["snapshot", "list"],
        &["repository", "check"],
    ] {
        let ran = sandbox.run(command).ended(2).says("wrong password");
        assert!(!ran.stderr.contains("battery"), "a password is never shown");
    }
    fs::write(&password, "").expect("our own file");
    sandbox.run(&["backup"]).ended(2).says("is empty");
}

#[test]
fn a_target_that_does_not_exist_or_is_not_clear() {
    let sandbox = Sandbox::with_stores();
    sandbox
        .run(&["backup", "fils"])
        .ended(2)
        .says("there is no datastore or service `fils`")
        .says("did you mean `files`?");
    sandbox
        .run(&["restore"])
        .ended(2)
        .says("which datastore is meant is not clear")
        .says("  db")
        .says("  files");
    fs::remove_file(sandbox.path("data/shop.db")).expect("our own file");
    sandbox
        .run(&["backup"])
        .ended(2)
        .says("could not back up `db`")
        .says("1 datastore was saved all the same");
}

#[test]
fn a_datastore_of_a_kind_that_is_not_built() {
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &format!("{text}[datastore.docs]\nkind = \"mongodb\"\n"));
    sandbox
        .run(&["backup", "docs"])
        .ended(2)
        .says("datastore `docs` is of kind `mongodb`");
}

#[test]
fn damage_is_found_named_and_never_restored_as_if_whole() {
    let cases: [(&str, &[&str], i32); 5] = [
        ("data", &["repository", "check", "--read-data"], 4),
        ("index", &["restore", "files", "--into", "out"], 1),
        ("snapshots", &["snapshot", "list"], 3),
        ("keys", &["backup"], 1),
        ("config", &["snapshot", "list"], 1),
    ];
    for (part, command, code) in cases {
        let sandbox = Sandbox::with_stores();
        sandbox.run(&["backup", "files"]).ended(0);
        let whole = sandbox.path("repo").join(part);
        let files = if whole.is_dir() { files_in(whole) } else { vec![whole] };
        for file in &files {
            damage(file);
        }
        let ran = sandbox.run(command);
        assert_eq!(ran.code, code, "{part}: {}", ran.stderr);
        if part != "config" && part != "keys" {
            let checked = sandbox.run(&["repository", "check", "--read-data"]);
            assert_ne!(checked.code, 0, "{part} is damaged, and check says that it is sound");
        }
        // Whatever restore says, it does not say that all is well.
        let restored = sandbox.run(&["restore", "files", "--into", "again"]);
        assert_ne!(restored.code, 0, "{part} is damaged, and restore says that all is well");
    }
}

/// The directories of a snapshot are blobs in packs of their own. Looking at a snapshot reads nothing else, so the packs
/// whose damage shows there are those.
#[test]
fn a_corrupt_tree_is_found_named_and_no_restore_is_whole() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    let mut trees = 0;
    for pack in files_in(sandbox.path("repo/data")) {
        let name = pack.file_name().expect("a name").to_string_lossy()[..8].to_owned();
        let whole = fs::read(&pack).expect("a pack");
        damage(&pack);
        let listed = sandbox.run(&["snapshot", "ls"]);
        if listed.code != 0 {
            trees += 1;
            assert_eq!(listed.code, 1, "{}", listed.stderr);
            assert!(
                listed.stderr.contains("tree ") && listed.stderr.contains(" is corrupt"),
                "{}",
                listed.stderr
            );
            let checked = sandbox.run(&["repository", "check"]).ended(4);
            assert!(checked.stdout.contains("damage tree "), "{}", checked.stdout);
            let checked = sandbox.run(&["repository", "check", "--read-data"]).ended(4);
            assert!(checked.stdout.contains(&name), "pack {name}:\n{}", checked.stdout);
            let restored = sandbox.run(&["restore", "files", "--into", "out"]);
            assert!(matches!(restored.code, 1 | 3), "{}", restored.stderr);
            assert!(!sandbox.path("out/uploads/deep/b.bin").exists());
            // What was saved stays as it was: a new backup is whole again.
            sandbox.run(&["backup", "files", "--full"]);
        }
        fs::write(&pack, whole).expect("our own file");
    }
    assert!(trees > 0, "no pack holds trees");
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.run(&["restore", "files", "--into", "whole"]).ended(0);
}

#[test]
fn a_full_disk_is_one_clear_error_and_loses_nothing() {
    let name = "a_full_disk_is_one_clear_error_and_loses_nothing";
    let sandbox = Sandbox::with_stores();
    let repo = sandbox.path("repo");
    fs::create_dir_all(&repo).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=400k,mode=0700", "tmpfs"])
        .arg(&repo)
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        peers::skip(name, "a small tmpfs cannot be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        sandbox.run(&["backup", "files"]).ended(0);
        let noise: Vec<u8> = (0..1_500_000_u64)
            .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (i.wrapping_mul(i) >> 13) as u8)
            .collect();
        fs::write(sandbox.path("data/uploads/noise"), noise).expect("our own file");
        sandbox
            .run(&["backup", "files"])
            .ended(1)
            .says("could not back up `files`")
            .says("no space left")
            .says("free some space");
        sandbox.run(&["repository", "check", "--read-data"]).ended(0);
        sandbox.run(&["restore", "files", "--into", "out"]).ended(0);
        assert_eq!(
            fs::read_to_string(sandbox.path("out/uploads/a.txt")).expect("restored"),
            "alpha\n"
        );
    });
    let _ = Command::new("umount").arg("-l").arg(&repo).status();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn two_backups_at_once() {
    let sandbox = Sandbox::with_stores();
    let children: Vec<_> = (0..3)
        .map(|_| {
            sandbox
                .command(&["backup", "-q"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("opsctl starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(6));
}

#[test]
fn restic_reads_what_backup_wrote() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup"]).ended(0);
    sandbox.judged_by_restic("restic_reads_what_backup_wrote");
}

/// The stream of a shipper, as far as it has come.
fn events(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(sandbox.path("events")).expect("our own file");
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn what_changes_is_shipped_and_any_moment_comes_back() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "--continuous"]).ended(2).says("ship = \"1s\"");
    sandbox
        .run(&["backup", "files", "--continuous"])
        .ended(2)
        .says("of kind `files`");
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let text = text.replace(
        "path = \"data/shop.db\"\n",
        "path = \"data/shop.db\"\nbackup = { ship = \"40ms\" }\n",
    );
    sandbox.write("opsctl.toml", &text);
    let plan = sandbox.run(&["backup", "--continuous", "--dry-run"]).ended(0);
    assert!(
        plan.stdout.contains("would ship db") && plan.stdout.contains("every 40ms"),
        "{}",
        plan.stdout
    );
    sandbox
        .run(&["restore", "db", "--at", "1s ago"])
        .ended(2)
        .says("there is no repository");

    let stdout = fs::File::create(sandbox.path("events")).expect("our own file");
    let mut shipper = sandbox
        .command(&["backup", "--continuous", "--json"])
        .stdout(stdout)
        .spawn()
        .expect("opsctl starts");
    let shipped = |count: usize| {
        sandbox::eventually("a change is shipped", || {
            events(&sandbox)
                .iter()
                .filter(|event| event["type"] == "shipped")
                .count()
                >= count
        });
    };
    // What the copy of the snapshot has differently on its first page.
    shipped(1);
    let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("the database");
    let sell = |item: &str| {
        database
            .execute("INSERT INTO orders (item) VALUES (?1)", [item])
            .expect("a row")
    };
    sell("lamp");
    shipped(2);
    let moment = events(&sandbox).last().expect("an event")["time"]
        .as_str()
        .expect("a time")
        .to_owned();
    sandbox
        .run(&["backup", "db", "--continuous"])
        .ended(8)
        .says("shipped by another process");
    sell("chair");
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(rustix::process::Pid::from_child(&shipper), interrupt).expect("our own child");
    assert!(shipper.wait().expect("it ends").success(), "Ctrl-C ends it cleanly");
    let told = events(&sandbox);
    assert_eq!(told.last().expect("events")["type"], "stopped");
    let latest = told[told.len() - 2]["until"]
        .as_str()
        .expect("the last rows were shipped")
        .to_owned();

    let rows = |args: &[&str]| {
        let restored = sandbox.run(args).ended(0);
        Sandbox::rows(&PathBuf::from(restored.stdout.trim()).join("shop.db"))
    };
    assert_eq!(rows(&["restore", "db", "--at", &moment]), ["book", "pen", "lamp"]);
    sandbox
        .run(&["restore", "db", "--at", &moment])
        .ended(5)
        .says("exists already");
    let late = latest.parse::<jiff::Timestamp>().expect("a time") + std::time::Duration::from_millis(500);
    let document = sandbox
        .run(&["restore", "db", "--at", &late.to_string(), "--into", "late", "--json"])
        .ended(0)
        .json();
    assert!(
        document["reached"]
            .as_str()
            .is_some_and(|reached| reached >= latest.as_str()),
        "{document}"
    );
    assert_eq!(
        Sandbox::rows(&sandbox.path("late/shop.db")),
        ["book", "pen", "lamp", "chair"]
    );
    sandbox
        .run(&["restore", "db", "--at", "1h ago"])
        .ended(2)
        .says("is the earliest");
    sandbox
        .run(&["restore", "files", "--at", "1s ago"])
        .ended(2)
        .says("of kind `files`");
    sandbox.run(&["restore", "db", "--at", "noon"]).ended(2).says("10m ago");
    // In place as well, and what is shipped harms no repository.
    let plan = sandbox
        .run(&["restore", "db", "--replace", "--at", &moment, "--dry-run"])
        .ended(0);
    assert!(plan.stdout.contains("as it was at"), "{}", plan.stdout);
    drop(database);
    sandbox
        .run(&["restore", "db", "--replace", "--at", &moment, "--yes"])
        .ended(0);
    assert_eq!(Sandbox::rows(&sandbox.path("data/shop.db")), ["book", "pen", "lamp"]);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic("what_changes_is_shipped_and_any_moment_comes_back");
}
