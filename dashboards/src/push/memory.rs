//! A Grafana in memory: the twin of a real one, for tests and for trying a plan out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Board, Folder, Grafana, PushError, Revision, Stored};

/// A Grafana in memory.
#[derive(Debug, Default)]
pub struct Memory {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    folders: BTreeMap<String, String>,
    boards: BTreeMap<String, Stored>,
    writes: u64,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a board there as somebody else would.
    pub fn put(&self, uid: &str, stored: Stored) {
        self.lock().boards.insert(uid.to_owned(), stored);
    }

    /// How often a board was written.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    /// A board in the classic model, at the top, that nobody manages.
    pub fn classic(spec: serde_json::Value, revision: &str) -> Self {
        Self {
            spec,
            revision: Revision(revision.to_owned()),
            folder: None,
            model: None,
            managed_by: None,
        }
    }
}

impl Grafana for Memory {
    async fn board(&self, uid: &str) -> Result<Option<Stored>, PushError> {
        Ok(self.lock().boards.get(uid).cloned())
    }

    async fn folder(&self, uid: &str) -> Result<Option<String>, PushError> {
        Ok(self.lock().folders.get(uid).cloned())
    }

    async fn make_folder(&self, folder: &Folder) -> Result<(), PushError> {
        self.lock()
            .folders
            .entry(folder.uid.clone())
            .or_insert_with(|| folder.title.clone());
        Ok(())
    }

    async fn write(&self, board: &Board, folder: &Folder, follows: Option<&Revision>) -> Result<(), PushError> {
        let mut inside = self.lock();
        if inside.boards.get(&board.uid).map(|stored| &stored.revision) != follows {
            return Err(PushError::Changed { uid: board.uid.clone() });
        }
        inside.writes += 1;
        let revision = format!("written {}", inside.writes);
        let mut stored = Stored::classic(board.spec.clone(), &revision);
        stored.folder = Some(folder.uid.clone());
        inside.boards.insert(board.uid.clone(), stored);
        Ok(())
    }
}
