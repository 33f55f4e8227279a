//! Disks that are full: that of the repository, that on which a cluster is restored, and the primary's own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use jiff::Timestamp;
use peers::servers::postgres::Cluster;

use crate::disk::Disks;
use crate::follower::Follower;
use crate::sandbox::Ran;
use crate::scene::{FOLDER, project, promised, recipe, restored, rows_in};
use crate::truth::code_of;

/// Set where a test runs in a view of the file system of its own.
const INSIDE: &str = "PITR_OWN_MOUNTS";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_repository_holds_up_what_is_received_and_loses_nothing() {
    let test = "a_full_repository_holds_up_what_is_received_and_loses_nothing";
    let Some(cluster) = Cluster::start(recipe(), test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), FOLDER);
    let Some(disks) = Disks::mount(&sandbox, &[("repo", 64 << 10)], test) else {
        return;
    };
    let moment = || {
        let names = crate::scene::files(&disks.path("repo/wal")).into_iter();
        let moments = names.filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let (_, moment) = name.strip_prefix("standing-")?.rsplit_once('-')?;
            Timestamp::from_millisecond(moment.parse().ok()?).ok()
        });
        moments.max()
    };
    let mut follower = Follower::run(&sandbox, disks.command(&["backup", "pg", "--follow", "--json"]));
    follower.until("a base backup", |follower| follower.has_told("base_backup"));
    let rows = cluster.numbered(1000).await;
    rows.reaches(200).await;
    disks.fill("repo", 0);
    let full = Timestamp::now();
    cluster.switch_wal().await;
    follower.until("the error", |follower| {
        let events = follower.events();
        let mut errors = events.iter().filter_map(|event| event["error"].as_str());
        errors.any(|error| error.contains("no space left"))
    });
    let more = rows.last().expect("rows").number + 500;
    rows.reaches(more).await;
    assert!(moment() <= Some(full), "what is not stored is not promised");
    // A base backup says why there is none, and what is there can be restored.
    let ran = tokio::task::block_in_place(|| disks.run(&["backup", "pg", "--json"])).ended(1);
    assert_eq!(code_of(&ran), "disk_full", "{}", ran.stderr);
    let out = sandbox.path("out");
    tokio::task::block_in_place(|| disks.run(&["restore", "pg", "--into", "./out"])).ended(0);
    assert!(rows_in(&out, test).await < more);
    fs::remove_dir_all(&out).expect("our own folder");

    disks.empty("repo");
    rows.rest().await;
    let stopped = Timestamp::now();
    follower.until("the promise", |_| moment() >= Some(stopped));
    follower.stop();
    tokio::task::block_in_place(|| disks.run(&["restore", "pg", "--into", "./out"])).ended(0);
    assert_eq!(rows_in(&out, test).await, rows.last().expect("rows").number);
    tokio::task::block_in_place(|| disks.run(&["repository", "check", "--read-data"])).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_is_no_cluster() {
    let test = "a_full_target_is_no_cluster";
    let Some(cluster) = Cluster::start(recipe(), test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), FOLDER);
    let Some(disks) = Disks::mount(&sandbox, &[("small", 16 << 10)], test) else {
        return;
    };
    fs::set_permissions(disks.path("small"), fs::Permissions::from_mode(0o711)).expect("our own folder");
    cluster
        .run("create table rows as select generate_series(1, 1000) n")
        .await;
    let run = |words: &[&str]| tokio::task::block_in_place(|| disks.run(words));
    run(&["backup", "pg"]).ended(0);
    let restore = ["restore", "pg", "--into", "small/out", "--json"];
    let full = |ran: Ran| {
        let ran = ran.ended(1);
        assert_eq!(code_of(&ran), "disk_full", "{}", ran.stderr);
        let out = disks.path("small/out");
        let starts = out.join("global/pg_control").exists() && !out.join("recovery.signal").exists();
        assert!(!starts, "a server would start on what was left");
        let _ = fs::remove_dir_all(disks.path("small/out"));
    };
    full(run(&restore));
    // There is room at the beginning, and somebody else takes it.
    disks.grow("small", 200 << 10);
    let mut command = disks.command(&restore);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("opsctl starts");
    crate::sandbox::eventually("its first file", || disks.path("small/out/base").exists());
    disks.fill("small", 0);
    let ran = tokio::task::block_in_place(|| Ran::of(child.wait_with_output().expect("our own child")));
    full(ran);
    disks.empty("small");
    run(&restore).ended(0);
}

/// The primary itself has no room for its log, and is started again when it has.
#[test]
fn a_primary_without_room_is_received_again_when_it_has() {
    let test = "full::a_primary_without_room_is_received_again_when_it_has";
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().expect("this program");
        let inner = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(program)
            .args([test, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .output();
        let Ok(inner) = inner else {
            peers::skip(test, "there is no `unshare` here");
            return;
        };
        let said = String::from_utf8_lossy(&inner.stdout) + String::from_utf8_lossy(&inner.stderr);
        if said.contains("Operation not permitted") {
            peers::skip(test, "small disks cannot be mounted here");
            return;
        }
        assert!(inner.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(primary_without_room(test));
}

async fn primary_without_room(test: &str) {
    let disk = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o711)).expect("our own folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=120m,mode=0711", "tmpfs"])
        .arg(disk.path())
        .status();
    assert!(mounted.expect("mount starts").success(), "Operation not permitted");
    let recipe = recipe().data(&disk.path().join("data"));
    let Some(mut cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), FOLDER);
    let mut follower = Follower::start(&sandbox);
    follower.until("a base backup", |follower| follower.has_told("base_backup"));
    let rows = cluster.numbered(1000).await;
    rows.reaches(300).await;
    // To the last byte: there is no room for the next segment.
    let filling = disk.path().join("filling");
    let mut file = fs::File::create(&filling).expect("a file");
    while std::io::Write::write_all(&mut file, &[0x5a; 4096]).is_ok() {}
    drop(file);
    let client = cluster.connect().await.expect("it is there");
    let much = "create table much as select repeat('x', 100) from generate_series(1, 1000000)";
    client.batch_execute(much).await.expect_err("there is no room");
    // It panics where it has none for its log; else the rows go on as long as they fit.
    cluster.kill();
    rows.fails().await;
    fs::remove_file(&filling).expect("our own file");
    cluster.start_again().await;
    let written = cluster.numbered_rows().await;
    let again = cluster.numbered(1000).await;
    again.reaches(written + 100).await;
    again.rest().await;
    let stopped = Timestamp::now();
    follower.until("the promise", |_| promised(&sandbox) >= Some(stopped));
    follower.stop();
    let out = sandbox.path("out");
    restored(&sandbox, &out, &[]);
    assert_eq!(rows_in(&out, test).await, again.last().expect("rows").number);
}
