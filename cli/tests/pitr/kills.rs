//! SIGKILL of opsctl in the middle of what it does for a PostgreSQL, and two of it at once. What was acknowledged is there,
//! nothing half done looks whole, and the same command again does the rest.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use crate::dice::{Dice, kill_after, say};
use crate::follower::{Follower, deadline};
use crate::rounds::rounds;
use crate::sandbox::{Sandbox, eventually};
use crate::scene::{FOLDER, Scene, opsctl, project, promised, restored, rows_in, start};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Receiver,
    /// Beside a receiver, whose log it takes.
    Backup,
    /// Without one, with a receiver of its own.
    BackupAlone,
    /// With the server that it started, and that asks it for the log.
    Restore,
}

impl Victim {
    const EVERY: [Self; 4] = [Self::Receiver, Self::Restore, Self::Backup, Self::BackupAlone];
}

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let list = opsctl(sandbox, &["snapshot", "list", "pg", "--json"]).ended(0).json();
    let ids = list["snapshots"].as_array().expect("a list").iter();
    ids.map(|snapshot| snapshot["snapshot"].as_str().expect("an id").to_owned())
        .collect()
}

/// Whether a server runs on a data folder below this one.
fn server_below(folder: &std::path::Path) -> bool {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let mut lines = processes.filter_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).into_owned())
    });
    lines.any(|line| line.contains("postgres") && line.contains(&folder))
}

#[tokio::test(flavor = "multi_thread")]
async fn opsctl_that_is_killed_loses_nothing() {
    let test = "opsctl_that_is_killed_loses_nothing";
    let mut dice = Dice::new(test);
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    let mut taken = snapshots(&scene.sandbox);
    let out = scene.sandbox.path("out");
    let mut late = 0;
    let turn = dice.next();
    for round in 0..rounds() {
        let victim = Victim::EVERY[((turn + round) % Victim::EVERY.len() as u64) as usize];
        let rows = scene.cluster.numbered(1000).await;
        rows.reaches(scene.ledger.attempted + 100).await;
        let ended = match victim {
            Victim::Receiver => {
                let follower = scene.follower.get_or_insert_with(|| Follower::start(&scene.sandbox));
                let instant = dice.between(Duration::ZERO, Duration::from_millis(2500));
                tokio::task::block_in_place(|| crate::dice::pass(instant));
                follower.kill();
                scene.follower = None;
                false
            }
            Victim::Backup | Victim::BackupAlone => {
                if victim == Victim::BackupAlone {
                    scene.follower = None;
                } else {
                    scene.follower.get_or_insert_with(|| Follower::start(&scene.sandbox));
                }
                let instant = dice.between(Duration::ZERO, Duration::from_millis(2500));
                let mut backup = start(&scene.sandbox, &["backup", "pg"]);
                tokio::task::block_in_place(|| kill_after(&mut backup, instant))
            }
            Victim::Restore => {
                scene.until_promised(Timestamp::now());
                let instant = dice.between(Duration::ZERO, Duration::from_secs(4));
                let mut restore = start(&scene.sandbox, &["restore", "pg", "--into", "./out"]);
                let ended = tokio::task::block_in_place(|| kill_after(&mut restore, instant));
                eventually("the end of its server", || !server_below(&out));
                if ended {
                    assert!(rows_in(&out, test).await > scene.ledger.attempted);
                } else {
                    // Half a cluster is no cluster.
                    let control = out.join("global/pg_control").exists();
                    let whole = control && !out.join("recovery.signal").exists() && !out.join("backup_label").exists();
                    if whole {
                        assert!(
                            rows_in(&out, test).await > scene.ledger.attempted,
                            "round {round}: it was at its end"
                        );
                    }
                }
                let _ = fs::remove_dir_all(&out);
                ended
            }
        };
        late += u64::from(ended);
        // A snapshot that is there is whole: nobody else would see the difference.
        for id in snapshots(&scene.sandbox)
            .into_iter()
            .filter(|id| !taken.contains(id))
            .collect::<Vec<_>>()
        {
            assert_ne!(victim, Victim::Restore, "round {round}");
            taken.push(id);
        }
        rows.rest().await;
        scene.ledger.add(rows.acknowledged(), rows.attempted());
        scene.until_promised(Timestamp::now());
    }
    say(format_args!(
        "{test}: {late} of {} had ended before the kill; {} base backups",
        rounds(),
        taken.len()
    ));
    restored(&scene.sandbox, &out, &[]);
    assert_eq!(rows_in(&out, test).await, scene.ledger.last());
    opsctl(&scene.sandbox, &["repository", "check", "--read-data"]).ended(0);
    scene.sandbox.judged_by_restic(test);
}

/// The same on one machine, the same from another one, and another cluster.
#[tokio::test(flavor = "multi_thread")]
async fn two_receivers_are_one_too_many() {
    let test = "two_receivers_are_one_too_many";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    let follow = ["backup", "pg", "--follow"];
    opsctl(&scene.sandbox, &follow).ended(8);
    let repo = format!("store = \"file:{}\"", scene.sandbox.path("repo").display());
    let elsewhere = project(&scene.cluster.url(), &repo);
    let holder = scene.cluster.run("select active_pid from pg_replication_slots").await;
    let refused = opsctl(&elsewhere, &follow).ended(8).says("is in use by somebody else");
    assert!(
        refused.stderr.contains("opsctl_local") && refused.stderr.contains(&holder),
        "{}",
        refused.stderr
    );

    // The first one does not mind.
    let rows = scene.cluster.numbered(1000).await;
    rows.reaches(300).await;
    rows.rest().await;
    scene.ledger.add(rows.acknowledged(), rows.attempted());
    scene.until_promised(Timestamp::now());

    let Some(other) = peers::servers::postgres::Cluster::start(crate::scene::recipe(), test).await else {
        return;
    };
    let ours = scene.cluster.system_identifier().await.to_string();
    let theirs = other.system_identifier().await.to_string();
    let before = promised(&scene.sandbox);
    let foreign = project(&other.url(), &repo);
    for words in [&["backup", "pg"][..], &follow] {
        let ran = opsctl(&foreign, words).ended(1);
        assert!(
            ran.stderr.contains(&ours) && ran.stderr.contains(&theirs),
            "{words:?}: {}",
            ran.stderr
        );
    }
    let file = other.run("select pg_walfile_name(pg_current_wal_lsn())").await;
    other.run("create table something (n int)").await;
    other.switch_wal().await;
    let file = other.data().join("pg_wal").join(file).display().to_string();
    let ran = opsctl(&foreign, &["wal", "push", "pg", &file]).ended(2);
    assert!(
        ran.stderr.contains(&ours) && ran.stderr.contains(&theirs),
        "{}",
        ran.stderr
    );
    assert!(promised(&scene.sandbox) >= before);
    assert_eq!(
        fs::read_dir(scene.sandbox.path("repo/wal/local.pg"))
            .expect("the archive")
            .count(),
        1
    );
    let slots = other.run("select count(*) from pg_replication_slots").await;
    assert_eq!(slots, "0", "nothing stays on a server that is not meant");

    restored(&scene.sandbox, &scene.sandbox.path("out"), &[]);
    assert_eq!(rows_in(&scene.sandbox.path("out"), test).await, scene.ledger.last());
}

/// Pages that are damaged on the server are named, and no backup is made of them.
#[tokio::test(flavor = "multi_thread")]
async fn corrupt_pages_are_no_backup() {
    let test = "corrupt_pages_are_no_backup";
    let recipe = crate::scene::recipe().made_with("--data-checksums");
    let Some(mut cluster) = peers::servers::postgres::Cluster::start(recipe, test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), FOLDER);
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    cluster
        .run("create table hurt as select n, repeat('x', 500) as text from generate_series(1, 1000) n")
        .await;
    let file = cluster.run("select pg_relation_filepath('hurt')").await;
    cluster.stop().await;
    let path = cluster.data().join(&file);
    let mut heap = fs::read(&path).expect("a table");
    heap[3 * 8192 + 5000] ^= 0x10;
    fs::write(&path, heap).expect("a table");
    cluster.start_again().await;
    opsctl(&sandbox, &["backup", "pg"]).ended(1).says(&file);
    assert_eq!(snapshots(&sandbox).len(), 1);
}

/// Somebody else reads from the slot and archives nothing, and then the primary is gone: its log will never come, and the
/// backup does not wait for it until somebody looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_log_nobody_can_bring_ends_with_the_server() {
    let test = "a_backup_whose_log_nobody_can_bring_ends_with_the_server";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    if let Some(follower) = scene.follower.take() {
        follower.stop();
    }
    let taken = snapshots(&scene.sandbox);
    let slot = scene.cluster.run("select slot_name from pg_replication_slots").await;
    let elsewhere = scene.sandbox.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let programs = peers::servers::Release::default().programs().expect("the server runs");
    let reader = tokio::process::Command::new(programs.join("pg_receivewal"))
        .args([
            "--no-loop",
            "--dbname",
            &scene.cluster.url(),
            "--slot",
            &slot,
            "--directory",
        ])
        .arg(&elsewhere)
        .kill_on_drop(true)
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut reader = reader.expect("it starts");
    tokio::task::block_in_place(|| {
        eventually("the other reader's first file", || {
            fs::read_dir(&elsewhere).is_ok_and(|mut files| files.next().is_some())
        });
    });
    let mut backup = Follower::run(&scene.sandbox, scene.sandbox.command(&["backup", "pg", "--json"]));
    // All of it is sent, and its log is what it waits for.
    let late = deadline();
    for sending in ["1", "0"] {
        while scene
            .cluster
            .run("select count(*) from pg_stat_replication where state = 'backup'")
            .await
            != sending
        {
            assert!(!backup.has_ended() && !late(), "{}", backup.said());
        }
    }
    scene.cluster.kill();
    assert_eq!(backup.ends(), 1, "{}", backup.said());
    assert!(backup.said().contains("the server is gone"), "{}", backup.said());
    reader.wait().await.expect("it ends with the server");
    assert_eq!(snapshots(&scene.sandbox), taken);
}
