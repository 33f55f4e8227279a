//! Where a drill restores to: a folder of its own that is removed when dropped, and that the next drill removes when the
//! process of this one was killed. Who lives holds a lock on its folder (flock), which no kill leaves behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::repo::host;

/// The beginning of the folders' names.
const PREFIX: &str = ".opsctl-drill-";
/// What points to a folder in another parent: a file in the home parent that holds its path, locked as the folder is.
const POINTER: &str = ".opsctl-drill-elsewhere-";
/// Threads of a restore that was cut short may write a last file while it is removed.
const ATTEMPTS: usize = 50;

/// A folder for one drill, only for us (0700).
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    pointer: Option<Pointer>,
    lock: File,
}

impl Scratch {
    /// Makes one below `parent`, after removing what killed drills left there and wherever `home` points to. `home` is
    /// the place where drills are made unless told otherwise: what is made elsewhere is noted there first.
    ///
    /// Errors: [`Error::Target`] and [`Error::TargetFull`].
    pub fn make(home: &Path, parent: &Path) -> Result<Self, Error> {
        make(home, parent).map_err(|source| failed("make a scratch folder in", parent, source))
    }

    /// Removes what killed drills left in `home` and wherever it points to. Returns how many.
    pub fn sweep(home: &Path) -> Result<usize, Error> {
        sweep_all(home).map_err(|source| failed("sweep", home, source))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps what is in it under a name that no drill removes.
    pub fn keep(mut self, name: &str) -> Result<PathBuf, Error> {
        let kept = self
            .folder
            .with_file_name(format!("{name}-{:08x}", rand::random::<u32>()));
        fs::rename(&self.folder, &kept).map_err(|source| failed("keep", &self.folder, source))?;
        if let Some(pointer) = self.pointer.take() {
            let _ = fs::remove_file(pointer.file);
        }
        // Nothing is left to be removed when this is dropped.
        self.folder = PathBuf::new();
        Ok(kept)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let kept = self.folder.as_os_str().is_empty();
        if !kept
            && (0..ATTEMPTS).any(|_| remove_tree(&self.folder).is_ok())
            && let Some(pointer) = &self.pointer
        {
            let _ = fs::remove_file(&pointer.file);
        }
        // Explicitly: a child between fork and exec may still share the descriptors.
        let _ = self.lock.unlock();
        if let Some(pointer) = &self.pointer {
            let _ = pointer.lock.unlock();
        }
    }
}

/// How many bytes can be written below `folder`, or below the nearest folder above it that exists.
pub fn free_bytes(folder: &Path) -> Result<u64, Error> {
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there).map_err(|error| failed("ask for the free space of", there, error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::TargetFull { path },
        _ => Error::Target { action, path, source },
    }
}

fn make(home: &Path, parent: &Path) -> io::Result<Scratch> {
    for folder in [home, parent] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    sweep_all(home)?;
    if parent != home {
        sweep(parent)?;
    }
    let parent = fs::canonicalize(parent)?;
    let elsewhere = parent != fs::canonicalize(home)?;
    loop {
        let random = rand::random::<u64>();
        let folder = parent.join(format!("{PREFIX}{random:016x}"));
        let pointer = if elsewhere {
            // Somebody who sweeps may take it away before it is locked: then another one is made.
            match Pointer::make(home.join(format!("{POINTER}{random:016x}")), &folder)? {
                Some(pointer) => Some(pointer),
                None => continue,
            }
        } else {
            None
        };
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => {
                if let Some(pointer) = pointer {
                    let _ = fs::remove_file(pointer.file);
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        let lock = File::open(&folder);
        // The same here.
        match lock {
            Ok(lock) if lock.try_lock().is_ok() && same(&lock, &folder) => {
                return Ok(Scratch { folder, pointer, lock });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {
                if let Some(pointer) = pointer {
                    let _ = fs::remove_file(pointer.file);
                }
            }
        }
    }
}

/// A note of where a folder is, held by a lock as long as its drill lives.
#[derive(Debug)]
struct Pointer {
    file: PathBuf,
    lock: File,
}

impl Pointer {
    /// Written whole under another name first: half a path would point to a folder that is not meant. `None` when it was
    /// swept away before it was locked.
    fn make(file: PathBuf, folder: &Path) -> io::Result<Option<Self>> {
        use std::io::Write;
        use std::os::unix::ffi::OsStrExt;
        let half = file.with_extension(HALF);
        let mut lock = File::create(&half)?;
        if lock.try_lock().is_err() || !same(&lock, &half) {
            return Ok(None);
        }
        lock.write_all(folder.as_os_str().as_bytes())?;
        fs::rename(half, &file)?;
        Ok(Some(Self { file, lock }))
    }
}

/// The ending of a note that is being written.
const HALF: &str = "half";

fn same(open: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (open.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

fn sweep_all(home: &Path) -> io::Result<usize> {
    use std::os::unix::ffi::OsStringExt;
    let mut removed = sweep(home)?;
    for entry in entries(home)? {
        let name = entry.file_name();
        let Some(random) = name.to_str().and_then(|name| name.strip_prefix(POINTER)) else {
            continue;
        };
        let lock = match File::open(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lock => lock?,
        };
        if lock.try_lock().is_err() || !same(&lock, &entry.path()) {
            continue;
        }
        let folder = PathBuf::from(std::ffi::OsString::from_vec(fs::read(entry.path())?));
        // It points to nothing but a folder with the same random name; while it is written, to nothing yet.
        let meant = folder.is_absolute()
            && folder.file_name().and_then(|name| name.to_str()) == Some(&format!("{PREFIX}{random}"));
        let gone = match meant.then(|| remove_dead(&folder)) {
            Some(Ok(Swept::Removed)) => {
                removed += 1;
                true
            }
            Some(Ok(Swept::Absent)) | None => true,
            // A disk that is not mounted now may be the next time.
            Some(Ok(Swept::Alive) | Err(_)) => false,
        };
        if gone {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(removed)
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn sweep(parent: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in entries(parent)? {
        let name = entry.file_name();
        if name.to_str().is_some_and(is_ours) && remove_dead(&entry.path())? == Swept::Removed {
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_ours(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX);
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    Removed,
    Alive,
    Absent,
}

/// Removes a folder whose drill is dead. Only a real one of this user's.
fn remove_dead(folder: &Path) -> io::Result<Swept> {
    let metadata = match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Swept::Absent),
        metadata => metadata?,
    };
    if !metadata.is_dir() || metadata.uid() != host::user().0 {
        return Ok(Swept::Alive);
    }
    let lock = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Swept::Absent),
        lock => lock?,
    };
    if lock.try_lock().is_err() || !same(&lock, folder) {
        return Ok(Swept::Alive);
    }
    remove_tree(folder)?;
    Ok(Swept::Removed)
}

/// Removes a folder with everything in it, also what came back without the right to write or to enter.
fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        removed => return removed,
    }
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // The type of a link is a link: none is followed.
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(folder)
            .unwrap()
            .iter()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// What a kill leaves: the lock goes with the process, the folder stays.
    fn killed(scratch: Scratch) {
        scratch.lock.unlock().unwrap();
        if let Some(pointer) = &scratch.pointer {
            pointer.lock.unlock().unwrap();
        }
        std::mem::forget(scratch);
    }

    #[test]
    fn a_folder_goes_with_its_drill_and_another_ones_stays() {
        let home = tempfile::tempdir().unwrap();
        let one = Scratch::make(home.path(), home.path()).unwrap();
        assert_eq!(one.folder().metadata().unwrap().mode() & 0o777, 0o700);
        fs::create_dir(one.folder().join("deep")).unwrap();
        fs::write(one.folder().join("deep/file"), "x").unwrap();
        fs::set_permissions(one.folder().join("deep"), fs::Permissions::from_mode(0o500)).unwrap();
        let other = Scratch::make(home.path(), home.path()).unwrap();
        assert!(one.folder().join("deep/file").exists(), "swept while it is used");
        drop(one);
        assert_eq!(names(home.path()).len(), 1);
        let kept = other.keep("kept").unwrap();
        assert_eq!(Scratch::sweep(home.path()).unwrap(), 0);
        assert!(kept.exists());
    }

    #[test]
    fn what_a_kill_left_is_swept_wherever_it_is() {
        let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        killed(Scratch::make(home.path(), home.path()).unwrap());
        let alive = Scratch::make(home.path(), elsewhere.path()).unwrap();
        let dead = Scratch::make(home.path(), elsewhere.path()).unwrap();
        fs::write(dead.folder().join("data"), "x").unwrap();
        killed(dead);
        assert_eq!(names(elsewhere.path()).len(), 2);
        assert_eq!(
            Scratch::sweep(home.path()).unwrap(),
            1,
            "the one elsewhere; the first went when another was made"
        );
        assert_eq!(names(elsewhere.path()).len(), 1);
        assert!(alive.folder().exists());
        drop(alive);
        assert_eq!(names(elsewhere.path()), Vec::<String>::new());
        assert_eq!(names(home.path()), Vec::<String>::new());
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let precious = tempfile::tempdir().unwrap();
        fs::write(precious.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(precious.path(), home.path().join(format!("{PREFIX}0123456789abcdef"))).unwrap();
        fs::create_dir(home.path().join(".opsctl-drill-notes")).unwrap();
        let pointer = home.path().join(format!("{POINTER}00000000000000aa"));
        fs::write(&pointer, precious.path().as_os_str().as_encoded_bytes()).unwrap();
        fs::write(pointer.with_extension(HALF), "/half a pa").unwrap();
        assert_eq!(Scratch::sweep(home.path()).unwrap(), 0);
        assert!(precious.path().join("file").exists());
        assert!(home.path().join(".opsctl-drill-notes").exists());
        assert!(!pointer.exists(), "it points to nothing that a drill makes");
        assert!(!pointer.with_extension(HALF).exists(), "nobody finishes it");
    }
}
