//! Takes content in. Reading and chunking, sealing, and uploading overlap: while one block is read, others are sealed
//! on every core, and several packs are on their way to the store.
//!
//! ```text
//! reader -> blocks of chunks -> sealers (hash, dedup, compress, encrypt, prove) -> packs -> store -> index
//! ```
//!
//! The writer knows nothing of files; sources bring readers and make trees.

mod blocks;

pub use blocks::{Cut, Gathered, ReadFailure};

use std::collections::HashSet;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, TryStreamExt};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chunker::{Chunker, MAX_SIZE};
use super::index::{Index, IndexFile, PackJson};
use super::layout::FileKind;
use super::pack::BlobKind;
use super::sealer::{Buffers, FinishedPack, Sealer};
use super::{Id, Reader, Repository, Snapshot, Summary, Tree};
use crate::error::Error;
use crate::progress::Progress;
use crate::store::StoreError;
use crate::threads::{blocking, ended};
use blocks::{Block, BlockReader, Spares};

/// An index file is written once so many blobs wait for one: then a killed backup loses little.
const BLOBS_PER_INDEX: usize = 20_000;

/// Zeros are stored in blobs of this many bytes.
pub(crate) const ZEROS: u64 = MAX_SIZE as u64;

/// The content of one file, as it was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Its blobs, in order.
    pub blobs: Vec<Id>,
    /// Its length in bytes.
    pub size: u64,
}

impl Content {
    /// Puts what comes next behind it.
    pub fn append(&mut self, next: Self) {
        self.blobs.extend(next.blobs);
        self.size += next.size;
    }
}

/// Where a source writes to.
pub struct Writer<'a> {
    shared: Arc<Shared>,
    reader: Reader,
    parent: Option<Snapshot>,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    figures: Mutex<Summary>,
    zeros: OnceCell<Id>,
}

/// What worker threads and uploads need.
struct Shared {
    repository: Repository,
    known: Arc<Index>,
    chunker: Chunker,
    /// Blobs that this writer stores, from the moment on that one worker has them in hand.
    claimed: Mutex<HashSet<(BlobKind, Id)>>,
    /// Idle sealers, data and tree apart: packs hold one kind.
    sealers: [Mutex<Vec<Sealer>>; 2],
    buffers: Buffers,
    spares: Spares,
    /// Packs that lie in the store and in no index yet.
    unindexed: Mutex<Vec<PackJson>>,
    unindexed_blobs: AtomicU64,
    uploads: Mutex<JoinSet<Result<(), Error>>>,
    upload_slots: Arc<Semaphore>,
    sealing_slots: Semaphore,
    stored: [AtomicU64; 2],
    stored_plain: AtomicU64,
    stored_packed: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Writer<'a> {
    /// A writer that takes over from `parent` what did not change.
    pub(crate) async fn new(
        repository: &Repository,
        parent: Option<Snapshot>,
        progress: &'a dyn Progress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, Error> {
        let known = repository.load_index().await?;
        Self::knowing(repository, known, parent, progress, cancel)
    }

    /// A writer that holds only what `known` names for stored.
    pub(crate) fn knowing(
        repository: &Repository,
        known: Arc<Index>,
        parent: Option<Snapshot>,
        progress: &'a dyn Progress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, Error> {
        if repository.version() == 1 {
            return Err(Error::ReadOnlyVersion);
        }
        let reader = Reader::new(repository.clone(), Arc::clone(&known));
        let config = crate::error::Object::Config;
        let secret = repository.config().chunker_secret();
        let secret = secret.ok_or_else(|| Error::damaged(config, crate::Damage::Malformed))?;
        let shared = Shared {
            known,
            repository: repository.clone(),
            chunker: Chunker::new(&secret),
            claimed: Mutex::default(),
            sealers: Default::default(),
            buffers: Buffers::default(),
            spares: Spares::default(),
            unindexed: Mutex::default(),
            unindexed_blobs: AtomicU64::new(0),
            uploads: Mutex::default(),
            upload_slots: Arc::new(Semaphore::new(repository.store().transfers())),
            sealing_slots: Semaphore::new(workers()),
            stored: Default::default(),
            stored_plain: AtomicU64::new(0),
            stored_packed: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            reader,
            parent,
            progress,
            cancel,
            figures: Mutex::default(),
            zeros: OnceCell::new(),
        })
    }

    /// Who is told of progress.
    pub fn progress(&self) -> &dyn Progress {
        self.progress
    }

    /// Fails once the caller cancelled.
    pub fn still_wanted(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// A token for work on other threads.
    pub fn cancellation(&self) -> &CancellationToken {
        self.cancel
    }

    /// The snapshot that this one is compared with.
    pub fn parent(&self) -> Option<&Snapshot> {
        self.parent.as_ref()
    }

    /// A directory of the parent. One that cannot be read is as good as none: its files are read again.
    pub async fn parent_tree(&self, id: &Id) -> Option<Tree> {
        self.reader.tree(id).await.ok()
    }

    /// Whether the repository holds all these data blobs.
    pub fn holds(&self, blobs: &[Id]) -> bool {
        blobs.iter().all(|id| self.shared.known.contains(BlobKind::Data, id))
    }

    /// Counts in the summary of the backup.
    pub fn count(&self, count: impl FnOnce(&mut Summary)) {
        count(&mut locked(&self.figures));
    }

    /// Stores what a reader yields, to its end. Reading happens where it may block.
    pub async fn save<R: Read + Send + 'static>(&self, reader: R) -> Result<Content, ReadFailure> {
        let blocks = self.blocks(reader);
        let sealed = blocks.map_ok(async |block| {
            let size = block.size();
            let blobs = self.seal(BlobKind::Data, block).await?;
            self.progress.bytes(size);
            Ok(Content { blobs, size })
        });
        let mut content = Content::default();
        let mut sealed = std::pin::pin!(sealed.try_buffered(workers() + 1));
        while let Some(part) = sealed.try_next().await? {
            content.append(part);
        }
        Ok(content)
    }

    /// Stores so many times `ZEROS` zero bytes, which costs as much as storing them once. Constant content is cut
    /// at this length anyway.
    pub async fn save_zeros(&self, times: usize) -> Result<Content, Error> {
        let stored = self.zeros.get_or_try_init(async || {
            let ids = self.seal(BlobKind::Data, Block::whole(vec![0; MAX_SIZE])).await?;
            ids.first().copied().ok_or(Error::Internal("one blob has one id"))
        });
        let blobs = vec![*stored.await?; times];
        let size = ZEROS * times as u64;
        self.progress.bytes(size);
        Ok(Content { blobs, size })
    }

    /// Stores small contents, each for itself.
    pub async fn save_gathered(&self, gathered: Gathered) -> Result<Vec<Content>, Error> {
        let (block, sizes) = gathered.block();
        let mut blobs = self.seal(BlobKind::Data, block).await?.into_iter();
        let content = |size| Content {
            blobs: if size > 0 {
                blobs.by_ref().take(1).collect()
            } else {
                Vec::new()
            },
            size,
        };
        Ok(sizes.into_iter().map(content).collect())
    }

    /// Room for content that its source cuts itself.
    pub fn cut(&self) -> Cut {
        Cut::new(self.shared.spares.take())
    }

    /// Stores content that its source has cut: the blobs of its chunks, in order. Work on it begins at once, whoever waits
    /// for it or not; dropping what is returned ends it.
    pub fn save_cut(&self, cut: Cut) -> impl Future<Output = Result<Vec<Id>, Error>> + Send + use<> {
        let sealing = Arc::clone(&self.shared).seal_and_send(BlobKind::Data, cut.block());
        let task = AbortOnDropHandle::new(tokio::spawn(sealing));
        async { task.await.map_err(ended)? }
    }

    /// So many blocks are worth being in hand at once: one more than are sealed together.
    pub fn blocks_at_once(&self) -> usize {
        workers() + 1
    }

    /// Stores bytes that are in memory.
    pub async fn save_bytes(&self, bytes: Vec<u8>) -> Result<Content, Error> {
        match self.save(std::io::Cursor::new(bytes)).await {
            Ok(content) => Ok(content),
            Err(ReadFailure::Engine(error)) => Err(error),
            Err(ReadFailure::Reader(_)) => Err(Error::Internal("memory cannot fail to be read")),
        }
    }

    /// Stores a directory.
    pub async fn save_tree(&self, tree: &Tree) -> Result<Id, Error> {
        let json = tree
            .to_bytes()
            .map_err(|_| Error::Internal("a tree is always valid JSON"))?;
        self.save_blob(BlobKind::Tree, json).await
    }

    /// Stores a blob as it is, uncut.
    pub(crate) async fn save_blob(&self, kind: BlobKind, plain: Vec<u8>) -> Result<Id, Error> {
        let ids = self.seal(kind, Block::whole(plain)).await?;
        ids.first().copied().ok_or(Error::Internal("one blob has one id"))
    }

    /// The reader's content in blocks, each read and cut on a thread where that may block.
    fn blocks<R: Read + Send + 'static>(&self, reader: R) -> impl Stream<Item = Result<Block, ReadFailure>> + '_ {
        let start = Some(BlockReader::new(reader));
        futures::stream::try_unfold(start, async |state| {
            let Some(mut reader) = state else { return Ok(None) };
            self.still_wanted()?;
            let shared = Arc::clone(&self.shared);
            let reading = blocking(move || {
                let block = reader.next(&shared.chunker, &shared.spares);
                (block, reader)
            });
            let (block, reader) = reading.await?;
            Ok(block.map_err(ReadFailure::Reader)?.map(|block| {
                let rest = (!reader.is_at_end()).then_some(reader);
                (block, rest)
            }))
        })
    }

    /// Stores the chunks of a block that are not stored yet. A task of its own: whoever waits for one block may leave the
    /// futures of others alone meanwhile, and those must not keep slots that it needs.
    async fn seal(&self, kind: BlobKind, block: Block) -> Result<Vec<Id>, Error> {
        self.still_wanted()?;
        let task = tokio::spawn(Arc::clone(&self.shared).seal_and_send(kind, block));
        AbortOnDropHandle::new(task).await.map_err(ended)?
    }

    /// Stores whatever is still open, and the index of it. Only then may a snapshot name the content.
    pub(crate) async fn finish(self) -> Result<Summary, Error> {
        let shared = Arc::clone(&self.shared);
        for pack in blocking(move || shared.close()).await? {
            Arc::clone(&self.shared).upload(pack).await?;
        }
        let mut uploads = std::mem::take(&mut *locked(&self.shared.uploads));
        while let Some(done) = uploads.join_next().await {
            done.map_err(ended)??;
        }
        self.shared.store_index(true).await?;
        let mut figures = locked(&self.figures).clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.data_blobs = count(&self.shared.stored[0]).cast_signed();
        figures.tree_blobs = count(&self.shared.stored[1]).cast_signed();
        figures.data_added = count(&self.shared.stored_plain);
        figures.data_added_packed = count(&self.shared.stored_packed);
        Ok(figures)
    }
}

impl Drop for Writer<'_> {
    /// Uploads of a backup that failed or was given up are of no use.
    fn drop(&mut self) {
        locked(&self.shared.uploads).abort_all();
    }
}

/// So many blocks are sealed at once.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

impl Shared {
    async fn seal_and_send(self: Arc<Self>, kind: BlobKind, block: Block) -> Result<Vec<Id>, Error> {
        let slot = self.sealing_slots.acquire().await.map_err(|_| Error::Cancelled)?;
        let shared = Arc::clone(&self);
        let sealing = blocking(move || {
            let sealed = shared.seal(kind, &block.bytes, &block.chunks);
            shared.spares.put_back(block.bytes);
            sealed
        });
        let (ids, packs) = sealing.await??;
        drop(slot);
        for pack in packs {
            Arc::clone(&self).upload(pack).await?;
        }
        Ok(ids)
    }

    /// Sends a pack on its way, once there is a free slot. An earlier upload's failure surfaces here.
    async fn upload(self: Arc<Self>, pack: FinishedPack) -> Result<(), Error> {
        let slot = Arc::clone(&self.upload_slots)
            .acquire_owned()
            .await
            .map_err(|_| Error::Cancelled)?;
        let shared = Arc::clone(&self);
        let mut uploads = locked(&self.uploads);
        while let Some(done) = uploads.try_join_next() {
            done.map_err(ended)??;
        }
        uploads.spawn(async move {
            let outcome = shared.store_pack(pack).await;
            drop(slot);
            outcome
        });
        Ok(())
    }

    /// Seals the chunks that nobody has stored yet. Runs on a thread of its own.
    fn seal(
        &self,
        kind: BlobKind,
        bytes: &[u8],
        chunks: &[Range<usize>],
    ) -> Result<(Vec<Id>, Vec<FinishedPack>), Error> {
        let place = &self.sealers[kind as usize];
        let mut sealer = None;
        let (mut ids, mut packs) = (Vec::with_capacity(chunks.len()), Vec::new());
        for chunk in chunks {
            let plain = &bytes[chunk.clone()];
            let id = Id::of(plain);
            ids.push(id);
            if self.known.contains(kind, &id) || !locked(&self.claimed).insert((kind, id)) {
                continue;
            }
            if sealer.is_none() {
                let idle = locked(place).pop();
                sealer = Some(idle.map_or_else(|| Sealer::new(self.buffers.clone()), Ok)?);
            }
            let Some(sealer) = &mut sealer else { continue };
            let (blob, full) = sealer.add(self.repository.key(), kind, id, plain, true)?;
            self.stored[kind as usize].fetch_add(1, Ordering::Relaxed);
            self.stored_plain.fetch_add(plain.len() as u64, Ordering::Relaxed);
            self.stored_packed.fetch_add(blob.length.into(), Ordering::Relaxed);
            packs.extend(full);
        }
        locked(place).extend(sealer);
        Ok((ids, packs))
    }

    /// Closes every open pack.
    fn close(&self) -> Vec<FinishedPack> {
        let sealers = self
            .sealers
            .iter()
            .flat_map(|place| std::mem::take(&mut *locked(place)));
        sealers
            .into_iter()
            .filter_map(|mut sealer| sealer.finish(self.repository.key()))
            .collect()
    }

    async fn store_pack(&self, pack: FinishedPack) -> Result<(), Error> {
        let FinishedPack { id, bytes, blobs } = pack;
        match self.repository.store().put(&FileKind::Pack.key(&id), bytes).await {
            // The same name is the same bytes: an answer was lost on the way.
            Err(StoreError::Exists { .. }) => {}
            outcome => outcome?,
        }
        locked(&self.unindexed).push(PackJson::new(id, &blobs));
        self.unindexed_blobs.fetch_add(blobs.len() as u64, Ordering::Relaxed);
        self.store_index(false).await
    }

    /// Writes an index file of the packs that lie in the store, if there are enough of them or this is the end.
    async fn store_index(&self, last: bool) -> Result<(), Error> {
        if !last && (self.unindexed_blobs.load(Ordering::Relaxed) as usize) < BLOBS_PER_INDEX {
            return Ok(());
        }
        let packs = std::mem::take(&mut *locked(&self.unindexed));
        self.unindexed_blobs.store(0, Ordering::Relaxed);
        if packs.is_empty() {
            return Ok(());
        }
        let file = IndexFile {
            packs,
            ..IndexFile::default()
        };
        self.repository.save_file(FileKind::Index, &file).await?;
        Ok(())
    }
}
