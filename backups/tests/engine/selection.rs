//! What is chosen: which files are saved, which are restored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::source::{FilesOptions, FilesSource, Marker, Patterns};
use backups::store::MemoryStore;
use backups::{Error, Namespaces, RestoreOptions, Store};

use crate::world::*;

fn write(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
}

fn names(root: &Path) -> Vec<String> {
    let paths = picture(root).into_keys();
    paths.map(|path| path.display().to_string()).skip(1).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_large_and_excluded_files_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
    write(
        &source,
        &[
            "keep",
            "a/NOTES.TMP",
            "a/kept.tmpx",
            "cache/x/y",
            "cache/z",
            "false/x",
            "marked/x",
            "link/x",
        ],
    );
    std::fs::write(source.join("cache/CACHEDIR.TAG"), tag).unwrap();
    std::fs::write(
        source.join("false/CACHEDIR.TAG"),
        "Signature: something else, and long enough",
    )
    .unwrap();
    std::fs::write(source.join("marked/.nobackup"), "").unwrap();
    std::os::unix::fs::symlink("../cache/CACHEDIR.TAG", source.join("link/CACHEDIR.TAG")).unwrap();
    std::fs::write(source.join("large"), vec![1; 1001]).unwrap();
    std::fs::write(source.join("just so"), vec![1; 1000]).unwrap();
    let options = FilesOptions {
        excludes: Patterns::default().and_ignoring_case(["*.tmp"]).unwrap(),
        exclude_if_present: vec![Marker::new(".nobackup"), Marker::cache()],
        exclude_larger_than: Some(1000),
        one_file_system: true,
        attributes: Namespaces::default(),
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &FilesSource::with(vec![source], options))
        .await
        .unwrap();
    assert!(
        !saved.is_partial(),
        "what is left out is not missing: {:?}",
        saved.skipped
    );
    let target = folder.path().join("target");
    restore(&repository, &saved, &target).await;
    assert_eq!(
        names(&target.join("source")),
        [
            "a",
            "a/kept.tmpx",
            "cache",
            "cache/CACHEDIR.TAG",
            "false",
            "false/CACHEDIR.TAG",
            "false/x",
            "just so",
            "keep",
            "link",
            "link/CACHEDIR.TAG",
            "link/x",
            "marked",
            "marked/.nobackup",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_file_systems_are_not_entered_on_request() {
    let test = "other_file_systems_are_not_entered_on_request";
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(&source, &["file", "mount/hidden"]);
    let mount = source.join("mount");
    let mut command = std::process::Command::new("mount");
    let mounted = command.args(["-t", "tmpfs", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        peers::skip(test, "nothing can be mounted here");
        return;
    }
    write(&source, &["mount/elsewhere"]);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let mut restored = Vec::new();
    for one_file_system in [true, false] {
        let options = FilesOptions {
            one_file_system,
            ..FilesOptions::default()
        };
        let source = FilesSource::with(vec![source.clone()], options);
        let target = folder.path().join(one_file_system.to_string());
        let saved = save(&repository, &source).await;
        if let Ok(saved) = saved {
            restore(&repository, &saved, &target).await;
        }
        restored.push(names(&target.join("source")));
    }
    std::process::Command::new("umount").arg(&mount).status().unwrap();
    assert_eq!(
        restored,
        [vec!["file", "mount"], vec!["file", "mount", "mount/elsewhere"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_what_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(
        &source,
        &[
            "a.png",
            "b.jpg",
            "deep/c.png",
            "deep/d.jpg",
            "deep/er/e.png",
            "other/f",
            "thumbs/g.png",
            "odd[1]/h",
        ],
    );
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    let chosen = async |include: &[&str], exclude: &[&str]| {
        let (patterns, paths): (Vec<_>, Vec<_>) = include
            .iter()
            .map(PathBuf::from)
            .partition(|path| Patterns::is_pattern(path));
        let options = RestoreOptions {
            include: paths,
            include_patterns: Patterns::new(patterns.iter().map(|path| path.to_str().unwrap())).unwrap(),
            exclude: Patterns::new(exclude).unwrap(),
            ..RestoreOptions::default()
        };
        let target = tempfile::tempdir().unwrap();
        let report = restore_with(&repository, &saved, target.path(), &options).await?;
        assert!(!report.is_partial(), "{report:?}");
        Ok::<_, Error>(names(target.path()).join(" "))
    };
    for (include, exclude, expected) in [
        (
            &["*.png"][..],
            &[][..],
            "source source/a.png source/deep source/deep/c.png source/deep/er source/deep/er/e.png source/thumbs source/thumbs/g.png",
        ),
        (
            &["*.png"],
            &["thumbs/", "er"],
            "source source/a.png source/deep source/deep/c.png",
        ),
        // A pattern that fits a directory takes all of it; a path and a pattern go together.
        (
            &["source/de*", "source/other"],
            &["*.jpg"],
            "source source/deep source/deep/c.png source/deep/er source/deep/er/e.png source/other source/other/f",
        ),
        (&["**/odd\\[1\\]"], &[], "source source/odd[1] source/odd[1]/h"),
        (
            &[],
            &["*.png", "*.jpg", "odd*"],
            "source source/deep source/deep/er source/other source/other/f source/thumbs",
        ),
    ] {
        assert_eq!(
            chosen(include, exclude).await.unwrap(),
            expected,
            "{include:?} {exclude:?}"
        );
    }
    let missing = chosen(&["*.png", "*.gif"], &[]).await;
    assert!(
        matches!(&missing, Err(Error::PathNotFound { path }) if path == Path::new("*.gif")),
        "{missing:?}"
    );
}
