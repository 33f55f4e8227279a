//! What stands beside the dumps of a server in a snapshot: what each of them is of, and what proves it. The names of the
//! files are made from those of the databases, so that any name of a database is one of a file.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::postgres::PostgresError;
use crate::source::stream::MANIFEST;
use crate::source::{SourceError, read_manifest};
use crate::threads::blocking;

/// What the dumps of a server are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `opsctl.source/v1`.
    pub schema: String,
    /// `postgres`.
    pub kind: String,
    /// `dump`.
    pub method: String,
    /// The server's version in its own words, such as `15.6 (Debian 15.6-0+deb12u1)`.
    pub server_version: String,
    /// The same as a number: 150006.
    pub server_version_num: u32,
    /// The version of `pg_dump`.
    pub pg_dump_version: String,
    /// The dumps.
    pub databases: Vec<Dumped>,
    /// Roles and what else is of all databases, if that was saved.
    pub globals: Option<Globals>,
    /// The program that wrote this.
    pub tool_version: String,
    /// When it began.
    pub taken_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
}

/// The dump of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    /// The database.
    pub name: String,
    /// The file.
    pub file: String,
    /// Its length.
    pub length_bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Who owns the database.
    pub owner: String,
    /// What the database takes on the server's disk, if it was told.
    pub size_bytes: Option<u64>,
    /// When the dump was started: its state is not older.
    pub taken_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
}

/// What is of all databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Globals {
    /// The file.
    pub file: String,
    /// Its length.
    pub length_bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Whether what roles prove themselves with is in it.
    pub role_passwords: bool,
}

impl Manifest {
    /// Reads the manifest of a restored copy.
    pub async fn read(restored: &Path) -> Result<Self, Error> {
        let path = restored.join(MANIFEST);
        let reading = path.clone();
        let read = blocking(move || read_manifest(&reading)).await?;
        let unread = |source| SourceError::Read {
            path: path.clone(),
            source,
        };
        let text = read.map_err(unread)?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| unread(error.into()))?;
        // The names of files are used as they are.
        let files = manifest.databases.iter().map(|dumped| &dumped.file);
        for file in files.chain(manifest.globals.iter().map(|globals| &globals.file)) {
            if file.contains(['/', '\0']) || matches!(file.as_str(), "" | "." | ".." | MANIFEST) {
                return Err(unread(std::io::ErrorKind::InvalidData.into()).into());
            }
        }
        Ok(manifest)
    }

    /// The major version of the server.
    pub fn server_major(&self) -> u32 {
        self.server_version_num / 10_000
    }

    /// The dump that is meant: the one of that name, or the only one.
    pub fn database(&self, name: Option<&str>) -> Result<&Dumped, PostgresError> {
        let names = || self.databases.iter().map(|dumped| dumped.name.clone()).collect();
        match (name, self.databases.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(PostgresError::WhichDatabase { names: names() }),
            (Some(name), all) => {
                all.iter()
                    .find(|dumped| dumped.name == name)
                    .ok_or_else(|| PostgresError::NotInSnapshot {
                        name: name.to_owned(),
                        names: names(),
                    })
            }
        }
    }
}

/// The file of globals.
pub(crate) const GLOBALS: &str = "globals.sql";

/// The file that the dump of a database is: its name with everything that is unusual in names of files as `%` and two
/// digits.
pub(crate) fn file_of(database: &str) -> String {
    let mut file = String::new();
    for (at, byte) in database.bytes().enumerate() {
        let usual = byte.is_ascii_alphanumeric() || byte == b'_' || (at > 0 && matches!(byte, b'-' | b'.'));
        if usual {
            file.push(char::from(byte));
        } else {
            let _ = write!(file, "%{byte:02x}");
        }
    }
    file + ".dump"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_database_is_one_of_a_file() {
        for (name, file) in [
            ("orders", "orders.dump"),
            ("a-b.c_D", "a-b.c_D.dump"),
            ("../x", "%2e.%2fx.dump"),
            ("größe %", "gr%c3%b6%c3%9fe%20%25.dump"),
            ("", ".dump"),
        ] {
            assert_eq!(file_of(name), file);
        }
        // PostgreSQL's names have 63 bytes, those of files 255.
        assert!(file_of(&"\u{1}".repeat(63)).len() <= 255);
    }
}
