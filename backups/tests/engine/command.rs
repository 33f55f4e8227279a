//! What a command prints as a source: its exit status decides, nothing of a failure looks like a snapshot, and no process
//! stays behind.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backups::source::command::{CommandFailure, CommandOptions, Manifest, Variable};
use backups::source::{CommandSource, Source, SourceError};
use backups::store::{LocalStore, MemoryStore};
use backups::{Error, Repository, SnapshotFilter, Store, snapshots};
use tokio_util::sync::CancellationToken;

use crate::world::*;

const TRAILER: &str = "-- dump complete";

fn shell(script: &str) -> CommandOptions {
    CommandOptions {
        program: "sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        name: "shop.sql".to_owned(),
        trailer: Some(TRAILER.to_owned()),
        timeout: Some(Duration::from_mins(2)),
        ..CommandOptions::default()
    }
}

async fn snapshots_of(repository: &Repository) -> usize {
    let filter = SnapshotFilter::default();
    snapshots::list(repository, &filter).await.unwrap().snapshots.len()
}

/// Waits until a process is gone.
#[expect(clippy::disallowed_methods, reason = "a deadline for real processes")]
async fn is_gone(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let stat = format!("/proc/{}/stat", pid.trim());
    // A zombie is gone as far as it can be: whoever must wait for it is not we.
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(std::time::Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_comes_back_with_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let dump = [&noise(1, 20 << 20)[..], TRAILER.as_bytes(), b"\n\n"].concat();
    std::fs::write(folder.path().join("dump"), &dump).unwrap();
    let repo = folder.path().join("repo");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let source = CommandSource::new(CommandOptions {
        folder: Some(folder.path().to_owned()),
        variables: vec![Variable {
            name: "WHICH".to_owned(),
            value: "dump".to_owned().into(),
            is_secret: false,
        }],
        ..shell("cat \"$WHICH\"; : --password=hunter2")
    });
    let before = backups::now();
    let saved = save(&repository, &source).await.unwrap();
    assert_eq!(saved.summary.total_files_processed, 2);
    let record = repository.snapshot(&saved.snapshot).await.unwrap();
    assert_eq!(record.paths, ["/shop.sql"]);
    let read = async |path: &str| {
        let mut out = Vec::new();
        snapshots::dump(&repository, &record, Path::new(path), &mut out)
            .await
            .unwrap();
        out
    };
    assert!(read("shop.sql").await == dump);
    let manifest: Manifest = serde_json::from_slice(&read("manifest.json").await).unwrap();
    assert_eq!((manifest.length_bytes, manifest.exit_status), (dump.len() as u64, 0));
    assert_eq!(manifest.command, ["sh", "-c", "cat \"$WHICH\"; : --password=…"]);
    assert_eq!(
        (manifest.kind.as_str(), manifest.trailer.as_deref()),
        ("command", Some(TRAILER))
    );
    assert!(
        before <= manifest.taken_at && manifest.taken_at <= manifest.ended_at && manifest.ended_at <= backups::now()
    );

    let target = folder.path().join("target");
    restore(&repository, &saved, &target).await;
    assert!(source.verify(&target).await.unwrap().is_sound());
    if let Some(restic) = Restic::find("what_a_command_prints_comes_back_with_its_manifest") {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
        let theirs = folder.path().join("theirs");
        let id = saved.snapshot.to_string();
        restic.ok(&repo, PASSWORD, &["restore", &id, "--target", theirs.to_str().unwrap()]);
        for name in ["shop.sql", "manifest.json"] {
            let name = Path::new(name);
            assert_eq!(
                picture(&theirs)[name],
                picture(&target)[name],
                "true size, mode 0600, time"
            );
        }
        assert!(source.verify(&theirs).await.unwrap().is_sound());
    }
    // The same output again is stored once.
    let again = save(&repository, &source).await.unwrap();
    assert!(again.summary.data_added < 10_000, "{:?}", again.summary);
    let mut spoilt = dump.clone();
    spoilt[77] ^= 1;
    for content in [&spoilt[..], &dump[..dump.len() - 1], b""] {
        std::fs::write(target.join("shop.sql"), content).unwrap();
        assert!(!source.verify(&target).await.unwrap().is_sound());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_does_not_count_makes_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let data = "head -c 30000000 /dev/urandom";
    let missing = CommandFailure::NoTrailer(TRAILER.to_owned());
    for (script, expected) in [
        // It fails after writing everything.
        (
            format!("{data}; echo '{TRAILER}'; echo why >&2; exit 1"),
            CommandFailure::Status(1),
        ),
        (format!("{data}; exit 3"), CommandFailure::Status(3)),
        // It is cut, and says that all is well.
        (data.to_owned(), missing.clone()),
        // The trailer, and more than may stand behind it.
        (format!("echo '{TRAILER}'; head -c 5000 /dev/zero"), missing.clone()),
        ("exit 0".to_owned(), CommandFailure::Nothing),
        (format!("echo '{TRAILER}'; kill -9 $$"), CommandFailure::Signal(9)),
        (format!("{data}; kill -TERM $$"), CommandFailure::Signal(15)),
        // A part of a pipe that fails is the shell's to tell; one that holds the output open is not waited for.
        ("sleep 1000 & exit 4".to_owned(), CommandFailure::Status(4)),
        // It closes its output, and fails later.
        (
            format!("echo '{TRAILER}'; exec >&-; sleep 0.2; exit 5"),
            CommandFailure::Status(5),
        ),
    ] {
        let failed = save(&repository, &CommandSource::new(shell(&script))).await;
        match failed {
            Err(Error::Source(SourceError::Command { failure, program, said })) => {
                assert_eq!((failure, program.as_str()), (expected, "sh"), "{script}");
                assert_eq!(said.is_empty(), !script.contains("why"), "{script}: {said}");
            }
            other => panic!("{script}: {other:?}"),
        }
        assert_eq!(snapshots_of(&repository).await, 0, "{script}");
    }
    assert!(check(&repository).await.is_sound());
    if let Some(restic) = Restic::find("an_output_that_does_not_count_makes_no_snapshot") {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
    }
    let absent = CommandOptions {
        program: "/nowhere/pg_dumpall".into(),
        ..shell("")
    };
    let failed = save(&repository, &CommandSource::new(absent)).await;
    assert!(
        matches!(failed, Err(Error::Source(SourceError::Program { .. }))),
        "{failed:?}"
    );
    let nowhere = CommandOptions {
        folder: Some(folder.path().join("none")),
        ..shell("echo x")
    };
    let failed = save(&repository, &CommandSource::new(nowhere)).await;
    assert!(
        matches!(failed, Err(Error::Source(SourceError::NotA { .. }))),
        "{failed:?}"
    );
    for name in ["manifest.json", "", "a/b", ".."] {
        let name = name.to_owned();
        let odd = CommandSource::new(CommandOptions {
            name,
            ..shell("echo x")
        });
        assert!(matches!(save(&repository, &odd).await, Err(Error::Invalid(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let pid = folder.path().join("pid");
    // Both in the shell itself and in a process of its own, with the output open and closed.
    for (number, script) in [
        "echo data; sleep 1000",
        "exec >&-; sleep 1000",
        "trap '' TERM INT HUP; echo data; (sleep 1000; echo more) & wait",
    ]
    .into_iter()
    .enumerate()
    {
        let hanging = CommandOptions {
            folder: Some(folder.path().to_owned()),
            timeout: Some(Duration::from_secs(2)),
            ..shell(&format!("echo $$ > pid; {script}"))
        };
        let failed = save(&repository, &CommandSource::new(hanging)).await;
        let Err(Error::Source(SourceError::Command { failure, .. })) = failed else {
            panic!("{number}: {failed:?}");
        };
        assert_eq!(failure, CommandFailure::Timeout(Duration::from_secs(2)));
        is_gone(&pid).await;
    }
    assert_eq!(snapshots_of(&repository).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_given_up_ends_its_command() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let cancel = CancellationToken::new();
    let endless = CommandOptions {
        folder: Some(folder.path().to_owned()),
        timeout: None,
        ..shell("sleep 1000 & echo $! > pid; while :; do head -c 1000000 /dev/urandom; done")
    };
    struct After(CancellationToken);
    impl backups::Progress for After {
        fn bytes(&self, _: u64) {
            self.0.cancel();
        }
    }
    let progress = After(cancel.clone());
    let given_up = backups::backup(
        &repository,
        &CommandSource::new(endless),
        &options(0),
        &progress,
        &cancel,
    )
    .await;
    assert!(matches!(given_up, Err(Error::Cancelled)), "{given_up:?}");
    is_gone(&folder.path().join("pid")).await;
    assert_eq!(snapshots_of(&repository).await, 0);
    assert!(check(&repository).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_and_a_flood_of_complaints_are_taken() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let script =
        format!("head -c 30000000 /dev/zero >&2; head -c 300000000 /dev/zero; echo '{TRAILER}'; echo over >&2");
    let saved = save(&repository, &CommandSource::new(shell(&script))).await.unwrap();
    let length = 300_000_000 + TRAILER.len() as u64 + 1;
    assert!(saved.summary.total_bytes_processed > length);
    let flood = shell("yes complaint | head -c 20000000 >&2; echo last words >&2; exit 1");
    let failed = save(&repository, &CommandSource::new(flood)).await;
    let Err(Error::Source(SourceError::Command { said, .. })) = failed else {
        panic!("{failed:?}");
    };
    assert!(said.len() <= 8 << 10 && said.ends_with("last words"), "{}", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_command_and_nobody_else() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let with_secret = |script: &str| {
        CommandSource::new(CommandOptions {
            variables: vec![Variable {
                name: "PGPASSWORD".to_owned(),
                value: "hunter2".to_owned().into(),
                is_secret: true,
            }],
            trailer: None,
            ..shell(script)
        })
    };
    let saved = save(
        &repository,
        &with_secret("test \"$PGPASSWORD\" = hunter2 && echo ok # hunter2"),
    )
    .await
    .unwrap();
    let record = repository.snapshot(&saved.snapshot).await.unwrap();
    let mut manifest = Vec::new();
    snapshots::dump(&repository, &record, Path::new("manifest.json"), &mut manifest)
        .await
        .unwrap();
    let failed = save(
        &repository,
        &with_secret("echo wrong password: $PGPASSWORD >&2; exit 1"),
    )
    .await
    .unwrap_err();
    let told = format!("{failed:?} {} {record:?}", String::from_utf8(manifest).unwrap());
    assert!(
        told.contains("wrong password: …") && !told.contains("hunter2"),
        "{told}"
    );
}
