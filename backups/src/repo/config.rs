//! The config file: which format, which repository, which secret for the chunker. Restic's JSON; sealed, never compressed.

use serde::{Deserialize, Serialize};

use super::Id;
use super::polynomial::Polynomial;

/// What a config file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    /// The format version.
    pub(crate) version: u32,
    /// The repository's own name.
    pub(crate) id: Id,
    chunker_polynomial: String,
}

impl Config {
    /// The config of a new repository.
    pub(crate) fn new() -> Self {
        Self {
            version: 2,
            id: Id::random(),
            chunker_polynomial: Polynomial::random().to_string(),
        }
    }

    /// The config of a new repository that cuts content as `other` does.
    pub(crate) fn like(other: &Self) -> Self {
        Self {
            chunker_polynomial: other.chunker_polynomial.clone(),
            ..Self::new()
        }
    }

    /// Whether both cut content alike.
    pub(crate) fn chunks_like(&self, other: &Self) -> bool {
        self.chunker_polynomial == other.chunker_polynomial
    }

    /// What the chunker is seeded with.
    pub(crate) fn chunker_secret(&self) -> Option<[u8; 8]> {
        self.chunker_polynomial.parse().ok().map(Polynomial::secret)
    }
}
