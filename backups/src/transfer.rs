//! Moves blobs from where a reader finds them into a writer: read in runs of neighbours, proved, stored again under the
//! writer's key. Nothing of a blob is believed before its hash is right; which snapshots need it is others' knowledge.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{Mutex, Semaphore};

use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::compress::BLOB_LIMIT;
use crate::repo::layout::FileKind;
use crate::repo::pack::PackedBlob;
use crate::repo::{BlobKind, Id, Reader, Writer};
use crate::store::StoreError;
use crate::threads::blocking;

/// The name of a blob: trees and data have names of their own.
pub(crate) type BlobName = (BlobKind, Id);

/// Neighbouring blobs are read together up to this many bytes,
const RUN_LENGTH: u64 = 8 << 20;
/// with up to so many bytes between them that nobody needs.
const RUN_GAP: u64 = 128 << 10;
/// So many runs are on their way at once: what a store far away needs to be kept busy.
const RUNS: usize = 6;
/// Plain blobs in memory at once, in MiB. A larger one is alone.
const BUDGET: u32 = 128;

/// Blobs of one pack that are read together.
struct Run {
    pack: Id,
    start: u64,
    end: u64,
    blobs: Vec<PackedBlob>,
}

/// Stores every wanted blob that can be read anywhere. Returns those that cannot, and what is wrong with each; an error
/// means that a store failed.
pub(crate) async fn transfer(
    reader: &Reader,
    wanted: impl IntoIterator<Item = BlobName>,
    writer: &Writer<'_>,
    progress: &dyn Progress,
) -> Result<HashMap<BlobName, Damage>, Error> {
    let (runs, lost) = plan(reader, wanted);
    let transfer = Transfer {
        reader,
        writer,
        progress,
        budget: Semaphore::new(BUDGET as usize),
        lost: Mutex::new(lost),
    };
    let mut running = stream::iter(runs).map(|run| transfer.run(run)).buffer_unordered(RUNS);
    while let Some(done) = running.next().await {
        done?;
    }
    drop(running);
    Ok(transfer.lost.into_inner())
}

/// The packed length of blobs, as the first place of each says.
pub(crate) fn packed_length<'a>(reader: &Reader, blobs: impl IntoIterator<Item = &'a BlobName>) -> u64 {
    let length = |(kind, id): &BlobName| {
        let place = reader.index().find(*kind, id).next();
        place.map_or(0, |place| u64::from(place.blob.length))
    };
    blobs.into_iter().map(length).sum()
}

fn plan(reader: &Reader, wanted: impl IntoIterator<Item = BlobName>) -> (Vec<Run>, HashMap<BlobName, Damage>) {
    let (mut places, mut lost) = (Vec::new(), HashMap::new());
    for (kind, id) in wanted {
        match reader.index().find(kind, &id).next() {
            Some(place) => places.push((place.pack, place.blob)),
            None => drop(lost.insert((kind, id), Damage::Missing)),
        }
    }
    places.sort_unstable_by_key(|(pack, blob)| (*pack, blob.offset));
    let mut runs: Vec<Run> = Vec::new();
    for (pack, blob) in places {
        let start = u64::from(blob.offset);
        let end = start + u64::from(blob.length);
        match runs.last_mut() {
            Some(run) if run.pack == pack && start <= run.end + RUN_GAP && end <= run.start + RUN_LENGTH => {
                run.end = run.end.max(end);
                run.blobs.push(blob);
            }
            _ => runs.push(Run {
                pack,
                start,
                end,
                blobs: vec![blob],
            }),
        }
    }
    (runs, lost)
}

struct Transfer<'a> {
    reader: &'a Reader,
    writer: &'a Writer<'a>,
    progress: &'a dyn Progress,
    budget: Semaphore,
    lost: Mutex<HashMap<BlobName, Damage>>,
}

impl Transfer<'_> {
    async fn run(&self, run: Run) -> Result<(), Error> {
        self.writer.still_wanted()?;
        let store = self.reader.repository().store();
        // A blob that claims more than any may have is not read for it.
        let bearable = run.end - run.start <= RUN_LENGTH.max(BLOB_LIMIT as u64 + 1024);
        let key = FileKind::Pack.key(&run.pack);
        let bytes = if bearable {
            match store.get_range(&key, run.start, run.end - run.start).await {
                Err(StoreError::NotFound { .. }) => Bytes::new(),
                bytes => bytes?,
            }
        } else {
            Bytes::new()
        };
        let mut done = HashSet::new();
        for blob in run.blobs {
            if done.insert((blob.kind, blob.id)) {
                self.blob(blob, &bytes, run.start).await?;
                self.progress.bytes(blob.length.into());
            }
        }
        Ok(())
    }

    async fn blob(&self, blob: PackedBlob, run: &Bytes, start: u64) -> Result<(), Error> {
        let share = u32::try_from(blob.plain_length() >> 20).unwrap_or(BUDGET);
        let _share = self
            .budget
            .acquire_many(share.clamp(1, BUDGET))
            .await
            .map_err(|_| Error::Internal("nobody closes the budget"))?;
        let from = (u64::from(blob.offset) - start) as usize;
        let to = from.saturating_add(blob.length as usize).min(run.len());
        let sealed = run.slice(from.min(to)..to);
        let reader = self.reader.clone();
        let decoding = blocking(move || {
            let key = reader.repository().key();
            reader.with_decoder(|decoder| decoder.decode(key, &blob, &sealed).map(<[u8]>::to_vec))
        });
        let plain = match decoding.await? {
            Ok(plain) => plain,
            // Another copy may be good.
            Err(_) => match self.reader.blob(blob.kind, &blob.id).await {
                Ok(plain) => plain,
                Err(Error::Damaged { damage, .. }) => {
                    self.lost.lock().await.insert((blob.kind, blob.id), damage);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        self.writer.save_blob(blob.kind, plain).await.map(drop)
    }
}
