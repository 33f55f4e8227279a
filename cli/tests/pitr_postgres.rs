//! PostgreSQL back to a point in time through the real binary and a real server: a base backup, its log, and what psql
//! finds after a restore.

#[path = "pitr_postgres/database.rs"]
mod database;
#[path = "pitr_postgres/drill.rs"]
mod drill;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "pitr_postgres/served.rs"]
mod served;
#[path = "pitr_postgres/targets.rs"]
mod targets;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use peers::servers::postgres::{Cluster, Postgres};
use sandbox::{Ran, Sandbox};

/// A project whose one datastore is a whole cluster. Whoever runs the restored server gets into it.
fn project(cluster: &Cluster) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o711)).expect("our own folder");
    sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\nrepository = \"here\"\n\
         [repository.here]\nstore = \"file:repo\"\npassword = { file = \"password\" }\n\
         [datastore.pg]\nkind = \"postgres\"\ndsn = { file = \"dsn\" }\nbackup = { method = \"physical\" }\n",
    );
    sandbox.secret("password", "correct horse\n");
    sandbox.secret("dsn", &format!("{}\n", cluster.url()));
    sandbox
}

async fn cluster(test: &str) -> Option<Cluster> {
    // What was written before a receiver comes back is still there then.
    let recipe = Postgres::default().setting("wal_keep_size", "512MB");
    Cluster::start(recipe, test).await
}

/// One more row, in a transaction of its own; the server's time after it.
async fn row(cluster: &Cluster, n: u32) -> String {
    cluster
        .run(&format!(
            "create table if not exists rows (n int); insert into rows values ({n})"
        ))
        .await;
    cluster
        .run("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await
}

/// Adds something to the catalogue.
fn declare(sandbox: &Sandbox, more: &str) {
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("a catalogue");
    sandbox.write("opsctl.toml", &(text + more));
}

/// Ends the file of the log that is being written, and archives it.
async fn push(cluster: &Cluster, sandbox: &Sandbox) -> String {
    let file = cluster.run("select pg_walfile_name(pg_current_wal_lsn())").await;
    cluster.switch_wal().await;
    let path = cluster.data().join("pg_wal").join(&file).display().to_string();
    opsctl(sandbox, &["wal", "push", "pg", &path]).ended(0);
    file
}

/// Where a file of the archived log lies.
fn object(sandbox: &Sandbox, file: &str) -> PathBuf {
    let found = archived(sandbox)
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy() == file));
    sandbox.path("repo/wal").join(found.expect("it is archived"))
}

/// Changes a byte in the middle.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).expect("our own file");
}

/// Nothing of a copy is left where it was made.
#[track_caller]
fn nothing_is_left(sandbox: &Sandbox) {
    let scratch = sandbox::content(&sandbox.path(".opsctl/scratch"));
    assert!(scratch.is_empty(), "{:?}", scratch.keys());
}

/// Runs opsctl beside the runtime that the server's connections need.
fn opsctl(sandbox: &Sandbox, args: &[&str]) -> Ran {
    tokio::task::block_in_place(|| sandbox.run(args))
}

/// Starts a server on what was restored, and asks it for the rows.
async fn rows(data: &Path, test: &str) -> String {
    let server = Cluster::start(Postgres::default().data(data), test)
        .await
        .expect("it was there before");
    assert_eq!(server.run("select pg_is_in_recovery()").await, "f");
    server
        .run("select coalesce(string_agg(n::text, ',' order by n), '') from rows")
        .await
}

/// The objects of the archived log.
fn archived(sandbox: &Sandbox) -> Vec<PathBuf> {
    let found = sandbox::content(&sandbox.path("repo/wal"));
    let mut names: Vec<PathBuf> = found.into_keys().collect();
    names.sort();
    names
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.len() == 24)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_by_then_is_there_and_nothing_later() {
    let test = "what_was_committed_by_then_is_there_and_nothing_later";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let before = row(&cluster, 2).await;
    let middle = row(&cluster, 3).await;
    cluster.restore_point("before the mistake").await;
    row(&cluster, 4).await;
    // It brings the log since the first one along.
    opsctl(&sandbox, &["backup", "pg"]).ended(0);

    let restored = opsctl(
        &sandbox,
        &["restore", "pg", "--at", &before, "--into", "./then", "--json"],
    )
    .ended(0)
    .json();
    assert_eq!(restored["schema"], "opsctl.restore/v1");
    assert_eq!(restored["new_timeline"], 2, "{restored}");
    assert_eq!(rows(&sandbox.path("then"), test).await, "1,2");
    opsctl(&sandbox, &["restore", "pg", "--at", &middle, "--into", "./middle"]).ended(0);
    assert_eq!(rows(&sandbox.path("middle"), test).await, "1,2,3");
    opsctl(
        &sandbox,
        &["restore", "pg", "--name", "before the mistake", "--into", "./point"],
    )
    .ended(0);
    assert_eq!(rows(&sandbox.path("point"), test).await, "1,2,3");
    opsctl(&sandbox, &["restore", "pg", "--into", "./latest"]).ended(0);
    assert_eq!(rows(&sandbox.path("latest"), test).await, "1,2,3,4");
    // What is left is a plain cluster.
    let settings = fs::read_to_string(sandbox.path("latest/postgresql.auto.conf")).expect("a file");
    assert!(
        !settings.contains("recovery_target") && !settings.contains("restore_command"),
        "{settings}"
    );
    assert!(!sandbox.path("latest/recovery.signal").exists());
    // A folder that holds something is left alone.
    opsctl(&sandbox, &["restore", "pg", "--into", "./latest"])
        .ended(5)
        .says("is not empty");

    // Nothing is known of the future, and what is is said.
    opsctl(
        &sandbox,
        &["restore", "pg", "--at", "2200-01-01T00:00:00Z", "--into", "./future"],
    )
    .ended(2)
    .says("lies after what is held: it reaches to");
    opsctl(
        &sandbox,
        &["restore", "pg", "--at", "2001-01-01T00:00:00Z", "--into", "./past"],
    )
    .ended(2)
    .says("lies before the first state");
    opsctl(&sandbox, &["restore", "pg", "--name", "nobody's", "--into", "./nobody"])
        .ended(2)
        .says("no restore point \"nobody's\"");
    for absent in ["future", "past", "nobody"] {
        assert!(
            !sandbox.path(absent).exists(),
            "{absent}: nothing is written before the way is known"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_named_before_anything_is_written() {
    let test = "a_gap_is_named_before_anything_is_written";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    for n in 2..=4 {
        row(&cluster, n).await;
        cluster.switch_wal().await;
    }
    let then = row(&cluster, 5).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let segments: Vec<PathBuf> = archived(&sandbox).into_iter().filter(|path| is_segment(path)).collect();
    let lost = &segments[2];
    let kept = fs::read(sandbox.path("repo/wal").join(lost)).expect("an object");
    let name = lost.file_name().expect("a name").to_string_lossy().into_owned();
    let told = |ran: Ran| {
        let ran = ran.ended(1);
        assert!(ran.stderr.contains(&name), "{name} is not named:\n{}", ran.stderr);
        assert!(!sandbox.path("then").exists(), "something was written");
    };
    fs::remove_file(sandbox.path("repo/wal").join(lost)).expect("our own file");
    told(opsctl(&sandbox, &["restore", "pg", "--at", &then, "--into", "./then"]));
    // Damage is no gap, and no end either.
    let mut damaged = kept.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(sandbox.path("repo/wal").join(lost), &damaged).expect("our own file");
    let ran = opsctl(&sandbox, &["restore", "pg", "--at", &then, "--into", "./then"]);
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    assert!(
        ran.stderr.contains(&name) && ran.stderr.contains("corrupt"),
        "{}",
        ran.stderr
    );
    fs::write(sandbox.path("repo/wal").join(lost), &kept).expect("our own file");
    let _ = fs::remove_dir_all(sandbox.path("then"));
    opsctl(&sandbox, &["restore", "pg", "--at", &then, "--into", "./then"]).ended(0);
    assert_eq!(rows(&sandbox.path("then"), test).await, "1,2,3,4,5");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_hand_its_log_over_itself() {
    let test = "the_server_may_hand_its_log_over_itself";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    let first = row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let second = row(&cluster, 2).await;
    let file = cluster.run("select pg_walfile_name(pg_current_wal_lsn())").await;
    cluster.switch_wal().await;
    let path = cluster.data().join("pg_wal").join(&file).display().to_string();
    opsctl(&sandbox, &["wal", "push", "pg", &path]).ended(0);
    let again = opsctl(&sandbox, &["wal", "push", "pg", &path, "--json"])
        .ended(0)
        .json();
    assert_eq!(
        (&again["outcome"], &again["file"]),
        (&"present".into(), &file.as_str().into())
    );
    // Up to when that is everything, the log itself tells.
    let status = opsctl(&sandbox, &["recovery", "status", "--json"]).json();
    let until = status["datastores"][0]["log"]["until"]
        .as_str()
        .expect("a time")
        .to_owned();
    assert!(first < until && until < second, "{first}, {until}, {second}");
    // What the server is still writing is not whole.
    row(&cluster, 3).await;
    let open = cluster.run("select pg_walfile_name(pg_current_wal_insert_lsn())").await;
    let open = cluster.data().join("pg_wal").join(open).display().to_string();
    opsctl(&sandbox, &["wal", "push", "pg", &open])
        .ended(1)
        .says("is not the log that it should be");
    // Another content under the same name is not.
    let mut content = fs::read(&path).expect("a segment");
    sandbox.write("empty", "");
    let renamed = sandbox.path(format!("{}F", &file[..23]));
    fs::write(&renamed, &content).expect("a file");
    opsctl(&sandbox, &["wal", "push", "pg", &renamed.display().to_string()])
        .ended(1)
        .says("is not the log that it should be");
    content.truncate(1 << 20);
    fs::write(&renamed, &content).expect("a file");
    assert_ne!(
        opsctl(&sandbox, &["wal", "push", "pg", &renamed.display().to_string()]).code,
        0
    );
    opsctl(&sandbox, &["restore", "pg", "--into", "./latest"]).ended(0);
    assert_eq!(rows(&sandbox.path("latest"), test).await, "1,2");
}

#[test]
fn what_recovery_asks_for_and_nobody_hands_out_is_never_the_end_of_the_log() {
    let sandbox = Sandbox::new();
    let nobody = sandbox.path("wal").display().to_string();
    let get = |args: &[&str]| sandbox.run(&[&["wal", "get"], args].concat());
    get(&["--from", &nobody, "000000010000000000000001", "pg_wal/RECOVERYXLOG"])
        .ended(250)
        .says("nobody hands out the log");
    get(&["--from", &nobody, "../../etc/passwd", "x"])
        .ended(250)
        .says("is no name of a file of the log");
    // A usage error is no end of the log either.
    get(&["--from", &nobody]).ended(250);
    get(&["--unknown"]).ended(250);
}
