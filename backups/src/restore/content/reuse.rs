//! What the target has already: the file itself, an older one in its place, or what an interrupted restore wrote. All of
//! it is hashed against the blobs; what is right is kept or copied, and only the rest is read from the repository.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Files, OneFile, Outcome, PoisonError, write_sparse};
use crate::error::Error;
use crate::repo::compress::BLOB_LIMIT;
use crate::repo::{BlobKind, Id, Reader, ZEROS};

/// The blob that long holes are stored as, by us and by restic.
static ZERO_BLOB: LazyLock<Id> = LazyLock::new(|| Id::of(&vec![0; ZEROS as usize]));

/// A blob of a file: its name, where it lies, how long it is.
type Span = (Id, u64, u64);

impl Files {
    /// Keeps what is there. Afterwards the file is unchanged, or `remaining` counts what is missing of it.
    pub(super) fn reuse(&self, file: OneFile<'_>, reader: &Reader) -> Result<(), Error> {
        let Some(spans) = spans(file, reader) else {
            return Ok(());
        };
        let length = file.item.length;
        let existing = self.root.open_existing(&self.path(file)).ok();
        let found = existing.as_ref().map(|file| compare(file, &spans)).unwrap_or_default();
        if let Some(existing) = &existing
            && found.len() == spans.len()
            && found.iter().all(|right| *right)
            && existing.metadata().is_ok_and(|metadata| metadata.len() == length)
            && self.finish(existing, file).is_ok()
        {
            self.reused.fetch_add(length, Ordering::Relaxed);
            self.settle(file, Outcome::Unchanged);
            if let Some(left) = self.take_leftover(file) {
                let _ = self.root.remove(&left);
            }
            return Ok(());
        }
        let (temporary, mut have) = match self.leftover(file, &spans) {
            Some(taken_over) => taken_over,
            None if found.contains(&true) || spans.iter().any(is_hole) => {
                // In a file that holds nothing yet, zeros are where they belong.
                let opened = self.root.open_temporary(&self.temporary(file));
                file.begun();
                let Ok(opened) = opened.and_then(|opened| opened.set_len(length).map(|()| opened)) else {
                    return Ok(());
                };
                (opened, spans.iter().map(is_hole).collect())
            }
            None => return Ok(()),
        };
        if let Some(existing) = &existing {
            let copied = copy(existing, &temporary, &spans, &found, &mut have);
            self.judge(file, copied)?;
        }
        let had = have.iter().filter(|had| **had).count();
        let bytes = spans.iter().zip(&have).filter(|(_, had)| **had);
        let bytes: u64 = bytes.map(|((.., length), _)| length).sum();
        self.reused.fetch_add(bytes, Ordering::Relaxed);
        file.state.remaining.fetch_sub(had as u32, Ordering::AcqRel);
        // Nobody else looks at a file before all were looked at. One of a single blob has all, or nothing.
        if let Some(large) = self.large.get(&file.number) {
            let _ = large.have.set(have);
        }
        Ok(())
    }

    /// What an interrupted restore wrote of a file, under our name and without what is wrong in it.
    fn leftover(&self, file: OneFile<'_>, spans: &[Span]) -> Option<(File, Vec<bool>)> {
        let left = self.take_leftover(file)?;
        let Ok(opened) = self.root.take_over(&left, &self.temporary(file)) else {
            let _ = self.root.remove(&left);
            return None;
        };
        file.begun();
        let length = file.item.length;
        let prepared = opened.set_len(length).and_then(|()| {
            let have = compare(&opened, spans);
            for ((_, offset, length), _) in spans.iter().zip(&have).filter(|(_, right)| !**right) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&opened, flags, *offset, *length)?;
            }
            Ok(have)
        });
        // Where no holes can be made, or it cannot be read, it begins anew.
        let have = prepared
            .or_else(|_| {
                opened.set_len(0)?;
                opened.set_len(length)?;
                Ok::<_, io::Error>(spans.iter().map(is_hole).collect())
            })
            .ok()?;
        Some((opened, have))
    }

    /// Where an interrupted restore wrote the content of a file; nobody else gets it then.
    fn take_leftover(&self, file: OneFile<'_>) -> Option<PathBuf> {
        let key = &self.large.get(&file.number)?.key;
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        leftovers.take(&self.path(file), key)
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
fn spans(file: OneFile<'_>, reader: &Reader) -> Option<Vec<Span>> {
    let mut offset = 0;
    let content = file.content.iter();
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
