//! The folder where what is built is kept: per user, outside every tree, one folder a peer and version.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What marks a folder as half made.
const HALF_MADE: &str = ".making-";

/// `$XDG_CACHE_HOME/opsctl/peers`, or the same below `~/.cache`.
pub(crate) fn folder() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("opsctl/peers")
}

/// The right to build. Only one process has it; it ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct BuildLock {
    _file: File,
}

impl BuildLock {
    /// Waits for the right, and says so through `waiting` when another process has it. Then removes what a build that
    /// was killed left half made.
    pub(crate) fn take(waiting: impl FnOnce()) -> io::Result<Self> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let file = File::create(folder.join(".lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(HALF_MADE) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { _file: file })
    }

    /// An empty folder to build the peer `name` in, removed with the value.
    #[expect(clippy::unused_self, reason = "only who has the right to build may make one")]
    pub(crate) fn workshop(&self, name: &str) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(&format!("{HALF_MADE}{name}-"))
            .tempdir_in(folder())
    }
}

/// Lets `made` appear as `installed`, at once and whole.
pub(crate) fn publish(made: &Path, installed: &Path) -> io::Result<()> {
    if installed.exists() {
        // What is there lacks a program, or it would not be built anew.
        fs::remove_dir_all(installed)?;
    }
    fs::rename(made, installed)
}
