//! Stores what is needed of some packs in new ones. Blobs are proved and then copied as they are sealed: nothing damaged
//! gets a new home.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use super::rewrite::IndexWriter;
use super::table::Table;
use super::{Amount, bad_pack};
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::layout::FileKind;
use crate::repo::pack::{self, PackedBlob};
use crate::repo::{BlobKind, Id, Lock, PACK_SIZE, Reader, Repository};
use crate::store::StoreError;
use crate::threads::{blocking, ended};

/// So many packs are read at once, and as many written.
const AT_ONCE: usize = 2;

/// What came of it.
#[derive(Default)]
pub(super) struct Repacked {
    /// What was written.
    pub(super) written: Amount,
    pub(super) packs: Vec<Id>,
    /// Packs, by number, of which something is damaged; they must stay.
    pub(super) damaged: Vec<usize>,
    /// No room was left for the rest. What was written until then is of no use alone.
    pub(super) full: Option<Error>,
}

/// Copies what stays of these packs into new ones, and those into the index.
pub(super) async fn repack(
    repository: &Repository,
    lock: &Lock,
    table: &Table,
    packs: &[usize],
    index: &mut IndexWriter<'_>,
    progress: &dyn Progress,
) -> Result<Repacked, Error> {
    let (mut repacked, mut uploads) = (Repacked::default(), Uploads::default());
    let copied = copy(
        repository,
        lock,
        table,
        packs,
        (&mut repacked, &mut uploads, index),
        progress,
    )
    .await;
    match copied {
        Err(error) if error.is_disk_full() => {
            // Those on their way may still find room.
            while let Some(done) = uploads.0.join_next().await {
                if let Ok(Ok((id, _, _))) = done {
                    repacked.packs.push(id);
                }
            }
            repacked.full = Some(error);
        }
        copied => copied?,
    }
    Ok(repacked)
}

/// What is repacked, what is on its way, and the index that it goes into.
type Parts<'a, 'b> = (&'a mut Repacked, &'a mut Uploads, &'a mut IndexWriter<'b>);

async fn copy(
    repository: &Repository,
    lock: &Lock,
    table: &Table,
    packs: &[usize],
    (repacked, uploads, index): Parts<'_, '_>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let reader = repository.reader_with(crate::repo::index::Index::default());
    let mut packers = [Packer::default(), Packer::default()];
    let mut reading = stream::iter(packs)
        .map(async |number| Ok::<_, Error>((*number, read(&reader, table, *number).await?)))
        .boxed()
        .buffered(AT_ONCE);
    while let Some((number, read)) = reading.try_next().await? {
        let Some(blobs) = read else {
            repacked.damaged.push(number);
            continue;
        };
        for (blob, sealed) in blobs {
            let packer = &mut packers[blob.kind as usize];
            packer.add(&blob, &sealed);
            if packer.bytes.len() >= PACK_SIZE {
                lock.still_held()?;
                uploads
                    .start(repository, packer.finish(repository), repacked, index)
                    .await?;
            }
        }
        progress.file_done();
    }
    for mut packer in packers {
        if !packer.blobs.is_empty() {
            uploads
                .start(repository, packer.finish(repository), repacked, index)
                .await?;
        }
    }
    while uploads.wait(repacked, index).await? {}
    Ok(())
}

/// Sealed blobs, each as it lies in its pack.
type Sealed = Vec<(PackedBlob, Bytes)>;

/// What stays of a pack, each blob proved; `None` if one of them is damaged.
async fn read(reader: &Reader, table: &Table, number: usize) -> Result<Option<Sealed>, Error> {
    let repository = reader.repository();
    let key = FileKind::Pack.key(&table.packs[number].id);
    let staying = table.blobs(number).filter(|(_, stays)| *stays).map(|(blob, _)| blob);
    let mut sealed = Sealed::new();
    for run in runs(staying) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let length = u64::from(last.offset - first.offset) + u64::from(last.length);
        let bytes = match repository.store().get_range(&key, first.offset.into(), length).await {
            Err(StoreError::NotFound { .. }) => return Err(bad_pack(table.packs[number].id, Damage::Missing)),
            bytes => bytes?,
        };
        for blob in run {
            let from = (blob.offset - first.offset) as usize;
            let to = from + blob.length as usize;
            if to > bytes.len() {
                return Ok(None);
            }
            sealed.push((blob, bytes.slice(from..to)));
        }
    }
    let reader = reader.clone();
    blocking(move || {
        let key = reader.repository().key();
        let proved = sealed.iter().all(|(blob, bytes)| {
            reader
                .with_decoder(|decoder| decoder.decode(key, blob, bytes).map(drop))
                .is_ok()
        });
        proved.then_some(sealed)
    })
    .await
}

/// Blobs that lie one after the other are read in one go, unless that were too long.
fn runs(blobs: impl Iterator<Item = PackedBlob>) -> Vec<Vec<PackedBlob>> {
    let mut runs: Vec<Vec<PackedBlob>> = Vec::new();
    for blob in blobs {
        let goes_on = |run: &&mut Vec<PackedBlob>| {
            let (first, last) = (run[0], run[run.len() - 1]);
            last.offset.checked_add(last.length) == Some(blob.offset)
                && (blob.offset - first.offset) as usize + blob.length as usize <= PACK_SIZE
        };
        match runs.last_mut().filter(goes_on) {
            Some(run) => run.push(blob),
            None => runs.push(vec![blob]),
        }
    }
    runs
}

/// A pack in the making.
#[derive(Default)]
struct Packer {
    bytes: BytesMut,
    blobs: Vec<PackedBlob>,
}

impl Packer {
    fn add(&mut self, blob: &PackedBlob, sealed: &[u8]) {
        self.blobs.push(PackedBlob {
            offset: self.bytes.len() as u32,
            ..*blob
        });
        self.bytes.extend_from_slice(sealed);
    }

    fn finish(&mut self, repository: &Repository) -> (Id, Bytes, Vec<PackedBlob>) {
        let blobs = std::mem::take(&mut self.blobs);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(&pack::trailer(repository.key(), &blobs));
        (Id::of(&bytes), bytes.freeze(), blobs)
    }
}

/// The name of a pack that was uploaded, its size, and what it holds.
type Uploaded = (Id, u64, Vec<PackedBlob>);

/// Packs on their way to the store.
#[derive(Default)]
struct Uploads(JoinSet<Result<Uploaded, Error>>);

impl Uploads {
    async fn start(
        &mut self,
        repository: &Repository,
        (id, bytes, blobs): (Id, Bytes, Vec<PackedBlob>),
        repacked: &mut Repacked,
        index: &mut IndexWriter<'_>,
    ) -> Result<(), Error> {
        while self.0.len() >= AT_ONCE {
            self.wait(repacked, index).await?;
        }
        let store = repository.store();
        self.0.spawn(async move {
            let length = bytes.len() as u64;
            match store.put(&FileKind::Pack.key(&id), bytes).await {
                // The same name is the same bytes: an answer was lost on the way.
                Err(StoreError::Exists { .. }) => {}
                outcome => outcome?,
            }
            Ok((id, length, blobs))
        });
        Ok(())
    }

    /// Waits for one of them; it is in the store now, and may be in the index.
    async fn wait(&mut self, repacked: &mut Repacked, index: &mut IndexWriter<'_>) -> Result<bool, Error> {
        let Some(done) = self.0.join_next().await else {
            return Ok(false);
        };
        let (id, length, blobs) = done.map_err(ended)??;
        repacked.written.add(length);
        repacked.packs.push(id);
        index.add(id, &blobs).await?;
        Ok(true)
    }
}

/// Whether a kind's packer is the first or the second.
const _: () = assert!(BlobKind::Data as usize == 0 && BlobKind::Tree as usize == 1);
