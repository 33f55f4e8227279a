//! Where a recovery can be sent, through the real binary: to a position, with and without the record that begins there;
//! along one of two timelines; with tablespaces; and as a user that is not root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use peers::servers::postgres::{Cluster, Postgres};

use super::sandbox::Ran;
use super::{cluster, nothing_is_left, opsctl, project, push, row, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_reached_with_the_record_that_begins_there_or_without() {
    let test = "a_position_is_reached_with_the_record_that_begins_there_or_without";
    let recipe = Postgres::default()
        .setting("wal_keep_size", "512MB")
        .setting("autovacuum", "off");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    row(&cluster, 2).await;
    // The next record is the commit.
    let commit = cluster
        .run("begin; insert into rows values (3); select pg_current_wal_insert_lsn(); commit")
        .await;
    row(&cluster, 4).await;
    push(&cluster, &sandbox).await;

    let with = opsctl(
        &sandbox,
        &["restore", "pg", "--lsn", &commit, "--into", "./with", "--json"],
    )
    .ended(0)
    .json();
    assert_eq!(
        (&with["timeline"], &with["new_timeline"]),
        (&1.into(), &2.into()),
        "{with}"
    );
    assert_eq!(rows(&sandbox.path("with"), test).await, "1,2,3");
    let without = ["restore", "pg", "--lsn", &commit, "--exclusive", "--into", "./without"];
    opsctl(&sandbox, &without).ended(0);
    assert_eq!(rows(&sandbox.path("without"), test).await, "1,2");

    opsctl(&sandbox, &["restore", "pg", "--lsn", "FF/0", "--into", "./far"])
        .ended(1)
        .says("does not lead to position FF/0");
    opsctl(&sandbox, &["restore", "pg", "--lsn", "0/10", "--into", "./far"])
        .ended(2)
        .says("lies before the first state");
    opsctl(&sandbox, &["restore", "pg", "--timeline", "7", "--into", "./far"])
        .ended(2)
        .says("timeline 7");
    opsctl(&sandbox, &["restore", "pg", "--exclusive", "--into", "./far"]).ended(2);
    assert!(!sandbox.path("far").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_timelines_is_followed() {
    let test = "each_of_two_timelines_is_followed";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let then = row(&cluster, 2).await;
    row(&cluster, 3).await;
    push(&cluster, &sandbox).await;
    opsctl(&sandbox, &["restore", "pg", "--at", &then, "--into", "./then"]).ended(0);
    // What was restored lives on, and hands its log over; the server that it comes from does, too.
    let recipe = Postgres::default()
        .data(&sandbox.path("then"))
        .setting("wal_keep_size", "512MB");
    let second = Cluster::start(recipe, test).await.expect("it was there before");
    row(&second, 20).await;
    let history = second.data().join("pg_wal/00000002.history").display().to_string();
    opsctl(&sandbox, &["wal", "push", "pg", &history]).ended(0);
    assert!(push(&second, &sandbox).await.starts_with("00000002"));
    row(&cluster, 4).await;
    push(&cluster, &sandbox).await;

    let newest = opsctl(&sandbox, &["restore", "pg", "--into", "./newest", "--json"])
        .ended(0)
        .json();
    assert_eq!(
        (&newest["timeline"], &newest["new_timeline"]),
        (&2.into(), &3.into()),
        "{newest}"
    );
    assert_eq!(rows(&sandbox.path("newest"), test).await, "1,2,20");
    let first = ["restore", "pg", "--timeline", "1", "--into", "./first", "--json"];
    let first = opsctl(&sandbox, &first).ended(0).json();
    // The number 2 is taken.
    assert_eq!(
        (&first["timeline"], &first["new_timeline"]),
        (&1.into(), &3.into()),
        "{first}"
    );
    assert_eq!(rows(&sandbox.path("first"), test).await, "1,2,3,4");
    let proof = opsctl(&sandbox, &["drill", "restore", "pg", "--json"]).ended(0).json();
    assert_eq!(proof["proof"]["verdict"], "proved");
    assert!(proof.to_string().contains("is on timeline 3"), "{proof}");
    nothing_is_left(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_come_along_in_a_restore_and_in_a_drill() {
    let test = "tablespaces_come_along_in_a_restore_and_in_a_drill";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    let place = sandbox.path("fast");
    fs::create_dir(&place).expect("a folder");
    give(&place, &cluster);
    cluster
        .run(&format!("create tablespace fast location '{}'", place.display()))
        .await;
    cluster.run("create table rows (n int) tablespace fast").await;
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    row(&cluster, 2).await;
    push(&cluster, &sandbox).await;
    opsctl(&sandbox, &["restore", "pg", "--into", "./latest"]).ended(0);
    assert_eq!(rows(&sandbox.path("latest"), test).await, "1,2");
    assert!(sandbox.path("latest/tablespaces").is_dir());

    let proof = opsctl(&sandbox, &["drill", "restore", "pg", "--json", "--keep"])
        .ended(0)
        .json();
    assert_eq!(proof["proof"]["verdict"], "proved", "{proof}");
    // What is kept is a cluster where it lies now.
    let kept = Path::new(proof["kept"].as_str().expect("a folder"));
    let found = rows(&kept.join("data"), test).await;
    fs::remove_dir_all(kept).expect("our own folder");
    assert_eq!(found, "1,2");
    assert_eq!(cluster.run("select count(*) from rows").await, "2");
}

/// Makes a folder the server's user's.
fn give(folder: &Path, cluster: &Cluster) {
    let data = cluster.data().metadata().expect("a data folder");
    if data.uid() != rustix::process::getuid().as_raw() {
        chown(folder, Some(data.uid()), Some(data.gid())).expect("we are root");
    }
}

/// Everything as another user, who owns what there is: nobody.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_root_restores_and_drills_as_well() {
    const NOBODY: u32 = 65534;
    let test = "whoever_is_not_root_restores_and_drills_as_well";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let then = row(&cluster, 2).await;
    row(&cluster, 3).await;
    push(&cluster, &sandbox).await;
    if !rustix::process::geteuid().is_root() {
        // Then every other test is this one.
        return;
    }
    // Nobody gets to what root builds.
    let copy = sandbox.path("opsctl");
    fs::copy(env!("CARGO_BIN_EXE_opsctl"), &copy).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our own file");
    let given = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(sandbox.path(""))
        .status();
    assert!(given.expect("chown starts").success());
    let run = |args: &[&str]| {
        let mut command = Command::new(&copy);
        command
            .args(args)
            .current_dir(sandbox.path(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command.env("TMPDIR", "/tmp").uid(NOBODY).gid(NOBODY);
        Ran::of(tokio::task::block_in_place(|| command.output()).expect("opsctl starts"))
    };
    run(&["restore", "pg", "--at", &then, "--into", "./then"]).ended(0);
    assert_eq!(
        sandbox.path("then/PG_VERSION").metadata().expect("a file").uid(),
        NOBODY
    );
    let proof = run(&["drill", "restore", "pg", "--json"]).ended(0).json();
    assert_eq!(proof["proof"]["verdict"], "proved", "{proof}");
    run(&["restore", "pg", "--into", "again"]).ended(0);
    assert_eq!(rows_of(&cluster, "again").await, "1,2,3");
    nothing_is_left(&sandbox);
}

async fn rows_of(cluster: &Cluster, database: &str) -> String {
    let rows = "select string_agg(n::text, ',' order by n) from rows";
    cluster.run_in(database, rows).await
}
