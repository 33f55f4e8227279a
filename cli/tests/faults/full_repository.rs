//! Repositories on a disk that is full: what is added is refused and leaves nothing, what only reads goes on, and space can be
//! given back.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::disk::Disks;
use crate::sandbox::{Sandbox, content};
use crate::truth::{code_of, declare, judged_by_restic, noise, saved, snapshots};

const LIST: [&str; 3] = ["snapshot", "list", "--json"];

/// A project with a second repository, `offsite`.
fn project() -> Sandbox {
    let sandbox = Sandbox::with_stores();
    declare(
        &sandbox,
        "[repository.offsite]\nstore = \"file:offsite\"\npassword = { file = \"password\" }\n",
    );
    fs::remove_file(sandbox.path("data/uploads/deep/b.bin")).expect("our own file");
    sandbox
}

fn put(sandbox: &Sandbox, name: &str, seed: u64, bytes: usize) {
    fs::write(sandbox.path("data/uploads").join(name), noise(seed, bytes)).expect("our own file");
}

/// A refusal for want of space: exit 1, and the words for it.
#[track_caller]
fn refused(disks: &Disks<'_>, args: &[&str]) {
    let ran = disks.run(&[args, &["--json"]].concat()).ended(1);
    assert_eq!(code_of(&ran), "disk_full", "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.contains("no space left at"), "{args:?}: {}", ran.stderr);
}

/// Nothing temporary lies in a repository, and no lock.
#[track_caller]
fn tidy(repository: &Path) {
    for name in content(repository).keys() {
        let name = name.display().to_string();
        assert!(!name.starts_with("locks/") && !name.contains("tmp"), "{name} was left");
    }
}

/// What was saved comes back as it was, also while nothing more can be written.
#[track_caller]
fn restores(disks: &Disks<'_>, sandbox: &Sandbox, id: &str) {
    let expected = content(&sandbox.path("data/uploads"));
    disks
        .run(&["restore", "files", "--snapshot", id, "--into", "back"])
        .ended(0);
    assert!(content(&sandbox.path("back/uploads")) == expected, "snapshot {id}");
    fs::remove_dir_all(sandbox.path("back")).expect("our own folder");
}

#[test]
fn a_full_repository_refuses_what_is_added_and_gives_back_what_it_holds() {
    let test = "a_full_repository_refuses_what_is_added_and_gives_back_what_it_holds";
    let sandbox = project();
    let Some(disks) = Disks::mount(&sandbox, &[("repo", 40 << 10)], test) else {
        return;
    };
    let repo = disks.path("repo");
    let judge = || judged_by_restic(&repo.display().to_string(), &[], test);
    put(&sandbox, "one", 1, 3 << 20);
    let first = saved(disks.run(&["backup", "files", "--json"]));

    // More than there is room for: the disk fills up on the way, after some packs.
    let mut two = fs::File::create(sandbox.path("data/uploads/two")).expect("our own file");
    let random = fs::File::open("/dev/urandom").expect("the system's");
    std::io::copy(&mut random.take(48 << 20), &mut two).expect("our own file");
    drop(two);
    refused(&disks, &["backup", "files"]);
    disks.run(&["backup", "files"]).ended(1).says("help: free some space");
    assert_eq!(snapshots(disks.run(&LIST)), std::slice::from_ref(&first));
    tidy(&repo);
    judge();
    fs::remove_file(sandbox.path("data/uploads/two")).expect("our own file");
    let left = disks
        .run(&["repository", "prune", "--dry-run", "--json"])
        .ended(0)
        .json();
    let left = &left["unindexed"]["packs"];
    assert!(
        left.as_u64() > Some(0),
        "prune knows what was stored until then: {left}"
    );

    // Not one byte more.
    sandbox.secret("next", "battery staple");
    disks.fill("repo", 0);
    for adding in [
        &["backup", "files"][..],
        &["repository", "forget", "--keep-last", "1", "--prune", "--yes"],
        &["repository", "prune", "--grace", "0s", "--yes"],
        &["repository", "key", "rotate", "--new-password-file", "next", "--yes"],
    ] {
        refused(&disks, adding);
        tidy(&repo);
    }
    restores(&disks, &sandbox, &first);
    disks.run(&["snapshot", "ls"]).ended(0);
    disks.run(&["repository", "check", "--read-data"]).ended(0);
    disks.run(&["repository", "prune", "--dry-run"]).ended(0);
    // It is saved to another disk.
    disks.run(&["repository", "copy", "--to", "offsite"]).ended(0);
    judged_by_restic(&sandbox.path("offsite").display().to_string(), &[], test);
    // A drill proves, and says that this could not be noted.
    let drill = disks.run(&["drill", "restore", "files", "--json"]).ended(1);
    assert_eq!(code_of(&drill), "disk_full");
    assert_eq!(drill.json()["proof"]["verdict"], "proved", "{}", drill.stdout);
    assert_eq!(snapshots(disks.run(&LIST)), [first]);
    tidy(&repo);

    // With room again everything goes on.
    disks.empty("repo");
    let pruned = disks
        .run(&["repository", "prune", "--grace", "0s", "--yes", "--json"])
        .ended(0)
        .json();
    assert_eq!(&pruned["deleted"]["packs"], left, "{pruned}");
    put(&sandbox, "three", 3, 1 << 20);
    let second = saved(disks.run(&["backup", "files", "--json"]));
    restores(&disks, &sandbox, &second);
    disks.run(&["drill", "restore", "files"]).ended(0);
    judge();
    tidy(&repo);
}

#[test]
fn a_full_repository_can_be_pruned_with_little_room() {
    let test = "a_full_repository_can_be_pruned_with_little_room";
    let sandbox = project();
    let Some(disks) = Disks::mount(&sandbox, &[("repo", 12 << 10)], test) else {
        return;
    };
    let repo = disks.path("repo");
    let judge = || judged_by_restic(&repo.display().to_string(), &[], test);
    // Packs of which a part is needed, and one that nothing needs.
    for number in 0..20 {
        put(&sandbox, &format!("{number} goes"), number, 100 << 10);
        put(&sandbox, &format!("{number} stays"), 100 + number, 100 << 10);
    }
    let first = saved(disks.run(&["backup", "files", "--json"]));
    put(&sandbox, "goes too", 200, 3 << 20);
    let second = saved(disks.run(&["backup", "files", "--json"]));
    for number in 0..20 {
        fs::remove_file(sandbox.path(format!("data/uploads/{number} goes"))).expect("our own file");
    }
    fs::remove_file(sandbox.path("data/uploads/goes too")).expect("our own file");
    let last = saved(disks.run(&["backup", "files", "--json"]));
    disks.fill("repo", 256);
    disks.run(&["repository", "forget", &first, &second, "--yes"]).ended(0);
    assert_eq!(snapshots(disks.run(&LIST)), std::slice::from_ref(&last));

    // There is no room to store anything anew: what nothing needs goes all the same.
    let before: u64 = content(&repo.join("data")).values().map(|pack| pack.len() as u64).sum();
    let prune = ["repository", "prune", "--grace", "0s", "--yes", "--json"];
    disks.run(&prune[..5]).ended(0).says("no room to store anew");
    let after: u64 = content(&repo.join("data")).values().map(|pack| pack.len() as u64).sum();
    assert!(before - after >= 3 << 20, "{before} bytes became {after}");
    judge();
    tidy(&repo);
    restores(&disks, &sandbox, &last);
    // That made the room that was missing.
    let again = disks.run(&prune).ended(0).json();
    assert!(again["repacked"]["packs"].as_u64() > Some(0), "{again}");
    assert_eq!(again["no_room"], false, "{again}");
    let least: u64 = content(&repo.join("data")).values().map(|pack| pack.len() as u64).sum();
    assert!(after - least > 1 << 20, "{after} bytes became {least}");
    judge();
    tidy(&repo);
    restores(&disks, &sandbox, &last);
}

#[test]
fn copies_into_a_full_repository_and_repairs_of_one_end_without_loss() {
    let test = "copies_into_a_full_repository_and_repairs_of_one_end_without_loss";
    let sandbox = project();
    let Some(disks) = Disks::mount(&sandbox, &[("repo", 12 << 10), ("offsite", 4 << 10)], test) else {
        return;
    };
    let (repo, offsite) = (disks.path("repo"), disks.path("offsite"));
    let judge = |repository: &Path| judged_by_restic(&repository.display().to_string(), &[], test);
    let copy = ["repository", "copy", "--to", "offsite"];
    put(&sandbox, "one", 1, 1 << 20);
    let first = saved(disks.run(&["backup", "files", "--json"]));
    disks.run(&copy).ended(0);
    put(&sandbox, "two", 2, 6 << 20);
    let second = saved(disks.run(&["backup", "files", "--json"]));
    refused(&disks, &copy);
    let there = ["snapshot", "list", "--repository", "offsite", "--json"];
    assert_eq!(snapshots(disks.run(&there)).len(), 1, "the copy is no snapshot");
    for repository in [&repo, &offsite] {
        judge(repository);
        tidy(repository);
    }
    disks.grow("offsite", 12 << 10);
    disks.run(&copy).ended(0);
    assert_eq!(snapshots(disks.run(&there)).len(), 2);
    judge(&offsite);

    // Of two index files one is lost; the other disk has it all, and this one no room.
    let index = fs::read_dir(repo.join("index")).expect("a folder").flatten();
    let largest = index.max_by_key(|entry| entry.metadata().expect("a file").len());
    fs::remove_file(largest.expect("an index").path()).expect("our own file");
    let lost = disks.run(&["repository", "check"]).ended(4);
    let repair = ["repository", "repair", "--from", "offsite", "--yes"];
    let files = content(&repo);
    disks.fill("repo", 0);
    refused(&disks, &repair);
    disks.empty("repo");
    assert!(content(&repo) == files, "nothing was changed");
    assert_eq!(disks.run(&["repository", "check"]).ended(4).stdout, lost.stdout);
    disks.run(&repair).ended(0);
    judge(&repo);
    tidy(&repo);
    assert_eq!(snapshots(disks.run(&LIST)), [first, second.clone()]);
    restores(&disks, &sandbox, &second);
}
