//! Files and directories.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Excludes, Source, Verification, Written};
use crate::Error;
use crate::repo::Writer;

/// Files and directories, each saved under its own name.
pub struct FilesSource {
    roots: Vec<PathBuf>,
    excludes: Excludes,
}

impl FilesSource {
    /// These absolute paths, without what the patterns exclude.
    pub fn new(roots: Vec<PathBuf>, excludes: Excludes) -> Self {
        Self { roots, excludes }
    }
}

#[async_trait]
impl Source for FilesSource {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.roots.clone()
    }

    fn excludes(&self) -> Vec<String> {
        self.excludes.patterns().to_vec()
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let _ = into;
        unimplemented!()
    }

    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let _ = restored;
        unimplemented!()
    }
}
