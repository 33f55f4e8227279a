//! A cluster, a project that saves it as a whole, and what its archive promises.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use jiff::Timestamp;
use peers::servers::postgres::{Acknowledged, Cluster, Postgres};
use serde_json::Value;

use crate::dice::say;
use crate::follower::Follower;
use crate::sandbox::{Ran, Sandbox};

/// The folder of the repository that [`project`] declares.
pub const FOLDER: &str = "store = \"file:repo\"";

/// A server with small segments, so that many come by. A receiver that comes back finds what was written meanwhile.
pub fn recipe() -> Postgres {
    Postgres::default()
        .made_with("--wal-segsize=1")
        .setting("wal_keep_size", "64MB")
        .setting("max_wal_size", "64MB")
        .setting("min_wal_size", "2MB")
        .setting("max_slot_wal_keep_size", "256MB")
}

/// A project whose one datastore is the whole cluster at `url`, to be lost for a second at most. `store` is what is said
/// of its repository. Whoever runs a restored server gets into it.
pub fn project(url: &str, store: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o711)).expect("our own folder");
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\nrepository = \"here\"\n\
             [repository.here]\n{store}\npassword = {{ file = \"password\" }}\n\
             [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\nobjectives = {{ rpo = \"1s\" }}\n\
             backup = {{ method = \"physical\" }}\n"
        ),
    );
    sandbox.secret("password", "correct horse\n");
    sandbox.secret("dsn", &format!("{url}\n"));
    sandbox
}

/// Runs opsctl to its end, beside the runtime that the server's connections need.
pub fn opsctl(sandbox: &Sandbox, args: &[&str]) -> Ran {
    tokio::task::block_in_place(|| sandbox.run(args))
}

/// Starts opsctl with nobody listening.
pub fn start(sandbox: &Sandbox, args: &[&str]) -> std::process::Child {
    let mut command = sandbox.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("opsctl starts")
}

/// The objects of the archived log in a repository that is a folder, by their names.
pub fn archived(sandbox: &Sandbox) -> BTreeMap<String, PathBuf> {
    let found = files(&sandbox.path("repo/wal"));
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    found
        .into_iter()
        .filter_map(|path| Some((name(&path)?, path)))
        .collect()
}

/// Every file below a folder, by its path: files may go while it is looked at.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The moment of the server's clock up to which the archive says to hold all that was acknowledged.
pub fn promised(sandbox: &Sandbox) -> Option<Timestamp> {
    let names = archived(sandbox).into_keys();
    let moments = names.filter_map(|name| {
        let (_, moment) = name.strip_prefix("standing-")?.rsplit_once('-')?;
        Timestamp::from_millisecond(moment.parse().ok()?).ok()
    });
    moments.max()
}

/// Rows that a server acknowledged, in order, and when.
#[derive(Default)]
pub struct Ledger {
    rows: Vec<Acknowledged>,
    /// The last row that was sent, acknowledged or not.
    pub attempted: u64,
}

impl Ledger {
    pub fn add(&mut self, rows: Vec<Acknowledged>, attempted: u64) {
        self.rows.extend(rows);
        self.attempted = self.attempted.max(attempted);
    }

    /// What was lost never was: the next rows have the same numbers.
    pub fn cut(&mut self, last: u64) {
        self.rows.retain(|row| row.number <= last);
        self.attempted = last;
    }

    pub fn rows(&self) -> &[Acknowledged] {
        &self.rows
    }

    pub fn last(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.number)
    }

    /// The last row of which it is certain that it was acknowledged by this moment: before the next one was begun.
    pub fn acknowledged_by(&self, moment: Timestamp) -> u64 {
        let mut pairs = self.rows.windows(2).rev();
        let pair = pairs.find(|pair| at(&pair[1]) <= moment);
        pair.map_or(0, |pair| pair[0].number)
    }

    /// The last row that was begun by this moment.
    pub fn begun_by(&self, moment: Timestamp) -> u64 {
        let row = self.rows.iter().rev().find(|row| at(row) <= moment);
        row.map_or(0, |row| row.number)
    }
}

/// The server's clock just before a row's commit.
pub fn at(row: &Acknowledged) -> Timestamp {
    Timestamp::try_from(row.at).expect("a time of today")
}

/// Restores into a folder, which must go well.
pub fn restored(sandbox: &Sandbox, into: &Path, more: &[&str]) -> Value {
    let into = into.display().to_string();
    let words = [&["restore", "pg", "--into", &into, "--json"], more].concat();
    opsctl(sandbox, &words).ended(0).json()
}

/// Starts a server on a copy that was restored, and returns the last of its numbered rows; none before is missing.
pub async fn rows_in(data: &Path, test: &str) -> u64 {
    let server = Cluster::start(Postgres::default().data(data), test)
        .await
        .expect("it was there before");
    assert_eq!(server.run("select pg_is_in_recovery()").await, "f");
    server.numbered_rows().await
}

/// What lies in a folder of the log, with the content of histories.
fn names(log: &Path) -> Vec<String> {
    let entries = files(log).into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match path.extension() {
            Some(kind) if kind == "history" => format!("{name}: {}", fs::read_to_string(path).unwrap_or_default()),
            _ => name,
        }
    });
    entries.collect()
}

/// A cluster that is followed, with a base backup, and a writer's rows in its archive.
pub struct Scene {
    pub cluster: Cluster,
    pub sandbox: Sandbox,
    pub follower: Option<Follower>,
    pub ledger: Ledger,
}

impl Scene {
    /// `None` after saying that `test` is skipped.
    pub async fn start(test: &str) -> Option<Self> {
        let cluster = Cluster::start(recipe(), test).await?;
        let sandbox = project(&cluster.url(), FOLDER);
        let mut follower = Follower::start(&sandbox);
        follower.until("a base backup", |follower| follower.has_told("base_backup"));
        Some(Self {
            cluster,
            sandbox,
            follower: Some(follower),
            ledger: Ledger::default(),
        })
    }

    /// Waits until the archive promises all that was acknowledged by this moment.
    pub fn until_promised(&mut self, moment: Timestamp) {
        let sandbox = &self.sandbox;
        let follower = self.follower.get_or_insert_with(|| Follower::start(sandbox));
        let log = self.cluster.data().join("pg_wal");
        follower.until("the promise", |follower| {
            if follower.has_ended() {
                // Enough to find out why.
                say(format_args!("the server has {:?}", names(&log)));
                say(format_args!("archived is {:?}", archived(sandbox).keys()));
            }
            promised(sandbox) >= Some(moment)
        });
    }
}
