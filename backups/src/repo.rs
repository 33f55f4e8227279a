//! The repository engine: restic's format 2, byte by byte, read and written; format 1 read.
//!
//! The format is described in restic's `doc/design.rst`. Everything in a repository is encrypted and authenticated, and
//! (but for keys and locks) named after the SHA-256 of its bytes.

mod id;
mod json;
mod name;
mod snapshot;
mod tree;

pub use id::{Id, ParseIdError};
pub use snapshot::{Snapshot, Summary};
pub use tree::{Node, NodeKind, Tree};

use std::sync::Arc;

use crate::error::Error;
use crate::store::Store;

/// An open repository. Clones share one state.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
}

/// What is decided when a repository is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions {
    /// How costly a guess of the password is.
    pub kdf: KdfParams,
}

/// Parameters of scrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Binary logarithm of N.
    pub log_n: u8,
    /// Block size r.
    pub r: u32,
    /// Parallelism p.
    pub p: u32,
}

impl Default for KdfParams {
    /// N = 2^15, r = 8, p = 3: OWASP's recommendation for 32 MiB; about a quarter of a second.
    fn default() -> Self {
        Self { log_n: 15, r: 8, p: 3 }
    }
}

impl Repository {
    /// Makes a repository in an empty store.
    pub async fn init(store: Arc<dyn Store>, password: &str, options: &InitOptions) -> Result<Self, Error> {
        let _ = (password, options, &store);
        unimplemented!()
    }

    /// Opens the repository that a store holds.
    pub async fn open(store: Arc<dyn Store>, password: &str) -> Result<Self, Error> {
        let _ = (password, store);
        unimplemented!()
    }

    /// Opens the repository, or makes it if the store is empty. The flag says whether it was made.
    pub async fn open_or_init(store: Arc<dyn Store>, password: &str, options: &InitOptions) -> Result<(Self, bool), Error> {
        let _ = (password, store, options);
        unimplemented!()
    }

    /// Whether a store holds a repository.
    pub async fn exists(store: &dyn Store) -> Result<bool, Error> {
        let _ = store;
        unimplemented!()
    }

    /// The repository's own name.
    pub fn id(&self) -> Id {
        unimplemented!()
    }

    /// The format version: 1 or 2.
    pub fn version(&self) -> u32 {
        unimplemented!()
    }

    /// Where it lies, for messages.
    pub fn location(&self) -> String {
        self.store.location()
    }
}

/// Where a source writes to.
pub struct Writer {}
