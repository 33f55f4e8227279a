//! One database out of a recovered cluster into a live server, through the real binary: what comes back is as it was then,
//! what is there stays, and nothing is left of the copy.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use peers::servers::postgres::{Cluster, Postgres};

use super::sandbox::{Sandbox, alive, eventually};
use super::{cluster, declare, nothing_is_left, opsctl, project, push};

const DATABASES: &str = "select string_agg(datname, ' ' order by datname) from pg_database";
const COUNT: &str = "select count(*) from items";

/// A cluster with a database `orders` of `app`, of which everything was deleted after the moment that is returned.
async fn mistake(cluster: &Cluster, sandbox: &Sandbox) -> String {
    cluster.run("create role app login").await;
    cluster.run("create database orders owner app").await;
    let tables = "create table items (id int primary key, what text); alter table items owner to app;
        create table other (id int); insert into items select n, 'thing ' || n from generate_series(1, 1000) n";
    cluster.run_in("orders", tables).await;
    opsctl(sandbox, &["backup", "pg"]).ended(0);
    cluster
        .run_in("orders", "insert into items values (1001, 'late')")
        .await;
    let then = cluster
        .run("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await;
    cluster.run_in("orders", "delete from items").await;
    push(cluster, sandbox).await;
    then
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_comes_back_as_it_was_beside_the_one_that_is_there() {
    let test = "a_database_comes_back_as_it_was_beside_the_one_that_is_there";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    let then = mistake(&cluster, &sandbox).await;
    let would = ["restore", "pg", "--at", &then, "--into", "orders_then", "--dry-run"];
    let would = opsctl(&sandbox, &would).ended(0).stdout;
    assert!(would.contains("as database orders_then at 127.0.0.1:"), "{would}");

    // It is the only one besides `postgres`.
    let restored = ["restore", "pg", "--at", &then, "--into", "orders_then", "--json"];
    let restored = opsctl(&sandbox, &restored).ended(0).json();
    assert_eq!(
        (&restored["of"], &restored["database"]),
        (&"orders".into(), &"orders_then".into())
    );
    assert_eq!(
        (&restored["timeline"], &restored["tables"]),
        (&1.into(), &2.into()),
        "{restored}"
    );
    assert!(
        restored["reached_lsn"].is_string() && restored["reached"].is_string(),
        "{restored}"
    );
    assert_eq!(cluster.run_in("orders_then", COUNT).await, "1001");
    assert_eq!(cluster.run_in("orders", COUNT).await, "0");
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'orders_then'";
    assert_eq!(cluster.run(owner).await, "app");
    nothing_is_left(&sandbox);

    let part = [
        "restore",
        "pg",
        "--at",
        &then,
        "--database",
        "orders",
        "--table",
        "items",
        "--into",
        "part",
    ];
    opsctl(&sandbox, &part).ended(0);
    assert_eq!(
        cluster
            .run_in("part", "select string_agg(relname, ' ') from pg_stat_user_tables")
            .await,
        "items"
    );
    assert_eq!(cluster.run_in("part", COUNT).await, "1001");

    let before = cluster.run(DATABASES).await;
    assert_eq!(before, "orders orders_then part postgres template0 template1");
    for (args, code, words) in [
        (&["--into", "orders"][..], 5, "there is a database \"orders\" already"),
        (&["--into", "x", "--database", "gone"], 2, "holds no database \"gone\""),
        (&["--into", "x", "--table", "nothing"], 2, "no table \"nothing\""),
        (&["--into", "./x", "--table", "items"], 2, "--table is of a database"),
        (
            &["--into", "x", "--at", "2200-01-01T00:00:00Z"],
            2,
            "lies after what is held",
        ),
        (&["--into", "x", "--replace"], 2, "--replace"),
        (&["--into", "x", "--snapshot", "0123"], 2, "--snapshot"),
    ] {
        opsctl(&sandbox, &[&["restore", "pg"], args].concat())
            .ended(code)
            .says(words);
        assert_eq!(cluster.run(DATABASES).await, before, "{args:?}");
        nothing_is_left(&sandbox);
    }

    // On another server the owner is missing.
    let Some(other) = Cluster::start(Postgres::default(), test).await else {
        return;
    };
    let url = other.url();
    let into = format!(
        "{}/copy",
        url.strip_suffix("/postgres").expect("the name of its database")
    );
    let there = |more: &[&str]| {
        opsctl(
            &sandbox,
            &[&["restore", "pg", "--at", &then, "--into", &into], more].concat(),
        )
    };
    there(&[]).ended(2).says("roles are missing on the server: app");
    assert_eq!(other.run(DATABASES).await, "postgres template0 template1");
    let made = there(&["--globals", "--json"]).ended(0).json();
    assert_eq!(made["roles"], serde_json::json!(["app"]));
    assert_eq!(other.run_in("copy", COUNT).await, "1001");
    nothing_is_left(&sandbox);
}

/// PostgreSQL's programs in a folder of their own, one of them a script that comes to no end.
fn programs(sandbox: &Sandbox, hangs: &str) -> PathBuf {
    let folder = sandbox.path("programs");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    let real = Path::new("/usr/lib/postgresql/15/bin");
    for entry in fs::read_dir(real).expect("programs").flatten() {
        let place = folder.join(entry.file_name());
        if entry.file_name() == hangs {
            let text = format!(
                "#!/bin/sh\nif [ \"$1\" = --version ]; then exec {}/{hangs} --version; fi\n\
                 echo \"$$ $*\" > \"${{0%/*}}/half\"; mv \"${{0%/*}}/half\" \"${{0%/*}}/waits\"\nsleep 1000\n",
                real.display()
            );
            fs::write(&place, text).expect("a script");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("our own file");
        } else {
            symlink(entry.path(), place).expect("a link");
        }
    }
    folder
}

/// A process that does not outlive its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_one_leaves_neither_a_database_nor_a_server() {
    let test = "an_interrupted_one_leaves_neither_a_database_nor_a_server";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    mistake(&cluster, &sandbox).await;
    let before = cluster.run(DATABASES).await;
    // While the copy is dumped, and while the dump is loaded.
    for hangs in ["pg_dump", "pg_restore"] {
        let folder = programs(&sandbox, hangs);
        let waits = folder.join("waits");
        declare(&sandbox, &format!("programs = {folder:?}\n"));
        let mut command = sandbox.command(&["restore", "pg", "--into", "late"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = Ends(child.expect("opsctl starts"));
        let mut told = String::new();
        tokio::task::block_in_place(|| {
            eventually(hangs, || {
                assert!(child.0.try_wait().expect("a child").is_none(), "it ended");
                told = fs::read_to_string(&waits).unwrap_or_default();
                !told.is_empty()
            });
        });
        let pid: i32 = told
            .split(' ')
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("a number");
        let socket = told
            .split("host='")
            .nth(1)
            .and_then(|rest| rest.split('\'').next())
            .unwrap_or_default()
            .to_owned();
        if hangs == "pg_dump" {
            assert!(Path::new(&socket).join(".s.PGSQL.5432").exists(), "{told}");
        }
        let opsctl = rustix::process::Pid::from_raw(child.0.id().cast_signed()).expect("a number");
        rustix::process::kill_process(opsctl, rustix::process::Signal::INT).expect("it runs");
        let ended = tokio::task::block_in_place(|| child.0.wait()).expect("it ends");
        assert_eq!(ended.code(), Some(130), "{hangs}");
        tokio::task::block_in_place(|| eventually("the end of the program", || !alive(pid)));
        assert!(
            !Path::new(&socket).join(".s.PGSQL.5432").exists(),
            "{hangs}: its server runs"
        );
        assert_eq!(cluster.run(DATABASES).await, before, "{hangs}");
        nothing_is_left(&sandbox);
        fs::remove_dir_all(&folder).expect("our own folder");
        let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("a catalogue");
        sandbox.write("opsctl.toml", &text.replace(&format!("programs = {folder:?}\n"), ""));
    }
    opsctl(&sandbox, &["restore", "pg", "--into", "late"]).ended(0);
}
