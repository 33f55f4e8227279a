//! What the tests share: repositories that cost little to open, trees of odd files, restic as a judge.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backups::repo::{InitOptions, KdfParams};
use backups::source::{Excludes, FilesSource, Source};
use backups::{
    BackupOptions, BackupReport, CheckOptions, CheckReport, Error, Parent, ReadData, Repository, RestoreOptions,
    RestoreReport, Silent, Store,
};
use tokio_util::sync::CancellationToken;

pub const PASSWORD: &str = "correct horse";

/// Opening these repositories takes no time.
pub const CHEAP: InitOptions = InitOptions {
    kdf: KdfParams { log_n: 10, r: 1, p: 1 },
};

pub async fn init(store: &Arc<dyn Store>) -> Repository {
    Repository::init(Arc::clone(store), PASSWORD, &CHEAP)
        .await
        .expect("a new repository")
}

pub fn options(second: i64) -> BackupOptions {
    BackupOptions {
        now: backups::now() + jiff::SignedDuration::from_secs(second),
        host: "test".to_owned(),
        username: "tester".to_owned(),
        tags: vec!["tag".to_owned()],
        parent: Parent::Latest,
    }
}

pub async fn save(repository: &Repository, source: &dyn Source) -> Result<BackupReport, Error> {
    backups::backup(repository, source, &options(0), &Silent, &CancellationToken::new()).await
}

pub fn files(root: &Path) -> FilesSource {
    FilesSource::new(vec![root.to_owned()], Excludes::default())
}

pub async fn restore(repository: &Repository, report: &BackupReport, target: &Path) -> RestoreReport {
    restore_with(repository, report, target, &RestoreOptions::default())
        .await
        .expect("restore")
}

pub async fn restore_with(
    repository: &Repository,
    report: &BackupReport,
    target: &Path,
    options: &RestoreOptions,
) -> Result<RestoreReport, Error> {
    backups::restore(
        repository,
        &report.snapshot,
        target,
        options,
        &Silent,
        &CancellationToken::new(),
    )
    .await
}

pub async fn check(repository: &Repository) -> CheckReport {
    let options = CheckOptions {
        read_data: ReadData::All,
    };
    backups::check(repository, &options, &Silent, &CancellationToken::new())
        .await
        .expect("the check can be done")
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; length];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A directory with everything that is odd about files.
pub fn odd_tree(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let odd = |bytes: &[u8]| root.join(std::ffi::OsStr::from_bytes(bytes));
    std::fs::create_dir_all(root.join("deep/er/still")).unwrap();
    std::fs::create_dir(root.join("empty folder")).unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    std::fs::write(root.join("small.txt"), b"small\n").unwrap();
    std::fs::write(root.join("deep/er/still/large"), noise(7, 5 << 20)).unwrap();
    std::fs::write(root.join("deep/text"), "the same line again and again\n".repeat(50_000)).unwrap();
    std::fs::write(odd(b"latin-\xe9\xff"), b"not UTF-8").unwrap();
    std::fs::write(odd(b"two\nlines\ttab\"quote\\slash"), b"odd").unwrap();
    std::fs::write(odd("grün \u{1f600} \u{2028} \u{fffd}".as_bytes()), b"unicode").unwrap();
    std::fs::write(root.join("sparse"), [vec![0; 9 << 20], noise(8, 100)].concat()).unwrap();
    std::fs::hard_link(root.join("small.txt"), root.join("deep/hard link")).unwrap();
    std::os::unix::fs::symlink("../elsewhere/nothing", root.join("dangling")).unwrap();
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"odd\xfe"), root.join("odd link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    for (name, mode) in [
        ("small.txt", 0o444),
        ("empty", 0o600),
        ("deep/er", 0o500),
        ("empty folder", 0o1777),
        ("deep/text", 0o755),
    ] {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, seconds, nanoseconds) in [
        ("small.txt", 1_000_000_000, 123_456_789),
        ("deep/text", -86_400, 500),
        ("deep", 1_500_000_000, 0),
    ] {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(
            rustix::fs::CWD,
            root.join(name),
            &times,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
    }
}

/// Everything that restoring must bring back, by path.
pub fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    fn visit(root: &Path, path: &Path, inodes: &mut BTreeMap<u64, PathBuf>, picture: &mut BTreeMap<PathBuf, String>) {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            let first = inodes.entry(metadata.ino()).or_insert_with(|| name.clone()).clone();
            format!(
                "{} {} first {first:?}",
                backups::Id::of(&std::fs::read(path).unwrap()),
                metadata.nlink()
            )
        } else if kind.is_symlink() {
            format!("-> {:?}", std::fs::read_link(path).unwrap())
        } else {
            String::new()
        };
        let mode = metadata.mode();
        let times = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        picture.insert(
            name,
            format!("{mode:o} {times} {} {} {content}", metadata.uid(), metadata.gid()),
        );
        if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            names.sort();
            for path in names {
                visit(root, &path, inodes, picture);
            }
        }
    }
    let (mut inodes, mut picture) = (BTreeMap::new(), BTreeMap::new());
    visit(root, root, &mut inodes, &mut picture);
    picture
}

/// Restic, the independent judge.
#[derive(Clone)]
pub struct Restic(PathBuf);

impl Restic {
    /// The judge, or `None` after saying that `test` is skipped (or judges itself alone) for want of it.
    pub fn find(test: &str) -> Option<Self> {
        peers::peer("restic", test).map(Self)
    }

    /// What runs restic on a repository.
    pub fn command(&self, repository: &Path, password: &str) -> Command {
        let mut command = Command::new(&self.0);
        command
            .args(["--no-cache", "--repo"])
            .arg(repository)
            .env("RESTIC_PASSWORD", password)
            .env("RESTIC_PROGRESS_FPS", "0.01");
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn run(&self, repository: &Path, password: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(repository, password);
        command.args(arguments).output().expect("restic runs")
    }

    /// Runs it; it must be content.
    pub fn ok(&self, repository: &Path, password: &str, arguments: &[&str]) -> String {
        let output = self.run(repository, password, arguments);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "restic {arguments:?}: {said}");
        said
    }
}

/// Unpacks one of the repositories that restic wrote.
pub fn unpack(tarball: &Path, into: &Path) {
    let done = Command::new("tar")
        .arg("xzf")
        .arg(tarball)
        .arg("-C")
        .arg(into)
        .status()
        .expect("tar runs");
    assert!(done.success());
}
