//! A SQLite database, copied while it is written to.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Source, Verification, Written};
use crate::Error;
use crate::repo::Writer;

/// One database, saved as a single file and a `manifest.json` beside it.
pub struct SqliteSource {
    database: PathBuf,
    staging: PathBuf,
}

impl SqliteSource {
    /// The database at this absolute path. `staging` is the folder for the temporary copy; it needs as much room as the
    /// database, and is created if need be.
    pub fn new(database: impl Into<PathBuf>, staging: impl Into<PathBuf>) -> Self {
        Self { database: database.into(), staging: staging.into() }
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.database.clone()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let _ = (into, &self.staging);
        unimplemented!()
    }

    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let _ = restored;
        unimplemented!()
    }
}
