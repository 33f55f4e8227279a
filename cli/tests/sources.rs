//! What is saved and how it comes back, through the real binary: the output of commands, the keys of files, parts of a
//! snapshot.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::Path;

use sandbox::Sandbox;

/// A project with one more datastore.
fn project(declaration: &str) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &format!("{text}{declaration}"));
    sandbox
}

#[test]
fn the_output_of_a_command_is_saved_and_comes_back() {
    let sandbox = project(
        "[datastore.dump]\nkind = \"command\"\ncommand = [\"./dump\", \"shop\", \"--token=abc\"]\nfilename = \"shop.sql\"\n\
         trailer = \"-- complete\"\ntimeout = \"1m\"\ncwd = \"data\"\n\
         variables = { PGHOST = \"db\", PGPASSWORD = { file = \"password\" } }\n",
    );
    sandbox.write(
        "dump",
        "#!/bin/sh\npwd\necho $PGHOST $1\ntest \"$PGPASSWORD\" = 'correct horse' || exit 7\necho '-- complete'\n",
    );
    fs::set_permissions(sandbox.path("dump"), fs::Permissions::from_mode(0o700)).expect("our own file");
    let planned = sandbox.run(&["backup", "dump", "--dry-run"]).ended(0);
    assert_eq!(planned.stdout, "would back up dump (command, ./dump) to here\n");
    let saved = sandbox.run(&["backup", "dump", "--json"]).ended(0).json();
    assert_eq!(saved["datastores"][0]["kind"], "command");
    let dumped = sandbox.run(&["snapshot", "dump", "latest", "shop.sql"]).ended(0).stdout;
    assert!(dumped.ends_with("/data\ndb shop\n-- complete\n"), "{dumped}");
    let manifest = sandbox.run(&["snapshot", "dump", "latest", "manifest.json"]).ended(0);
    let manifest: serde_json::Value = serde_json::from_str(&manifest.stdout).expect("JSON");
    assert_eq!(manifest["command"][2], "--token=…");
    assert_eq!(manifest["length_bytes"], dumped.len());
    // The program is needed to save, not to bring back.
    fs::rename(sandbox.path("dump"), sandbox.path("gone")).expect("our own file");
    let restored = sandbox.run(&["restore", "dump"]).ended(0).says("verified (manifest)");
    let file = Path::new(restored.stdout.trim()).join("shop.sql");
    assert_eq!(fs::read_to_string(&file).expect("restored"), dumped);
    assert_eq!(file.metadata().expect("restored").mode() & 0o777, 0o600);
    sandbox
        .run(&["restore", "dump", "--replace", "--yes"])
        .ended(2)
        .says("there is nothing to replace");
    sandbox
        .run(&["backup", "dump"])
        .ended(2)
        .says("the program `./dump` of datastore `dump` is not there");
    let shown = sandbox.run(&["config", "show"]).ended(0);
    assert!(
        shown.stdout.contains("PGHOST = …") && !shown.stdout.contains("correct horse"),
        "{}",
        shown.stdout
    );
    sandbox.judged_by_restic("the_output_of_a_command_is_saved_and_comes_back");
}

#[test]
fn a_command_that_fails_makes_no_snapshot_and_says_why() {
    for (script, code, words) in [
        (
            "echo data; echo -- complete; echo the disk is on fire >&2; exit 1",
            1,
            &["ended with status 1", "the disk is on fire"][..],
        ),
        ("echo data", 1, &["does not end with \\\"-- complete\\\""]),
        ("true", 1, &["printed nothing"]),
        ("echo -- complete; kill -9 $$", 1, &["was ended by signal 9"]),
        ("echo -- complete; sleep 100", 7, &["did not end within 0.5 s"]),
        ("echo $SECRET is wrong >&2; exit 2", 1, &["… is wrong"]),
    ] {
        let timeout = if code == 7 { "500ms" } else { "2m" };
        let sandbox = project(&format!(
            "[datastore.dump]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\ntrailer = \"-- complete\"\n\
             timeout = \"{timeout}\"\nvariables = {{ SECRET = {{ file = \"password\" }} }}\n"
        ));
        let ran = sandbox
            .run(&["backup", "dump"])
            .ended(code)
            .says("could not back up `dump`");
        for word in words {
            assert!(
                ran.stderr.contains(&word.replace("\\\"", "\"")),
                "{script}: {}",
                ran.stderr
            );
        }
        assert!(!ran.stderr.contains("correct horse"), "{}", ran.stderr);
        let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
        assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(0), "{script}");
        sandbox.run(&["repository", "check", "--read-data"]).ended(0);
        sandbox.judged_by_restic("a_command_that_fails_makes_no_snapshot_and_says_why");
    }
}

#[test]
fn what_a_datastore_cannot_mean_is_told_with_its_place() {
    for (declaration, words) in [
        ("kind = \"command\"\n", "needs `command`"),
        ("kind = \"command\"\ncommand = []\n", "the command is empty"),
        (
            "kind = \"command\"\ncommand = [\"x\"]\nfilename = \"../x\"\n",
            "is no name for the output",
        ),
        (
            "kind = \"command\"\ncommand = [\"x\"]\nvariables = { A = 1 }\n",
            "expected a string",
        ),
        (
            "kind = \"command\"\ncommand = [\"x\"]\ntimeout = \"soon\"\n",
            "is no time",
        ),
        (
            "kind = \"files\"\npath = \"x\"\nxattrs = [\"usr\"]\n",
            "did you mean `user`?",
        ),
        (
            "kind = \"files\"\npath = \"x\"\nexclude_larger_than = \"much\"\n",
            "is no size",
        ),
        (
            "kind = \"files\"\npath = \"x\"\none_filesystem = true\n",
            "did you mean `one_file_system`?",
        ),
        ("kind = \"sqlite\"\npath = \"x\"\nxattrs = []\n", "unknown key `xattrs`"),
    ] {
        let sandbox = project(&format!("[datastore.odd]\n{declaration}"));
        sandbox
            .run(&["config", "check"])
            .ended(2)
            .says(words)
            .says("opsctl.toml:");
    }
    let sandbox = project("[datastore.dump]\nkind = \"command\"\ncommand = [\"true\"]\n");
    let mut command = sandbox.command(&["config", "check"]);
    command.env("OPSCTL_DATASTORE__DUMP__VARIABLES__LD_PRELOAD", "x");
    let ran = sandbox::Ran::of(command.output().expect("opsctl starts"));
    ran.ended(2).says("cannot be set by a variable");
}

#[test]
fn files_are_saved_as_their_keys_say() {
    let sandbox = project(
        "[datastore.odd]\nkind = \"files\"\npath = \"odd\"\nexclude = [\"*.tmp\"]\niexclude = [\"*.bak\"]\n\
         exclude_if_present = [\".nobackup\"]\nexclude_caches = true\nexclude_larger_than = \"1MB\"\none_file_system = true\n",
    );
    for name in ["keep", "a.tmp", "b.BAK", "no/.nobackup", "no/x", "cache/y"] {
        sandbox.write(&format!("odd/{name}"), name);
    }
    sandbox.write("odd/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    File::create(sandbox.path("odd/large"))
        .and_then(|file| file.set_len(1_000_001))
        .expect("our own file");
    sandbox.run(&["backup", "odd"]).ended(0);
    let listed = sandbox.run(&["snapshot", "ls", "--json"]).ended(0).json();
    let entries = listed["entries"].as_array().expect("entries");
    let paths: Vec<_> = entries.iter().filter_map(|entry| entry["path"].as_str()).collect();
    assert_eq!(
        paths,
        [
            "odd",
            "odd/cache",
            "odd/cache/CACHEDIR.TAG",
            "odd/keep",
            "odd/no",
            "odd/no/.nobackup"
        ]
    );
}

#[test]
fn parts_of_a_snapshot_come_back_by_patterns() {
    let sandbox = Sandbox::with_stores();
    sandbox.write("data/uploads/deep/c.txt", "gamma\n");
    sandbox.run(&["backup", "files"]).ended(0);
    let restore = |into: &str, more: &[&str]| {
        let words = [&["restore", "files", "--into", into][..], more].concat();
        sandbox.run(&words)
    };
    restore("one", &["--include", "*.txt", "--exclude", "deep"]).ended(0);
    assert!(sandbox.path("one/uploads/a.txt").exists() && !sandbox.path("one/uploads/deep").exists());
    restore("two", &["--include", "uploads/deep/c.txt"]).ended(0);
    assert!(sandbox.path("two/uploads/deep/c.txt").exists() && !sandbox.path("two/uploads/a.txt").exists());
    restore("three", &["--include", "*.gif"])
        .ended(2)
        .says("the snapshot holds no *.gif");
    restore("four", &["--exclude", "a["])
        .ended(2)
        .says("has a `[` without `]`");
    // Nothing that was there is fetched again.
    let whole = restore("five", &["--json"]).ended(0).json();
    assert_eq!(whole["reused_bytes"], 0);
    let again = restore("five", &["--json", "--yes"]).ended(0).json();
    assert_eq!(
        (&again["reused_bytes"], again["fetched_bytes"].as_u64()),
        (&whole["fetched_bytes"], Some(0))
    );
}

#[test]
fn what_needs_rights_comes_back_on_request() {
    let name = "what_needs_rights_comes_back_on_request";
    if !rustix::process::geteuid().is_root() {
        peers::skip(name, "only root may give files away");
        return;
    }
    let sandbox =
        project("[datastore.odd]\nkind = \"files\"\npath = \"odd\"\nxattrs = [\"user\", \"acl\", \"trusted\"]\n");
    sandbox.write("odd/file", "content");
    let file = sandbox.path("odd/file");
    let set = |name: &str| rustix::fs::setxattr(&file, name, b"x", rustix::fs::XattrFlags::empty());
    if set("user.note").and(set("trusted.note")).is_err() {
        peers::skip(name, "the file system has no extended attributes");
        return;
    }
    std::os::unix::fs::chown(&file, Some(12_345), Some(23_456)).expect("our own file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).expect("our own file");
    sandbox.run(&["backup", "odd"]).ended(0);
    sandbox
        .run(&["restore", "odd", "--into", "plain"])
        .ended(0)
        .says("1 extended attribute was left out");
    sandbox
        .run(&["restore", "odd", "--into", "full", "--with", "owners,setuid,trusted"])
        .ended(0);
    let of = |folder: &str| {
        let path = sandbox.path(folder).join("odd/file");
        let metadata = path.metadata().expect("restored");
        let mut value = [0; 8];
        let mut has = |name: &str| rustix::fs::getxattr(&path, name, &mut value).is_ok();
        (
            metadata.uid(),
            metadata.mode() & 0o7777,
            has("user.note"),
            has("trusted.note"),
        )
    };
    assert_eq!(of("plain"), (0, 0o755, true, false));
    assert_eq!(of("full"), (12_345, 0o4755, true, true));
}

#[test]
fn a_diff_says_what_it_costs() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox.write("data/uploads/new.txt", "new\n");
    sandbox.run(&["backup", "files"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "files", "--json"]).ended(0).json();
    let first = list["snapshots"][0]["snapshot"].as_str().expect("an id");
    let diff = sandbox.run(&["snapshot", "diff", first, "--json"]).ended(0).json();
    assert_eq!(diff["added"]["files"], 1);
    assert_eq!(diff["added"]["data_blobs"], 1);
    assert_eq!(diff["removed"]["data_blobs"], 0);
    assert_eq!(diff["added"]["tree_blobs"], diff["removed"]["tree_blobs"]);
    sandbox
        .run(&["snapshot", "diff", first])
        .ended(0)
        .says("of blobs added");
}
