//! A second judge, `rustic_core`: it finds nothing in sound repositories of ours and restores what we saved; we check and
//! restore what it made.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::store::LocalStore;
use backups::{RestoreOptions, Silent, SnapshotFilter, Store, snapshots};
use rustic_backend::BackendOptions;
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, KeyOptions, LocalDestination, LsOptions, PathList,
    Repository as Rustic, RepositoryOptions, SnapshotOptions,
};
use tokio_util::sync::CancellationToken;

use crate::world::*;

fn unopened(repo: &Path) -> Rustic<()> {
    let backends = BackendOptions::default()
        .repository(repo.to_str().unwrap())
        .to_backends()
        .unwrap();
    Rustic::new(&RepositoryOptions::default().no_cache(true), &backends).unwrap()
}

fn open(repo: &Path) -> Rustic<rustic_core::OpenStatus> {
    unopened(repo).open(&Credentials::password(PASSWORD)).unwrap()
}

/// Rustic's check with all data read. It must be content.
pub fn is_content(repo: &Path) {
    let found = open(repo).check(CheckOptions::default().read_data(true)).unwrap();
    assert!(found.is_ok().is_ok(), "rustic: {found:?}");
}

fn restore_by_rustic(repo: &Path, target: &Path) {
    let repository = open(repo).to_indexed().unwrap();
    let node = repository.node_from_snapshot_path("latest", |_| true).unwrap();
    let nodes = repository.ls(&node, &LsOptions::default()).unwrap();
    let target = LocalDestination::new(target.to_str().unwrap(), true, !node.is_dir()).unwrap();
    let options = rustic_core::RestoreOptions::default();
    let plan = repository
        .prepare_restore(&options, nodes.clone(), &target, false)
        .unwrap();
    repository.restore(plan, &options, nodes, &target).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rustic_is_content_with_ours_and_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let (source, repo, target) = (
        folder.path().join("source"),
        folder.path().join("repo"),
        folder.path().join("target"),
    );
    odd_tree(&source);
    // Rustic takes escapes in links and names for others than those that they are.
    std::fs::remove_file(source.join("odd link")).unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    save(&repository, &files(&source)).await.unwrap();
    let by_rustic = (repo.clone(), target.clone());
    tokio::task::spawn_blocking(move || {
        is_content(&by_rustic.0);
        restore_by_rustic(&by_rustic.0, &by_rustic.1);
    })
    .await
    .unwrap();
    let content = |root: &Path| -> Vec<(PathBuf, String)> {
        let what = |said: String| said.split(' ').skip(4).take(1).collect();
        picture(root)
            .into_iter()
            .map(|(path, said)| (path, what(said)))
            .collect()
    };
    assert_eq!(content(&target.join("source")), content(&source));
    assert!(check(&repository).await.findings.is_empty(), "rustic changed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn we_check_and_restore_what_rustic_made() {
    let folder = tempfile::tempdir().unwrap();
    let (source, repo) = (folder.path().join("source"), folder.path().join("repo"));
    odd_tree(&source);
    std::fs::remove_file(source.join("odd link")).unwrap();
    let by_rustic = (source.clone(), repo.clone());
    tokio::task::spawn_blocking(move || {
        let (source, repo) = by_rustic;
        let made = unopened(&repo).init(
            &Credentials::password(PASSWORD),
            &KeyOptions::default(),
            &ConfigOptions::default(),
        );
        let repository = made.unwrap().to_indexed_ids().unwrap();
        let snapshot = || SnapshotOptions::default().to_snapshot().unwrap();
        let paths = PathList::from_iter([source]);
        repository
            .backup(&BackupOptions::default(), &paths, snapshot())
            .unwrap();
        let repository = open(&repo).to_indexed_ids().unwrap();
        let command: rustic_core::CommandInput = "seq 200000".parse().unwrap();
        let stream = BackupOptions::default()
            .stdin_filename("stream".to_owned())
            .stdin_command(command);
        repository
            .backup(&stream, &PathList::from_string("-").unwrap(), snapshot())
            .unwrap();
    })
    .await
    .unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = backups::Repository::open(store, PASSWORD).await.unwrap();
    let found = check(&repository).await;
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let list = snapshots::list(&repository, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(list.snapshots.len(), 2);
    for record in list.snapshots {
        let target = folder.path().join(record.id.short());
        let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
        let report = backups::restore(&repository, &record.id, &target, &options, &Silent, &cancel)
            .await
            .unwrap();
        assert!(!report.is_partial(), "{report:?}");
        if target.join("stream").exists() {
            // Rustic says that it is empty. It is not.
            let restored = std::fs::read(target.join("stream")).unwrap();
            let mut expected = Vec::new();
            for number in 1..=200_000 {
                writeln!(expected, "{number}").unwrap();
            }
            assert!(restored == expected, "{} bytes", restored.len());
        } else {
            // Rustic says nothing of the folder that it was told to save, only of what is in it.
            let inside = |root: &Path| {
                let mut picture = picture(root);
                picture.remove(Path::new(""));
                picture
            };
            let restored = inside(&target.join(source.strip_prefix("/").unwrap()));
            assert_eq!(restored, inside(&source));
        }
    }
}
