//! Walks over directories on a thread of its own, in the order of names, and says what it meets. It reads no file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::metadata::{self, Accounts};
use crate::repo::{Node, NodeKind};
use crate::source::{Excludes, Skipped, SourceError};

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
pub(super) fn start(roots: Vec<PathBuf>, excludes: Excludes, accounts: Arc<Accounts>) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let walk = Walk {
            excludes,
            accounts,
            events,
        };
        let _ = roots.iter().try_for_each(|root| walk.root(root));
    });
    receiver
}

struct Walk {
    excludes: Excludes,
    accounts: Arc<Accounts>,
    events: mpsc::Sender<Event>,
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
        let node = root
            .symlink_metadata()
            .and_then(|metadata| metadata::node(name, root, &metadata, &self.accounts));
        match node {
            Err(error) => self.say(failed(error)),
            Ok(node) if node.kind == NodeKind::Dir => match names(root) {
                Err(error) => self.say(failed(error)),
                Ok(names) => self.directory(root, Path::new(""), node, names),
            },
            Ok(node) => self.item(root, node),
        }
    }

    /// `below` is the path relative to the root, which is what patterns fit.
    fn directory(&self, path: &Path, below: &Path, node: Node, holds: Vec<OsString>) -> Result<(), Unheard> {
        self.say(Event::Enter(node))?;
        for name in holds {
            let (path, below) = (path.join(&name), below.join(&name));
            let met = path.symlink_metadata().and_then(|metadata| {
                if self.excludes.matches(&below, metadata.is_dir()) {
                    return Ok(None);
                }
                let node = metadata::node(&name, &path, &metadata, &self.accounts)?;
                let held = if metadata.is_dir() { names(&path)? } else { Vec::new() };
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

    fn item(&self, path: &Path, node: Node) -> Result<(), Unheard> {
        self.say(match node.kind {
            NodeKind::File => Event::File {
                path: path.to_owned(),
                node,
            },
            _ => Event::Other(node),
        })
    }
}

/// What a directory holds, in the order of names.
fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}
