//! Walks over directories on a thread of its own, in the order of names, and says what it meets. It reads no file.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::FilesOptions;
use super::metadata::{self, Accounts};
use crate::attributes::{self, Carrier};
use crate::repo::{Node, NodeKind};
use crate::source::{Skipped, SourceError};

/// The walk is this far ahead at most.
const AHEAD: usize = 256;

/// What a walk meets. Every `Enter` has its `Leave`.
pub(super) enum Event {
    Enter(Node),
    Leave,
    File {
        path: PathBuf,
        node: Node,
    },
    /// A link, a device, a pipe, a socket.
    Other(Node),
    Skipped(Skipped),
    /// One of the roots cannot be read: the whole source failed.
    RootFailed(SourceError),
}

/// Starts a walk. It ends when everything was met or nobody listens any more.
pub(super) fn start(roots: Vec<PathBuf>, options: FilesOptions, accounts: Arc<Accounts>) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let walk = Walk {
            options,
            accounts,
            events,
        };
        let _ = roots.iter().try_for_each(|root| walk.root(root));
    });
    receiver
}

struct Walk {
    options: FilesOptions,
    accounts: Arc<Accounts>,
    events: mpsc::Sender<Event>,
}

/// Where an item is.
struct Below<'a> {
    /// Relative to the root, which is what patterns fit.
    path: &'a Path,
    /// The root's file system.
    device: u64,
}

/// Nobody listens any more.
struct Unheard;

impl Walk {
    fn say(&self, event: Event) -> Result<(), Unheard> {
        self.events.blocking_send(event).map_err(|_| Unheard)
    }

    fn root(&self, root: &Path) -> Result<(), Unheard> {
        let failed = |source| {
            Event::RootFailed(SourceError::Read {
                path: root.to_owned(),
                source,
            })
        };
        let Some(name) = root.file_name() else {
            return self.say(failed(io::Error::other("the path has no last name")));
        };
        let met = root
            .symlink_metadata()
            .and_then(|metadata| Ok((metadata::node(name, root, &metadata, &self.accounts)?, metadata.dev())));
        match met {
            Err(error) => self.say(failed(error)),
            Ok((node, device)) if node.kind == NodeKind::Dir => match self.names(root) {
                Err(error) => self.say(failed(error)),
                Ok(names) => self.directory(
                    root,
                    &Below {
                        path: Path::new(""),
                        device,
                    },
                    node,
                    names,
                ),
            },
            Ok((node, _)) => self.item(root, node),
        }
    }

    fn directory(&self, path: &Path, below: &Below<'_>, mut node: Node, holds: Vec<OsString>) -> Result<(), Unheard> {
        self.attributes(path, &mut node)?;
        self.say(Event::Enter(node))?;
        for name in holds {
            let (path, below_root) = (path.join(&name), below.path.join(&name));
            let below = Below {
                path: &below_root,
                device: below.device,
            };
            let met = path.symlink_metadata().and_then(|metadata| {
                if self.leaves_out(&below, &metadata) {
                    return Ok(None);
                }
                let node = metadata::node(&name, &path, &metadata, &self.accounts)?;
                // Where something is mounted, the directory is there for it to be mounted on again.
                let is_elsewhere = self.options.one_file_system && metadata.dev() != below.device;
                let held = if metadata.is_dir() && !is_elsewhere {
                    self.names(&path)?
                } else {
                    Vec::new()
                };
                Ok(Some((node, held)))
            });
            match met {
                Ok(None) => {}
                Ok(Some((node, held))) if node.kind == NodeKind::Dir => self.directory(&path, &below, node, held)?,
                Ok(Some((node, _))) => self.item(&path, node)?,
                Err(error) => self.say(Event::Skipped(Skipped {
                    path,
                    reason: super::reason(&error),
                }))?,
            }
        }
        self.say(Event::Leave)
    }

    fn leaves_out(&self, below: &Below<'_>, metadata: &Metadata) -> bool {
        let options = &self.options;
        let is_directory = metadata.is_dir();
        let is_too_large = || {
            let limit = options.exclude_larger_than;
            metadata.is_file() && limit.is_some_and(|limit| metadata.len() > limit)
        };
        options.excludes.matches(below.path, is_directory)
            || is_too_large()
            || (options.one_file_system && !is_directory && metadata.dev() != below.device)
    }

    /// What a directory holds, in the order of names.
    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        let markers = self.options.exclude_if_present.iter();
        let marker = markers
            .filter(|marker| names.iter().any(|name| marker.is_called(name)))
            .find(|marker| marker.counts_in(path));
        if let Some(marker) = marker {
            names.retain(|name| marker.is_called(name));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Adds the extended attributes. The item is saved also without those that cannot be read.
    fn attributes(&self, path: &Path, node: &mut Node) -> Result<(), Unheard> {
        let (found, problems) = attributes::read(Carrier::Path(path), self.options.attributes);
        node.extended_attributes = found;
        problems.into_iter().try_for_each(|reason| {
            let path = path.to_owned();
            self.say(Event::Skipped(Skipped { path, reason }))
        })
    }

    fn item(&self, path: &Path, mut node: Node) -> Result<(), Unheard> {
        self.attributes(path, &mut node)?;
        self.say(match node.kind {
            NodeKind::File => Event::File {
                path: path.to_owned(),
                node,
            },
            _ => Event::Other(node),
        })
    }
}
