//! Reads files and stores their content: large ones alone, in pieces, and small ones together, since handing one from
//! thread to thread costs more than storing it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::OFlags;

use super::metadata;
use super::sparse::{self, Part, PartReader};
use super::{Saved, Task, reason};
use crate::Error;
use crate::repo::{Content, Gathered, Node, ReadFailure, Writer};
use crate::source::Skipped;
use crate::threads::blocking;

/// A batch is closed once its files have so many bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// A file whose content is read.
pub(super) struct ToRead {
    pub(super) path: PathBuf,
    pub(super) node: Node,
    /// The parent has none of this name.
    pub(super) is_new: bool,
}

impl ToRead {
    fn is_small(&self) -> bool {
        self.node.size <= Gathered::LARGEST
    }

    fn skipped(self, error: &io::Error) -> Saved {
        Saved::Skipped(Skipped {
            path: self.path,
            reason: reason(error),
        })
    }

    /// The file with its content, and how it looks after that was read. The node keeps the times from before, so that the
    /// next backup reads a changed file again.
    fn saved(self, into: &Writer<'_>, content: Content, after: Option<Timestamp>) -> Saved {
        let Self { path, mut node, is_new } = self;
        let changed = content.size != node.size || after.is_some_and(|after| after != node.mtime);
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
        if changed {
            Saved::Changed(node, path)
        } else {
            Saved::Node(node)
        }
    }
}

/// Consecutive items that are saved together: one file, or many small ones with whatever lies between them.
pub(super) struct Batch(Vec<Task>);

impl Batch {
    /// The next one of what waits.
    pub(super) fn next(waiting: &mut VecDeque<Task>) -> Option<Self> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(task) = waiting.front() {
            if let Task::Read(file) = task {
                if !file.is_small() && !batch.is_empty() {
                    break;
                }
                bytes += file.node.size;
            }
            batch.extend(waiting.pop_front());
            if bytes > BATCH_BYTES {
                break;
            }
        }
        (!batch.is_empty()).then_some(Self(batch))
    }

    /// Stores the content of its files.
    pub(super) async fn save(self, into: &Writer<'_>) -> Result<Vec<Saved>, Error> {
        let is_small = |task: &Task| matches!(task, Task::Read(file) if file.is_small());
        let mut read = if self.0.iter().any(is_small) {
            read_small(into, &self.0).await?
        } else {
            VecDeque::new()
        };
        let mut saved = Vec::with_capacity(self.0.len());
        for task in self.0 {
            saved.push(match task {
                Task::Done(saved) => saved,
                Task::Read(file) if file.is_small() => match read.pop_front() {
                    Some(Small::Stored(content, after)) => {
                        into.progress().bytes(content.size);
                        file.saved(into, content, after)
                    }
                    Some(Small::Failed(error)) => file.skipped(&error),
                    // It has grown since the walk met it.
                    Some(Small::Large) | None => save_file(into, file).await?,
                },
                Task::Read(file) => save_file(into, file).await?,
            });
        }
        Ok(saved)
    }
}

/// What became of a small file.
enum Small<T = Content> {
    /// Its content, and when it was changed last.
    Stored(T, Option<Timestamp>),
    Failed(io::Error),
    Large,
}

/// Reads and stores the small files among these, in their order.
async fn read_small(into: &Writer<'_>, tasks: &[Task]) -> Result<VecDeque<Small>, Error> {
    let files = tasks.iter().filter_map(|task| match task {
        Task::Read(file) if file.is_small() => Some(file),
        _ => None,
    });
    let paths: Vec<PathBuf> = files.map(|file| file.path.clone()).collect();
    let cancel = into.cancellation().clone();
    let reading = blocking(move || {
        let mut gathered = Gathered::default();
        let read = paths.iter().map_while(|path| {
            if cancel.is_cancelled() {
                return None;
            }
            let read = open(path).and_then(|file| Ok((gathered.read(&file)?, looks(&file))));
            Some(match read {
                Ok((true, after)) => Small::Stored((), after),
                Ok((false, _)) => Small::Large,
                Err(error) => Small::Failed(error),
            })
        });
        let read: Vec<Small<()>> = read.collect();
        (gathered, read)
    });
    let (gathered, read) = reading.await?;
    let mut contents = into.save_gathered(gathered).await?.into_iter();
    let stored = read.into_iter().map(|small| match small {
        Small::Stored((), after) => contents
            .next()
            .map_or(Small::Large, |content| Small::Stored(content, after)),
        Small::Failed(error) => Small::Failed(error),
        Small::Large => Small::Large,
    });
    Ok(stored.collect())
}

/// When a file was changed last, by now.
fn looks(file: &File) -> Option<Timestamp> {
    let after = file.metadata().ok()?;
    Some(metadata::time(after.mtime(), after.mtime_nsec()))
}

/// Stores one file of any size.
async fn save_file(into: &Writer<'_>, file: ToRead) -> Result<Saved, Error> {
    let to_open = file.path.clone();
    let opened = blocking(move || open(&to_open).map(|file| (sparse::parts(&file), file)));
    let (parts, open) = match opened.await? {
        Ok((parts, open)) => (parts, Arc::new(open)),
        Err(error) => return Ok(file.skipped(&error)),
    };
    match save_parts(into, &open, parts).await {
        Ok(content) => Ok(file.saved(into, content, looks(&open))),
        Err(ReadFailure::Reader(error)) => Ok(file.skipped(&error)),
        Err(ReadFailure::Engine(error)) => Err(error),
    }
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
