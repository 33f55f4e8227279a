//! Copy, repair and check of repositories through the real binary: the second copy, what it is good for, and every refusal.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::Sandbox;

/// [`Sandbox::with_stores`] with a second repository, `offsite`, with a password of its own.
fn with_two() -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let more = "[repository.offsite]\nstore = \"file:offsite\"\npassword = { file = \"password2\" }\n";
    sandbox.write("opsctl.toml", &format!("{text}{more}"));
    sandbox.write("password2", "battery staple\n");
    fs::set_permissions(sandbox.path("password2"), fs::Permissions::from_mode(0o600)).expect("our own file");
    sandbox
}

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
fn damage(path: &Path) {
    let middle = fs::metadata(path).expect("a file").len() as usize / 2;
    damage_at(path, middle);
}

fn damage_at(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[byte] ^= 0x40;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    fs::write(path, bytes).expect("our own file");
}

/// Restic's word on one of the repositories.
fn restic_is_content(sandbox: &Sandbox, repository: &str, password: &str, test: &str) {
    let Some(restic) = peers::peer("restic", test) else {
        return;
    };
    let checked = Command::new(restic)
        .args(["--no-cache", "check", "--read-data", "-r"])
        .arg(sandbox.path(repository))
        .env("RESTIC_PASSWORD", password)
        .output()
        .expect("restic starts");
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "restic: {told}");
}

#[test]
fn snapshots_are_copied_once_and_a_dry_run_copies_nothing() {
    let test = "snapshots_are_copied_once_and_a_dry_run_copies_nothing";
    let sandbox = with_two();
    sandbox.run(&["backup"]).ended(0);
    let dry = &["repository", "copy", "--to", "offsite", "--dry-run"];
    sandbox.run(dry).ended(0).says("would make repository `offsite`");
    let dry = sandbox
        .run(&["repository", "copy", "--to", "offsite", "-n", "--json"])
        .ended(0)
        .json();
    assert_eq!(dry["schema"], "opsctl.repository_copy/v1");
    assert_eq!(
        (dry["copied"].as_array().map(Vec::len), &dry["dry_run"]),
        (Some(2), &true.into())
    );
    assert!(!sandbox.path("offsite").exists(), "a dry run makes nothing");

    let done = sandbox
        .run(&[
            "repository",
            "copy",
            "--to",
            "offsite",
            "--datastore",
            "files",
            "--json",
        ])
        .ended(0)
        .json();
    assert!(sandbox.path("offsite/config").exists(), "the repository is made");
    assert_eq!(done["copied"].as_array().map(Vec::len), Some(1));
    assert_eq!(done["same_chunks"], true);
    sandbox
        .run(&["repository", "copy", "--to", "offsite"])
        .ended(0)
        .says("copied 1 snapshot into offsite")
        .says("1 were there already");
    let again = sandbox
        .run(&["repository", "copy", "--to", "offsite", "--json"])
        .ended(0)
        .json();
    assert_eq!(
        (again["blobs"].as_u64(), again["present"].as_array().map(Vec::len)),
        (Some(0), Some(2))
    );
    sandbox.run(&["repository", "check", "offsite", "--read-data"]).ended(0);
    restic_is_content(&sandbox, "offsite", "battery staple", test);
    let latest = sandbox
        .run(&["repository", "copy", "latest", "--to", "offsite", "--json"])
        .ended(0)
        .json();
    assert_eq!(latest["present"].as_array().map(Vec::len), Some(1));
}

#[test]
fn copying_where_it_makes_no_sense() {
    let sandbox = with_two();
    sandbox
        .run(&["repository", "copy", "--to", "offsite"])
        .ended(2)
        .says("could not open repository `here`");
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox
        .run(&["repository", "copy", "--to", "here"])
        .ended(2)
        .says("cannot be copied into itself");
    sandbox
        .run(&["repository", "copy", "--to", "nowhere"])
        .ended(2)
        .says("there is no repository `nowhere`");
    sandbox
        .run(&["repository", "copy", "ffffffff", "--to", "offsite"])
        .ended(2)
        .says("could not find snapshot `ffffffff`");
    fs::remove_file(sandbox.path("password2")).expect("our own file");
    sandbox
        .run(&["repository", "copy", "--to", "offsite"])
        .ended(2)
        .says("the password of repository `offsite` is not there");
}

#[test]
fn a_destination_that_cuts_in_another_way_is_said_once_and_init_avoids_it() {
    let sandbox = with_two();
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox.run(&["repository", "init", "offsite"]).ended(0);
    let copied = sandbox
        .run(&["repository", "copy", "--to", "offsite", "--json"])
        .ended(0)
        .says("--copy-chunker-params-from here");
    assert_eq!(copied.json()["same_chunks"], false);
    fs::remove_dir_all(sandbox.path("offsite")).expect("our own folder");
    sandbox
        .run(&["repository", "init", "offsite", "--copy-chunker-params-from", "here"])
        .ended(0);
    let copied = sandbox
        .run(&["repository", "copy", "--to", "offsite", "--json"])
        .ended(0);
    assert_eq!(copied.json()["same_chunks"], true);
    assert!(!copied.stderr.contains("chunker"), "{}", copied.stderr);
}

#[test]
fn damage_is_repaired_from_the_second_repository_with_consent_alone() {
    let test = "damage_is_repaired_from_the_second_repository_with_consent_alone";
    let sandbox = with_two();
    sandbox.run(&["backup"]).ended(0);
    sandbox
        .run(&["repository", "repair"])
        .ended(0)
        .says("there is nothing to repair");
    sandbox.run(&["repository", "copy", "--to", "offsite"]).ended(0);
    for pack in files_in(sandbox.path("repo/data")) {
        damage(&pack);
    }
    damage(&files_in(sandbox.path("repo/index"))[0]);
    damage(&files_in(sandbox.path("repo/snapshots"))[0]);
    sandbox
        .run(&["repository", "check", "--read-data"])
        .ended(4)
        .says("opsctl repository repair --dry-run");
    let before = files_in(sandbox.path("repo"));
    let plan = sandbox
        .run(&["repository", "repair", "--from", "offsite", "--dry-run", "--json"])
        .ended(0)
        .json();
    assert_eq!(plan["schema"], "opsctl.repository_repair/v1");
    assert_eq!(plan["damaged_indexes"].as_array().map(Vec::len), Some(1));
    assert_eq!(plan["unreadable_snapshots"].as_array().map(Vec::len), Some(1));
    assert_eq!(plan["done"], serde_json::Value::Null);
    sandbox
        .run(&["repository", "repair", "--from", "offsite"])
        .ended(5)
        .says("`--yes` is required");
    assert_eq!(
        files_in(sandbox.path("repo")),
        before,
        "nothing was done without consent"
    );
    let done = sandbox
        .run(&["repository", "repair", "--from", "offsite", "--yes", "--json"])
        .ended(0)
        .json();
    assert_eq!(done["done"]["lost"].as_array().map(Vec::len), Some(0));
    assert_eq!(done["done"]["restored"].as_array().map(Vec::len), Some(1));
    assert!(!files_in(sandbox.path("repo/damaged")).is_empty());
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic(test);
    sandbox.run(&["restore", "files", "--into", "elsewhere"]).ended(0);
    for name in ["a.txt", "deep/b.bin"] {
        assert_eq!(
            fs::read(sandbox.path("elsewhere/uploads").join(name)).expect("restored"),
            fs::read(sandbox.path("data/uploads").join(name)).expect("the original")
        );
    }
    let restored = sandbox.run(&["restore", "db"]).ended(0);
    assert_eq!(
        Sandbox::rows(&PathBuf::from(restored.stdout.trim()).join("shop.db")),
        ["book", "pen"]
    );
}

#[test]
fn what_is_lost_for_good_is_listed_and_left_out() {
    let test = "what_is_lost_for_good_is_listed_and_left_out";
    let sandbox = with_two();
    sandbox.run(&["backup", "files"]).ended(0);
    // The first blob of every pack.
    for pack in files_in(sandbox.path("repo/data")) {
        damage_at(&pack, 20);
    }
    let plan = sandbox.run(&["repository", "repair", "--dry-run"]).ended(3);
    assert!(plan.stdout.contains("lost: "), "{}", plan.stdout);
    sandbox
        .run(&["repository", "repair", "--yes", "--forget", "--reason", "a test"])
        .ended(3)
        .says("something stays lost");
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic(test);
}

#[test]
fn parts_of_a_repair_and_of_a_check() {
    let sandbox = with_two();
    sandbox.run(&["backup", "files"]).ended(0);
    fs::remove_file(&files_in(sandbox.path("repo/index"))[0]).expect("our own file");
    sandbox.run(&["repository", "check"]).ended(4);
    sandbox.run(&["repository", "repair", "index", "-n"]).ended(0);
    sandbox
        .run(&["repository", "repair", "index", "--yes"])
        .ended(0)
        .says("repaired here");
    for subset in ["1/1", "100%", "5%", "500MB"] {
        sandbox
            .run(&["repository", "check", "--read-data-subset", subset])
            .ended(0);
    }
    sandbox.run(&["repository", "check", "--part", "1/7"]).ended(0);
    sandbox
        .run(&["repository", "check", "--read-data-subset", "8/7"])
        .ended(2)
        .says("not above OF");
    sandbox
        .run(&["repository", "repair", "index", &"ab".repeat(32)])
        .ended(2)
        .says("packs are named with");
    sandbox
        .run(&["repository", "repair", "--from", "here"])
        .ended(2)
        .says("cannot be repaired from itself");
}

#[test]
fn a_copy_that_is_partial_says_what_was_left_behind() {
    let sandbox = with_two();
    sandbox.run(&["backup", "files"]).ended(0);
    let before = files_in(sandbox.path("repo/data"));
    sandbox.run(&["backup", "db"]).ended(0);
    for pack in files_in(sandbox.path("repo/data"))
        .into_iter()
        .filter(|pack| !before.contains(pack))
    {
        damage(&pack);
    }
    let copied = sandbox
        .run(&["repository", "copy", "--to", "offsite", "--json"])
        .ended(3)
        .says("not copied: ")
        .json();
    assert_eq!(copied["copied"].as_array().map(Vec::len), Some(1));
    assert_eq!(copied["damaged"].as_array().map(Vec::len), Some(1));
    sandbox.run(&["repository", "check", "offsite", "--read-data"]).ended(0);
}
