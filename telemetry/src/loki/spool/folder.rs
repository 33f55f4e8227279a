//! The folder of a spool: ours alone. It is locked by one process, open to no other user, and neither it nor a file in it
//! is a link that leads elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Only its owner may read and write a file.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The folder cannot be made or read.
    #[error("the spool `{}` cannot be used", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the spool `{}` is in use by another process; give each instance a folder of its own", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Others could read or change lines.
    #[error("`{}` of the spool belongs to another user or is open to others", path.display())]
    Foreign {
        /// The folder or file.
        path: PathBuf,
    },
    /// A link, a device or another thing that is no file of a spool.
    #[error("`{}` of the spool is not a plain file or folder", path.display())]
    Strange {
        /// The folder or file.
        path: PathBuf,
    },
}

/// A folder that this process alone uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: OwnedFd,
    /// Locked as long as it is open.
    _lock: OwnedFd,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        let failed = |source: io::Error| SpoolError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(SpoolError::Strange { path: path.to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        };
        check(&folder, path, FileType::Directory)?;
        let lock = open_in(&folder, path, "lock", OFlags::CREATE | OFlags::RDWR)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SpoolError::Locked { path: path.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self {
            path: path.to_owned(),
            handle: folder,
            _lock: lock,
        })
    }

    /// The names in it.
    pub(super) fn names(&self) -> Result<Vec<String>, SpoolError> {
        let failed = |source: Errno| SpoolError::Io {
            path: self.path.clone(),
            source: source.into(),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// A file that is there.
    pub(super) fn open_file(&self, name: &str, write: bool) -> Result<File, SpoolError> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        open_in(&self.handle, &self.path, name, access).map(File::from)
    }

    /// A file, made if it is not there.
    pub(super) fn make_file(&self, name: &str) -> Result<File, SpoolError> {
        open_in(&self.handle, &self.path, name, OFlags::CREATE | OFlags::RDWR).map(File::from)
    }

    /// Takes a file away; one that is gone is as good.
    pub(super) fn remove(&self, name: &str) {
        let _ = unlinkat(self.handle.as_fd(), name, AtFlags::empty());
    }

    /// Gives a file another name; whatever had it is gone.
    pub(super) fn rename(&self, name: &str, to: &str) {
        let _ = renameat(self.handle.as_fd(), name, self.handle.as_fd(), to);
    }

    /// Sees to it that files that were made are found after a loss of power.
    pub(super) fn sync(&self) {
        let _ = rustix::fs::fsync(&self.handle);
    }
}

fn open_in(folder: &OwnedFd, path: &Path, name: &str, access: OFlags) -> Result<OwnedFd, SpoolError> {
    let path = path.join(name);
    // A pipe would hold us up without NONBLOCK.
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat(folder, name, flags, PRIVATE) {
        Ok(file) => {
            check(&file, &path, FileType::RegularFile)?;
            Ok(file)
        }
        Err(Errno::LOOP | Errno::NXIO) => Err(SpoolError::Strange { path }),
        Err(error) => Err(SpoolError::Io {
            path,
            source: error.into(),
        }),
    }
}

fn check(file: &OwnedFd, path: &Path, kind: FileType) -> Result<(), SpoolError> {
    let stat = fstat(file).map_err(|error| SpoolError::Io {
        path: path.to_owned(),
        source: error.into(),
    })?;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(SpoolError::Strange { path: path.to_owned() });
    }
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    let open = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if !ours || open {
        return Err(SpoolError::Foreign { path: path.to_owned() });
    }
    Ok(())
}
