//! The directory that a restore writes into, and nothing outside it.
//!
//! Every path is resolved by the kernel beneath the directory's descriptor, following no symbolic link at all
//! (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), so that neither the snapshot nor somebody who changes the
//! target meanwhile can lead a write elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::items::{Metadata, SpecialItem};
use crate::Namespaces;
use crate::attributes::{self, Carrier, Changes};
use crate::repo::{Id, NodeKind, host};

/// How the names of files begin that are not complete yet. What follows is the process that writes it, a number that
/// this restore chose for itself (processes in containers have the same numbers again and again), a counter and, for
/// files whose content is worth being taken over, a key of the content.
const TEMPORARY: &str = ".opsctl-restore-";

/// The restores of this process that may still write, and whether they were told to stop.
static UNDER_WAY: Mutex<BTreeMap<u32, bool>> = Mutex::new(BTreeMap::new());
/// One of them has ended.
static ENDED: Condvar = Condvar::new();
/// One that was told to stop is waited for no longer than this.
const STOPPING: Duration = Duration::from_secs(10);

fn under_way() -> MutexGuard<'static, BTreeMap<u32, bool>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether another restore of this process writes. One that is about to stop is waited for.
fn is_under_way(restore: u32) -> bool {
    let waited = ENDED.wait_timeout_while(under_way(), STOPPING, |under_way| {
        under_way.get(&restore) == Some(&true)
    });
    let (under_way, _) = waited.unwrap_or_else(PoisonError::into_inner);
    under_way.contains_key(&restore)
}

/// What of the metadata is restored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    pub(super) setuid: bool,
    pub(super) owners: Owners,
    pub(super) attributes: Namespaces,
}

/// Whose restored items are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owners {
    /// Of whoever restores.
    Ours,
    /// Of those whose they were.
    Saved,
    /// Of these.
    Given { uid: u32, gid: u32 },
}

/// What interrupted restores left: by the directory and by the key of the content.
#[derive(Debug, Default)]
pub(super) struct Leftovers(HashMap<(PathBuf, String), Vec<PathBuf>>);

impl Leftovers {
    /// What was written of this content, in the directory that it belongs to.
    pub(super) fn take(&mut self, path: &Path, key: &str) -> Option<PathBuf> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.0.get_mut(&(folder, key.to_owned()))?.pop()
    }

    /// All that nobody took.
    pub(super) fn rest(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0).into_values().flatten().collect()
    }
}

/// The key of content that the next restore finds it by.
pub(super) fn key_of(content: &[Id]) -> String {
    let ids: Vec<u8> = content.iter().flat_map(|id| *id.as_bytes()).collect();
    let mut key = Id::of(&ids).to_string();
    key.truncate(16);
    key
}

/// Takes so many numbers, one after the other, that nothing else of this process has; returns the first.
pub(super) fn take_numbers(count: u64) -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    COUNTER.fetch_add(count, Ordering::Relaxed)
}

/// An open directory to write into.
pub(super) struct Root {
    folder: OwnedFd,
    path: PathBuf,
    /// The number of this restore.
    number: u32,
}

impl Drop for Root {
    fn drop(&mut self) {
        under_way().remove(&self.number);
        ENDED.notify_all();
    }
}

impl Root {
    /// Opens the directory; it is created with its parents (mode 0700) if need be.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let folder = rustix::fs::open(
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let number = rand::random();
        under_way().insert(number, false);
        Ok(Self {
            folder,
            path: path.to_owned(),
            number,
        })
    }

    /// No further write begins.
    pub(super) fn stopping(&self) {
        if let Some(stopping) = under_way().get_mut(&self.number) {
            *stopping = true;
        }
    }

    /// The path as people see it.
    pub(super) fn display(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.folder, path, flags, mode, resolve) {
            Err(Errno::NOSYS) => self.open_step_by_step(path, flags, mode),
            opened => Ok(opened?),
        }
    }

    /// The same on kernels without `openat2` (before 5.6): one directory after the other, each without following.
    fn open_step_by_step(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut folder = self.folder.try_clone()?;
        let mut steps = path.components().peekable();
        while let Some(step) = steps.next() {
            let name = match step {
                Component::Normal(name) => name,
                Component::CurDir => OsStr::new("."),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            if steps.peek().is_none() {
                return Ok(rustix::fs::openat(&folder, name, flags, mode)?);
            }
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = rustix::fs::openat(&folder, name, through, Mode::empty())?;
        }
        Ok(folder)
    }

    /// The directory that a path lies in, and the path's last name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok((
            self.open_beneath(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?,
            name,
        ))
    }

    /// Makes a directory, for us alone until its metadata is set. One that is there stays; what a killed restore left
    /// unfinished in it is found.
    pub(super) fn make_folder(&self, path: &Path, leftovers: &mut Leftovers) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&folder, name, Mode::RWXU) {
            Err(Errno::EXIST) => self.sweep(path, leftovers),
            made => Ok(made?),
        }
    }

    /// Finds what a killed restore left in a directory, and removes what is of no use. Fails if it is no directory.
    pub(super) fn sweep(&self, path: &Path, leftovers: &mut Leftovers) -> io::Result<()> {
        let folder = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let Some(left) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else {
                continue;
            };
            let mut words = left.split('-');
            let (pid, restore, key) = (words.next(), words.next(), words.nth(1));
            let Some(pid) = pid.and_then(|pid| pid.parse().ok()) else {
                continue;
            };
            let restore = restore.and_then(|restore| u32::from_str_radix(restore, 16).ok());
            let is_written = if pid == host::pid() {
                restore.is_some_and(|restore| restore == self.number || is_under_way(restore))
            } else {
                host::process_exists(pid)
            };
            if is_written {
                continue;
            }
            match key {
                Some(key) => {
                    let place = (path.to_owned(), key.to_owned());
                    leftovers.0.entry(place).or_default().push(path.join(name));
                }
                None => {
                    let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
                }
            }
        }
        // A restore that was cut at its end has given it its mode already. If it is not ours, others will say so.
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode);
        if !path.as_os_str().is_empty() && !mode.contains(Mode::RWXU) {
            let _ = rustix::fs::fchmod(&folder, mode | Mode::RWXU);
        }
        Ok(())
    }

    /// Where something is made until it is complete: beside its place, under a number of its own. A key is for content
    /// that is worth being taken over by the next restore.
    pub(super) fn temporary(&self, path: &Path, number: u64, key: Option<&str>) -> PathBuf {
        let (pid, restore) = (host::pid(), self.number);
        let mut name = format!("{TEMPORARY}{pid}-{restore:08x}-{number}");
        if let Some(key) = key {
            name.push('-');
            name.push_str(key);
        }
        path.with_file_name(name)
    }

    /// The same for what is put into its place at once.
    fn temporary_beside(&self, path: &Path) -> PathBuf {
        self.temporary(path, take_numbers(1), None)
    }

    /// Takes over what an interrupted restore wrote, under a new name. Only a plain file of ours with no other name.
    pub(super) fn take_over(&self, left: &Path, temporary: &Path) -> io::Result<File> {
        let file = File::from(self.open_beneath(left, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 || metadata.uid() != host::user().0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.put_in_place(left, temporary)?;
        Ok(file)
    }

    /// Opens a temporary file, made by whoever comes first.
    pub(super) fn open_temporary(&self, path: &Path) -> io::Result<File> {
        Ok(self
            .open_beneath(path, OFlags::CREATE | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?
            .into())
    }

    /// Opens what is there for reading, if it is a regular file.
    pub(super) fn open_existing(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// Puts a complete file into its place, over whatever file was there.
    pub(super) fn put_in_place(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        let temporary = temporary.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::fs::renameat(&folder, temporary, &folder, name)?)
    }

    /// Removes a temporary file, if it is there.
    pub(super) fn remove(&self, temporary: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(temporary)?;
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Gives a restored file a second name.
    pub(super) fn link(&self, existing: &Path, path: &Path) -> io::Result<()> {
        let temporary = self.temporary_beside(path);
        let ((from, old), (to, new)) = (self.parent(existing)?, self.parent(&temporary)?);
        rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())?;
        let placed = self.put_in_place(&temporary, path);
        // Renaming onto the same inode does nothing and leaves the temporary name.
        self.remove(&temporary)?;
        placed
    }

    /// Makes a symbolic link, pipe or device node, and says what it lacks.
    pub(super) fn make_special(&self, path: &Path, item: &SpecialItem, rights: Rights) -> io::Result<Vec<String>> {
        let temporary = self.temporary_beside(path);
        let (folder, name) = self.parent(&temporary)?;
        let metadata = &item.metadata;
        let kind = match item.kind {
            NodeKind::Fifo => Some(FileType::Fifo),
            NodeKind::Dev => Some(FileType::BlockDevice),
            NodeKind::Chardev => Some(FileType::CharacterDevice),
            _ => None,
        };
        match kind {
            Some(kind) => rustix::fs::mknodat(&folder, name, kind, permissions(metadata, rights, true), item.device)?,
            None => rustix::fs::symlinkat(&*item.target, &folder, name)?,
        }
        let finished = (|| {
            if let Some((user, group)) = owners(metadata, rights) {
                rustix::fs::chownat(&folder, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            let open = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
            let carrier = Carrier::Path(&open);
            let lacking = Changes::plan(carrier, metadata.attributes(), rights.attributes).apply();
            if kind.is_some() {
                let mode = permissions(metadata, rights, attributes::lacks_acl(carrier, metadata.attributes()));
                rustix::fs::chmodat(&folder, name, mode, AtFlags::empty())?;
            }
            rustix::fs::utimensat(&folder, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
            self.put_in_place(&temporary, path)?;
            Ok(lacking)
        })();
        if finished.is_err() {
            self.remove(&temporary)?;
        }
        finished
    }

    /// Gives a directory its metadata, after everything in it was written, and says what it lacks.
    pub(super) fn finish_folder(&self, path: &Path, metadata: &Metadata, rights: Rights) -> io::Result<Vec<String>> {
        set_metadata(
            &self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?,
            metadata,
            rights,
        )
    }

    /// Makes everything durable that was written to this file system.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.folder)?)
    }
}

/// Owner, attributes, permissions and times, in the order in which one does not undo the other. Says what is lacking.
pub(super) fn set_metadata(file: impl AsFd, metadata: &Metadata, rights: Rights) -> io::Result<Vec<String>> {
    if let Some((user, group)) = owners(metadata, rights) {
        rustix::fs::fchown(&file, user, group)?;
    }
    let carrier = Carrier::Open(file.as_fd());
    let changes = Changes::plan(carrier, metadata.attributes(), rights.attributes);
    let mut lacking = Vec::new();
    if !changes.are_none() {
        // The owner, too, must have the right to write.
        rustix::fs::fchmod(&file, Mode::RWXU)?;
        lacking = changes.apply();
    }
    rustix::fs::fchmod(
        &file,
        permissions(metadata, rights, attributes::lacks_acl(carrier, metadata.attributes())),
    )?;
    rustix::fs::futimens(&file, &times(metadata))?;
    Ok(lacking)
}

/// Where an item has not got its ACL, the group's bits are those of the group, not those of the ACL's mask.
fn permissions(metadata: &Metadata, rights: Rights, lacks_acl: bool) -> Mode {
    let kept = if rights.setuid { 0o7777 } else { 0o1777 };
    let mode = metadata.permissions & kept;
    let group = if lacks_acl {
        attributes::group_bits(metadata.attributes())
    } else {
        None
    };
    Mode::from_raw_mode(group.map_or(mode, |group| mode & !0o070 | group))
}

/// Who an item is given to; `None` leaves it with us.
fn owners(metadata: &Metadata, rights: Rights) -> Option<(Option<Uid>, Option<Gid>)> {
    let (uid, gid) = match rights.owners {
        Owners::Ours => return None,
        Owners::Saved => (metadata.uid, metadata.gid),
        Owners::Given { uid, gid } => (uid, gid),
    };
    Some((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

fn times(metadata: &Metadata) -> Timestamps {
    let time = |time: jiff::Timestamp| {
        // The system counts nanoseconds upwards, also before the epoch.
        let nanoseconds = time.as_nanosecond();
        let (seconds, rest) = (
            nanoseconds.div_euclid(1_000_000_000),
            nanoseconds.rem_euclid(1_000_000_000),
        );
        Timespec {
            tv_sec: seconds as i64,
            tv_nsec: rest as i64,
        }
    };
    Timestamps {
        last_access: time(metadata.atime),
        last_modification: time(metadata.mtime),
    }
}
