//! The folder where what is built is kept: per user, outside every tree, one folder a peer and version.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What marks a folder as half made.
const HALF_MADE: &str = ".making-";

/// `$XDG_CACHE_HOME/opsctl/peers`, or the same below `~/.cache`.
pub fn folder() -> PathBuf {
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
    folder: PathBuf,
    _file: File,
}

impl BuildLock {
    /// Waits for the right, and says so through `waiting` when another process has it. Then removes what a build that
    /// was killed left half made.
    pub(crate) fn take(folder: PathBuf, waiting: impl FnOnce()) -> io::Result<Self> {
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
        Ok(Self { folder, _file: file })
    }

    /// An empty folder to build the peer `name` in, removed with the value.
    pub(crate) fn workshop(&self, name: &str) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(&format!("{HALF_MADE}{name}-"))
            .tempdir_in(&self.folder)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_is_whole_stays() {
        let cache = tempfile::tempdir().unwrap();
        let whole = cache.path().join("loki-1");
        fs::create_dir(&whole).unwrap();
        // A build that is killed removes nothing.
        let killed = BuildLock::take(cache.path().to_owned(), || ())
            .unwrap()
            .workshop("loki")
            .unwrap()
            .keep();
        fs::write(killed.join("half"), "").unwrap();
        let _lock = BuildLock::take(cache.path().to_owned(), || panic!("nobody builds")).unwrap();
        assert!(!killed.exists());
        assert!(whole.exists());
    }

    #[test]
    fn who_comes_second_waits_and_says_so() {
        let cache = tempfile::tempdir().unwrap();
        let first = BuildLock::take(cache.path().to_owned(), || panic!("nobody builds")).unwrap();
        let workshop = first.workshop("loki").unwrap();
        let (says, waits) = mpsc::channel();
        let folder = cache.path().to_owned();
        let second = std::thread::spawn(move || BuildLock::take(folder, || says.send(()).unwrap()).unwrap());
        waits.recv().unwrap();
        assert!(!second.is_finished());
        assert!(workshop.path().exists(), "who waits removes nothing");
        drop((workshop, first));
        second.join().unwrap();
    }
}
