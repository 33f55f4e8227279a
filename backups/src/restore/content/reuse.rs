//! What the target has already: the file itself, an older one in its place, or what an interrupted restore wrote. All of
//! it is hashed against the blobs; what is right is kept or copied, and only the rest is read from the repository.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{FileState, Files, Outcome, PoisonError, write_sparse};
use crate::error::Error;
use crate::repo::compress::BLOB_LIMIT;
use crate::repo::{BlobKind, Id, Reader, ZEROS};

/// The blob that long holes are stored as, by us and by restic.
static ZERO_BLOB: LazyLock<Id> = LazyLock::new(|| Id::of(&vec![0; ZEROS as usize]));

/// A blob of a file: its name, where it lies, how long it is.
type Span = (Id, u64, u64);

impl Files {
    /// Keeps what is there. Afterwards the file is unchanged, or `remaining` counts what is missing of it.
    pub(super) fn reuse(&self, state: &FileState, reader: &Reader) -> Result<(), Error> {
        let Some(spans) = spans(state, reader) else {
            return Ok(());
        };
        let existing = self.root.open_existing(&state.path).ok();
        let found = existing.as_ref().map(|file| compare(file, &spans)).unwrap_or_default();
        if let Some(file) = &existing
            && found.len() == spans.len()
            && found.iter().all(|right| *right)
            && file.metadata().is_ok_and(|metadata| metadata.len() == state.length)
            && self.finish(file, state).is_ok()
        {
            self.reused.fetch_add(state.length, Ordering::Relaxed);
            state.set(Outcome::Unchanged);
            self.forget_leftover(state);
            return Ok(());
        }
        let (file, mut have) = match self.leftover(state, &spans) {
            Some(taken_over) => taken_over,
            None if found.contains(&true) || spans.iter().any(is_hole) => {
                // In a file that holds nothing yet, zeros are where they belong.
                let opened = self.root.open_temporary(&state.temporary);
                state.begun.store(true, Ordering::Relaxed);
                let Ok(file) = opened.and_then(|file| file.set_len(state.length).map(|()| file)) else {
                    return Ok(());
                };
                (file, spans.iter().map(is_hole).collect())
            }
            None => return Ok(()),
        };
        if let Some(existing) = &existing {
            let copied = copy(existing, &file, &spans, &found, &mut have);
            self.judge(state, copied)?;
        }
        let had = have.iter().filter(|had| **had).count();
        let bytes = spans.iter().zip(&have).filter(|(_, had)| **had);
        let bytes: u64 = bytes.map(|((.., length), _)| length).sum();
        self.reused.fetch_add(bytes, Ordering::Relaxed);
        state.remaining.fetch_sub(had, Ordering::AcqRel);
        // Nobody else looks at a file before all were looked at.
        let _ = state.have.set(have);
        Ok(())
    }

    /// What an interrupted restore wrote of a file, under our name and without what is wrong in it.
    fn leftover(&self, state: &FileState, spans: &[Span]) -> Option<(File, Vec<bool>)> {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        let left = leftovers.take(&state.path, &state.key)?;
        drop(leftovers);
        let Ok(file) = self.root.take_over(&left, &state.temporary) else {
            let _ = self.root.remove(&left);
            return None;
        };
        state.begun.store(true, Ordering::Relaxed);
        let prepared = file.set_len(state.length).and_then(|()| {
            let have = compare(&file, spans);
            for ((_, offset, length), _) in spans.iter().zip(&have).filter(|(_, right)| !**right) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, *offset, *length)?;
            }
            Ok(have)
        });
        // Where no holes can be made, or it cannot be read, it begins anew.
        let have = prepared
            .or_else(|_| {
                file.set_len(0)?;
                file.set_len(state.length)?;
                Ok::<_, io::Error>(spans.iter().map(is_hole).collect())
            })
            .ok()?;
        Some((file, have))
    }

    fn forget_leftover(&self, state: &FileState) {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = leftovers.take(&state.path, &state.key) {
            let _ = self.root.remove(&left);
        }
    }

    /// Removes what interrupted restores left and this one has no use for.
    pub(super) fn remove_leftovers(&self) {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        for left in leftovers.rest() {
            let _ = self.root.remove(&left);
        }
    }
}

/// The blobs of a file; `None` if one of them is too long to be true, which whoever fetches it will say.
fn spans(state: &FileState, reader: &Reader) -> Option<Vec<Span>> {
    let mut offset = 0;
    let content = state.node.content.iter().flatten();
    content
        .map(|id| {
            let length = reader.index().find(BlobKind::Data, id).next()?.blob.plain_length();
            let span = (*id, offset, length);
            offset += length;
            (length <= BLOB_LIMIT as u64).then_some(span)
        })
        .collect()
}

fn is_hole((id, _, length): &Span) -> bool {
    *length == ZEROS && *id == *ZERO_BLOB
}

/// Which blobs lie in a file at their places. What cannot be read is not there.
fn compare(file: &File, spans: &[Span]) -> Vec<bool> {
    let mut plain = Vec::new();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // From here on up to there is known to be a hole.
    let mut hole = 0..0;
    let mut compare_one = |span: &Span| {
        let (id, offset, blob_length) = *span;
        let end = offset + blob_length;
        if end > length {
            return Ok(false);
        }
        if is_hole(span) {
            if !(hole.start <= offset && end <= hole.end) {
                hole = offset..match rustix::fs::seek(file, SeekFrom::Data(offset)) {
                    Err(Errno::NXIO) => length,
                    data => data?,
                };
            }
            if end <= hole.end {
                return Ok(true);
            }
        }
        plain.resize(blob_length as usize, 0);
        file.read_exact_at(&mut plain, offset)?;
        Ok::<_, io::Error>(Id::of(&plain) == id)
    };
    spans.iter().map(|span| compare_one(span).unwrap_or(false)).collect()
}

/// Copies what was found right, as far as it is right still.
fn copy(from: &File, to: &File, spans: &[Span], found: &[bool], have: &mut [bool]) -> io::Result<()> {
    let mut plain = Vec::new();
    for ((id, offset, length), had) in spans
        .iter()
        .zip(found)
        .zip(have)
        .filter(|((_, found), had)| **found && !**had)
        .map(|((span, _), had)| (*span, had))
    {
        plain.resize(length as usize, 0);
        if from.read_exact_at(&mut plain, offset).is_ok() && Id::of(&plain) == id {
            write_sparse(to, &plain, offset)?;
            *had = true;
        }
    }
    Ok(())
}
