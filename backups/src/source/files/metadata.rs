//! What the file system says of an item, as a node.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::repo::{Node, NodeKind, host};

/// Names of users and groups, each looked up once.
#[derive(Default)]
pub(super) struct Accounts {
    users: Mutex<HashMap<u32, String>>,
    groups: Mutex<HashMap<u32, String>>,
}

impl Accounts {
    fn name(known: &Mutex<HashMap<u32, String>>, number: u32, look_up: fn(u32) -> Option<String>) -> String {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(number)
            .or_insert_with(|| look_up(number).unwrap_or_default())
            .clone()
    }

    fn user(&self, uid: u32) -> String {
        Self::name(&self.users, uid, host::user_name)
    }

    fn group(&self, gid: u32) -> String {
        Self::name(&self.groups, gid, host::group_name)
    }
}

/// A node without content.
pub(super) fn node(name: &OsStr, path: &Path, metadata: &Metadata, accounts: &Accounts) -> io::Result<Node> {
    let kind = kind(metadata);
    let mut node = Node::new(name, kind, metadata.mode() & 0o7777);
    node.mtime = time(metadata.mtime(), metadata.mtime_nsec());
    // Reading a file for the backup changes when it was read, which must not make every directory a new one.
    node.atime = node.mtime;
    node.ctime = time(metadata.ctime(), metadata.ctime_nsec());
    (node.uid, node.gid) = (metadata.uid(), metadata.gid());
    (node.user, node.group) = (accounts.user(node.uid), accounts.group(node.gid));
    (node.inode, node.device_id) = (metadata.ino(), metadata.dev());
    if kind != NodeKind::Dir {
        node.links = metadata.nlink();
    }
    match kind {
        NodeKind::File => node.size = metadata.len(),
        NodeKind::Symlink => node.set_link_target(std::fs::read_link(path)?.as_os_str()),
        NodeKind::Dev | NodeKind::Chardev => node.device = metadata.rdev(),
        _ => {}
    }
    Ok(node)
}

fn kind(metadata: &Metadata) -> NodeKind {
    let kind = metadata.file_type();
    if kind.is_file() {
        NodeKind::File
    } else if kind.is_dir() {
        NodeKind::Dir
    } else if kind.is_symlink() {
        NodeKind::Symlink
    } else if kind.is_fifo() {
        NodeKind::Fifo
    } else if kind.is_socket() {
        NodeKind::Socket
    } else if kind.is_char_device() {
        NodeKind::Chardev
    } else {
        NodeKind::Dev
    }
}

/// A file's time. Go writes years from 0 to 9999 only; others become the epoch.
pub(super) fn time(seconds: i64, nanoseconds: i64) -> Timestamp {
    const YEAR_0: i64 = -62_167_219_200;
    let time = i32::try_from(nanoseconds)
        .ok()
        .and_then(|nanoseconds| Timestamp::new(seconds, nanoseconds).ok());
    time.filter(|time| time.as_second() >= YEAR_0)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}
