//! What snapshots lead to. Each tree is read once, however many refer to it; beside that a snapshot is walked through as a
//! restore would lay it out, as far as that comes to an end.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::Problem;
use super::structure::{Catalogue, Held};
use crate::error::{Damage, Error, Object};
use crate::progress::Progress;
use crate::repo::{BlobKind, Id, NodeKind, Tree};
use crate::snapshots::{Extent, MAX_DEPTH, Room};

/// No path is shown with more bytes than a system takes.
const SHOWN: usize = 4096;

/// The trees that were read; each is read once.
pub(super) struct Trees<'a> {
    catalogue: &'a Catalogue,
    seen: HashMap<Id, Seen>,
}

/// What one tree is found to be, without what lies under it.
#[derive(Default)]
struct Seen {
    subtrees: Vec<(OsString, Id)>,
    problems: Vec<Found>,
    extent: Extent,
}

/// A problem of a tree, and the name in it that the problem is reached by; empty for the tree itself.
struct Found {
    problem: (Object, Problem),
    name: OsString,
}

impl Found {
    fn of_tree(id: Id, damage: Damage) -> Self {
        Self {
            problem: (Object::tree(id), Problem::Damaged(damage)),
            name: OsString::new(),
        }
    }
}

/// A tree on the way from the root to where the walk is.
struct Step {
    tree: Id,
    /// How many of its subtrees were gone into.
    gone_into: usize,
    /// How long its path is.
    path: usize,
}

impl Trees<'_> {
    pub(super) fn new(catalogue: &Catalogue) -> Trees<'_> {
        Trees {
            catalogue,
            seen: HashMap::new(),
        }
    }

    /// How many trees were read.
    pub(super) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Every problem at or under a tree, with the first path that leads to it. A tree that stands in many places is gone
    /// into in each, as a restore does it, until there are more of them than a restore takes; from then on, and where a
    /// restore goes no deeper, only once.
    pub(super) async fn problems(
        &mut self,
        root: Id,
        progress: &dyn Progress,
    ) -> Result<HashMap<(Object, Problem), PathBuf>, Error> {
        let (mut visited, mut found) = (HashSet::new(), HashMap::new());
        let mut room = Some(Room::default());
        let mut way: Vec<Step> = Vec::new();
        let mut next = Some((root, 0));
        loop {
            if let Some((id, path)) = next.take() {
                let is_first = visited.insert(id);
                if !self.seen.contains_key(&id) {
                    let seen = self.look_at(id).await?;
                    progress.file_done();
                    self.seen.insert(id, seen);
                }
                let seen = self.seen.get(&id).ok_or(Error::Internal("it was just put in"))?;
                if is_first {
                    for Found { problem, name } in &seen.problems {
                        let path = || self.path(&way, name);
                        found.entry(*problem).or_insert_with(path);
                    }
                }
                if way.len() == MAX_DEPTH {
                    let problem = (Object::tree(id), Problem::Damaged(Damage::TooDeep));
                    found.entry(problem).or_insert_with(|| self.path(&way, OsStr::new("")));
                }
                let mut is_laid_out = false;
                if let Some(holding) = room.as_mut().filter(|_| way.len() < MAX_DEPTH) {
                    is_laid_out = holding.holds(&id, seen.extent, path);
                    if !is_laid_out {
                        let problem = (Object::tree(root), Problem::Damaged(Damage::Endless));
                        found.entry(problem).or_default();
                        room = None;
                    }
                }
                if is_first || is_laid_out {
                    way.push(Step {
                        tree: id,
                        gone_into: 0,
                        path,
                    });
                }
            } else if let Some(step) = way.last_mut() {
                let subtrees = self.seen.get(&step.tree).map(|seen| &seen.subtrees);
                match subtrees.and_then(|subtrees| subtrees.get(step.gone_into)) {
                    Some((name, subtree)) => {
                        step.gone_into += 1;
                        next = Some((*subtree, step.path + 1 + name.len()));
                    }
                    None => drop(way.pop()),
                }
            } else {
                return Ok(found);
            }
        }
    }

    /// The path of what the tree at the end of the way calls `name`.
    fn path(&self, way: &[Step], name: &OsStr) -> PathBuf {
        let (mut names, mut room) = (vec![name], SHOWN);
        for step in way.iter().rev() {
            let subtrees = self.seen.get(&step.tree).map(|seen| &seen.subtrees);
            let at = step.gone_into.checked_sub(1);
            if let Some((name, _)) = subtrees.zip(at).and_then(|(subtrees, at)| subtrees.get(at)) {
                names.push(name);
                room = room.saturating_sub(name.len() + 1);
            }
            if room == 0 {
                names.push(OsStr::new("…"));
                break;
            }
        }
        names.into_iter().rev().filter(|name| !name.is_empty()).collect()
    }

    /// Reads a tree and judges it by itself.
    async fn look_at(&self, id: Id) -> Result<Seen, Error> {
        let mut seen = match self.catalogue.reader.tree(&id).await {
            Ok(tree) => self.judge(id, &tree),
            Err(Error::Damaged { object, damage }) => Seen {
                problems: vec![Found {
                    problem: (object, Problem::Damaged(damage)),
                    name: OsString::new(),
                }],
                ..Seen::default()
            },
            Err(error) => return Err(error),
        };
        if let Held::Marked(pack, since) = self.catalogue.held(BlobKind::Tree, &id) {
            seen.problems.push(Found {
                problem: (Object::Pack(pack), Problem::NeededAgain { since }),
                name: OsString::new(),
            });
        }
        Ok(seen)
    }

    fn judge(&self, id: Id, tree: &Tree) -> Seen {
        let (mut subtrees, mut problems) = (Vec::new(), Vec::new());
        let mut names = HashSet::new();
        for node in &tree.nodes {
            let complete = match node.kind {
                NodeKind::Dir => node.subtree.is_some(),
                NodeKind::File => node.content.is_some(),
                // It can be restored by nobody who does not know it either; restic says the same.
                NodeKind::Unknown => false,
                _ => true,
            };
            if !complete || !node.has_safe_name() || !names.insert(&node.name) {
                problems.push(Found::of_tree(id, Damage::Malformed));
            }
            // A path that is shown never leads elsewhere.
            let name = || {
                let safe = node.has_safe_name().then(|| node.name.clone());
                safe.unwrap_or_else(|| OsString::from("?"))
            };
            if node.kind == NodeKind::Dir {
                subtrees.extend(node.subtree.map(|subtree| (name(), subtree)));
            }
            for blob in node.content.iter().flatten() {
                let problem = match self.catalogue.held(BlobKind::Data, blob) {
                    Held::Stays => continue,
                    Held::Marked(pack, since) => (Object::Pack(pack), Problem::NeededAgain { since }),
                    Held::Lost => (Object::DataBlob(*blob), Problem::Damaged(Damage::Missing)),
                };
                // One pack has many blobs.
                if problems.last().is_none_or(|last: &Found| last.problem != problem) {
                    problems.push(Found { problem, name: name() });
                }
            }
        }
        Seen {
            subtrees,
            problems,
            extent: Extent::of(tree),
        }
    }
}
