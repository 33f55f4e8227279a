//! Keeping a repository in shape through the real binary: retention, prune, locks and passwords.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use backups::repo::{Lock, LockMode};
use backups::store::LocalStore;
use sandbox::Sandbox;
use serde_json::Value;

/// Says in opsctl.toml what to keep of `files`.
fn keep(sandbox: &Sandbox, keep: &str) {
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let (before, _) = text.split_once("[datastore.files.backup]").unwrap_or((&text, ""));
    sandbox.write(
        "opsctl.toml",
        &format!("{before}[datastore.files.backup]\nkeep = {keep}\n"),
    );
}

/// Backs up `files` so often, each time with something else in it.
fn back_up(sandbox: &Sandbox, times: u32) {
    for number in 0..times {
        sandbox.write("data/uploads/a.txt", &format!("number {number}\n").repeat(1000));
        sandbox.run(&["backup", "files"]).ended(0);
    }
}

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    let ids = list["snapshots"].as_array().expect("a list").iter();
    ids.map(|snapshot| snapshot["snapshot"].as_str().expect("an id").to_owned())
        .collect()
}

fn secret(sandbox: &Sandbox, name: &str, text: &str) {
    sandbox.write(name, text);
    fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(0o600)).expect("our own file");
}

#[test]
fn retention_follows_the_configuration_and_flags_go_before_it() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "db"]).ended(0);
    back_up(&sandbox, 4);
    sandbox
        .run(&["repository", "forget"])
        .ended(2)
        .says("nothing says which snapshots to keep");
    keep(&sandbox, "{ last = 2 }");
    let plan = sandbox
        .run(&["repository", "forget", "--dry-run", "--json"])
        .ended(0)
        .json();
    assert_eq!(
        (plan["type"].as_str(), plan["dry_run"].as_bool()),
        (Some("forget_plan"), Some(true))
    );
    let told = plan["groups"][0]["snapshots"].as_array().expect("snapshots").clone();
    let kept: Vec<bool> = told
        .iter()
        .map(|told| told["keep"].as_bool().expect("a flag"))
        .collect();
    assert_eq!(kept, [true, true, false, false]);
    assert_eq!(told[0]["reasons"], serde_json::json!(["last"]));
    assert_eq!(snapshots(&sandbox).len(), 5, "a dry run removes nothing");

    sandbox
        .run(&["repository", "forget"])
        .ended(5)
        .says("`--yes` is required");
    let flags = ["repository", "forget", "--keep-last", "3", "--target", "files", "--yes"];
    sandbox.run(&flags).ended(0).says("removed 1 snapshot");
    sandbox
        .run(&["repository", "forget", "--yes"])
        .ended(0)
        .says("removed 1 snapshot");
    sandbox
        .run(&["repository", "forget", "--yes"])
        .ended(0)
        .says("removed 0 snapshots");
    let left = snapshots(&sandbox);
    assert_eq!(left.len(), 3, "`db` has no `keep`: its snapshot stays");
    sandbox
        .run(&["repository", "forget", "--keep-last", "0", "--yes"])
        .ended(2)
        .says("keeps nothing");
    let newest = left.last().expect("one").clone();
    sandbox
        .run(&["repository", "forget", &newest[..8], "--yes"])
        .ended(5)
        .says("is the last whole one of files in local");
    sandbox.run(&["repository", "forget", "ffffffff", "--yes"]).ended(2);
    assert_eq!(snapshots(&sandbox), left);
    sandbox.run(&["repository", "forget", &left[1][..8], "--yes"]).ended(0);
    assert_eq!(snapshots(&sandbox).len(), 2);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
}

#[test]
fn a_policy_that_makes_no_sense_is_told_with_its_place() {
    for (wrong, says) in [
        ("{}", "`keep` keeps nothing"),
        ("{ daily = 0 }", "`keep` keeps nothing"),
        ("{ dayly = 7 }", "did you mean `daily`?"),
        ("{ within = \"soon\" }", "`soon` is no time"),
        ("{ daily = -1 }", "out of range"),
        ("7", "is a table"),
    ] {
        let sandbox = Sandbox::with_stores();
        keep(&sandbox, wrong);
        sandbox
            .run(&["config", "check"])
            .ended(2)
            .says(says)
            .says("opsctl.toml:");
    }
    let sandbox = Sandbox::with_stores();
    keep(
        &sandbox,
        "{ within = \"35d\", daily = 7, weekly = 4, monthly = 12, yearly = 3, tags = [\"audit\"], within_hourly = \"2d\" }",
    );
    sandbox.run(&["config", "check"]).ended(0);
}

#[test]
fn prune_gives_back_the_space_and_restic_agrees() {
    let sandbox = Sandbox::with_stores();
    keep(&sandbox, "{ last = 1 }");
    back_up(&sandbox, 3);
    let forgotten = sandbox
        .run(&["repository", "forget", "--prune", "--yes", "--json"])
        .ended(0)
        .json();
    assert_eq!(forgotten["removed"].as_array().map(Vec::len), Some(2));
    assert!(forgotten["prune"]["marked"]["packs"].as_u64() > Some(0), "{forgotten}");
    assert_eq!(forgotten["prune"]["deleted"]["packs"], 0);
    sandbox.judged_by_restic("prune_gives_back_the_space_and_restic_agrees");

    let plan = sandbox
        .run(&["repository", "prune", "--dry-run", "--json"])
        .ended(0)
        .json();
    assert_eq!(plan["type"], "prune_plan");
    let packs = |document: &Value, what: &str| document[what]["packs"].as_u64().expect("a number");
    let marked = packs(&forgotten["prune"], "marked") + packs(&forgotten["prune"], "repacked");
    assert_eq!(packs(&plan, "waiting"), marked);
    let limits = ["repository", "prune", "--grace", "0s", "--max-unused", "0", "--json"];
    let pruned = sandbox.run(&limits).ended(0).json();
    assert!(packs(&pruned, "deleted") >= packs(&plan, "waiting"), "{pruned}");
    assert_eq!(packs(&pruned, "waiting"), 0);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic("prune_gives_back_the_space_and_restic_agrees");
    sandbox.run(&["restore", "files", "--into", "out"]).ended(0);
    let restored = fs::read_to_string(sandbox.path("out/uploads/a.txt")).expect("restored");
    assert!(restored.starts_with("number 2\n"));
    let said = sandbox.run(&["repository", "prune"]).ended(0).stdout;
    assert!(said.starts_with("kept: "), "{said}");
    for wrong in [
        ["--max-unused", "lots"],
        ["--grace", "long"],
        ["--max-repack-size", "5 parsec"],
    ] {
        sandbox.run(&[&["repository", "prune"][..], &wrong].concat()).ended(2);
    }
}

#[test]
fn in_a_protected_environment_they_ask_for_the_name() {
    let sandbox = Sandbox::with_stores();
    keep(&sandbox, "{ last = 1 }");
    back_up(&sandbox, 2);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write(
        "opsctl.toml",
        &text.replace("[env.local]\n", "[env.local]\nprotected = true\n"),
    );
    secret(&sandbox, "new", "battery staple\n");
    let guarded: [&[&str]; 5] = [
        &["repository", "forget"],
        &["repository", "prune"],
        &["repository", "key", "add", "--new-password-file", "new"],
        &["repository", "key", "remove", "abcdef"],
        &["repository", "key", "rotate", "--new-password-file", "new"],
    ];
    for command in guarded {
        sandbox.run(command).ended(5).says("is protected");
        sandbox
            .run(&[command, &["--yes"]].concat())
            .ended(5)
            .says("needs a reason");
    }
    assert_eq!(snapshots(&sandbox).len(), 2);
    sandbox.run(&["repository", "forget", "--dry-run"]).ended(0);
    sandbox.run(&["repository", "prune", "--dry-run"]).ended(0);
    sandbox.run(&["repository", "key", "list"]).ended(0);
    sandbox
        .run(&[
            "repository",
            "forget",
            "--yes",
            "--reason",
            "the disk is full",
            "--prune",
        ])
        .ended(0);
    assert_eq!(snapshots(&sandbox).len(), 1);
}

#[test]
fn a_living_lock_is_respected_until_somebody_insists() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lock = runtime.block_on(async {
        let store = Arc::new(LocalStore::new(sandbox.path("repo")));
        let repository = backups::Repository::open(store, "correct horse")
            .await
            .expect("it opens");
        Lock::acquire(&repository, LockMode::Shared, backups::now())
            .await
            .expect("nobody is there")
    });
    sandbox
        .run(&["repository", "prune"])
        .ended(8)
        .says("opsctl repository unlock");
    sandbox.run(&["repository", "prune", "--dry-run"]).ended(0);
    let left = sandbox.run(&["repository", "unlock", "--json"]).ended(0).json();
    assert_eq!(left["locks"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (
            left["locks"][0]["state"].as_str(),
            left["locks"][0]["removed"].as_bool()
        ),
        (Some("alive"), Some(false))
    );
    assert_eq!(left["locks"][0]["pid"].as_u64(), Some(u64::from(std::process::id())));
    sandbox
        .run(&["repository", "unlock", "--all"])
        .ended(5)
        .says("`--yes` is required");
    sandbox.run(&["repository", "unlock", "--all", "--dry-run"]).ended(0);
    sandbox.run(&["repository", "prune"]).ended(8);
    sandbox
        .run(&["repository", "unlock", "--all", "--yes"])
        .ended(0)
        .says("removed 1 lock");
    sandbox.run(&["repository", "prune"]).ended(0);
    runtime.block_on(lock.release());
}

#[test]
fn what_a_killed_backup_left_is_unlocked_by_itself() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup"]).ended(0);
    sandbox.write("data/uploads/large", &"one line after the other\n".repeat(4_000_000));
    let mut child = sandbox
        .command(&["backup", "files", "-q"])
        .spawn()
        .expect("opsctl starts");
    sandbox::eventually("a lock", || {
        fs::read_dir(sandbox.path("repo/locks")).is_ok_and(|mut locks| locks.next().is_some())
            || !matches!(child.try_wait(), Ok(None))
    });
    child.kill().expect("our own child");
    child.wait().expect("it ends");
    let unlocked = sandbox.run(&["repository", "unlock", "--json"]).ended(0).json();
    for lock in unlocked["locks"].as_array().expect("locks") {
        assert_eq!(
            (lock["state"].as_str(), lock["removed"].as_bool()),
            (Some("process gone"), Some(true))
        );
    }
    sandbox.run(&["repository", "prune"]).ended(0);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
}

#[test]
fn passwords_are_added_removed_and_replaced() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    secret(&sandbox, "second", "battery staple\n");
    secret(&sandbox, "third", "gamma ray\n");
    secret(&sandbox, "empty", "");
    let add = ["repository", "key", "add", "--new-password-file"];
    sandbox.run(&[&add[..], &["nowhere"]].concat()).ended(2);
    sandbox.run(&[&add[..], &["empty"]].concat()).ended(2).says("is empty");
    let added = sandbox.run(&[&add[..], &["second", "--json"]].concat()).ended(0).json();
    let second = added["added"].as_str().expect("an id").to_owned();
    let list = sandbox.run(&["repository", "key", "list", "--json"]).ended(0).json();
    let keys = list["keys"].as_array().expect("keys").clone();
    assert_eq!(keys.len(), 2);
    let current: Vec<&Value> = keys.iter().filter(|key| key["current"] == true).collect();
    let current = current[0]["key"].as_str().expect("an id");
    sandbox
        .run(&["repository", "key", "remove", &current[..8], "--yes"])
        .ended(5)
        .says("is in use")
        .says("key rotate");
    sandbox.run(&["repository", "key", "remove", &second[..8]]).ended(5);
    sandbox.run(&["repository", "key", "remove", "ffff", "--yes"]).ended(2);

    let rotate = ["repository", "key", "rotate", "--new-password-file", "third", "--yes"];
    let rotated = sandbox.run(&rotate).ended(0).says("opens repository `here` no more");
    assert!(
        !rotated.stderr.contains("gamma") && !rotated.stdout.contains("gamma"),
        "a password is never shown"
    );
    sandbox.run(&["snapshot", "list"]).ended(2).says("wrong password");
    for (password, opens) in [("second", true), ("third", true)] {
        fs::copy(sandbox.path(password), sandbox.path("password")).expect("our own file");
        sandbox.run(&["snapshot", "list"]).ended(if opens { 0 } else { 2 });
    }
    let same = ["repository", "key", "rotate", "--new-password-file", "third", "--yes"];
    sandbox.run(&same).ended(2).says("the new password is the old one");
    sandbox
        .run(&["repository", "key", "remove", &second[..8], "--yes"])
        .ended(0);
    fs::copy(sandbox.path("second"), sandbox.path("password")).expect("our own file");
    sandbox.run(&["snapshot", "list"]).ended(2).says("wrong password");
}
