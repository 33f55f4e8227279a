//! What of the files is saved.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::Namespaces;
use crate::source::Patterns;

/// How files are saved. By default everything is, with the extended attributes `user.*` and the ACLs.
#[derive(Debug, Clone, Default)]
pub struct FilesOptions {
    /// Left out, with what lies under it.
    pub excludes: Patterns,
    /// Of a directory that holds one of these files nothing is saved but that file.
    pub exclude_if_present: Vec<Marker>,
    /// Files with more bytes are left out.
    pub exclude_larger_than: Option<u64>,
    /// Where another file system is mounted, the directory is saved empty.
    pub one_file_system: bool,
    /// Which extended attributes are saved.
    pub attributes: Namespaces,
}

/// A file that marks its directory as not worth saving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    name: OsString,
    begins_with: Vec<u8>,
}

impl Marker {
    /// `NAME`, or `NAME:HEADER` for a file that must begin with these bytes.
    pub fn new(text: &str) -> Self {
        let (name, header) = text.split_once(':').unwrap_or((text, ""));
        Self {
            name: name.into(),
            begins_with: header.into(),
        }
    }

    /// What programs put into their caches (<https://bford.info/cachedir/>).
    pub fn cache() -> Self {
        Self::new("CACHEDIR.TAG:Signature: 8a477f597d28d172789f06886806bc55")
    }

    pub(super) fn is_called(&self, name: &OsStr) -> bool {
        self.name == name
    }

    /// Whether the file in this directory counts. One that cannot be read does not: rather too much is saved.
    pub(super) fn counts_in(&self, directory: &Path) -> bool {
        if self.begins_with.is_empty() {
            return true;
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = File::options()
            .read(true)
            .custom_flags(flags)
            .open(directory.join(&self.name));
        let mut begin = vec![0; self.begins_with.len()];
        opened.and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == self.begins_with
    }
}
