//! Does what was decided, in the order that keeps every snapshot whole: new packs, new index files, old index files
//! deleted, packs deleted.

use std::collections::HashSet;

use futures::{TryStreamExt, stream};
use jiff::Timestamp;

use super::choose::Fate;
use super::{Looked, PruneReport, bad_pack, repack};
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::index::{IndexFile, PackJson};
use crate::repo::layout::FileKind;
use crate::repo::pack::PackedBlob;
use crate::repo::{Id, Lock, Repository};

/// An index file is written once it names so many blobs.
const BLOBS_PER_FILE: usize = 20_000;
/// So many deletions are on their way at once.
const DELETIONS: usize = 8;

/// Does it all.
pub(super) async fn apply(
    repository: &Repository,
    lock: &Lock,
    looked: Looked,
    progress: &dyn Progress,
) -> Result<PruneReport, Error> {
    let Looked {
        mut table,
        mut fates,
        orphans,
        now,
        no_grace,
        figures,
    } = looked;
    let mut report = PruneReport {
        figures,
        ..PruneReport::default()
    };
    let mut index = IndexWriter::new(repository);
    let mut new_packs = Vec::new();
    let repacking: Vec<usize> = (0..fates.len()).filter(|at| fates[*at] == Fate::Repack).collect();
    if !repacking.is_empty() {
        let bytes = report.figures.rewritten;
        progress.phase(Phase::Repacking, Some(bytes), Some(repacking.len() as u64));
        lock.confirm().await?;
        let repacked = repack::repack(repository, lock, &table, &repacking, &mut index, progress).await?;
        let mut staying = repacked.damaged.clone();
        report
            .damaged
            .extend(repacked.damaged.iter().map(|at| table.packs[*at].id));
        if let Some(full) = repacked.full {
            // It gets no better by stopping here: what nothing needs goes all the same, and makes room.
            if index.has_written {
                return Err(full);
            }
            index = IndexWriter::new(repository);
            lock.confirm().await?;
            delete(repository, lock, FileKind::Pack, &repacked.packs, progress).await?;
            staying.clone_from(&repacking);
            report.no_room = true;
        } else {
            report.new_packs = repacked.written;
            new_packs = repacked.packs;
        }
        for at in staying {
            let pack = &table.packs[at];
            let size = pack.size.unwrap_or(0);
            fates[at] = Fate::Keep;
            report.figures.kept.add(size);
            report.figures.unused += pack.unused_bytes();
            report.figures.repacked.packs -= 1;
            report.figures.repacked.bytes -= size;
            report.figures.rewritten -= pack.kept_bytes;
        }
    }

    let changed = table.changed_files(&fates);
    lock.confirm().await?;
    for (at, fate) in fates
        .iter()
        .enumerate()
        .filter(|(at, _)| table.is_listed_in(*at, &changed))
    {
        let pack = &table.packs[at];
        let blobs: Vec<PackedBlob> = table.blobs(at).map(|(blob, _)| blob).collect();
        match fate {
            Fate::Keep | Fate::Recover => index.add(pack.id, &blobs).await?,
            Fate::Repack if no_grace => {}
            Fate::Mark | Fate::Repack => index.add_marked(pack.id, &blobs, now, pack.size.unwrap_or(0)).await?,
            Fate::Wait(since) => {
                index
                    .add_marked(pack.id, &blobs, *since, pack.size.unwrap_or(0))
                    .await?;
            }
            Fate::Delete | Fate::Drop => {}
        }
    }
    index.write().await?;

    lock.confirm().await?;
    let old: Vec<Id> = table
        .files
        .iter()
        .zip(&changed)
        .filter(|(_, changed)| **changed)
        .map(|((id, _), _)| *id)
        .collect();
    report.figures.index_files = old.len() as u64;
    delete(repository, lock, FileKind::Index, &old, progress).await?;

    let mut going: Vec<Id> = orphans.iter().map(|(id, _)| *id).collect();
    let goes = |fate: &Fate| *fate == Fate::Delete || (no_grace && *fate == Fate::Repack);
    going.extend(
        table
            .packs
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| goes(fate))
            .map(|(pack, _)| pack.id),
    );
    if !going.is_empty() {
        lock.confirm().await?;
        progress.phase(Phase::Deleting, None, Some(going.len() as u64));
        delete(repository, lock, FileKind::Pack, &going, progress).await?;
    }

    // Looked at once more: what must be there is there.
    for pack in &mut table.packs {
        pack.size = None;
    }
    let strays: HashSet<Id> = table
        .find_packs(repository)
        .await?
        .into_iter()
        .map(|(id, _, _)| id)
        .collect();
    let stays = |fate: &Fate| matches!(fate, Fate::Keep | Fate::Recover);
    let lost = table
        .packs
        .iter()
        .zip(&fates)
        .find(|(pack, fate)| stays(fate) && pack.size.is_none());
    let lost = lost.map(|(pack, _)| pack.id);
    match lost.or_else(|| new_packs.into_iter().find(|id| !strays.contains(id))) {
        Some(id) => Err(bad_pack(id, Damage::Missing)),
        None => Ok(report),
    }
}

async fn delete(
    repository: &Repository,
    lock: &Lock,
    kind: FileKind,
    ids: &[Id],
    progress: &dyn Progress,
) -> Result<(), Error> {
    let store = repository.store();
    let deletions = stream::iter(ids.iter().map(Ok)).try_for_each_concurrent(DELETIONS, |id| {
        let store = &store;
        async move {
            lock.still_held()?;
            store.delete(&kind.key(id)).await?;
            progress.file_done();
            Ok::<_, Error>(())
        }
    });
    deletions.await
}

/// Writes index files as they get full.
pub(super) struct IndexWriter<'a> {
    repository: &'a Repository,
    file: IndexFile,
    blobs: usize,
    /// An index file is in the store already.
    has_written: bool,
}

impl<'a> IndexWriter<'a> {
    fn new(repository: &'a Repository) -> Self {
        Self {
            repository,
            file: IndexFile::default(),
            blobs: 0,
            has_written: false,
        }
    }

    /// A pack that stays.
    pub(super) async fn add(&mut self, id: Id, blobs: &[PackedBlob]) -> Result<(), Error> {
        self.file.packs.push(PackJson::new(id, blobs));
        self.added(blobs.len()).await
    }

    async fn add_marked(&mut self, id: Id, blobs: &[PackedBlob], since: Timestamp, size: u64) -> Result<(), Error> {
        self.file.packs_to_delete.push(PackJson::marked(id, blobs, since, size));
        self.added(blobs.len()).await
    }

    async fn added(&mut self, blobs: usize) -> Result<(), Error> {
        self.blobs += blobs;
        if self.blobs >= BLOBS_PER_FILE {
            self.write().await?;
        }
        Ok(())
    }

    /// Writes what is left.
    async fn write(&mut self) -> Result<(), Error> {
        let file = std::mem::take(&mut self.file);
        self.blobs = 0;
        if !file.packs.is_empty() || !file.packs_to_delete.is_empty() {
            self.has_written = true;
            self.repository.save_file(FileKind::Index, &file).await?;
        }
        Ok(())
    }
}
