//! Replication slots: what a server keeps the write-ahead log for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, Malformed, Timeline};

/// The name of a slot: 1 to 63 lower-case letters, digits and underscores, as PostgreSQL demands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName(String);

impl SlotName {
    /// A slot's name.
    ///
    /// # Errors
    /// [`Malformed`] for what no server takes.
    pub fn new(name: &str) -> Result<Self, Malformed> {
        let letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if (1..=63).contains(&name.len()) && name.bytes().all(letter) {
            return Ok(Self(name.to_owned()));
        }
        let what = "a name of a replication slot: 1 to 63 of a-z, 0-9 and _";
        Err(Malformed::new(what, name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SlotName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::new(text)
    }
}

impl TryFrom<String> for SlotName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::new(&text)
    }
}

impl From<SlotName> for String {
    fn from(name: SlotName) -> Self {
        name.0
    }
}

/// How long a slot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLifetime {
    /// Until it is dropped. The server keeps the log for it as long, whether anybody reads it or not.
    Permanent,
    /// Until the connection that made it ends.
    Temporary,
}

/// A physical slot as the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// From where on the log is kept; `None` if nothing is, since the slot was never used without `RESERVE_WAL`, or since
    /// it is lost.
    pub restart: Option<Lsn>,
    /// The timeline of that position, where the server tells (from version 15 on).
    pub timeline: Option<Timeline>,
}

/// All that a server says of a physical slot: `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// What it keeps.
    pub slot: Slot,
    /// Whether somebody reads from it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`; `None` where nothing is kept, and on servers before version 13.
    pub wal_status: Option<String>,
    /// How many bytes of log may be written before it is lost; `None` where it cannot be, since
    /// `max_slot_wal_keep_size` is not set, or where it is. Less than nothing where a checkpoint will lose it.
    pub safe_wal_size: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_server_takes() {
        let longest = "a".repeat(63);
        for right in ["opsctl", "_1", &longest] {
            assert_eq!(SlotName::new(right).unwrap().as_str(), right);
        }
        let longer = "a".repeat(64);
        for wrong in ["", "Opsctl", "a-b", "a b", "a\" x", "ä", &longer] {
            assert!(SlotName::new(wrong).is_err(), "{wrong}");
            let json = serde_json::to_string(wrong).unwrap();
            assert!(serde_json::from_str::<SlotName>(&json).is_err(), "{wrong}");
        }
    }
}
