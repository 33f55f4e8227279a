//! The content of the files: packs are read in runs of neighbouring blobs, several at once; each blob is verified and
//! written to every place that needs it; a file whose last blob was written is put into its place.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::root::{Rights, Root, set_metadata};
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::compress::BLOB_LIMIT;
use crate::repo::layout::FileKind;
use crate::repo::pack::PackedBlob;
use crate::repo::{BlobKind, Id, Node, Reader};
use crate::store::StoreError;
use crate::threads::blocking;

/// Neighbouring blobs are read together up to this many bytes,
const RUN_LENGTH: u32 = 8 << 20;
/// with up to so many bytes between them that nobody needs.
const RUN_GAP: u32 = 128 << 10;

/// All files of a restore. Dropping it removes what is not complete.
pub(super) struct Files {
    root: Arc<Root>,
    rights: Rights,
    states: Vec<FileState>,
    stopped: AtomicBool,
}

/// One file on its way.
struct FileState {
    path: PathBuf,
    temporary: PathBuf,
    node: Node,
    length: u64,
    /// Blobs that are still to be written.
    remaining: AtomicUsize,
    begun: AtomicBool,
    /// What became of it.
    outcome: Mutex<Outcome>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Written,
    Unchanged,
    Damaged(String),
    Failed(String),
}

/// A place that needs a blob.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
}

/// A blob, and every place that needs it.
type Wanted = (PackedBlob, Vec<Place>);

/// Blobs of one pack that are read together.
struct Run {
    pack: Id,
    start: u32,
    end: u32,
    blobs: Vec<Wanted>,
}

impl Files {
    pub(super) fn new(root: Arc<Root>, rights: Rights, reader: &Reader, files: Vec<(PathBuf, Node)>) -> Arc<Self> {
        let state = |(path, node): (PathBuf, Node)| {
            let content = node.content.as_deref().unwrap_or_default();
            let length = |id| {
                reader
                    .index()
                    .find(BlobKind::Data, id)
                    .next()
                    .map_or(0, |at| at.blob.plain_length())
            };
            FileState {
                temporary: Root::temporary_beside(&path),
                length: content.iter().map(length).sum(),
                remaining: AtomicUsize::new(content.len()),
                path,
                node,
                begun: AtomicBool::new(false),
                outcome: Mutex::new(Outcome::Pending),
            }
        };
        Arc::new(Self {
            root,
            rights,
            states: files.into_iter().map(state).collect(),
            stopped: AtomicBool::new(false),
        })
    }

    /// Restores all of them. Damage is an outcome of a file; an error ends everything.
    pub(super) async fn restore(self: &Arc<Self>, reader: &Reader, progress: &dyn Progress) -> Result<(), Error> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let mut looking = stream::iter(0..self.states.len())
            .map(|file| {
                let (this, reader) = (Arc::clone(self), reader.clone());
                async move { blocking(move || this.begin(file, &reader)).await? }
            })
            .buffered(workers);
        while looking.try_next().await?.is_some() {}
        let mut running = stream::iter(self.runs(reader))
            .take_while(|_| std::future::ready(!self.stopped.load(Ordering::Relaxed)))
            .map(|run| self.run(reader, run, progress))
            .buffer_unordered((workers + 1).max(reader.repository().store().transfers()));
        let mut outcome = Ok(());
        while let Some(ended) = running.next().await {
            // Whoever writes is waited for: what it leaves is removed before the error is told.
            if outcome.is_ok() && ended.is_err() {
                self.stop();
                outcome = ended;
            }
        }
        outcome
    }

    /// Looks at a file before anything is read: it may be there already, or empty.
    fn begin(&self, file: usize, reader: &Reader) -> Result<(), Error> {
        let state = &self.states[file];
        let content = state.node.content.as_deref().unwrap_or_default();
        if let Some(missing) = content.iter().find(|id| !reader.index().contains(BlobKind::Data, id)) {
            let damaged = Error::damaged(BlobKind::Data.object(*missing), Damage::Missing);
            state.set(Outcome::Damaged(damaged.to_string()));
        } else if self.is_there(state, reader).unwrap_or(false) {
            state.set(Outcome::Unchanged);
        } else if content.is_empty() {
            self.complete(state)?;
        }
        Ok(())
    }

    /// Whether the target has the file already, byte by byte. Its metadata is set again.
    fn is_there(&self, state: &FileState, reader: &Reader) -> io::Result<bool> {
        let file = self.root.open_existing(&state.path)?;
        if file.metadata()?.len() != state.length {
            return Ok(false);
        }
        let mut offset = 0;
        let mut plain = Vec::new();
        for id in state.node.content.as_deref().unwrap_or_default() {
            let Some(location) = reader.index().find(BlobKind::Data, id).next() else {
                return Ok(false);
            };
            let length = location.blob.plain_length() as usize;
            if length > BLOB_LIMIT {
                return Ok(false);
            }
            plain.resize(length, 0);
            file.read_exact_at(&mut plain, offset)?;
            if Id::of(&plain) != *id {
                return Ok(false);
            }
            offset += plain.len() as u64;
        }
        set_metadata(&file, &state.node, self.rights)?;
        Ok(true)
    }

    /// What to read, in the order in which the files need it.
    fn runs(&self, reader: &Reader) -> Vec<Run> {
        let mut packs: Vec<(Id, HashMap<Id, Wanted>)> = Vec::new();
        let mut numbers: HashMap<Id, usize> = HashMap::new();
        for (file, state) in self.states.iter().enumerate().filter(|(_, state)| state.is_pending()) {
            let mut offset = 0;
            for id in state.node.content.as_deref().unwrap_or_default() {
                let Some(location) = reader.index().find(BlobKind::Data, id).next() else {
                    continue;
                };
                let number = *numbers.entry(location.pack).or_insert_with(|| {
                    packs.push((location.pack, HashMap::new()));
                    packs.len() - 1
                });
                let blob = packs[number]
                    .1
                    .entry(*id)
                    .or_insert_with(|| (location.blob, Vec::new()));
                blob.1.push(Place { file, offset });
                offset += location.blob.plain_length();
            }
        }
        packs
            .into_iter()
            .flat_map(|(pack, blobs)| runs_of(pack, blobs.into_values().collect()))
            .collect()
    }

    /// Reads one run and writes what it holds. Blobs that are damaged here are looked for elsewhere.
    async fn run(self: &Arc<Self>, reader: &Reader, run: Run, progress: &dyn Progress) -> Result<(), Error> {
        for (_, places) in run.blobs.iter().take(1) {
            progress.file(&self.states[places[0].file].path);
        }
        let key = FileKind::Pack.key(&run.pack);
        let store = reader.repository().store();
        let sealed = match store
            .get_range(&key, run.start.into(), (run.end - run.start).into())
            .await
        {
            Ok(sealed) => sealed,
            // Whatever keeps us from the pack: each blob is asked for alone, and says what is wrong.
            Err(StoreError::NotFound { .. } | StoreError::Io { .. }) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let written = Arc::new(AtomicU64::new(0));
        let (this, own, count) = (Arc::clone(self), reader.clone(), Arc::clone(&written));
        let failed = blocking(move || {
            let mut failed = Vec::new();
            for (blob, places) in run.blobs {
                let from = (blob.offset - run.start) as usize;
                let sealed = sealed.get(from..from + blob.length as usize).unwrap_or_default();
                let mut outcome = Ok(());
                let decoded = own.with_decoder(|decoder| {
                    let plain = decoder.decode(own.repository().key(), &blob, sealed)?;
                    outcome = this.write(plain, &places);
                    count.fetch_add(plain.len() as u64 * places.len() as u64, Ordering::Relaxed);
                    Ok(())
                });
                outcome?;
                if decoded.is_err() {
                    failed.push((blob.id, places));
                }
            }
            Ok::<_, Error>(failed)
        })
        .await??;
        for (id, places) in failed {
            let plain = reader.blob(BlobKind::Data, &id).await;
            let this = Arc::clone(self);
            blocking(move || match plain {
                Ok(plain) => this.write(&plain, &places),
                Err(error) => this.fail(&places, &error),
            })
            .await??;
        }
        progress.bytes(written.load(Ordering::Relaxed));
        Ok(())
    }

    /// Writes a blob to every place that needs it.
    fn write(&self, plain: &[u8], places: &[Place]) -> Result<(), Error> {
        for place in places {
            let state = &self.states[place.file];
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            if state.is_pending() {
                state.begun.store(true, Ordering::Relaxed);
                let written = self.root.open_temporary(&state.temporary).and_then(|file| {
                    // A hole is as good as zeros, and takes no room.
                    if is_zero(plain) {
                        Ok(())
                    } else {
                        file.write_all_at(plain, place.offset)
                    }
                });
                self.judge(state, written)?;
            }
            self.one_less(state)?;
        }
        Ok(())
    }

    /// A blob that cannot be had.
    fn fail(&self, places: &[Place], error: &Error) -> Result<(), Error> {
        for place in places {
            let state = &self.states[place.file];
            if state.is_pending() {
                state.set(Outcome::Damaged(error.to_string()));
            }
            self.one_less(state)?;
        }
        Ok(())
    }

    fn one_less(&self, state: &FileState) -> Result<(), Error> {
        if state.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete(state)
        } else {
            Ok(())
        }
    }

    /// Everything was written: the file gets its length, metadata and name; or, if something is missing, it goes.
    fn complete(&self, state: &FileState) -> Result<(), Error> {
        if state.is_pending() {
            state.begun.store(true, Ordering::Relaxed);
            let placed = self.root.open_temporary(&state.temporary).and_then(|file| {
                file.set_len(state.length)?;
                set_metadata(&file, &state.node, self.rights)?;
                self.root.put_in_place(&state.temporary, &state.path)
            });
            if self.judge(state, placed)? {
                state.set(Outcome::Written);
                return Ok(());
            }
        }
        // What cannot be removed now is swept by the next restore.
        let _ = self.root.remove(&state.temporary);
        Ok(())
    }

    /// A full disk ends everything; any other failure concerns the file alone.
    fn judge(&self, state: &FileState, outcome: io::Result<()>) -> Result<bool, Error> {
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.stopped.store(true, Ordering::Relaxed);
                Err(Error::TargetFull {
                    path: self.root.display(&state.path),
                })
            }
            Err(error) => {
                state.set(Outcome::Failed(error.to_string()));
                Ok(false)
            }
        }
    }

    /// What became of each file, with its path and length.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&PathBuf, u64, Outcome)> {
        self.states
            .iter()
            .map(|state| (&state.path, state.length, state.outcome().clone()))
    }

    /// The path of a file that has its place; `None` if it has not.
    pub(super) fn restored(&self, file: usize) -> Result<&PathBuf, Outcome> {
        let state = &self.states[file];
        match state.outcome().clone() {
            Outcome::Written | Outcome::Unchanged => Ok(&state.path),
            other => Err(other),
        }
    }

    /// Lets no further write begin.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for state in &self.states {
            if state.is_pending() && state.begun.load(Ordering::Relaxed) {
                let _ = self.root.remove(&state.temporary);
            }
        }
    }
}

impl FileState {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pending(&self) -> bool {
        *self.outcome() == Outcome::Pending
    }

    fn set(&self, outcome: Outcome) {
        *self.outcome() = outcome;
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()])
}

/// Cuts the blobs of a pack into runs.
fn runs_of(pack: Id, mut blobs: Vec<Wanted>) -> Vec<Run> {
    blobs.sort_unstable_by_key(|(blob, _)| blob.offset);
    let mut runs: Vec<Run> = Vec::new();
    for (blob, places) in blobs {
        // Offsets and lengths of a foreign index may not add up; then the read comes back short and says so.
        let end = blob.offset.saturating_add(blob.length);
        match runs.last_mut() {
            Some(run) if blob.offset.saturating_sub(run.end) <= RUN_GAP && end - run.start <= RUN_LENGTH => {
                run.end = run.end.max(end);
                run.blobs.push((blob, places));
            }
            _ => runs.push(Run {
                pack,
                start: blob.offset,
                end,
                blobs: vec![(blob, places)],
            }),
        }
    }
    runs
}
