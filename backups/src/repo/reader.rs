//! Reads blobs back. Each is authenticated, decompressed within limits and hashed again before anybody sees it; if one
//! copy is damaged, the next is tried.

use std::sync::{Arc, Mutex, PoisonError};

use super::compress::{BLOB_LIMIT, Zstd};
use super::crypto::{Key, OVERHEAD};
use super::index::{Index, Location};
use super::layout::FileKind;
use super::pack::{BlobKind, PackedBlob};
use super::{Id, Repository, Tree};
use crate::error::{Damage, Error};
use crate::store::StoreError;
use crate::threads::blocking;

/// Reads with one state of the index. Clones share it.
#[derive(Clone)]
pub struct Reader {
    repository: Repository,
    index: Arc<Index>,
    decoders: Arc<Mutex<Vec<Decoder>>>,
}

impl Reader {
    pub(super) fn new(repository: Repository, index: Arc<Index>) -> Self {
        Self {
            repository,
            index,
            decoders: Arc::default(),
        }
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// A directory.
    pub async fn tree(&self, id: &Id) -> Result<Tree, Error> {
        let json = self.blob(BlobKind::Tree, id).await?;
        Tree::parse(&json).map_err(|_| Error::damaged(BlobKind::Tree.object(*id), Damage::Malformed))
    }

    /// The plain bytes of a blob.
    pub async fn blob(&self, kind: BlobKind, id: &Id) -> Result<Vec<u8>, Error> {
        let mut outcome = Err(Error::damaged(kind.object(*id), Damage::Missing));
        for location in self.index.find(kind, id) {
            match self.copy(&location).await {
                Ok(plain) => return Ok(plain),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// The plain bytes of one copy of a blob.
    async fn copy(&self, location: &Location) -> Result<Vec<u8>, Error> {
        let blob = location.blob;
        let damaged = |damage| Error::damaged(blob.kind.object(blob.id), damage);
        if blob.length as usize > BLOB_LIMIT + OVERHEAD {
            return Err(damaged(Damage::WrongSize));
        }
        let store = self.repository.store();
        let key = FileKind::Pack.key(&location.pack);
        let sealed = match store.get_range(&key, blob.offset.into(), blob.length.into()).await {
            Err(StoreError::NotFound { .. }) => {
                return Err(Error::damaged(FileKind::Pack.object(location.pack), Damage::Missing));
            }
            sealed => sealed?,
        };
        let this = self.clone();
        let decoded = blocking(move || {
            this.with_decoder(|decoder| {
                let length = decoder.decode(this.repository.key(), &blob, &sealed)?.len();
                Ok(decoder.take(&blob, length))
            })
        });
        decoded.await?.map_err(damaged)
    }

    /// Lends out one of the decoders, which keep their buffers.
    pub(crate) fn with_decoder<T>(&self, work: impl FnOnce(&mut Decoder) -> Result<T, Damage>) -> Result<T, Damage> {
        let kept = self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // No memory for a context: then the blob cannot be decompressed.
        let mut decoder = kept.map_or_else(|| Decoder::new().ok_or(Damage::NotDecompressible), Ok)?;
        let outcome = work(&mut decoder);
        self.decoders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(decoder);
        outcome
    }
}

/// No blob of content may become larger than this: sixteen times restic's largest chunk.
const DATA_LIMIT: usize = 128 << 20;

/// What is longer is given away with its buffer, and not copied.
const KEPT: usize = 8 << 20;

/// Opens, decompresses and verifies blobs, one at a time.
pub(crate) struct Decoder {
    zstd: Zstd,
    opened: Vec<u8>,
    plain: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            zstd: Zstd::new().ok()?,
            opened: Vec::new(),
            plain: Vec::new(),
        })
    }

    /// The plain bytes of the blob that was decoded last.
    fn take(&mut self, blob: &PackedBlob, length: usize) -> Vec<u8> {
        let plain = if blob.uncompressed.is_some() {
            &mut self.plain
        } else {
            &mut self.opened
        };
        if length > KEPT {
            std::mem::take(plain)
        } else {
            plain.clone()
        }
    }

    /// The plain bytes of a blob, proved to be those that its id names.
    pub(crate) fn decode(&mut self, key: &Key, blob: &PackedBlob, sealed: &[u8]) -> Result<&[u8], Damage> {
        if sealed.len() != blob.length as usize || sealed.len() < OVERHEAD {
            return Err(Damage::WrongSize);
        }
        key.open(sealed, &mut self.opened).map_err(|_| Damage::NotAuthentic)?;
        let plain = match blob.uncompressed {
            None => &self.opened,
            Some(length) => {
                let limit = match blob.kind {
                    BlobKind::Data => DATA_LIMIT,
                    BlobKind::Tree => BLOB_LIMIT,
                };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > limit {
                    return Err(Damage::NotDecompressible);
                }
                let decompressed = self.zstd.decompress(&self.opened, length, &mut self.plain);
                decompressed.map_err(|_| Damage::NotDecompressible)?;
                &self.plain
            }
        };
        if Id::of(plain) == blob.id {
            Ok(plain)
        } else {
            Err(Damage::WrongHash)
        }
    }
}
