//! The state folder `.opsctl/`: its paths, its safety, whole-file writes, and the lock under which its files change.
//! Not the meaning of the files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::process::Process;
use crate::{PlatformError, Result};

/// A state folder that was found safe: ours, and writable by nobody else. Files in it are 0600, folders 0700.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Opens the folder, making it if need be.
    ///
    /// Errors: [`PlatformError::Unsafe`] when it belongs to somebody else or others may write it.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        make_dir(root)?;
        Self::check(root)
    }

    /// Opens the folder if it exists; makes nothing.
    pub fn find(root: impl AsRef<Path>) -> Result<Option<Self>> {
        let root = root.as_ref();
        match fs::symlink_metadata(root) {
            Ok(_) => Self::check(root).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", root)(error)),
        }
    }

    fn check(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(failed("open", root))?;
        let meta = fs::metadata(&root).map_err(failed("read", &root))?;
        let unsafe_to_use = |reason: &str| PlatformError::Unsafe {
            path: root.clone(),
            reason: reason.to_owned(),
        };
        if !meta.is_dir() {
            return Err(unsafe_to_use("it is not a folder"));
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(unsafe_to_use("it belongs to another user"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(unsafe_to_use("others may write it"));
        }
        Ok(Self { root })
    }

    /// The folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The proxy's control socket.
    pub fn proxy_socket(&self) -> PathBuf {
        self.path("proxy.sock")
    }

    /// The supervisor's socket.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.path("supervisor.sock")
    }

    /// A run's folder.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.path("runs").join(id)
    }

    /// A run's journal.
    pub fn journal(&self, id: &str) -> PathBuf {
        self.run_dir(id).join("events.ndjson")
    }

    /// An instance's log.
    pub fn log(&self, service: &str, instance: &str) -> PathBuf {
        self.path("logs").join(service).join(format!("{instance}.log"))
    }

    /// The file of an instance's spans, a line of OTLP/JSON each.
    pub fn spans(&self, service: &str, instance: &str) -> PathBuf {
        self.path("logs").join(service).join(format!("{instance}.spans.jsonl"))
    }

    /// Makes a folder inside (0700) and those above it.
    pub fn make(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path(relative);
        make_dir(&path)?;
        Ok(path)
    }

    /// Waits for the state lock, at most `limit`.
    ///
    /// Errors: [`PlatformError::Busy`] naming the process that has it.
    pub async fn lock(&self, limit: Duration) -> Result<FileLock> {
        self.lock_file("state.lock", limit).await
    }

    /// Waits for the lock `name`, at most `limit` (zero: tries once).
    pub async fn lock_file(&self, name: &str, limit: Duration) -> Result<FileLock> {
        let path = self.path(name);
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = FileLock::try_take(&path)? {
                return Ok(lock);
            }
            if tokio::time::Instant::now() >= deadline {
                let holder = FileLock::holder(&path).map_or_else(
                    || "another process".to_owned(),
                    |holder| format!("process {}", holder.pid),
                );
                return Err(PlatformError::Busy {
                    what: format!("`{}`", path.display()),
                    holder,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The process that has the lock `name`, if it says so.
    pub fn lock_holder(&self, name: &str) -> Option<Process> {
        FileLock::holder(&self.path(name))
    }
}

/// An exclusive advisory lock (flock(2)) on a file that also names its holder. Freed when dropped, or by the holder's end.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    fn try_take(path: &Path) -> Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
        // For where the kernel does not tell; a full disk must not keep anybody from the lock.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(Process::current().uid().as_bytes()));
        Ok(Some(Self { file }))
    }

    fn holder(path: &Path) -> Option<Process> {
        Self::locker(path).or_else(|| Self::named(path))
    }

    /// Whom the kernel says (proc(5), `/proc/locks`): also one that was stopped before it could write its name. It
    /// says nothing of processes of another PID namespace, nor where a file system's device numbers are its own affair.
    fn locker(path: &Path) -> Option<Process> {
        let meta = fs::metadata(path).ok()?;
        let device = meta.dev();
        let file = format!(
            "{:02x}:{:02x}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device),
            meta.ino()
        );
        let locks = fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            // Whoever waits for it is told with an arrow in the second place.
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [_, "FLOCK", _, "WRITE", pid, locked, ..] if locked == file => Process::find(pid.parse().ok()?),
                _ => None,
            }
        })
    }

    /// Whom the file names.
    fn named(path: &Path) -> Option<Process> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(':')?;
        let process = Process {
            pid: pid.parse().ok()?,
            start_ticks: start.parse().ok()?,
        };
        process.alive().then_some(process)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Explicitly: a child between fork and exec may still share the descriptor.
        let _ = self.file.unlock();
    }
}

/// Reads a JSON file; `None` when there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(source) => Err(PlatformError::Corrupt {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces a JSON file (0600) as a whole: readers see the old or the new one, also after a power cut when `durable`.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| PlatformError::Corrupt {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    write_file(path, &text, durable)
}

/// Replaces a file (0600) as a whole.
pub fn write_file(path: &Path, text: &[u8], durable: bool) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.{:08x}", std::process::id(), rand::random::<u32>()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        if durable {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)?;
        if durable && let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed("write", path)(error)
    })
}

/// Makes a folder (0700) and those above it; what exists stays as it is.
pub fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create", path))
}

/// Opens a file for appending, 0600.
pub fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}

/// Reads at most `limit` bytes from the end of a file, as text; empty when there is none.
pub fn read_end(path: &Path, limit: u64) -> String {
    use std::io::{Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// An [`PlatformError::Io`] with the action and the file.
pub fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlatformError + use<> {
    let path = path.to_owned();
    move |source| PlatformError::Io { action, path, source }
}
