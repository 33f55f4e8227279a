//! What a snapshot has lost, and the snapshot without it. Directories are read each once; a file of which any blob is
//! lost goes as a whole, since half a file is a wrong file; a directory whose list is lost becomes empty.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::LostItem;
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::{BlobKind, Id, Node, NodeKind, Tree, Writer};
use crate::snapshots::{MAX_DEPTH, shown_below};

/// Where blobs are.
#[async_trait::async_trait]
pub(super) trait Supply: Send + Sync {
    /// The bytes of a directory.
    async fn tree(&self, id: &Id) -> Result<Vec<u8>, Error>;
    /// Whether a part of a file can be read.
    fn has(&self, id: &Id) -> bool;
}

/// Looks at snapshots; with a writer it also stores their directories without what is lost.
pub(super) struct Surgeon<'a> {
    supply: &'a dyn Supply,
    writer: Option<&'a Writer<'a>>,
    progress: &'a dyn Progress,
    judged: HashMap<Id, Judged>,
}

/// What became of a directory, with everything under it.
#[derive(Debug, Clone, Copy)]
enum Judged {
    Whole,
    /// Parts are lost. Its new name, which without a writer is its old one.
    Cut(Id),
    Lost,
}

/// What became of a snapshot.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing is lost.
    Whole,
    /// These are lost. The new root, if there is a writer.
    Cut(Vec<LostItem>, Id),
    /// Its root is lost, and with it everything.
    Gone(Damage),
}

/// What a directory holds: as we understand it, and as it is.
type Entry = (Node, Value);

/// A directory that is being looked at.
struct Frame {
    id: Id,
    path: PathBuf,
    /// Entries still to be looked at, the next one last.
    open: Vec<Entry>,
    /// Entries that stay.
    kept: Vec<Value>,
    raw: Map<String, Value>,
    cut: bool,
    /// The entry of the directory above that this is.
    entry: Value,
}

impl<'a> Surgeon<'a> {
    pub(super) fn new(supply: &'a dyn Supply, writer: Option<&'a Writer<'a>>, progress: &'a dyn Progress) -> Self {
        Self {
            supply,
            writer,
            progress,
            judged: HashMap::new(),
        }
    }

    /// Looks at the snapshot of this root. What several snapshots have lost is listed for each: that needs the first look
    /// of each to be its own, so that lists are kept by nobody.
    pub(super) async fn snapshot(&mut self, root: Id) -> Result<Verdict, Error> {
        self.judged.retain(|_, judged| matches!(judged, Judged::Whole));
        let mut lost = Vec::new();
        let mut stack = match self.open(root, PathBuf::new(), Value::Null).await? {
            Ok(frame) => vec![frame],
            Err(damage) => return Ok(Verdict::Gone(damage)),
        };
        loop {
            let Some(frame) = stack.last_mut() else {
                return Err(Error::Internal("the root is left last"));
            };
            let Some((node, entry)) = frame.open.pop() else {
                let Some(done) = stack.pop() else { continue };
                let (judged, entry) = self.close(done).await?;
                match stack.last_mut() {
                    Some(above) => self.put_back(above, entry, judged, None, &mut lost).await?,
                    None => {
                        return Ok(match judged {
                            Judged::Whole => Verdict::Whole,
                            Judged::Cut(id) => Verdict::Cut(lost, id),
                            Judged::Lost => Verdict::Gone(Damage::Missing),
                        });
                    }
                }
                continue;
            };
            let path = shown_below(&frame.path, &node.name);
            match (node.kind, node.subtree) {
                (NodeKind::Dir, Some(subtree)) => {
                    let known = self.judged.get(&subtree).copied();
                    let judged = match known {
                        Some(judged) => Some((judged, Damage::Missing)),
                        None if stack.len() >= MAX_DEPTH => Some((Judged::Lost, Damage::TooDeep)),
                        None => match self.open(subtree, path.clone(), entry.clone()).await? {
                            Ok(frame) => {
                                stack.push(frame);
                                None
                            }
                            Err(damage) => {
                                self.judged.insert(subtree, Judged::Lost);
                                Some((Judged::Lost, damage))
                            }
                        },
                    };
                    if let (Some((judged, damage)), Some(above)) = (judged, stack.last_mut()) {
                        self.put_back(above, entry, judged, Some((path, damage)), &mut lost)
                            .await?;
                    }
                }
                (NodeKind::Dir, None) => {
                    self.put_back(frame, entry, Judged::Lost, Some((path, Damage::Malformed)), &mut lost)
                        .await?;
                }
                (NodeKind::File, _) => match self.file(&node) {
                    None => frame.kept.push(entry),
                    Some(reason) => {
                        frame.cut = true;
                        lost.push(LostItem {
                            path,
                            directory: false,
                            reason,
                        });
                    }
                },
                _ => frame.kept.push(entry),
            }
        }
    }

    /// Why a file is lost, if it is.
    fn file(&self, node: &Node) -> Option<String> {
        let Some(content) = &node.content else {
            return Some(Damage::Malformed.to_string());
        };
        let missing = content.iter().find(|id| !self.supply.has(id))?;
        Some(Error::damaged(BlobKind::Data.object(*missing), Damage::Missing).to_string())
    }

    async fn open(&self, id: Id, path: PathBuf, entry: Value) -> Result<Result<Frame, Damage>, Error> {
        self.progress.file_done();
        let json = match self.supply.tree(&id).await {
            Ok(json) => json,
            Err(Error::Damaged { damage, .. }) => return Ok(Err(damage)),
            Err(error) => return Err(error),
        };
        Ok(parse(&json).map_or(Err(Damage::Malformed), |(raw, open)| {
            Ok(Frame {
                id,
                path,
                open,
                kept: Vec::new(),
                raw,
                cut: false,
                entry,
            })
        }))
    }

    /// All entries of a directory were looked at.
    async fn close(&mut self, mut frame: Frame) -> Result<(Judged, Value), Error> {
        let judged = match self.writer {
            _ if !frame.cut => Judged::Whole,
            None => Judged::Cut(frame.id),
            Some(writer) => {
                frame.raw.insert("nodes".to_owned(), Value::Array(frame.kept));
                let mut json = serde_json::to_vec(&frame.raw).map_err(|_| Error::Internal("JSON stays JSON"))?;
                json.push(b'\n');
                Judged::Cut(writer.save_blob(BlobKind::Tree, json).await?)
            }
        };
        self.judged.insert(frame.id, judged);
        Ok((judged, frame.entry))
    }

    /// Puts the entry of a directory back into the one above. `lost` says where, if this is the first that is known of it.
    async fn put_back(
        &self,
        above: &mut Frame,
        mut entry: Value,
        judged: Judged,
        place: Option<(PathBuf, Damage)>,
        lost: &mut Vec<LostItem>,
    ) -> Result<(), Error> {
        let subtree = match judged {
            Judged::Whole => None,
            Judged::Cut(id) => Some(id),
            Judged::Lost => match self.writer {
                Some(writer) => Some(writer.save_tree(&Tree::default()).await?),
                None => None,
            },
        };
        let reason = |damage: Damage| match judged {
            Judged::Whole => None,
            // The same directory at another place: what it lacks was listed already.
            Judged::Cut(_) => Some("without the parts that it lost where it was met first".to_owned()),
            Judged::Lost => Some(damage.to_string()),
        };
        if let Some((path, reason)) = place.and_then(|(path, damage)| Some((path, reason(damage)?))) {
            lost.push(LostItem {
                path,
                directory: true,
                reason,
            });
        }
        above.cut |= !matches!(judged, Judged::Whole);
        if let (Some(id), Some(fields)) = (subtree, entry.as_object_mut()) {
            fields.insert("subtree".to_owned(), id.to_string().into());
        }
        above.kept.push(entry);
        Ok(())
    }
}

/// A directory twice: as we understand it, and as it is, so that nothing that we do not know gets lost. Entries are in
/// reverse order.
fn parse(json: &[u8]) -> Option<(Map<String, Value>, Vec<Entry>)> {
    let tree = Tree::parse(json).ok()?;
    let mut raw: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let entries = match raw.remove("nodes")? {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    (entries.len() == tree.nodes.len()).then_some(())?;
    let open = tree.nodes.into_iter().zip(entries).rev().collect();
    Some((raw, open))
}
