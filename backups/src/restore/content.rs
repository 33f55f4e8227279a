//! The content of the files: packs are read in runs of neighbouring blobs ([`runs`]), several at once; each blob is
//! verified and written to every place that needs it; a file whose last blob was written is put into its place. What lies
//! at its place already ([`reuse`]) is not read from the repository.

mod reuse;
mod runs;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::items::{FileItem, Items};
use super::root::{Leftovers, Rights, Root, key_of, set_metadata, take_numbers};
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::layout::FileKind;
use crate::repo::{BlobKind, Id, Reader};
use crate::source::Skipped;
use crate::store::StoreError;
use crate::threads::blocking;
use runs::{Need, Run};

/// So many files are looked at on one thread before others are.
const FILES_TOGETHER: u32 = 64;

/// All files of a restore. Dropping it removes what is not complete, but for what the next restore can take over.
pub(super) struct Files {
    root: Arc<Root>,
    rights: Rights,
    items: Arc<Items>,
    /// Of each of the files.
    states: Vec<State>,
    /// Files of several blobs.
    large: HashMap<u32, Large>,
    /// What became of files that are not there.
    problems: Mutex<HashMap<u32, Outcome>>,
    /// The number in the first file's temporary name.
    first_number: u64,
    leftovers: Mutex<Leftovers>,
    stopped: AtomicBool,
    /// The target has no room: nothing is kept for the next restore.
    full: AtomicBool,
    reused: AtomicU64,
    fetched: AtomicU64,
    /// What restored files lack of their metadata.
    lacking: Mutex<Vec<Skipped>>,
}

/// How far a file is.
struct State {
    /// Blobs that are still to be written.
    remaining: AtomicU32,
    /// There may be a temporary file.
    begun: AtomicBool,
    /// It is known what became of it.
    settled: AtomicBool,
    /// It was there.
    unchanged: AtomicBool,
}

/// What only files of several blobs need.
struct Large {
    /// Finds what an interrupted restore wrote of it.
    key: String,
    /// Which of the blobs lie in the temporary file already, if any do.
    have: OnceLock<Vec<bool>>,
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

/// One of the files.
#[derive(Clone, Copy)]
struct OneFile<'a> {
    number: u32,
    item: &'a FileItem,
    content: &'a [Id],
    state: &'a State,
}

impl OneFile<'_> {
    fn is_pending(&self) -> bool {
        !self.state.settled.load(Ordering::Acquire)
    }

    fn begun(&self) {
        self.state.begun.store(true, Ordering::Relaxed);
    }
}

impl Files {
    pub(super) fn new(root: Arc<Root>, rights: Rights, items: Arc<Items>, leftovers: Leftovers) -> Arc<Self> {
        let content = |item| items.content(item);
        let state = |item| State {
            remaining: AtomicU32::new(content(item).len() as u32),
            begun: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            unchanged: AtomicBool::new(false),
        };
        let large = |(number, item)| {
            let content = content(item);
            let large = || Large {
                key: key_of(content),
                have: OnceLock::new(),
            };
            (content.len() > 1).then(|| (number, large()))
        };
        Arc::new(Self {
            root,
            rights,
            states: items.files.iter().map(state).collect(),
            large: (0..).zip(&items.files).filter_map(large).collect(),
            problems: Mutex::default(),
            first_number: take_numbers(items.files.len() as u64),
            items,
            leftovers: Mutex::new(leftovers),
            stopped: AtomicBool::new(false),
            full: AtomicBool::new(false),
            reused: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            lacking: Mutex::default(),
        })
    }

    fn file(&self, number: u32) -> OneFile<'_> {
        let item = &self.items.files[number as usize];
        OneFile {
            number,
            item,
            content: self.items.content(item),
            state: &self.states[number as usize],
        }
    }

    fn all(&self) -> impl Iterator<Item = OneFile<'_>> {
        (0..self.states.len() as u32).map(|number| self.file(number))
    }

    /// Its path inside the target.
    fn path(&self, file: OneFile<'_>) -> PathBuf {
        self.items.path(file.item.place)
    }

    /// Where it is until it is complete.
    fn temporary(&self, file: OneFile<'_>) -> PathBuf {
        let key = self.large.get(&file.number).map(|large| large.key.as_str());
        let number = self.first_number + u64::from(file.number);
        self.root.temporary(&self.path(file), number, key)
    }

    /// Whether one of its blobs lies in the temporary file.
    fn has(&self, file: OneFile<'_>, blob: u32) -> bool {
        let have = self.large.get(&file.number).and_then(|large| large.have.get());
        have.is_some_and(|have| have[blob as usize])
    }

    /// Tells what became of a file.
    fn settle(&self, file: OneFile<'_>, outcome: Outcome) {
        match outcome {
            Outcome::Pending | Outcome::Written => {}
            Outcome::Unchanged => file.state.unchanged.store(true, Ordering::Relaxed),
            Outcome::Damaged(_) | Outcome::Failed(_) => {
                let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
                problems.insert(file.number, outcome);
            }
        }
        file.state.settled.store(true, Ordering::Release);
    }

    fn outcome(&self, file: OneFile<'_>) -> Outcome {
        if file.is_pending() {
            return Outcome::Pending;
        }
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problems.get(&file.number) {
            Some(problem) => problem.clone(),
            None if file.state.unchanged.load(Ordering::Relaxed) => Outcome::Unchanged,
            None => Outcome::Written,
        }
    }

    /// Restores all of them. Damage is an outcome of a file; an error ends everything.
    pub(super) async fn restore(self: &Arc<Self>, reader: &Reader, progress: &dyn Progress) -> Result<(), Error> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let files = self.states.len() as u32;
        let mut looking = stream::iter((0..files).step_by(FILES_TOGETHER as usize))
            .take_while(|_| std::future::ready(!self.stopped.load(Ordering::Relaxed)))
            .map(|first| {
                let (this, reader) = (Arc::clone(self), reader.clone());
                async move {
                    let mut together = first..files.min(first.saturating_add(FILES_TOGETHER));
                    blocking(move || together.try_for_each(|file| this.begin(this.file(file), &reader))).await?
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
    fn begin(&self, file: OneFile<'_>, reader: &Reader) -> Result<(), Error> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let is_missing = |id: &&Id| reader.index().find(BlobKind::Data, id).next().is_none();
        if let Some(missing) = file.content.iter().find(is_missing) {
            let damaged = Error::damaged(BlobKind::Data.object(*missing), Damage::Missing);
            self.settle(file, Outcome::Damaged(damaged.to_string()));
        } else {
            self.reuse(file, reader)?;
            if file.is_pending() && file.state.remaining.load(Ordering::Relaxed) == 0 {
                self.complete(file, None)?;
            }
        }
        Ok(())
    }

    /// Reads one run and writes what it holds. Blobs that are damaged here are looked for elsewhere.
    async fn run(self: &Arc<Self>, reader: &Reader, run: Run, progress: &dyn Progress) -> Result<(), Error> {
        if let Some(first) = run.needs.first() {
            progress.file(&self.path(self.file(first.file)));
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
            for places in run.needs.chunk_by(|a, b| this.id(a) == this.id(b)) {
                let id = *this.id(&places[0]);
                let Some(found) = own.index().find(BlobKind::Data, &id).next() else {
                    continue;
                };
                let blob = found.blob;
                let from = (blob.offset - run.start) as usize;
                let sealed = sealed.get(from..from + blob.length as usize).unwrap_or_default();
                let mut outcome = Ok(());
                let decoded = own.with_decoder(|decoder| {
                    let plain = decoder.decode(own.repository().key(), &blob, sealed)?;
                    outcome = this.write(plain, places);
                    count.fetch_add(plain.len() as u64 * places.len() as u64, Ordering::Relaxed);
                    Ok(())
                });
                outcome?;
                if decoded.is_err() {
                    failed.push((id, places.to_vec()));
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
    fn write(&self, plain: &[u8], places: &[Need]) -> Result<(), Error> {
        for place in places {
            let file = self.file(place.file);
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let mut open = None;
            if file.is_pending() {
                file.begun();
                let written = self.root.open_temporary(&self.temporary(file)).and_then(|opened| {
                    write_sparse(&opened, plain, place.offset)?;
                    open = Some(opened);
                    Ok(())
                });
                self.judge(file, written)?;
            }
            self.one_less(file, open)?;
        }
        Ok(())
    }

    /// A blob that cannot be had.
    fn fail(&self, places: &[Need], error: &Error) -> Result<(), Error> {
        for place in places {
            let file = self.file(place.file);
            if file.is_pending() {
                self.settle(file, Outcome::Damaged(error.to_string()));
            }
            self.one_less(file, None)?;
        }
        Ok(())
    }

    /// One blob is done; the temporary file may still be open from that.
    fn one_less(&self, file: OneFile<'_>, open: Option<File>) -> Result<(), Error> {
        if file.state.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete(file, open)
        } else {
            Ok(())
        }
    }

    /// Everything was written: the file gets its length, metadata and name; or, if something is missing, it goes.
    fn complete(&self, file: OneFile<'_>, open: Option<File>) -> Result<(), Error> {
        let temporary = self.temporary(file);
        if file.is_pending() {
            file.begun();
            let open = open.map_or_else(|| self.root.open_temporary(&temporary), Ok);
            let placed = open.and_then(|open| {
                open.set_len(file.item.length)?;
                self.finish(&open, file)?;
                self.root.put_in_place(&temporary, &self.path(file))
            });
            if self.judge(file, placed)? {
                self.settle(file, Outcome::Written);
                return Ok(());
            }
        }
        // What cannot be removed now is swept by the next restore.
        let _ = self.root.remove(&temporary);
        Ok(())
    }

    /// Gives a complete file its metadata.
    fn finish(&self, open: &File, file: OneFile<'_>) -> io::Result<()> {
        let lacking = set_metadata(open, &file.item.metadata, self.rights)?;
        if !lacking.is_empty() {
            let path = self.path(file);
            let lacking = lacking.into_iter().map(|reason| Skipped {
                path: path.clone(),
                reason,
            });
            let mut all = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(lacking);
        }
        Ok(())
    }

    /// A full disk ends everything; any other failure concerns the file alone.
    fn judge(&self, file: OneFile<'_>, outcome: io::Result<()>) -> Result<bool, Error> {
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.full.store(true, Ordering::Relaxed);
                self.stopped.store(true, Ordering::Relaxed);
                Err(Error::TargetFull {
                    path: self.root.display(&self.path(file)),
                })
            }
            Err(error) => {
                self.settle(file, Outcome::Failed(error.to_string()));
                Ok(false)
            }
        }
    }

    /// What became of each file.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.all().map(|file| self.outcome(file))
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

    /// What became of a file.
    pub(super) fn outcome_of(&self, file: u32) -> Outcome {
        self.outcome(self.file(file))
    }

    /// Lets no further write begin.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.root.stopping();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in self.all() {
            let is_kept = file.content.len() > 1 && !self.full.load(Ordering::Relaxed);
            if file.is_pending() && file.state.begun.load(Ordering::Relaxed) && !is_kept {
                let _ = self.root.remove(&self.temporary(file));
            }
        }
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
