//! The content of the files: packs are read in runs of neighbouring blobs, several at once; each blob is verified and
//! written to every place that needs it; a file whose last blob was written is put into its place. What lies at its place
//! already ([`reuse`]) is not read from the repository.

mod reuse;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::root::{Leftovers, Rights, Root, set_metadata};
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::layout::FileKind;
use crate::repo::pack::PackedBlob;
use crate::repo::{BlobKind, Id, Node, Reader};
use crate::source::Skipped;
use crate::store::StoreError;
use crate::threads::blocking;

/// Neighbouring blobs are read together up to this many bytes,
const RUN_LENGTH: u32 = 8 << 20;
/// with up to so many bytes between them that nobody needs.
const RUN_GAP: u32 = 128 << 10;
/// So many files are looked at on one thread before others are.
const FILES_TOGETHER: usize = 64;

/// All files of a restore. Dropping it removes what is not complete, but for what the next restore can take over.
pub(super) struct Files {
    root: Arc<Root>,
    rights: Rights,
    states: Vec<FileState>,
    leftovers: Mutex<Leftovers>,
    stopped: AtomicBool,
    /// The target has no room: nothing is kept for the next restore.
    full: AtomicBool,
    reused: AtomicU64,
    fetched: AtomicU64,
    /// What restored files lack of their metadata.
    lacking: Mutex<Vec<Skipped>>,
}

/// One file on its way.
struct FileState {
    path: PathBuf,
    temporary: PathBuf,
    /// Finds what an interrupted restore wrote of it.
    key: String,
    node: Node,
    length: u64,
    /// Which of the blobs lie in the temporary file already, if any do.
    have: OnceLock<Vec<bool>>,
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
    pub(super) fn new(
        root: Arc<Root>,
        rights: Rights,
        reader: &Reader,
        files: Vec<(PathBuf, Node)>,
        leftovers: Leftovers,
    ) -> Arc<Self> {
        let state = |(path, node): (PathBuf, Node)| {
            let content = node.content.as_deref().unwrap_or_default();
            let length = |id| {
                reader
                    .index()
                    .find(BlobKind::Data, id)
                    .next()
                    .map_or(0, |at| at.blob.plain_length())
            };
            let (temporary, key) = root.temporary_of(&path, content);
            FileState {
                temporary,
                key,
                have: OnceLock::new(),
                length: content.iter().map(length).sum(),
                remaining: AtomicUsize::new(content.len()),
                path,
                node,
                begun: AtomicBool::new(false),
                outcome: Mutex::new(Outcome::Pending),
            }
        };
        let states = files.into_iter().map(state).collect();
        Arc::new(Self {
            root,
            rights,
            states,
            leftovers: Mutex::new(leftovers),
            stopped: AtomicBool::new(false),
            full: AtomicBool::new(false),
            reused: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            lacking: Mutex::default(),
        })
    }

    /// Restores all of them. Damage is an outcome of a file; an error ends everything.
    pub(super) async fn restore(self: &Arc<Self>, reader: &Reader, progress: &dyn Progress) -> Result<(), Error> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let files = self.states.len();
        let mut looking = stream::iter((0..files).step_by(FILES_TOGETHER))
            .take_while(|_| std::future::ready(!self.stopped.load(Ordering::Relaxed)))
            .map(|first| {
                let (this, reader) = (Arc::clone(self), reader.clone());
                async move {
                    let mut together = first..files.min(first + FILES_TOGETHER);
                    blocking(move || together.try_for_each(|file| this.begin(file, &reader))).await?
                }
            })
            .buffered(workers);
        let mut outcome = Ok(());
        while let Some(looked) = looking.next().await {
            self.note(&mut outcome, looked);
        }
        drop(looking);
        outcome?;
        let this = Arc::clone(self);
        blocking(move || this.remove_leftovers()).await?;
        progress.bytes(self.reused.load(Ordering::Relaxed));
        let mut running = stream::iter(self.runs(reader))
            .take_while(|_| std::future::ready(!self.stopped.load(Ordering::Relaxed)))
            .map(|run| self.run(reader, run, progress))
            .buffer_unordered((workers + 1).max(reader.repository().store().transfers()));
        let mut outcome = Ok(());
        while let Some(ended) = running.next().await {
            // Whoever writes is waited for: what it leaves is removed before the error is told.
            self.note(&mut outcome, ended);
        }
        outcome
    }

    /// The first error ends everything. Those that it made others end with say less than it does, and may be told earlier.
    fn note(&self, outcome: &mut Result<(), Error>, next: Result<(), Error>) {
        if next.is_ok() {
            return;
        }
        self.stop();
        let says_more = !matches!(next, Err(Error::Cancelled));
        if outcome.is_ok() || (says_more && matches!(outcome, Err(Error::Cancelled))) {
            *outcome = next;
        }
    }

    /// Looks at a file before anything is read: it may be there already, or empty.
    fn begin(&self, file: usize, reader: &Reader) -> Result<(), Error> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let state = &self.states[file];
        let content = state.node.content.as_deref().unwrap_or_default();
        if let Some(missing) = content
            .iter()
            .find(|id| reader.index().find(BlobKind::Data, id).next().is_none())
        {
            let damaged = Error::damaged(BlobKind::Data.object(*missing), Damage::Missing);
            state.set(Outcome::Damaged(damaged.to_string()));
        } else {
            self.reuse(state, reader)?;
            if state.is_pending() && state.remaining.load(Ordering::Relaxed) == 0 {
                self.complete(state, None)?;
            }
        }
        Ok(())
    }

    /// What to read, in the order in which the files need it.
    fn runs(&self, reader: &Reader) -> Vec<Run> {
        let mut packs: Vec<(Id, HashMap<Id, Wanted>)> = Vec::new();
        let mut numbers: HashMap<Id, usize> = HashMap::new();
        for (file, state) in self.states.iter().enumerate().filter(|(_, state)| state.is_pending()) {
            let mut offset = 0;
            for (at, id) in state.node.content.iter().flatten().enumerate() {
                let Some(location) = reader.index().find(BlobKind::Data, id).next() else {
                    continue;
                };
                let length = location.blob.plain_length();
                if state.has(at) {
                    offset += length;
                    continue;
                }
                let number = *numbers.entry(location.pack).or_insert_with(|| {
                    packs.push((location.pack, HashMap::new()));
                    packs.len() - 1
                });
                let blob = packs[number]
                    .1
                    .entry(*id)
                    .or_insert_with(|| (location.blob, Vec::new()));
                blob.1.push(Place { file, offset });
                offset += length;
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
            let count = Arc::clone(&written);
            blocking(move || match plain {
                Ok(plain) => {
                    count.fetch_add(plain.len() as u64 * places.len() as u64, Ordering::Relaxed);
                    this.write(&plain, &places)
                }
                Err(error) => this.fail(&places, &error),
            })
            .await??;
        }
        let written = written.load(Ordering::Relaxed);
        self.fetched.fetch_add(written, Ordering::Relaxed);
        progress.bytes(written);
        Ok(())
    }

    /// Writes a blob to every place that needs it.
    fn write(&self, plain: &[u8], places: &[Place]) -> Result<(), Error> {
        for place in places {
            let state = &self.states[place.file];
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let mut open = None;
            if state.is_pending() {
                state.begun.store(true, Ordering::Relaxed);
                let written = self.root.open_temporary(&state.temporary).and_then(|file| {
                    write_sparse(&file, plain, place.offset)?;
                    open = Some(file);
                    Ok(())
                });
                self.judge(state, written)?;
            }
            self.one_less(state, open)?;
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
            self.one_less(state, None)?;
        }
        Ok(())
    }

    /// One blob is done; the temporary file may still be open from that.
    fn one_less(&self, state: &FileState, open: Option<File>) -> Result<(), Error> {
        if state.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete(state, open)
        } else {
            Ok(())
        }
    }

    /// Everything was written: the file gets its length, metadata and name; or, if something is missing, it goes.
    fn complete(&self, state: &FileState, open: Option<File>) -> Result<(), Error> {
        if state.is_pending() {
            state.begun.store(true, Ordering::Relaxed);
            let open = open.map_or_else(|| self.root.open_temporary(&state.temporary), Ok);
            let placed = open.and_then(|file| {
                file.set_len(state.length)?;
                self.finish(&file, state)?;
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

    /// Gives a complete file its metadata.
    fn finish(&self, file: &File, state: &FileState) -> io::Result<()> {
        let lacking = set_metadata(file, &state.node, self.rights)?;
        let lacking = lacking.into_iter().map(|reason| Skipped {
            path: state.path.clone(),
            reason,
        });
        let mut all = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(lacking);
        Ok(())
    }

    /// A full disk ends everything; any other failure concerns the file alone.
    fn judge(&self, state: &FileState, outcome: io::Result<()>) -> Result<bool, Error> {
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.full.store(true, Ordering::Relaxed);
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

    /// How many bytes were there already, and how many came from the repository.
    pub(super) fn figures(&self) -> (u64, u64) {
        (
            self.reused.load(Ordering::Relaxed),
            self.fetched.load(Ordering::Relaxed),
        )
    }

    /// What restored files lack of their metadata.
    pub(super) fn take_lacking(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.lacking.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.root.stopping();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for state in &self.states {
            let is_of_use = state.node.content.as_ref().is_some_and(|content| content.len() > 1);
            let is_kept = is_of_use && !self.full.load(Ordering::Relaxed);
            if state.is_pending() && state.begun.load(Ordering::Relaxed) && !is_kept {
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

    /// Whether a blob, by its place in the content, lies in the temporary file.
    fn has(&self, blob: usize) -> bool {
        self.have.get().is_some_and(|have| have[blob])
    }

    fn set(&self, outcome: Outcome) {
        *self.outcome() = outcome;
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()])
}

/// Writes into a part of a file that holds nothing yet: a hole is as good as zeros, and takes no room.
fn write_sparse(file: &File, plain: &[u8], offset: u64) -> io::Result<()> {
    const PIECE: usize = 32 << 10;
    let mut begun = None;
    for at in (0..plain.len()).step_by(PIECE) {
        let piece = &plain[at..plain.len().min(at + PIECE)];
        match (is_zero(piece), begun) {
            (true, Some(from)) => {
                file.write_all_at(&plain[from..at], offset + from as u64)?;
                begun = None;
            }
            (false, None) => begun = Some(at),
            _ => {}
        }
    }
    match begun {
        Some(from) => file.write_all_at(&plain[from..], offset + from as u64),
        None => Ok(()),
    }
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
