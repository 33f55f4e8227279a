//! How long-running work tells of its progress. Who listens decides what to show; this crate shows nothing.

use std::path::Path;

/// A listener. Methods are called from several threads and must return at once.
pub trait Progress: Send + Sync {
    /// A part of the work begins; `bytes` and `files` are its expected size, where known.
    fn phase(&self, phase: Phase, bytes: Option<u64>, files: Option<u64>) {
        let _ = (phase, bytes, files);
    }
    /// Work on this file begins (a path inside the source or the target).
    fn file(&self, path: &Path) {
        let _ = path;
    }
    /// This many more bytes are done.
    fn bytes(&self, count: u64) {
        let _ = count;
    }
    /// One more file is done.
    fn file_done(&self) {}
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A source makes a consistent copy of itself (a database).
    Copying,
    /// Bytes are read from the source and stored.
    Saving,
    /// Bytes are read from the repository and written to the target.
    Restoring,
    /// The structure of the repository is read.
    CheckingStructure,
    /// The packs themselves are read.
    CheckingData,
    /// Blobs are read from one place and stored in another.
    Transferring,
    /// It is found out what snapshots need.
    FindingNeeded,
    /// What is needed of packs with waste is stored anew.
    Repacking,
    /// What nothing needs is deleted.
    Deleting,
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
