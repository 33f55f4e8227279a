//! What a snapshot file says: who saved which tree, when and from where. Restic's JSON, unknown fields tolerated.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Id;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the backup began.
    pub time: Timestamp,
    /// The snapshot that this one was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// The root directory.
    pub tree: Id,
    /// What was saved: absolute paths.
    #[serde(default, deserialize_with = "super::json::null_is_default")]
    pub paths: Vec<String>,
    /// The machine.
    #[serde(default)]
    pub hostname: String,
    /// The user.
    #[serde(default)]
    pub username: String,
    /// The user's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The group's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// What was left out.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::null_is_default"
    )]
    pub excludes: Vec<String>,
    /// Free labels.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::null_is_default"
    )]
    pub tags: Vec<String>,
    /// The snapshot that this one was rewritten from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    /// The program that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_version: Option<String>,
    /// What the backup found and stored; written by restic since 0.17.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

impl Snapshot {
    /// Something could not be read and is missing: a tag says so, for people and other programs to see.
    pub fn is_partial(&self) -> bool {
        self.tags.iter().any(|tag| tag == PARTIAL_TAG)
    }
}

/// The tag of snapshots that lack something.
pub const PARTIAL_TAG: &str = "partial";

/// Figures of one backup, with restic's names. Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// When the backup began.
    pub backup_start: Timestamp,
    /// When all its data was stored.
    pub backup_end: Timestamp,
    /// Files that the parent lacks.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files taken over from the parent unread.
    pub files_unmodified: u64,
    /// Directories that the parent lacks.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories equal to the parent's.
    pub dirs_unmodified: u64,
    /// Data blobs that were stored.
    pub data_blobs: i64,
    /// Trees that were stored.
    pub tree_blobs: i64,
    /// Bytes stored, before compression.
    pub data_added: u64,
    /// Bytes stored, as they lie in the packs.
    pub data_added_packed: u64,
    /// Files in the snapshot.
    pub total_files_processed: u64,
    /// Bytes in the snapshot's files.
    pub total_bytes_processed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
