//! A cluster on its way into a repository and back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use backups::pitr::Datastore;
use backups::pitr::postgres::archive::{self, Archive};
use backups::source::postgres::base::{
    BaseError, BaseRestore, InArchive, Pages, TablespaceMap, Unfinished, read_base, restore_base,
};
use backups::source::{BaseSource, Source};
use backups::{Error, Id, Repository, RestoreOptions, Silent};
use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use tokio_util::sync::CancellationToken;

use crate::base_world::*;

async fn restore(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &BaseRestore,
) -> Result<Unfinished, Error> {
    restore_base(
        repository,
        snapshot,
        target,
        options,
        &Silent,
        &CancellationToken::new(),
    )
    .await
}

/// What the restored server needs to recover to the end of the log.
fn recover_from(log: &Path, target: &Path) {
    let settings = target.join("postgresql.auto.conf");
    let mut text = fs::read_to_string(&settings).unwrap();
    let log = log.display();
    text += "restore_command = 'cp ";
    text += &log.to_string();
    text += "/%f %p'\narchive_mode = off\n";
    fs::write(&settings, text).unwrap();
    fs::write(target.join("recovery.signal"), "").unwrap();
}

/// PostgreSQL's own judge of a base backup, where its version reads the manifest.
fn pg_verifybackup(data: &Path, ignore: &[&str]) {
    let program = Release::V15.client("pg_verifybackup").unwrap();
    let mut command = Command::new(program);
    command.args(["--no-parse-wal", "--exit-on-error"]);
    for path in ignore {
        command.args(["--ignore", path]);
    }
    let output = command.arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn comes_back_whole(release: Release, test: &str) {
    let Some(world) = Archived::start(release, test).await else {
        return;
    };
    let cluster = &world.cluster;
    let old = world.folder_of_its_own("fast");
    cluster
        .run(&format!("create tablespace fast location '{}'", old.display()))
        .await;
    cluster
        .run("create table large as select n, repeat(md5(n::text), 20) as text from generate_series(1, 20000) n")
        .await;
    cluster
        .run("create table placed tablespace fast as select n from generate_series(1, 5000) n")
        .await;
    let writer = cluster.numbered(200).await;
    writer.reaches(20).await;

    let repository = repository().await;
    let report = save(&repository, &world.source()).await.unwrap();
    assert!(report.skipped.is_empty());
    let last = writer.stop().await.unwrap().number;
    cluster.run("checkpoint").await;
    world.archive_all().await;

    let base = read_base(&repository, &report.snapshot).await.unwrap();
    assert_eq!(base.system.0, cluster.system_identifier().await);
    assert_eq!(
        (base.version().major(), base.segment_bytes),
        (release.major(), 16 << 20)
    );
    assert_eq!((base.timeline.0, base.pages), (1, Pages::Verified));
    assert!(base.start < base.end && base.started_at <= base.finished_at);
    assert_eq!(base.tablespaces.len(), 1);
    assert_eq!(base.tablespaces[0].location, old);

    let (target, new) = (
        world.folder.path().join("restored/data"),
        world.folder.path().join("restored/placed"),
    );
    let options = BaseRestore {
        tablespaces: TablespaceMap::default().with(&old, &new).unwrap(),
        owner: world.owner(),
        durable: false,
    };
    let unfinished = restore(&repository, &report.snapshot, &target, &options).await.unwrap();
    assert!(
        !target.join("global/pg_control").exists(),
        "no server starts before it is finished"
    );
    assert_eq!(unfinished.tablespaces(), [(base.tablespaces[0].oid, new.clone())]);
    let restored = unfinished
        .finish(&repository, &Silent, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(
        restored.report.files,
        base.files + 1,
        "the files, and the manifest itself"
    );
    let mode = fs::metadata(&target).unwrap();
    assert_eq!(
        (mode.permissions().mode() & 0o777, mode.uid()),
        (0o700, fs::metadata(cluster.data()).unwrap().uid())
    );
    let link = target.join("pg_tblspc").join(base.tablespaces[0].oid.to_string());
    assert_eq!(fs::read_link(link).unwrap(), new);
    if release == Release::V15 {
        pg_verifybackup(&target, &[]);
    }

    recover_from(&world.log(), &target);
    let restored = Cluster::start(Postgres::of(release).data(&target), test).await.unwrap();
    recovered(&restored).await;
    assert_eq!(restored.numbered_rows().await, last);
    assert_eq!(restored.run("select count(*) from large").await, "20000");
    assert_eq!(restored.run("select count(*) from placed").await, "5000");
    assert_eq!(
        restored
            .run("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'")
            .await,
        new.display().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_14_taken_while_others_write_is_a_server_again() {
    comes_back_whole(
        Release::V14,
        "a_backup_of_version_14_taken_while_others_write_is_a_server_again",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_15_taken_while_others_write_is_a_server_again() {
    comes_back_whole(
        Release::V15,
        "a_backup_of_version_15_taken_while_others_write_is_a_server_again",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_18_taken_while_others_write_is_a_server_again() {
    comes_back_whole(
        Release::V18,
        "a_backup_of_version_18_taken_while_others_write_is_a_server_again",
    )
    .await;
}

/// Restored as any other snapshot, with a tablespace beside the data, the copy is proved by the source itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_held_against_the_servers_manifest() {
    let test = "a_copy_is_held_against_the_servers_manifest";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let place = world.folder_of_its_own("place");
    world
        .cluster
        .run(&format!("create tablespace place location '{}'", place.display()))
        .await;
    world
        .cluster
        .run("create table placed tablespace place as select n from generate_series(1, 5000) n")
        .await;
    let repository = repository().await;
    let report = save(&repository, &world.source()).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let all = RestoreOptions::default();
    let cancel = CancellationToken::new();
    let restored = backups::restore(&repository, &report.snapshot, copy.path(), &all, &Silent, &cancel)
        .await
        .unwrap();
    assert!(!restored.is_partial(), "{restored:?}");
    assert!(world.source().verify(copy.path()).await.unwrap().is_sound());

    let relation = world.cluster.run("select pg_relation_filepath('placed')").await;
    let relation = relation.strip_prefix("pg_tblspc/").unwrap();
    let file = copy.path().join("tablespaces").join(relation);
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let verification = world.source().verify(copy.path()).await.unwrap();
    let problem = verification.checks[0].problem.clone().unwrap();
    assert!(
        problem.contains(relation) && problem.contains("other bytes"),
        "{problem}"
    );

    // By default a tablespace comes to lie in the data folder, and never where it was.
    let target = copy.path().join("cluster");
    let unfinished = restore(&repository, &report.snapshot, &target, &BaseRestore::default())
        .await
        .unwrap();
    let (oid, inside) = unfinished.tablespaces()[0].clone();
    assert_eq!(inside, target.join("tablespaces").join(oid.to_string()));
    let _ = unfinished.finish(&repository, &Silent, &cancel).await.unwrap();
    pg_verifybackup(&target, &["tablespaces"]);
}

/// Where no receiver runs, the backup brings its own log, and leaves no slot behind.
async fn brings_its_own_log(release: Release, test: &str) {
    let Some(cluster) = Cluster::start(Postgres::of(release), test).await else {
        return;
    };
    let repository = repository().await;
    let archive = Archive::new(&repository, Datastore::new("pg-main").unwrap());
    let options = options_of(&cluster.url());
    let address = options.address.clone();
    let log = InArchive::streamed(archive.clone(), Duration::from_mins(2), address);
    let writer = cluster.numbered(200).await;
    let before = writer.reaches(20).await.number;
    let report = save(&repository, &BaseSource::new(options, Arc::new(log)))
        .await
        .unwrap();
    writer.stop().await;
    assert_eq!(cluster.run("select count(*) from pg_replication_slots").await, "0");

    let base = read_base(&repository, &report.snapshot).await.unwrap();
    let size = base.segment_size().unwrap();
    let folder = open_folder();
    let held = archive.list().await.unwrap().systems.remove(&base.system).unwrap();
    for (segment, until) in held.files() {
        let file = match until {
            None => archive::File::Segment(segment),
            Some(until) => archive::File::Partial { segment, until },
        };
        let mut content = archive.get(base.system, &file, size).await.unwrap().to_vec();
        content.resize(size.bytes() as usize, 0);
        fs::write(folder.path().join(segment.file_name(size)), content).unwrap();
    }
    let target = folder.path().join("data");
    let options = BaseRestore::default();
    let unfinished = restore(&repository, &report.snapshot, &target, &options).await.unwrap();
    let _ = unfinished
        .finish(&repository, &Silent, &CancellationToken::new())
        .await
        .unwrap();
    recover_from(folder.path(), &target);
    let restored = Cluster::start(Postgres::of(release).data(&target), test).await.unwrap();
    recovered(&restored).await;
    assert!(restored.numbered_rows().await >= before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_14_brings_its_own_log() {
    brings_its_own_log(Release::V14, "a_backup_of_version_14_brings_its_own_log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_15_brings_its_own_log() {
    brings_its_own_log(Release::V15, "a_backup_of_version_15_brings_its_own_log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_stores_what_changed() {
    let Some(world) = Archived::start(Release::V15, "a_second_backup_stores_what_changed").await else {
        return;
    };
    let rows = "select n, sha512(n::text::bytea) as noise from generate_series(1, 200000) n";
    world.cluster.run(&format!("create table noise as {rows}")).await;
    world.cluster.run("vacuum freeze").await;
    let repository = repository().await;
    let first = save(&repository, &world.source()).await.unwrap();
    world.cluster.run("update noise set n = -n where n <= 2000").await;
    let second = save(&repository, &world.source()).await.unwrap();
    assert_eq!(second.parent, Some(first.snapshot));
    let (before, after) = (first.summary.data_added, second.summary.data_added);
    assert!(after * 5 < before, "{after} of {before}");
    assert!(second.summary.files_unmodified > 500, "{:?}", second.summary);
    assert!(second.summary.files_changed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_nowhere_but_into_an_empty_folder() {
    let test = "a_restore_goes_nowhere_but_into_an_empty_folder";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let repository = repository().await;
    let report = save(&repository, &world.source()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("data");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("PG_VERSION"), "15\n").unwrap();
    let options = BaseRestore::default();
    let refused = restore(&repository, &report.snapshot, &target, &options)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Cluster(BaseError::Occupied(path)) if *path == target),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);

    let unknown = BaseRestore {
        tablespaces: TablespaceMap::default().with("/srv/old", "/srv/new").unwrap(),
        ..BaseRestore::default()
    };
    fs::remove_file(target.join("PG_VERSION")).unwrap();
    let refused = restore(&repository, &report.snapshot, &target, &unknown)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Cluster(BaseError::Tablespaces(what)) if what.contains("/srv/old")),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    for (old, new) in [("srv/old", "/srv/new"), ("/srv/old", "../new"), ("/srv/../old", "/new")] {
        assert!(TablespaceMap::default().with(old, new).is_err());
    }
    let twice = TablespaceMap::default().with("/a", "/srv/a").unwrap();
    assert!(twice.clone().with("/a", "/srv/b").is_err());
    assert!(twice.with("/b", "/srv/a/b").is_err());
}
