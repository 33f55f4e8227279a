//! A project whose one datastore is a whole PostgreSQL cluster, and `opsctl backup pg --follow` beside a test.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use peers::servers::postgres::{Cluster, Postgres, Release};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox, within};

/// How long anything of a server is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A project that saves the cluster at `dsn`; `more` stands in its table, and may end it. Whoever runs a restored server
/// gets into it.
pub fn project(dsn: &str, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o711)).expect("our own folder");
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\nrepository = \"here\"\nnotify = {{ webhook = {{ file = \"hook\" }} }}\n\
             [repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
             [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\nbackup = {{ method = \"physical\" }}\n{more}\n"
        ),
    );
    sandbox.secret("password", "correct horse\n");
    sandbox.secret("hook", "http://127.0.0.1:1/\n");
    sandbox.secret("dsn", &format!("{dsn}\n"));
    sandbox
}

/// Runs opsctl beside the runtime that the server's connections need.
pub fn opsctl(sandbox: &Sandbox, args: &[&str]) -> Ran {
    tokio::task::block_in_place(|| sandbox.run(args))
}

/// One more row, in a transaction of its own; the server's time after it.
pub async fn row(cluster: &Cluster, n: u32) -> String {
    cluster
        .run(&format!(
            "create table if not exists rows (n int); insert into rows values ({n})"
        ))
        .await;
    cluster
        .run("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await
}

/// Starts a server on what was restored, and asks it for the rows.
pub async fn rows(data: &Path, release: Release, test: &str) -> String {
    let server = Cluster::start(Postgres::of(release).data(data), test)
        .await
        .expect("it was there before");
    server
        .run("select coalesce(string_agg(n::text, ',' order by n), '') from rows")
        .await
}

/// The names of the objects of the archived log.
pub fn archived(sandbox: &Sandbox) -> Vec<String> {
    let found = crate::sandbox::content(&sandbox.path("repo/wal"));
    let mut names: Vec<String> = found
        .into_keys()
        .filter_map(|path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// Its snapshots, oldest first.
pub fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let list = opsctl(sandbox, &["snapshot", "list", "--json"]).ended(0).json();
    let snapshots = list["snapshots"].as_array().expect("snapshots").iter();
    let ids = snapshots.map(|snapshot| snapshot["snapshot"].as_str().expect("an id").to_owned());
    ids.collect()
}

/// Some segments of log.
pub async fn write_much(cluster: &Cluster) {
    cluster.run("create table if not exists much (t text)").await;
    cluster
        .run("insert into much select repeat(md5(random()::text), 30) from generate_series(1, 5000)")
        .await;
}

/// Waits until the server has heard that all it has written was received; whether it is in the repository yet is another
/// question.
pub async fn received(cluster: &Cluster) {
    let position = cluster.position().await;
    let sql = format!("select count(*) from pg_stat_replication where write_lsn >= '{position}'");
    let there = async {
        while cluster.run(&sql).await != "1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("it was received");
}

/// A command that follows. Dropping it kills it.
pub struct Follower {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Follower {
    /// `opsctl backup pg --follow --json`.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::run(sandbox, &["backup", "pg", "--follow", "--json"])
    }

    /// Another command that goes on.
    pub fn run(sandbox: &Sandbox, args: &[&str]) -> Self {
        let (stdout, stderr) = (sandbox.path("follower.out"), sandbox.path("follower.err"));
        let child = sandbox
            .command(args)
            .stdout(File::create(&stdout).expect("our own file"))
            .stderr(File::create(&stderr).expect("our own file"))
            .spawn()
            .expect("opsctl starts");
        Self { child, stdout, stderr }
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.stdout).expect("our own file");
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.stderr).expect("our own file")
    }

    /// Waits for an event, and returns the first.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        tokio::task::block_in_place(|| {
            within(PATIENCE, &format!("{what}, after: {}", self.said()), || {
                found = self.events().into_iter().find(&holds);
                found.is_some()
            });
        });
        found.expect("it was waited for")
    }

    /// Waits for an event of a type.
    #[track_caller]
    pub fn event(&self, kind: &str) -> Value {
        self.until(kind, |event| event["type"] == kind)
    }

    /// Waits until it said something.
    #[track_caller]
    pub fn says(&self, text: &str) {
        tokio::task::block_in_place(|| within(PATIENCE, text, || self.said().contains(text)));
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// Ends it as Ctrl-C does: the exit code, and all it said.
    pub fn interrupt(self) -> (i32, Vec<Value>, String) {
        self.signal(Signal::INT);
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> (i32, Vec<Value>, String) {
        let mut status = None;
        tokio::task::block_in_place(|| {
            within(PATIENCE, &format!("its end, after: {}", self.said()), || {
                status = self.child.try_wait().expect("our own child");
                status.is_some()
            });
        });
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        (code, self.events(), self.said())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
