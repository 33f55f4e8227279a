//! Repositories that mean harm, through the real binary: what they say steers no terminal, what they hold goes nowhere
//! but below the target, and what has no end is refused with the right exit code.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backups::repo::{InitOptions, KdfParams, Node, NodeKind, Tree, Writer};
use backups::source::{Source, Verification, Written};
use backups::store::LocalStore;
use backups::{BackupOptions, Error, Id, Parent, Repository, Silent};
use sandbox::Sandbox;
use tokio_util::sync::CancellationToken;

/// Clears the screen (once in seven bits, once in eight), rings, turns the direction of writing, ends the line, and is no
/// text at the end.
const STEERS: &[u8] = b"x\x1b[2J\xc2\x9b2J\x07\xe2\x80\xaey\rz\nforged\xff";

/// What lies in the repository.
#[derive(Clone, Copy)]
enum Made {
    /// One file.
    Plain,
    /// Names that steer a terminal, and names that lead elsewhere.
    Names,
    /// Names of the same kind, with other content.
    OtherNames,
    /// Forty directories that each hold the one below twice.
    Twice,
}

fn file(name: &[u8], blob: Id) -> Node {
    let mut node = Node::new(OsStr::from_bytes(name), NodeKind::File, 0o644);
    node.content = Some(vec![blob]);
    node.size = 4;
    node
}

fn folder(name: &[u8], tree: Id) -> Node {
    let mut node = Node::new(OsStr::from_bytes(name), NodeKind::Dir, 0o755);
    node.subtree = Some(tree);
    node
}

#[async_trait]
impl Source for Made {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![Path::new("/").join(OsStr::from_bytes(STEERS))]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let evil = into.save_bytes(b"evil".to_vec()).await?.blobs[0];
        let more = into.save_bytes(b"more".to_vec()).await?.blobs[0];
        let mut root = Tree::new(vec![file(b"file", evil)]);
        match self {
            Self::Names | Self::OtherNames => {
                let blob = if matches!(self, Self::Names) { evil } else { more };
                let below = into.save_tree(&Tree::new(vec![file(STEERS, blob)])).await?;
                let mut link = Node::new("link", NodeKind::Symlink, 0o777);
                link.set_link_target(OsStr::from_bytes(STEERS));
                root.nodes.extend([folder(STEERS, below), link]);
                root.nodes.extend([file(b"../outside", evil), file(b"/outside", evil)]);
                // It names content that is nowhere.
                root.nodes.push(file(&[b"gone", STEERS].concat(), Id::of(b"nowhere")));
            }
            Self::Plain => {}
            Self::Twice => {
                for _ in 0..40 {
                    let below = into.save_tree(&root).await?;
                    root = Tree::new(vec![folder(b"a", below), folder(b"b", below)]);
                }
            }
        }
        Ok(Written {
            root,
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, _: &Path) -> Result<Verification, Error> {
        Ok(Verification { checks: Vec::new() })
    }
}

/// The repository of a sandbox with one snapshot each, which claim to be of the datastore `files`.
fn with(snapshots: &[Made]) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = InitOptions {
            kdf: KdfParams { log_n: 10, r: 1, p: 1 },
        };
        let store = Arc::new(LocalStore::new(sandbox.path("repo")));
        let repository = Repository::init(store, "correct horse", &options)
            .await
            .expect("a new repository");
        let said = String::from_utf8_lossy(STEERS).into_owned();
        for (made, second) in snapshots.iter().zip(0..) {
            let options = BackupOptions {
                now: backups::now() + jiff::SignedDuration::from_secs(second),
                host: said.clone(),
                username: said.clone(),
                tags: vec![
                    "datastore:files".to_owned(),
                    "environment:local".to_owned(),
                    said.clone(),
                ],
                parent: Parent::Latest,
            };
            let cancel = CancellationToken::new();
            let saved = backups::backup(&repository, made, &options, &Silent, &cancel).await;
            saved.expect("a snapshot");
        }
    });
    sandbox
}

/// Commands, and what each ends with.
type Commands<'a> = &'a [(&'a [&'a str], i32)];

fn run(sandbox: &Sandbox, commands: Commands<'_>) {
    for (command, code) in commands {
        let ran = sandbox.run(command);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        // A document is data: it has characters as they are, without those that steer.
        let turns = |c: char| c == '\u{202e}' && !command.contains(&"--json");
        let steers = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || turns(c);
        assert!(!said.contains(steers), "{command:?}: {said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with("forged")),
            "{command:?}: {said}"
        );
        assert_eq!(ran.code, *code, "{command:?}: {said}");
    }
}

#[test]
fn what_a_repository_says_steers_no_terminal_and_leads_nowhere() {
    let sandbox = with(&[Made::Names, Made::OtherNames]);
    let before = files_in(&sandbox.path("."));
    let ids: Vec<String> = snapshots(&sandbox);
    run(
        &sandbox,
        &[
            (&["snapshot", "list"], 0),
            (&["snapshot", "show"], 0),
            (&["snapshot", "show", "--json"], 0),
            (&["snapshot", "ls"], 0),
            (&["snapshot", "ls", "latest", "--json"], 0),
            (&["snapshot", "diff", &ids[0], &ids[1]], 0),
            (&["snapshot", "dump", "latest", "gone"], 2),
            (&["repository", "check", "--read-data"], 4),
            (&["repository", "forget", "--keep-last", "1", "--dry-run"], 0),
            (&["repository", "repair", "--dry-run"], 3),
            (&["repository", "unlock"], 0),
            (&["repository", "key", "list"], 0),
        ],
    );
    assert_eq!(files_in(&sandbox.path(".")), before, "nothing was written");
    run(&sandbox, &[(&["restore", "files", "--into", "back"], 3)]);
    let written: Vec<_> = files_in(&sandbox.path("."))
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    assert!(
        written.iter().all(|file| file.starts_with(sandbox.path("./back"))),
        "{written:?}"
    );
    assert!(!Path::new("/outside").exists());
    assert_eq!(fs::read(sandbox.path("back/file")).expect("the file"), b"evil");
}

#[test]
fn what_has_no_end_is_refused_and_hinders_nothing_else() {
    let sandbox = with(&[Made::Plain, Made::Twice]);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let more = "[repository.offsite]\nstore = \"file:offsite\"\npassword = { file = \"password\" }\n";
    sandbox.write("opsctl.toml", &format!("{text}{more}"));
    let ids = snapshots(&sandbox);
    run(
        &sandbox,
        &[
            (&["snapshot", "list"], 0),
            (&["snapshot", "ls"], 1),
            (&["snapshot", "ls", "latest", "a/b/a", "--shallow"], 0),
            (&["snapshot", "dump", "latest", "a"], 1),
            (&["snapshot", "diff", &ids[0], &ids[1]], 1),
            (&["restore", "files", "--into", "back"], 1),
            (&["repository", "copy", "--to", "offsite", &ids[1]], 0),
            (&["repository", "check", "offsite", "--read-data"], 4),
            (&["repository", "check"], 4),
            (&["repository", "repair", "--dry-run"], 0),
            (&["repository", "prune", "--dry-run"], 0),
        ],
    );
    sandbox.run(&["snapshot", "ls"]).ended(1).says("again and again");
}

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    let snapshots = listed["snapshots"].as_array().expect("snapshots");
    let id = |snapshot: &serde_json::Value| snapshot["snapshot"].as_str().expect("an id").to_owned();
    snapshots.iter().map(id).collect()
}

/// Every file below a folder but the lock files, which come and go.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("our own folder").flatten() {
        if entry.file_type().expect("a kind").is_dir() {
            found.extend(files_in(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
