//! A folder of its own in which the real `opsctl` runs, and that leaves nothing behind.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A canary that is held at its share until somebody ends it.
pub const HELD: [&str; 6] = ["--weight", "30", "--interval", "200ms", "--for", "10m"];

/// A temporary project folder.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

/// A command that ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Reads what a process left.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, after checking the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The same, after checking that stderr says something.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        self
    }

    /// stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.stdout, self.stderr))
    }
}

impl Sandbox {
    /// An empty folder that only we may write.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("our own folder");
        Self { folder }
    }

    /// A folder with a repository, its password, and two datastores: `db` (SQLite) and `files`.
    pub fn with_stores() -> Self {
        let sandbox = Self::new();
        sandbox.write(
            "opsctl.toml",
            "version = 1\n[env.local]\nrepository = \"here\"\n\
             [repository.here]\nstore = \"file:repo\"\npassword = { file = \"password\" }\n\
             [datastore.db]\nkind = \"sqlite\"\npath = \"data/shop.db\"\n\
             [datastore.files]\nkind = \"files\"\npath = \"data/uploads\"\n",
        );
        sandbox.secret("password", "correct horse\n");
        sandbox.write("data/uploads/a.txt", "alpha\n");
        sandbox.write("data/uploads/deep/b.bin", &"beta ".repeat(40_000));
        let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("a database");
        database
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT); INSERT INTO orders (item) VALUES ('book'), ('pen');")
            .expect("tables");
        sandbox
    }

    /// A folder with a service of two instances, `shop`, that can run another version as a canary.
    pub fn with_shop() -> Self {
        let sandbox = Self::new();
        let tiny = tiny_service().display().to_string();
        sandbox.write(
            "opsctl.toml",
            &format!(
                "version = 1\n[env.local]\n[service.shop]\nhealth = {{ http = \"/healthz\" }}\nobjectives = {{ availability = \"80%\" }}\n\
                 [service.shop.local]\ncommand = [{tiny:?}]\nreplicas = 2\n\
                 [service.shop.canary]\ncommand = [{tiny:?}, \"--release\", \"{{version}}\"]\n"
            ),
        );
        sandbox
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Writes a file that nobody else may read.
    pub fn secret(&self, relative: impl AsRef<Path>, text: &str) {
        let path = self.path(relative);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    /// `opsctl` in the folder, without a terminal and without variables of ours.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opsctl"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OPSCTL_")) {
            command.env_remove(name);
        }
        command
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env("LANG", "C.UTF-8");
        command
    }

    /// Runs `opsctl` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("opsctl starts"))
    }

    /// What it printed with everything that differs between runs replaced.
    pub fn told(&self, ran: &Ran) -> String {
        let folder = self.folder.path().display().to_string();
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            ran.code, ran.stdout, ran.stderr
        )
        .replace(&folder, "[FOLDER]")
    }

    /// Lets restic, the other program that knows the format, check every byte of the repository of [`Self::with_stores`].
    /// `test` is named when it is not installed.
    pub fn judged_by_restic(&self, test: &str) {
        let Some(restic) = peers::peer("restic", test) else {
            return;
        };
        let checked = Command::new(restic)
            .args(["--no-cache", "check", "--read-data", "-r"])
            .arg(self.path("repo"))
            .env("RESTIC_PASSWORD", "correct horse")
            .output()
            .expect("restic starts");
        let told = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "restic: {told}");
    }

    /// The rows of the database at a path.
    pub fn rows(path: &Path) -> Vec<String> {
        let database = rusqlite::Connection::open(path).expect("a database");
        let mut rows = database
            .prepare("SELECT item FROM orders ORDER BY id")
            .expect("the table");
        let rows = rows.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.path(".opsctl/desired.json").exists() {
            let _ = self.command(&["down", "-qq"]).output();
        }
    }
}

/// The example `tiny_service`, which `cargo test` builds beside the tests.
pub fn tiny_service() -> PathBuf {
    example("tiny_service")
}

/// An example by its name.
pub fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_opsctl"))
        .with_file_name("examples")
        .join(name);
    assert!(path.exists(), "build it with `cargo build -p opsctl --examples`");
    path
}

/// Every file below a folder with its content; nothing where there is no folder.
pub fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().expect("a kind").is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_path_buf();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// Whether a process has not ended.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Kills a process that a command of ours started.
pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
}

/// An address that refuses: a free port may be another test's the moment after.
pub const NOBODY: &str = "127.0.0.1:1";

/// A free loopback port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(20), what, holds);
}

/// Waits for so long at most.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a deadline for a real process")]
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        // A channel that nobody sends on is a timer.
        let (_keep, timer) = std::sync::mpsc::channel::<()>();
        let _ = timer.recv_timeout(Duration::from_millis(20));
    }
}
