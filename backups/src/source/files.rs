//! Files and directories, each root under its own name, with modes, times, links and special files.
//!
//! A walk runs ahead on a thread; several files are saved at once, small ones in batches; their nodes are put together in
//! the order of the walk. A file that looks as it did in the parent snapshot (size, times, inode) is not read again.

mod content;
mod metadata;
mod options;
mod sparse;
mod walk;

pub use options::{FilesOptions, Marker};

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::{Excludes, Skipped, Source, SourceError, Verification, Written};
use crate::Error;
use crate::repo::{Id, Node, NodeKind, Tree, Writer};
use content::{Batch, ToRead};
use metadata::Accounts;
use walk::Event;

/// So many files, or batches of small ones, are in hand at once.
const BATCHES_AT_ONCE: usize = 8;
/// So many items of the walk are looked at together.
const MET_AT_ONCE: usize = 128;

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
        let (mut met, mut waiting) = (Vec::new(), VecDeque::new());
        let mut in_hand = FuturesOrdered::new();
        let mut walking = true;
        loop {
            while in_hand.len() < BATCHES_AT_ONCE
                && let Some(batch) = Batch::next(&mut waiting)
            {
                in_hand.push_back(batch.save(into));
            }
            tokio::select! {
                count = events.recv_many(&mut met, MET_AT_ONCE), if walking && waiting.is_empty() => {
                    walking = count > 0;
                    for event in met.drain(..) {
                        let (event, parent) = parents.accompany(event).await;
                        waiting.push_back(task(into, event, parent));
                    }
                }
                Some(saved) = in_hand.next() => {
                    for saved in saved? {
                        assembly.take(saved).await?;
                    }
                }
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

/// What is done with an event whose node is known in the parent.
enum Task {
    /// Nothing is left to be done.
    Done(Saved),
    /// A file is read.
    Read(ToRead),
}

/// Decides whether a file is read; everything else passes through.
fn task(into: &Writer<'_>, event: Event, parent: Option<Node>) -> Task {
    Task::Done(match event {
        Event::Enter(node) => {
            let is_new = parent.is_none();
            Saved::Enter {
                node,
                parent: parent.and_then(|node| node.subtree),
                is_new,
            }
        }
        Event::Leave => Saved::Leave,
        Event::Other(node) => Saved::Node(node),
        Event::Skipped(skipped) => Saved::Skipped(skipped),
        Event::RootFailed(error) => Saved::Failed(error),
        Event::File { path, mut node } => {
            into.progress().file(&path);
            let content = parent.as_ref().and_then(|parent| unchanged(&node, parent));
            let Some(content) = content.filter(|content| into.holds(content)) else {
                let is_new = parent.is_none();
                return Task::Read(ToRead { path, node, is_new });
            };
            node.content = Some(content.to_vec());
            into.progress().bytes(node.size);
            into.progress().file_done();
            into.count(|summary| {
                summary.files_unmodified += 1;
                summary.total_files_processed += 1;
                summary.total_bytes_processed += node.size;
            });
            Saved::Node(node)
        }
    })
}

/// The parent's content, if the file looks the same.
fn unchanged<'a>(node: &Node, parent: &'a Node) -> Option<&'a [Id]> {
    let same = parent.kind == NodeKind::File
        && (node.size, node.inode) == (parent.size, parent.inode)
        && (node.mtime, node.ctime) == (parent.mtime, parent.ctime);
    if same { parent.content.as_deref() } else { None }
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
