//! Files and directories, each root under its own name, with modes, times, links and special files.
//!
//! A walk runs ahead on a thread; several files are saved at once; their nodes are put together in the order of the
//! walk. A file that looks as it did in the parent snapshot (size, times, inode) is not read again.

mod metadata;
mod options;
mod sparse;
mod walk;

pub use options::{FilesOptions, Marker};

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use rustix::fs::OFlags;

use super::{Excludes, Skipped, Source, SourceError, Verification, Written};
use crate::Error;
use crate::repo::{Content, Id, Node, NodeKind, ReadFailure, Tree, Writer};
use crate::threads::blocking;
use metadata::Accounts;
use sparse::{Part, PartReader};
use walk::Event;

/// So many files are in hand at once.
const FILES_AT_ONCE: usize = 8;

/// Files and directories.
pub struct FilesSource {
    roots: Vec<PathBuf>,
    options: FilesOptions,
}

impl FilesSource {
    /// These absolute paths, without what the patterns exclude. Their last names must differ.
    pub fn new(roots: Vec<PathBuf>, excludes: Excludes) -> Self {
        let options = FilesOptions {
            excludes,
            ..FilesOptions::default()
        };
        Self::with(roots, options)
    }

    /// These absolute paths, saved as the options say. Their last names must differ.
    pub fn with(roots: Vec<PathBuf>, options: FilesOptions) -> Self {
        Self { roots, options }
    }

    fn refuse_same_names(&self) -> Result<(), SourceError> {
        let mut names: Vec<_> = self.roots.iter().filter_map(|root| root.file_name()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SourceError::SameName {
                name: pair[0].to_string_lossy().into_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Source for FilesSource {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.roots.clone()
    }

    fn excludes(&self) -> Vec<String> {
        self.options.excludes.patterns().to_vec()
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        self.refuse_same_names()?;
        let accounts = Arc::new(Accounts::default());
        let mut events = walk::start(self.roots.clone(), self.options.clone(), accounts);
        let root = match into.parent() {
            Some(snapshot) => into.parent_tree(&snapshot.tree).await,
            None => None,
        };
        let mut parents = Parents { open: vec![root], into };
        let mut assembly = Assembly {
            into,
            open: vec![Level::default()],
            skipped: Vec::new(),
            changed: Vec::new(),
        };
        let mut in_hand = FuturesOrdered::new();
        let mut walking = true;
        loop {
            tokio::select! {
                event = events.recv(), if walking && in_hand.len() < FILES_AT_ONCE => match event {
                    Some(event) => {
                        let (event, parent) = parents.accompany(event).await;
                        in_hand.push_back(save(into, event, parent));
                    }
                    None => walking = false,
                },
                Some(saved) = in_hand.next() => assembly.take(saved?).await?,
                else => break,
            }
        }
        assembly.finish()
    }

    async fn verify(&self, _restored: &Path) -> Result<Verification, Error> {
        // Every blob was verified while it was written; files have no further inner truth.
        Ok(Verification { checks: Vec::new() })
    }
}

/// The directories of the parent snapshot, in step with the walk.
struct Parents<'a, 'b> {
    open: Vec<Option<Tree>>,
    into: &'a Writer<'b>,
}

impl Parents<'_, '_> {
    /// Finds the event's node in the parent.
    async fn accompany(&mut self, event: Event) -> (Event, Option<Node>) {
        let tree = self.open.last().and_then(Option::as_ref);
        let parent = match &event {
            Event::Enter(node) | Event::File { node, .. } => tree.and_then(|tree| tree.find(&node.name)).cloned(),
            _ => None,
        };
        match &event {
            Event::Enter(_) => {
                let tree = match parent.as_ref().and_then(|node| node.subtree) {
                    Some(id) => self.into.parent_tree(&id).await,
                    None => None,
                };
                self.open.push(tree);
            }
            Event::Leave => {
                self.open.pop();
            }
            _ => {}
        }
        (event, parent)
    }
}

/// An item of the walk whose content is stored.
enum Saved {
    Enter {
        node: Node,
        parent: Option<Id>,
        is_new: bool,
    },
    Leave,
    Node(Node),
    Changed(Node, PathBuf),
    Skipped(Skipped),
    Failed(SourceError),
}

/// Stores the content of a file; everything else passes through.
async fn save(into: &Writer<'_>, event: Event, parent: Option<Node>) -> Result<Saved, Error> {
    match event {
        Event::Enter(node) => {
            let is_new = parent.is_none();
            Ok(Saved::Enter {
                node,
                parent: parent.and_then(|node| node.subtree),
                is_new,
            })
        }
        Event::Leave => Ok(Saved::Leave),
        Event::Other(node) => Ok(Saved::Node(node)),
        Event::Skipped(skipped) => Ok(Saved::Skipped(skipped)),
        Event::RootFailed(error) => Ok(Saved::Failed(error)),
        Event::File { path, mut node } => {
            into.progress().file(&path);
            if let Some(content) = parent
                .as_ref()
                .and_then(|parent| unchanged(&node, parent))
                .filter(|content| into.holds(content))
            {
                node.content = Some(content.to_vec());
                into.progress().bytes(node.size);
                into.progress().file_done();
                into.count(|summary| {
                    summary.files_unmodified += 1;
                    summary.total_files_processed += 1;
                    summary.total_bytes_processed += node.size;
                });
                return Ok(Saved::Node(node));
            }
            save_file(into, path, node, parent.is_none()).await
        }
    }
}

/// The parent's content, if the file looks the same.
fn unchanged<'a>(node: &Node, parent: &'a Node) -> Option<&'a [Id]> {
    let same = parent.kind == NodeKind::File
        && (node.size, node.inode) == (parent.size, parent.inode)
        && (node.mtime, node.ctime) == (parent.mtime, parent.ctime);
    if same { parent.content.as_deref() } else { None }
}

async fn save_file(into: &Writer<'_>, path: PathBuf, mut node: Node, is_new: bool) -> Result<Saved, Error> {
    let to_open = path.clone();
    let opened = blocking(move || open(&to_open).map(|file| (sparse::parts(&file), file)));
    let (parts, file) = match opened.await? {
        Ok((parts, file)) => (parts, Arc::new(file)),
        Err(error) => {
            return Ok(Saved::Skipped(Skipped {
                path,
                reason: reason(&error),
            }));
        }
    };
    let content = match save_parts(into, &file, parts).await {
        Ok(content) => content,
        Err(ReadFailure::Reader(error)) => {
            return Ok(Saved::Skipped(Skipped {
                path,
                reason: reason(&error),
            }));
        }
        Err(ReadFailure::Engine(error)) => return Err(error),
    };
    // The node keeps the times from before the reading, so that the next backup reads a changed file again.
    let after = file.metadata();
    let changed = content.size != node.size
        || after.is_ok_and(|after| metadata::time(after.mtime(), after.mtime_nsec()) != node.mtime);
    node.size = content.size;
    into.progress().file_done();
    into.count(|summary| {
        *(if is_new {
            &mut summary.files_new
        } else {
            &mut summary.files_changed
        }) += 1;
        summary.total_files_processed += 1;
        summary.total_bytes_processed += content.size;
    });
    node.content = Some(content.blobs);
    Ok(if changed {
        Saved::Changed(node, path)
    } else {
        Saved::Node(node)
    })
}

async fn save_parts(into: &Writer<'_>, file: &Arc<File>, parts: Vec<Part>) -> Result<Content, ReadFailure> {
    let mut content = Content::default();
    for part in parts {
        match part {
            Part::Data { from, to } => {
                let file = Arc::clone(file);
                content.append(into.save(PartReader { file, from, to }).await?);
                // Cut since it was looked at: what follows would lie at the wrong place.
                if content.size < to {
                    break;
                }
            }
            Part::Zeros(times) => content.append(into.save_zeros(times).await?),
        }
    }
    Ok(content)
}

/// Opens a file that was a regular one when it was walked over. What took its place since is refused without harm:
/// a symbolic link is not followed, a pipe is not waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("is no regular file any more"))
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "vanished before it could be read".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Puts nodes together to directories.
struct Assembly<'a, 'b> {
    into: &'a Writer<'b>,
    open: Vec<Level>,
    skipped: Vec<Skipped>,
    changed: Vec<PathBuf>,
}

/// A directory that is not complete yet.
#[derive(Default)]
struct Level {
    node: Option<Node>,
    parent: Option<Id>,
    is_new: bool,
    nodes: Vec<Node>,
}

impl Assembly<'_, '_> {
    async fn take(&mut self, saved: Saved) -> Result<(), Error> {
        match saved {
            Saved::Enter { node, parent, is_new } => {
                self.open.push(Level {
                    node: Some(node),
                    parent,
                    is_new,
                    nodes: Vec::new(),
                });
            }
            Saved::Leave => {
                let level = self.open.pop().unwrap_or_default();
                let Some(mut node) = level.node else {
                    return Err(Error::Internal("a walk leaves what it entered"));
                };
                let id = self.into.save_tree(&Tree::new(level.nodes)).await?;
                node.subtree = Some(id);
                self.into
                    .count(|summary| match (level.is_new, level.parent == Some(id)) {
                        (true, _) => summary.dirs_new += 1,
                        (false, true) => summary.dirs_unmodified += 1,
                        (false, false) => summary.dirs_changed += 1,
                    });
                self.add(node);
            }
            Saved::Node(node) => self.add(node),
            Saved::Changed(node, path) => {
                self.add(node);
                self.changed.push(path);
            }
            Saved::Skipped(skipped) => self.skipped.push(skipped),
            Saved::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn add(&mut self, node: Node) {
        if let Some(level) = self.open.last_mut() {
            level.nodes.push(node);
        }
    }

    fn finish(mut self) -> Result<Written, Error> {
        match (self.open.pop(), self.open.is_empty()) {
            (Some(level), true) => Ok(Written {
                root: Tree::new(level.nodes),
                skipped: self.skipped,
                changed: self.changed,
            }),
            // The walk's thread is gone before its time.
            _ => Err(Error::Internal("the walk over the files ended too early")),
        }
    }
}
