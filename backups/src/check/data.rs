//! The data: packs read in full, every blob authenticated, decompressed and hashed.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;

use super::structure::Catalogue;
use super::{CheckReport, ReadData};
use crate::error::{Damage, Error, Object};
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::pack::{self, PackedBlob};
use crate::repo::{Id, Reader, Repository};
use crate::store::StoreError;
use crate::threads::blocking;

/// So much of packs is in memory at once, in MiB; a larger pack is read alone.
const BUDGET: u32 = 256;

/// What one pack turned out to be.
pub(crate) struct Examined {
    /// How many bytes were read.
    pub(crate) bytes: u64,
    /// What is wrong with the file as a whole; the first is the worst.
    pub(crate) damage: Vec<Damage>,
    /// What its own header says that it holds.
    pub(crate) header: Option<Vec<PackedBlob>>,
    /// Every blob that was looked for, and what is wrong with it.
    pub(crate) blobs: Vec<(PackedBlob, Option<Damage>)>,
}

impl Examined {
    fn unread(damage: Damage) -> Self {
        Self {
            bytes: 0,
            damage: vec![damage],
            header: None,
            blobs: Vec::new(),
        }
    }
}

/// Reads packs, within a budget of memory that all share.
pub(crate) struct Examiner {
    reader: Reader,
    budget: Semaphore,
}

impl Examiner {
    pub(crate) fn new(repository: &Repository) -> Self {
        Self {
            reader: repository.reader_with(crate::repo::index::Index::default()),
            budget: Semaphore::new(BUDGET as usize),
        }
    }

    /// How many packs to read at once.
    pub(crate) fn at_once(&self) -> usize {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        (workers + 1).max(self.reader.repository().store().transfers())
    }

    /// Reads a pack of `size` bytes and proves the blobs that `listed` names; with `headed` also those that its header
    /// names.
    pub(crate) async fn examine(
        &self,
        id: Id,
        size: u64,
        listed: Vec<PackedBlob>,
        headed: bool,
    ) -> Result<Examined, Error> {
        if size > pack::SIZE_LIMIT {
            return Ok(Examined::unread(Damage::WrongSize));
        }
        let share = u32::try_from(size >> 20).unwrap_or(BUDGET).clamp(1, BUDGET);
        let _share = self
            .budget
            .acquire_many(share)
            .await
            .map_err(|_| Error::Internal("nobody closes the budget"))?;
        let bytes = match self.reader.repository().store().get(&FileKind::Pack.key(&id)).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(Examined::unread(Damage::Missing)),
            Err(error) => return Err(error.into()),
        };
        let reader = self.reader.clone();
        blocking(move || examine(&reader, id, &bytes, listed, headed)).await
    }
}

fn examine(reader: &Reader, id: Id, bytes: &[u8], listed: Vec<PackedBlob>, headed: bool) -> Examined {
    let key = reader.repository().key();
    let mut damage = Vec::new();
    if Id::of(bytes) != id {
        damage.push(Damage::WrongHash);
    }
    let header = match pack::parse(key, bytes) {
        Ok(header) => Some(header),
        Err(error) => {
            damage.push(error);
            None
        }
    };
    let mut blobs = listed;
    if let Some(header) = &header {
        let packed: HashSet<&PackedBlob> = header.iter().collect();
        if blobs.iter().any(|blob| !packed.contains(blob)) {
            damage.push(Damage::Malformed);
        }
        if headed {
            let listed: HashSet<PackedBlob> = blobs.iter().copied().collect();
            blobs.extend(header.iter().filter(|blob| !listed.contains(blob)));
        }
    }
    let prove = |blob: &PackedBlob| {
        let from = blob.offset as usize;
        let sealed = bytes
            .get(from..from.saturating_add(blob.length as usize))
            .unwrap_or_default();
        let decoded = reader.with_decoder(|decoder| decoder.decode(key, blob, sealed).map(drop));
        decoded.err()
    };
    Examined {
        bytes: bytes.len() as u64,
        damage,
        blobs: blobs.iter().map(|blob| (*blob, prove(blob))).collect(),
        header,
    }
}

/// Reads the packs that were asked for.
pub(super) async fn packs(
    repository: &Repository,
    catalogue: &Catalogue,
    which: ReadData,
    report: &mut CheckReport,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut wanted: Vec<(Id, u64, Vec<PackedBlob>)> = catalogue
        .indexed
        .iter()
        .filter_map(|(id, blobs)| Some((*id, *catalogue.present.get(id)?, blobs.clone())))
        .collect();
    wanted.sort_unstable_by_key(|(id, _, _)| *id);
    choose(which, &mut wanted);
    let expected = wanted.iter().map(|(_, size, _)| size).sum();
    progress.phase(Phase::CheckingData, Some(expected), Some(wanted.len() as u64));
    let examiner = Examiner::new(repository);
    let mut reading = stream::iter(wanted)
        .map(|(id, size, blobs)| {
            let reading = examiner.examine(id, size, blobs, false);
            async move { Ok::<_, Error>((id, reading.await?)) }
        })
        .buffered(examiner.at_once());
    while let Some((id, found)) = reading.try_next().await? {
        report.packs_read += 1;
        report.bytes_read += found.bytes;
        progress.bytes(found.bytes);
        progress.file_done();
        for damage in found.damage {
            report.damaged(Object::Pack(id), damage);
        }
        for (blob, damage) in found.blobs {
            if let Some(damage) = damage {
                report.damaged(blob.kind.object(blob.id), damage);
            }
        }
    }
    Ok(())
}

/// Keeps the packs that are to be read. Parts are cut by the first byte of the name, as restic does it.
fn choose(which: ReadData, packs: &mut Vec<(Id, u64, Vec<PackedBlob>)>) {
    let count = packs.len();
    match which {
        ReadData::All => {}
        ReadData::None => packs.clear(),
        ReadData::Part { part, of } => {
            packs.retain(|(id, _, _)| u64::from(id.as_bytes()[0]) % of.max(1) + 1 == part);
        }
        ReadData::Percent(percent) => {
            packs.shuffle(&mut rand::rng());
            let share = (count as f64 * percent.clamp(0.0, 100.0) / 100.0) as usize;
            packs.truncate(share.max(1));
        }
        ReadData::Bytes(limit) => {
            packs.shuffle(&mut rand::rng());
            let mut taken = 0_u64;
            packs.retain(|(_, size, _)| {
                let fits = taken == 0 || taken.saturating_add(*size) <= limit;
                taken = taken.saturating_add(if fits { *size } else { 0 });
                fits
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packs(sizes: &[u64]) -> Vec<(Id, u64, Vec<PackedBlob>)> {
        let pack = |(number, size): (usize, &u64)| (Id::of(&number.to_le_bytes()), *size, Vec::new());
        sizes.iter().enumerate().map(pack).collect()
    }

    fn chosen(which: ReadData, sizes: &[u64]) -> Vec<(Id, u64)> {
        let mut packs = packs(sizes);
        choose(which, &mut packs);
        packs.into_iter().map(|(id, size, _)| (id, size)).collect()
    }

    proptest! {
        #[test]
        fn all_parts_together_are_everything_once(sizes in proptest::collection::vec(1..100_u64, 0..50), of in 1..300_u64) {
            let mut parts: Vec<_> = (1..=of).flat_map(|part| chosen(ReadData::Part { part, of }, &sizes)).collect();
            let mut all = chosen(ReadData::All, &sizes);
            parts.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(parts, all);
        }

        #[test]
        fn a_share_is_as_large_as_was_asked_and_never_nothing(sizes in proptest::collection::vec(1..100_u64, 1..50), percent in 0.1..100.0_f64, limit in 1..5000_u64) {
            let count = chosen(ReadData::Percent(percent), &sizes).len();
            prop_assert_eq!(count, ((sizes.len() as f64 * percent / 100.0) as usize).max(1));
            let picked = chosen(ReadData::Bytes(limit), &sizes);
            let taken: u64 = picked.iter().map(|(_, size)| size).sum();
            prop_assert!(!picked.is_empty() && (taken <= limit || picked.len() == 1));
        }
    }

    #[test]
    fn a_hundred_percent_is_all() {
        assert_eq!(chosen(ReadData::Percent(100.0), &[5; 17]).len(), 17);
    }
}
