//! Files without a name: written where PostgreSQL wants them before it asks, and handed over by their descriptor. So a
//! segment is copied once, and not through a socket while PostgreSQL waits; and whatever ends this process, nothing is left
//! behind. Where a file system has no such files (`O_TMPFILE`), the bytes are sent.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::threads::blocking;

/// Where they are made, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Unnamed {
    folder: Option<PathBuf>,
    owner: Option<(u32, u32)>,
}

impl Unnamed {
    /// In this folder, if there is one; for `owner` (a user and a group), if that is not who we are.
    pub(super) fn new(folder: Option<PathBuf>, owner: Option<(u32, u32)>) -> Self {
        Self { folder, owner }
    }

    /// A file of this content; none where there cannot be one: the bytes do as well, and take longer.
    pub(super) async fn write(&self, content: Bytes) -> Option<File> {
        let (folder, owner) = (self.folder.clone()?, self.owner);
        let written = blocking(move || write(&folder, owner, &content)).await.ok()?;
        written
            .inspect_err(|error| tracing::debug!(%error, "a segment of the log is not written ahead"))
            .ok()
    }
}

fn write(folder: &Path, owner: Option<(u32, u32)>, content: &[u8]) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
    if let Some((user, group)) = owner {
        rustix::fs::fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    file.write_all(content)?;
    Ok(file)
}

/// Sends the head of an answer, and the file with it.
pub(super) async fn send(stream: &UnixStream, head: &[u8], file: &File) -> io::Result<()> {
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        if !with.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(rustix::net::sendmsg(
            stream,
            &[IoSlice::new(head)],
            &mut with,
            SendFlags::NOSIGNAL,
        )?)
    });
    // The buffer of a socket that nothing was written to takes a few bytes whole.
    if sent.await? == head.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives some of the head of an answer, and the file if one comes with it.
pub(super) fn receive(stream: &Blocking, head: &mut [u8]) -> io::Result<(usize, Option<File>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut pieces = [IoSliceMut::new(head)];
        rustix::net::recvmsg(stream, &mut pieces, &mut with, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut files = with.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes, files.next().map(File::from)))
}

/// Gives a file its name, which must be free.
pub(super) fn name(file: &File, path: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        CWD,
        unnamed.as_str(),
        CWD,
        path,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}
