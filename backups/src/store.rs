//! Where a repository lies: a flat map from keys to bytes. Not what the bytes mean.
//!
//! Keys are restic's: `config`, `keys/<id>`, `locks/<id>`, `index/<id>`, `snapshots/<id>`, `data/<first two digits>/<id>`.
//! One file an implementation ([`LocalStore`], [`MemoryStore`], [`S3Store`]); [`contract`] is the suite that each must pass, and
//! [`FaultyStore`] is a decorator that fails on purpose.

pub mod contract;
mod faulty;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod key;
mod local;
mod memory;
pub mod s3;

pub use faulty::{Fault, FaultyStore};
pub use key::StoreKey;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use s3::S3Store;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

/// A place that keeps objects. Every method may be called concurrently and any number of times.
#[async_trait]
pub trait Store: Send + Sync {
    /// The place, for messages; never a secret.
    fn location(&self) -> String;

    /// Keeps `body` under `key`, if nothing is there.
    ///
    /// - After `Ok` the object is durable: a power cut does not lose it, and every `list` and `get` that starts later sees it.
    /// - After `Err` the object is absent or whole, never part of it, and nothing else is left behind.
    /// - An object that is there stays as it is: [`StoreError::Exists`]. Of two at once exactly one gets `Ok`.
    /// - Dropping the future has the outcome of an `Err`; the object may appear, whole, a moment later.
    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError>;

    /// All bytes of an object.
    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError>;

    /// `length` bytes from `offset` on. Fewer come back only where the object ends.
    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// Size and time of an object.
    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError>;

    /// Up to `limit` objects whose keys begin with `prefix` (a folder such as `data/`, or a part of a key), in the order
    /// of their keys and after `after`. A page shorter than its `next` says: only `next: None` means the end.
    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError>;

    /// Removes an object. That it is absent is no error: a repeated delete succeeds.
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// What the store's own clock says, the one that [`Entry::modified`] comes from. What is deleted for its age is
    /// judged by this clock and never by ours.
    async fn time(&self) -> Result<Timestamp, StoreError>;

    /// How many transfers at one time serve this store best. Each has a pack in memory.
    fn transfers(&self) -> usize {
        4
    }

    /// Removes what interrupted writes left behind where no listing shows it, if it is older than `age` by the store's
    /// clock; says how much it was. Most stores leave nothing.
    async fn sweep(&self, age: SignedDuration) -> Result<u64, StoreError> {
        let _ = age;
        Ok(0)
    }
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: StoreKey,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects in the order of their keys.
    pub entries: Vec<Entry>,
    /// Pass it as `after` to get the next page; `None` at the end.
    pub next: Option<StoreKey>,
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{key} does not exist")]
    NotFound {
        /// The object.
        key: String,
    },
    /// There is such an object, and it was not replaced.
    #[error("{key} exists already")]
    Exists {
        /// The object.
        key: String,
    },
    /// No room is left.
    #[error("no space left at {location}")]
    Full {
        /// The store.
        location: String,
    },
    /// The store refuses us: permissions, or a read-only medium.
    #[error("access to {key} is denied")]
    Denied {
        /// The object.
        key: String,
        /// What the operating system or service said.
        #[source]
        source: std::io::Error,
    },
    /// The store does not answer, or says again and again that it cannot.
    #[error("the store at {location} does not answer")]
    Unavailable {
        /// The store.
        location: String,
        /// What was seen last.
        #[source]
        source: std::io::Error,
    },
    /// The place that objects are kept in does not exist: it is not for us to make.
    #[error("there is no {location}")]
    NoPlace {
        /// The bucket.
        location: String,
    },
    /// The store does not know who we are, or believes us no longer.
    #[error("{location} refuses the credentials")]
    Credentials {
        /// The store.
        location: String,
        /// What the service said, or why there are no credentials.
        #[source]
        source: std::io::Error,
    },
    /// Our clock and the store's are so far apart that it refuses what we sign.
    #[error("the clocks are too far apart: here it is {ours}, at {location} {}", said(*theirs))]
    ClockSkew {
        /// The store.
        location: String,
        /// The time here.
        ours: Timestamp,
        /// The time there, if it said so.
        theirs: Option<Timestamp>,
    },
    /// Anything else.
    #[error("cannot {action} {key}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The object.
        key: String,
        /// What the operating system or service said.
        #[source]
        source: std::io::Error,
    },
    /// A key that no store accepts.
    #[error("{key:?} is no valid object name")]
    InvalidKey {
        /// The key.
        key: String,
    },
}

impl StoreError {
    /// The object is absent.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The object is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Exists { .. })
    }
}

fn said(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "another time".to_owned(), |time| format!("it is {time}"))
}

/// Every object under `prefix`, page after page.
pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    const PAGE: usize = 10_000;
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE).await?;
        entries.extend(page.entries);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(entries),
        }
    }
}
