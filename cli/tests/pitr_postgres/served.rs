//! A recovered cluster that can be asked, through the real binary: the line that is printed leads psql into it, what is
//! changed there stays there, and nothing is left of it, however its opsctl ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use peers::servers::postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};

use super::sandbox::{Sandbox, alive, eventually};
use super::{cluster, declare, nothing_is_left, opsctl, project, push};

/// `opsctl restore pg --serve`. It does not outlive its test.
struct Serving {
    opsctl: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Serving {
    fn start(sandbox: &Sandbox, more: &[&str]) -> Self {
        let mut command = sandbox.command(&[&["restore", "pg", "--serve"], more].concat());
        let opsctl = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut opsctl = opsctl.expect("opsctl starts");
        let out = BufReader::new(opsctl.stdout.take().expect("it is piped"));
        Self { opsctl, out }
    }

    /// The next line that it prints; empty at its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        tokio::task::block_in_place(|| self.out.read_line(&mut line)).expect("text");
        line
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.opsctl.id().cast_signed()).expect("a number");
        kill_process(pid, signal).expect("it runs");
    }

    /// How it ended, and what it said.
    fn ended(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let stderr = self.opsctl.stderr.take().expect("it is piped");
        let status = tokio::task::block_in_place(|| {
            for line in BufReader::new(stderr).lines() {
                said += &(line.expect("text") + "\n");
            }
            self.opsctl.wait().expect("it ends")
        });
        (status.code(), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.opsctl.kill();
        let _ = self.opsctl.wait();
    }
}

/// What the printed line answers to a query.
fn ask(line: &str, sql: &str) -> String {
    let path = format!(
        "/usr/lib/postgresql/15/bin:{}",
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{} -XAtc \"$1\"", line.trim_end()), "sh", sql]);
    shell.env("PATH", path).env_remove("PGHOST").env_remove("PGUSER");
    let output = tokio::task::block_in_place(|| shell.output()).expect("a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The process of the server whose socket lies there.
fn server(host: &Path) -> i32 {
    let lock = std::fs::read_to_string(host.join(".s.PGSQL.5432.lock")).expect("a server's lock");
    lock.lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("its number")
}

/// A cluster that is saved, of which two of three rows are gone since the moment that is returned.
async fn mistake(cluster: &Cluster, sandbox: &Sandbox) -> String {
    cluster.run("create database \"it's $HOME\"").await;
    cluster
        .run_in(
            "it's $HOME",
            "create table items as select n from generate_series(1, 3) n",
        )
        .await;
    opsctl(sandbox, &["backup", "pg"]).ended(0);
    let then = cluster
        .run("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await;
    cluster.run_in("it's $HOME", "delete from items where n < 3").await;
    push(cluster, sandbox).await;
    then
}

const COUNT: &str = "select count(*) from items";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_then_can_be_asked_until_somebody_is_done() {
    let test = "what_was_there_then_can_be_asked_until_somebody_is_done";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    let then = mistake(&cluster, &sandbox).await;

    let mut serving = Serving::start(&sandbox, &["--at", &then]);
    let lines = [serving.line(), serving.line()];
    let odd = lines.iter().find(|line| line.contains("HOME")).expect("its database");
    assert_eq!(ask(odd, COUNT), "3");
    // It is nobody else's, so that it may be written to.
    ask(odd, "delete from items");
    assert_eq!(ask(odd, COUNT), "0");
    assert_eq!(cluster.run_in("it's $HOME", COUNT).await, "1");
    let listening = ask(
        odd,
        "select current_setting('listen_addresses') || current_setting('archive_mode')",
    );
    assert_eq!(listening, "off", "others can reach it");
    serving.signal(Signal::INT);
    let (code, said) = serving.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is there until Ctrl-C, in a PostgreSQL 15"), "{said}");
    nothing_is_left(&sandbox);

    let mut latest = Serving::start(&sandbox, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&latest.line()).expect("a document");
    assert_eq!(
        (&document["schema"], &document["type"], &document["timeline"]),
        (&"opsctl.restore/v1".into(), &"served".into(), &1.into()),
        "{document}"
    );
    assert_eq!(document["databases"], serde_json::json!(["it's $HOME", "postgres"]));
    assert!(document["reached_lsn"].is_string(), "{document}");
    // One that ends by itself is an error, and nothing of it is left either.
    let host = document["host"].as_str().expect("a folder").to_owned();
    let pid = server(Path::new(&host));
    kill_process(Pid::from_raw(pid).expect("a number"), Signal::INT).expect("it runs");
    let (code, said) = latest.ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("could not serve `pg`"), "{said}");
    nothing_is_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_copy_does_not_outlive_who_serves_it() {
    let test = "a_served_copy_does_not_outlive_who_serves_it";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    mistake(&cluster, &sandbox).await;
    let mut serving = Serving::start(&sandbox, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&serving.line()).expect("a document");
    let host = document["host"].as_str().expect("a folder").to_owned();
    let pid = server(Path::new(&host));
    assert!(alive(pid));
    serving.opsctl.kill().expect("it runs");
    tokio::task::block_in_place(|| eventually("the end of the server", || !alive(pid) && !Path::new(&host).exists()));
    // What is left of its files the next one removes.
    let mut next = Serving::start(&sandbox, &[]);
    assert!(next.line().contains("psql"));
    next.signal(Signal::TERM);
    assert_eq!(next.ended().0, Some(0));
    nothing_is_left(&sandbox);

    for (args, code, words) in [
        (&["--serve", "--into", "x"][..], 2, "cannot be used with"),
        (&["--serve", "--replace"], 2, "cannot be used with"),
        (
            &["--serve", "--at", "2200-01-01T00:00:00Z"],
            2,
            "lies after what is held",
        ),
    ] {
        opsctl(&sandbox, &[&["restore", "pg"], args].concat())
            .ended(code)
            .says(words);
    }
    let would = opsctl(&sandbox, &["restore", "pg", "--serve", "--dry-run"])
        .ended(0)
        .stdout;
    assert!(would.starts_with("would serve pg as it was last"), "{would}");
    nothing_is_left(&sandbox);
    declare(&sandbox, "[datastore.other]\nkind = \"files\"\npath = \"password\"\n");
    opsctl(&sandbox, &["restore", "other", "--serve"])
        .ended(2)
        .says("no PostgreSQL that is saved as a whole");
}
