//! The repository engine: restic's format 2, byte by byte, read and written; format 1 read.
//!
//! The format is described in restic's `doc/design.rst`. Everything in a repository is encrypted and authenticated, and
//! all but the config is named after the SHA-256 of its bytes.
//!
//! [`Writer`] takes content in, [`Reader`] gives it back, [`Lock`] keeps others from deleting meanwhile.

mod chunker;
pub(crate) mod compress;
mod config;
pub(crate) mod crypto;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod host;
#[cfg(test)]
mod hostile;
mod id;
pub(crate) mod index;
mod json;
mod key;
mod keys;
pub(crate) mod layout;
mod lock;
mod name;
pub(crate) mod pack;
mod polynomial;
mod reader;
mod sealer;
mod snapshot;
mod tree;
mod writer;

pub use id::{Id, ParseIdError};
pub use key::KdfParams;
pub use keys::{KeyList, KeyRecord};
pub use lock::{FoundLock, Lock, LockMode, LockState, locks, remove_locks};
pub use pack::BlobKind;
pub use reader::Reader;
pub(crate) use sealer::PACK_SIZE;
pub use snapshot::{PARTIAL_TAG, Snapshot, Summary};
pub use tree::{ExtendedAttribute, Node, NodeKind, Tree};
pub(crate) use writer::ZEROS;
pub use writer::{Content, Cut, Gathered, ReadFailure, Writer};

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::error::{Damage, Error, Object};
use crate::store::{Store, StoreError, StoreKey, list_all};
use crate::threads::blocking;
use config::Config;
use crypto::Key;
use index::{Index, IndexFile};
use key::{Attempt, KeyFile};
use layout::FileKind;

/// An open repository. Clones share one state.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    key: Key,
    config: Config,
    /// The key file that was opened.
    key_file: Id,
    /// The latest index that was loaded, so that only new index files are read.
    index: Mutex<Arc<Index>>,
}

/// What is decided when a repository is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions {
    /// How costly a guess of the password is.
    pub kdf: KdfParams,
}

/// A config has some two hundred bytes.
const CONFIG_LIMIT: usize = 1 << 20;

/// No repository has more key files than restic tries.
const KEY_FILES_TRIED: usize = 20;

impl Repository {
    /// Makes a repository in a store that has none.
    pub async fn init(store: Arc<dyn Store>, password: &str, options: &InitOptions) -> Result<Self, Error> {
        Self::init_with(store, password, options, Config::new()).await
    }

    /// Makes a repository that cuts content as `like` does, so that what is saved in both is recognized when it is
    /// copied from one to the other.
    pub async fn init_like(
        store: Arc<dyn Store>,
        password: &str,
        options: &InitOptions,
        like: &Self,
    ) -> Result<Self, Error> {
        Self::init_with(store, password, options, Config::like(like.config())).await
    }

    async fn init_with(
        store: Arc<dyn Store>,
        password: &str,
        options: &InitOptions,
        config: Config,
    ) -> Result<Self, Error> {
        if Self::exists(&*store).await? {
            return Err(Error::RepositoryExists {
                location: store.location(),
            });
        }
        // A key file without a config is what a killed `init` left: its master key serves as well as a new one.
        let (master, written) = match first_key(&*store, password).await {
            Ok(master) => (master, None),
            Err(Error::WrongPassword { keys: 0 }) => {
                let (master, id) = write_new_key(&*store, password, options.kdf).await?;
                ((id, master), Some(id))
            }
            Err(error) => return Err(error),
        };
        let json = serde_json::to_vec(&config).map_err(|_| Error::Internal("a config is always valid JSON"))?;
        match store
            .put(&layout::config(), Bytes::from(master.1.seal_to_vec(&json)))
            .await
        {
            Ok(()) => Ok(Self::new(store, master, config)),
            Err(error) => {
                // Another `init` was faster: our key opens nothing there.
                if let (true, Some(id)) = (error.is_exists(), written) {
                    store.delete(&FileKind::Key.key(&id)).await?;
                }
                let location = store.location();
                Err(if error.is_exists() {
                    Error::RepositoryExists { location }
                } else {
                    error.into()
                })
            }
        }
    }

    /// Opens the repository that a store holds.
    pub async fn open(store: Arc<dyn Store>, password: &str) -> Result<Self, Error> {
        let sealed = match read_within(&*store, &layout::config(), CONFIG_LIMIT).await {
            Err(error) if error.is_not_found() => {
                return Err(Error::NoRepository {
                    location: store.location(),
                });
            }
            sealed => sealed?.ok_or_else(|| Error::damaged(Object::Config, Damage::WrongSize))?,
        };
        // Of several keys that the password opens only one may fit the config; see `init`.
        let mut outcome = Err(Error::WrongPassword { keys: 0 });
        for (id, master) in open_keys(&*store, password).await? {
            let mut json = Vec::new();
            if master.open(&sealed, &mut json).is_err() {
                outcome = Err(Error::damaged(Object::Config, Damage::NotAuthentic));
                continue;
            }
            let config: Config =
                serde_json::from_slice(&json).map_err(|_| Error::damaged(Object::Config, Damage::Malformed))?;
            if !(1..=2).contains(&config.version) {
                return Err(Error::UnsupportedVersion {
                    version: config.version,
                });
            }
            outcome = Ok(((id, master), config));
            break;
        }
        let (master, config) = outcome?;
        Ok(Self::new(store, master, config))
    }

    /// Opens the repository, or makes it where there is none. The flag says whether it was made.
    pub async fn open_or_init(
        store: Arc<dyn Store>,
        password: &str,
        options: &InitOptions,
    ) -> Result<(Self, bool), Error> {
        match Self::open(Arc::clone(&store), password).await {
            Err(Error::NoRepository { .. }) => {}
            opened => return Ok((opened?, false)),
        }
        match Self::init(Arc::clone(&store), password, options).await {
            Err(Error::RepositoryExists { .. }) => Ok((Self::open(store, password).await?, false)),
            made => Ok((made?, true)),
        }
    }

    /// Whether a store holds a repository.
    pub async fn exists(store: &dyn Store) -> Result<bool, Error> {
        match store.stat(&layout::config()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn new(store: Arc<dyn Store>, (key_file, key): (Id, Key), config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                key,
                config,
                key_file,
                index: Mutex::default(),
            }),
        }
    }

    /// The repository's own name.
    pub fn id(&self) -> Id {
        self.shared.config.id
    }

    /// The format version: 1 or 2.
    pub fn version(&self) -> u32 {
        self.shared.config.version
    }

    /// Whether both cut content alike. If not, what is copied from one to the other is not recognized by later backups
    /// there, and takes its room twice.
    pub fn chunks_like(&self, other: &Self) -> bool {
        self.config().chunks_like(other.config())
    }

    /// Where it lies, for messages.
    pub fn location(&self) -> String {
        self.shared.store.location()
    }

    /// The store that it lies in.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.shared.store)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.shared.key
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The ids of all files of one kind, in order.
    pub(crate) async fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, Error> {
        let entries = list_all(&*self.shared.store, kind.folder()).await?;
        Ok(entries
            .iter()
            .filter_map(|entry| Some((entry.key.file_name().parse().ok()?, entry.size)))
            .collect())
    }

    /// The plain bytes of an index, snapshot or lock file.
    async fn load_bytes(&self, kind: FileKind, id: &Id) -> Result<Vec<u8>, Error> {
        let damaged = |damage| Error::damaged(kind.object(*id), damage);
        let limit = kind.limit();
        let sealed = match read_within(&*self.shared.store, &kind.key(id), limit).await {
            Err(StoreError::NotFound { .. }) => return Err(damaged(Damage::Missing)),
            sealed => sealed?.ok_or_else(|| damaged(Damage::WrongSize))?,
        };
        if Id::of(&sealed) != *id {
            return Err(damaged(Damage::WrongHash));
        }
        let mut plain = Vec::new();
        self.key()
            .open(&sealed, &mut plain)
            .map_err(|_| damaged(Damage::NotAuthentic))?;
        compress::unpack_file_within(plain, limit).map_err(|_| damaged(Damage::NotDecompressible))
    }

    /// A snapshot or lock file.
    pub(crate) async fn load_file<T: DeserializeOwned>(&self, kind: FileKind, id: &Id) -> Result<T, Error> {
        let json = self.load_bytes(kind, id).await?;
        serde_json::from_slice(&json).map_err(|_| Error::damaged(kind.object(*id), Damage::Malformed))
    }

    /// An index file.
    pub(crate) async fn load_index_file(&self, id: &Id) -> Result<IndexFile, Error> {
        let json = self.load_bytes(FileKind::Index, id).await?;
        IndexFile::parse(&json).map_err(|_| Error::damaged(Object::Index(*id), Damage::Malformed))
    }

    /// The bytes and name that an index, snapshot or lock file will have.
    pub(crate) fn seal_file<T: Serialize>(&self, content: &T) -> Result<(Id, Bytes), Error> {
        let json = serde_json::to_vec(content).map_err(|_| Error::Internal("what is stored is always valid JSON"))?;
        let plain = if self.version() == 1 {
            json
        } else {
            compress::pack_file(&json).map_err(|_| Error::Internal("zstd failed"))?
        };
        let sealed = Bytes::from(self.key().seal_to_vec(&plain));
        Ok((Id::of(&sealed), sealed))
    }

    /// Stores an index or snapshot file.
    pub(crate) async fn save_file<T: Serialize>(&self, kind: FileKind, content: &T) -> Result<Id, Error> {
        let (id, sealed) = self.seal_file(content)?;
        self.shared.store.put(&kind.key(&id), sealed).await?;
        Ok(id)
    }

    /// The index as it is now. Files that were read before are not read again.
    pub(crate) async fn load_index(&self) -> Result<Arc<Index>, Error> {
        use futures::{StreamExt, TryStreamExt, stream};
        let files: Vec<Id> = self
            .list(FileKind::Index)
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        let known = Arc::clone(&self.shared.index.lock().unwrap_or_else(PoisonError::into_inner));
        if files.len() == known.files().len() && files.iter().all(|id| known.files().contains(id)) {
            return Ok(known);
        }
        // A file that is gone took its packs with it: begin anew.
        let grown = known.files().iter().all(|id| files.contains(id));
        let mut index = if grown { Index::clone(&known) } else { Index::default() };
        let new: Vec<Id> = files.into_iter().filter(|id| !index.files().contains(id)).collect();
        let mut loaded = stream::iter(new)
            .map(|id| async move { Ok::<_, Error>((id, self.load_index_file(&id).await?)) })
            .buffered(self.store().transfers().min(8));
        while let Some((id, file)) = loaded.try_next().await? {
            index.add_file(id, &file);
        }
        let index = Arc::new(index);
        *self.shared.index.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&index);
        Ok(index)
    }

    /// A snapshot.
    pub async fn snapshot(&self, id: &Id) -> Result<Snapshot, Error> {
        self.load_file(FileKind::Snapshot, id).await
    }

    /// A snapshot with every field that it has, known or not.
    pub(crate) async fn snapshot_json(&self, id: &Id) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
        self.load_file(FileKind::Snapshot, id).await
    }

    /// What reads blobs, with the index as it is now.
    pub async fn reader(&self) -> Result<Reader, Error> {
        Ok(Reader::new(self.clone(), self.load_index().await?))
    }

    /// What reads blobs, with an index of the caller's.
    pub(crate) fn reader_with(&self, index: Index) -> Reader {
        Reader::new(self.clone(), Arc::new(index))
    }
}

/// An object, or `None` where it is longer than anything sound: of that no more is read.
pub(crate) async fn read_within(store: &dyn Store, key: &StoreKey, limit: usize) -> Result<Option<Bytes>, StoreError> {
    // One byte more than is allowed tells that there is more.
    let bytes = store.get_range(key, 0, limit as u64 + 1).await?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// A master key that the password opens, and its key file.
async fn first_key(store: &dyn Store, password: &str) -> Result<(Id, Key), Error> {
    open_keys(store, password)
        .await?
        .pop()
        .ok_or(Error::WrongPassword { keys: 0 })
}

/// Every master key that the password opens, at least one, and the key file of each.
async fn open_keys(store: &dyn Store, password: &str) -> Result<Vec<(Id, Key)>, Error> {
    let (mut opened, mut refused, mut damaged) = (Vec::new(), 0, None);
    for entry in list_all(store, FileKind::Key.folder())
        .await?
        .iter()
        .take(KEY_FILES_TRIED)
    {
        let Ok(id) = entry.key.file_name().parse::<Id>() else {
            continue;
        };
        let bytes = match read_within(store, &entry.key, FileKind::Key.limit()).await {
            // Taken away since it was listed: of two that make a repository at once the slower one withdraws its key.
            Err(error) if error.is_not_found() => continue,
            bytes => bytes?,
        };
        let Some(bytes) = bytes else {
            damaged = Some(Error::damaged(Object::Key(id), Damage::WrongSize));
            continue;
        };
        let password = zeroize::Zeroizing::new(password.to_owned());
        let attempt = blocking(move || KeyFile::open(&id, &bytes, &password));
        match attempt.await? {
            Attempt::Opened(key) => opened.push((id, *key)),
            Attempt::WrongPassword => refused += 1,
            Attempt::Damaged(damage) => damaged = Some(Error::damaged(Object::Key(id), damage)),
        }
    }
    match (opened.is_empty(), refused, damaged) {
        (false, _, _) => Ok(opened),
        // A sound key that refuses says nothing about the damaged one, which may be the password's own.
        (true, _, Some(damaged)) => Err(damaged),
        (true, keys, None) => Err(Error::WrongPassword { keys }),
    }
}

/// Seals a new master key under a password and stores it.
async fn write_new_key(store: &dyn Store, password: &str, kdf: KdfParams) -> Result<(Key, Id), Error> {
    let master = Key::random();
    let id = write_key(store, &master, password, kdf).await?;
    Ok((master, id))
}

/// Seals a master key under a password and stores it.
async fn write_key(store: &dyn Store, master: &Key, password: &str, kdf: KdfParams) -> Result<Id, Error> {
    let (password, master) = (zeroize::Zeroizing::new(password.to_owned()), master.clone());
    let sealing = blocking(move || {
        let file = KeyFile::seal(&master, &password, kdf, clock::now())?;
        serde_json::to_vec(&file).ok()
    });
    let sealed = sealing.await?;
    let bytes = sealed.ok_or_else(|| Error::Invalid(format!("scrypt refuses {kdf:?}")))?;
    let id = Id::of(&bytes);
    store.put(&FileKind::Key.key(&id), Bytes::from(bytes)).await?;
    Ok(id)
}
