//! The disk that everything lies on: a folder that servers can reach, whether there is room, and files that are read from
//! the disk again because the kernel was told to forget them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

/// A folder in which the servers' user gets through to what is its own.
pub(super) fn scratch() -> Result<TempDir> {
    let scratch = tempfile::Builder::new().prefix("opsctl-bench-").tempdir();
    let scratch = scratch.context("could not make a scratch folder")?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
    Ok(scratch)
}

/// Fails where there is no room for so many bytes.
pub(super) fn has_room(folder: &Path, bytes: u64) -> Result<()> {
    let disk = statvfs(folder)?;
    let free = disk.blocks_available() * disk.fragment_size();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        free >= bytes,
        "{} has {:.1} GiB free, and {:.1} are needed; take a smaller `--size`, or another disk with TMPDIR",
        folder.display(),
        gib(free),
        gib(bytes)
    );
    Ok(())
}

/// Everything written is on the disk, and nothing below `folder` in memory.
pub(super) fn forget(folder: &Path) -> Result<()> {
    nix::unistd::sync();
    each(folder, &mut |file| {
        Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    })
}

/// Everything written is on the disk, and what lies below `folder` in memory, as far as there is room.
pub(super) fn remember(folder: &Path) -> Result<()> {
    nix::unistd::sync();
    let mut buffer = vec![0; 1 << 20];
    each(folder, &mut |mut file| {
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

fn each(folder: &Path, work: &mut impl FnMut(File) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each(&entry.path(), work)?;
        } else if kind.is_file() {
            // A server that runs removes files of its log.
            match File::open(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => work(file?)?,
            }
        }
    }
    Ok(())
}

/// Copies a folder, and ends when the copy is on the disk.
pub(super) fn copy(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "cp -a \"$1\" \"$2\" && sync -f \"$2\"", "copy"]);
    command.arg(from).arg(to);
    command
}
