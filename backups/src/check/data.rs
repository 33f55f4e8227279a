//! The data: packs read in full, every blob authenticated, decompressed and hashed.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::structure::Catalogue;
use super::{CheckReport, ReadData};
use crate::error::{Damage, Error, Object};
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::pack::{self, PackedBlob};
use crate::repo::{Id, Reader, Repository};
use crate::store::StoreError;
use crate::threads::blocking;

/// What reading one pack found.
struct PackFindings {
    bytes: u64,
    problems: Vec<(Object, Damage)>,
}

/// Reads the packs that were asked for.
pub(super) async fn packs(
    repository: &Repository,
    catalogue: &Catalogue,
    which: ReadData,
    report: &mut CheckReport,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut wanted: Vec<(Id, Vec<PackedBlob>)> = catalogue
        .indexed
        .iter()
        .filter(|(id, _)| catalogue.present.contains_key(id) && is_wanted(which, id))
        .map(|(id, blobs)| (*id, blobs.clone()))
        .collect();
    wanted.sort_unstable_by_key(|(id, _)| *id);
    let expected = wanted
        .iter()
        .map(|(id, _)| catalogue.present.get(id).copied().unwrap_or(0))
        .sum();
    progress.phase(Phase::CheckingData, Some(expected), Some(wanted.len() as u64));
    let reader = repository.reader_with(crate::repo::index::Index::default());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let at_once = (workers + 1).max(repository.store().transfers());
    let mut reading = stream::iter(wanted)
        .map(|(id, blobs)| read(&reader, id, blobs))
        .buffered(at_once);
    while let Some(found) = reading.try_next().await? {
        report.packs_read += 1;
        report.bytes_read += found.bytes;
        progress.bytes(found.bytes);
        progress.file_done();
        for (object, damage) in found.problems {
            report.damaged(object, damage);
        }
    }
    Ok(())
}

/// Parts are cut by the first byte of the name, as restic does it.
fn is_wanted(which: ReadData, id: &Id) -> bool {
    match which {
        ReadData::None => false,
        ReadData::All => true,
        ReadData::Part { part, of } => u64::from(id.as_bytes()[0]) % of.max(1) + 1 == part,
    }
}

async fn read(reader: &Reader, id: Id, indexed: Vec<PackedBlob>) -> Result<PackFindings, Error> {
    let object = Object::Pack(id);
    let bytes = match reader.repository().store().get(&FileKind::Pack.key(&id)).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => {
            return Ok(PackFindings {
                bytes: 0,
                problems: vec![(object, Damage::Missing)],
            });
        }
        Err(error) => return Err(error.into()),
    };
    let reader = reader.clone();
    blocking(move || {
        let mut problems = Vec::new();
        if Id::of(&bytes) != id {
            problems.push((object, Damage::WrongHash));
        }
        match pack::parse(reader.repository().key(), &bytes) {
            Err(damage) => problems.push((object, damage)),
            Ok(packed) => {
                let packed: HashSet<PackedBlob> = packed.into_iter().collect();
                if indexed.iter().any(|blob| !packed.contains(blob)) {
                    problems.push((object, Damage::Malformed));
                }
            }
        }
        for blob in &indexed {
            let from = blob.offset as usize;
            let sealed = bytes
                .get(from..from.saturating_add(blob.length as usize))
                .unwrap_or_default();
            let decoded =
                reader.with_decoder(|decoder| decoder.decode(reader.repository().key(), blob, sealed).map(drop));
            problems.extend(decoded.err().map(|damage| (blob.kind.object(blob.id), damage)));
        }
        PackFindings {
            bytes: bytes.len() as u64,
            problems,
        }
    })
    .await
}
