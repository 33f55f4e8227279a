//! A store in a folder of this machine, in the layout that restic's local backend uses.
//!
//! An object appears whole or not at all: its bytes are written to a file that has no name yet (`O_TMPFILE`), made
//! durable with `fsync`, and only then linked to its name, which fails if the name is taken. A process that is killed
//! leaves nothing behind. File systems without `O_TMPFILE` get a named temporary file instead.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Entry, Page, Store, StoreError, StoreKey};

/// A folder. It is created, with its parents, by the first `put`.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Path>,
}

impl LocalStore {
    /// The store in this folder; nothing is touched yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into().into(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    fn file_of(&self, key: &StoreKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn error(&self, action: &'static str, key: &str, source: io::Error) -> StoreError {
        let key = key.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { key },
            io::ErrorKind::AlreadyExists => StoreError::Exists { key },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
                location: self.location(),
            },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::Denied { key, source },
            _ => StoreError::Io { action, key, source },
        }
    }

    /// Runs file-system work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || work(&this)).await {
            Ok(result) => result.map_err(|source| self.error(action, key, source)),
            Err(_) => Err(self.error(action, key, io::Error::other("the runtime is shutting down"))),
        }
    }

    fn write(&self, key: &StoreKey, body: &[u8]) -> io::Result<()> {
        let path = self.file_of(key);
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match rustix::fs::open(
            folder,
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        ) {
            Ok(file) => {
                let mut file = File::from(file);
                file.write_all(body)?;
                file.sync_all()?;
                forget_pages(&file);
                let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, unnamed.as_str(), CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => write_named(folder, &path, body)?,
            Err(other) => return Err(other.into()),
        }
        sync_folder(folder)
    }
}

/// What was written is seldom read soon: what services have in memory shall not make room for it. Memory that was just
/// written is also the cheapest to write to again.
fn forget_pages(file: &File) {
    // Only advice.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// The way without `O_TMPFILE`: a named temporary file, removed again if anything fails.
fn write_named(folder: &Path, path: &Path, body: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        ".tmp-{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    );
    let temporary = folder.join(name);
    let result = (|| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(body)?;
        file.sync_all()?;
        match rustix::fs::renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&temporary, path)?;
                fs::remove_file(&temporary)
            }
            result => Ok(result?),
        }
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Creates a folder and its parents with mode 0700, each entry durable.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder; they are durable on close.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Lists in the order of keys: a folder sorts as its name with the `/` that its keys continue with.
struct Lister<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    entries: Vec<Entry>,
    more: bool,
}

impl Lister<'_> {
    fn visit(&mut self, folder: &Path, key_so_far: &str) -> io::Result<()> {
        let mut names: Vec<(String, bool)> = Vec::new();
        for item in fs::read_dir(folder)? {
            let item = item?;
            let is_folder = item.file_type()?.is_dir();
            if !is_folder && !item.file_type()?.is_file() {
                continue;
            }
            if let Ok(name) = item.file_name().into_string() {
                let end = if is_folder { "/" } else { "" };
                names.push((format!("{key_so_far}{name}{end}"), is_folder));
            }
        }
        names.sort_unstable();
        for (key, is_folder) in names {
            let relevant = key.starts_with(self.prefix) || (is_folder && self.prefix.starts_with(&key));
            let seen = self
                .after
                .is_some_and(|after| key.as_str() <= after && !(is_folder && after.starts_with(&key)));
            if self.more || !relevant || seen {
                continue;
            }
            let path = folder.join(&key[key_so_far.len()..]);
            let outcome = if is_folder {
                self.visit(&path, &key)
            } else {
                self.add(&path, key)
            };
            match outcome {
                // Deleted since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, key: String) -> io::Result<()> {
        let Ok(key) = StoreKey::new(key) else { return Ok(()) };
        if self.entries.len() == self.limit {
            self.more = true;
            return Ok(());
        }
        self.entries.push(entry(key, &path.symlink_metadata()?));
        Ok(())
    }
}

fn entry(key: StoreKey, metadata: &fs::Metadata) -> Entry {
    let modified = Timestamp::new(metadata.mtime(), i32::try_from(metadata.mtime_nsec()).unwrap_or(0)).ok();
    Entry {
        key,
        size: metadata.len(),
        modified,
    }
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let owned = key.clone();
        self.blocking("write", key.as_str(), move |this| this.write(&owned, &body))
            .await
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        let path = self.file_of(key);
        self.blocking("read", key.as_str(), move |_| fs::read(path).map(Bytes::from))
            .await
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let path = self.file_of(key);
        self.blocking("read", key.as_str(), move |_| {
            let mut file = File::open(path)?;
            let available = file.metadata()?.len().saturating_sub(offset).min(length);
            let mut body = Vec::with_capacity(usize::try_from(available).map_err(io::Error::other)?);
            file.seek(SeekFrom::Start(offset))?;
            file.take(available).read_to_end(&mut body)?;
            Ok(Bytes::from(body))
        })
        .await
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        let (path, owned) = (self.file_of(key), key.clone());
        self.blocking("look at", key.as_str(), move |_| {
            Ok(entry(owned, &path.symlink_metadata()?))
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        let (owned, after) = (prefix.to_owned(), after.cloned());
        self.blocking("list", prefix, move |this| {
            let after = after.as_ref().map(StoreKey::as_str);
            let mut lister = Lister {
                prefix: &owned,
                after,
                limit: limit.max(1),
                entries: Vec::new(),
                more: false,
            };
            match lister.visit(&this.root, "") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
            let next = lister
                .more
                .then(|| lister.entries.last().map(|entry| entry.key.clone()))
                .flatten();
            Ok(Page {
                entries: lister.entries,
                next,
            })
        })
        .await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let path = self.file_of(key);
        self.blocking("delete", key.as_str(), move |_| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        })
        .await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        Ok(crate::clock::now())
    }

    /// Two keep a disk busy, and fewer packs lie in memory.
    fn transfers(&self) -> usize {
        2
    }
}
