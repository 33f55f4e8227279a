//! What is saved. One file a source; each writes itself into a [`Writer`] and says at the end what it wrote.
//!
//! A source that fails makes no snapshot, whatever it had written by then. One that could not read some of its items
//! lists them and makes a partial snapshot.

pub mod command;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod patterns;
pub mod postgres;
pub mod sqlite;
mod stream;

pub use command::CommandSource;
pub use files::{FilesOptions, FilesSource, Marker};
pub use patterns::{Excludes, PatternError, Patterns};
pub use postgres::{BaseSource, DumpSource};
pub use sqlite::SqliteSource;
pub(crate) use stream::{MANIFEST, how as stream_failure, read_manifest};

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Serialize;

use crate::Error;
use crate::repo::{Tree, Writer};

/// Something that can be saved.
#[async_trait]
pub trait Source: Send + Sync {
    /// The field's word for it: `files`, `sqlite`, `postgres`.
    fn kind(&self) -> &'static str;

    /// What the snapshot's `paths` say: absolute paths.
    fn paths(&self) -> Vec<PathBuf>;

    /// What the snapshot's `excludes` say.
    fn excludes(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is worth telling of what was written, beyond what is missing from it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes everything. `Ok` means: read to its end, and proved complete by whatever the source has to prove it with.
    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error>;

    /// Proves a restored copy: `restored` is the folder that the snapshot was restored into.
    async fn verify(&self, restored: &Path) -> Result<Verification, Error>;
}

/// What a source wrote.
#[derive(Debug)]
pub struct Written {
    /// The root directory of the snapshot.
    pub root: Tree,
    /// What could not be read, and is therefore missing.
    pub skipped: Vec<Skipped>,
    /// What changed while it was read: saved, but perhaps half old and half new.
    pub changed: Vec<PathBuf>,
}

/// An item that was not saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its path on the machine that was saved.
    pub path: PathBuf,
    /// Why, in a few words.
    pub reason: String,
}

/// What was proved of a restored copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// What was looked at, such as `integrity_check`, each with its outcome.
    pub checks: Vec<VerifiedCheck>,
}

impl Verification {
    /// Everything held.
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }
}

/// One check of a restored copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedCheck {
    /// Its name.
    pub name: &'static str,
    /// What is wrong, if anything.
    pub problem: Option<String>,
}

/// Why a source failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or not what it should be.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// It is there, and is something else.
    #[error("{} is no {expected}", path.display())]
    NotA {
        /// What was read.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A database could not be copied.
    #[error("cannot copy the database {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A database is damaged, so its copy does not count.
    #[error("the database {} is damaged: {problem}", path.display())]
    DatabaseDamaged {
        /// The database.
        path: PathBuf,
        /// What SQLite found first.
        problem: String,
    },
    /// No room for the temporary copy of a database.
    #[error("no space left for the temporary copy at {}", path.display())]
    StagingFull {
        /// Where the copy is made.
        path: PathBuf,
    },
    /// The temporary copy of a database cannot be made.
    #[error("cannot make a temporary copy at {}", path.display())]
    Staging {
        /// Where the copy is made.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A command cannot be started.
    #[error("cannot run {program}")]
    Program {
        /// The program.
        program: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// What a command printed does not count.
    #[error("{program} {failure}")]
    Command {
        /// The program.
        program: String,
        /// Why it does not count.
        failure: command::CommandFailure,
        /// The end of what it said on stderr, without secrets that we know.
        said: String,
    },
    /// A PostgreSQL cluster could not be backed up.
    #[error("cannot back up the PostgreSQL cluster")]
    Base(#[source] postgres::base::BaseError),
    /// Two roots of one source have the same name.
    #[error("two paths are called {name:?}")]
    SameName {
        /// The name.
        name: String,
    },
}
