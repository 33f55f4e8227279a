//! `cargo xtask peers`: what it lists, where programs are, and that servers it starts end with who holds them.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The task with a cache of its own, so that nobody else's servers are ended.
fn task(cache: &Path, arguments: &[&str]) -> Output {
    let mut task = Command::new(env!("CARGO_BIN_EXE_xtask"));
    task.arg("peers")
        .args(arguments)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_list_names_every_peer_and_whether_it_is_there() {
    let cache = tempfile::tempdir().unwrap();
    let list: Value = serde_json::from_slice(&task(cache.path(), &["list", "--json"]).stdout).unwrap();
    assert_eq!(list["version"], 1);
    let rows = list["peers"].as_array().unwrap();
    assert_eq!(rows.len(), peers::PEERS.len());
    let loki = rows.iter().find(|row| row["name"] == "loki").unwrap();
    // The cache is empty.
    assert_eq!(loki["path"], Value::Null);
    assert_eq!(loki["version"], "3.7.8");
    let table = said(&task(cache.path(), &["list"]));
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("loki") && line.contains(" no ")),
        "{table}"
    );
}

#[test]
fn the_path_of_what_is_missing_is_a_hint_and_a_failure() {
    let cache = tempfile::tempdir().unwrap();
    let missing = task(cache.path(), &["path", "promtool"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        said(&missing).contains("cargo xtask peers build prometheus"),
        "{}",
        said(&missing)
    );
    let unknown = task(cache.path(), &["path", "mongod"]);
    assert_eq!(unknown.status.code(), Some(1));
    let there = task(cache.path(), &["path", "restic"]);
    let found = there.status.success().then(|| Path::new(said(&there).trim()).is_file());
    assert_ne!(found, Some(false), "what is printed is a file");
}

#[tokio::test]
async fn servers_end_with_down_and_with_who_holds_them() {
    if peers::peer("redis", "servers_end_with_down_and_with_who_holds_them").is_none() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let up = || -> SocketAddr {
        let output = task(cache.path(), &["up", "--detach", "redis"]);
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let address = text
            .split_once("redis://")
            .and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok());
        address.unwrap_or_else(|| panic!("no address in {text}"))
    };
    let first = up();
    TcpStream::connect(first).unwrap();
    let down = said(&task(cache.path(), &["down"]));
    assert_eq!(down.trim(), "1 ended");
    assert!(TcpStream::connect(first).is_err(), "it is gone once `down` is through");

    let second = up();
    let holder = fs::read_dir(cache.path().join("opsctl/peers/up"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let killed = Command::new("kill")
        .arg("-KILL")
        .arg(holder.file_name())
        .status()
        .unwrap();
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(second).is_ok() {
        assert!(Instant::now() < deadline, "the server outlived who held it");
        sleep(Duration::from_millis(50)).await;
    }
    let down = said(&task(cache.path(), &["down"]));
    assert_eq!(down.trim(), "0 ended", "what a killed holder left is no holder");

    for arguments in [&["up", "mongod"][..], &["up", "--detach", "mongod"]] {
        let refused = task(cache.path(), arguments);
        assert!(!refused.status.success());
        assert!(said(&refused).contains("ferretdb"), "{}", said(&refused));
    }
}
