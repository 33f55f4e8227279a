//! Reads the manifest that a server makes of a base backup: which files there are, how long each is, its hash, and which
//! log is needed. Versions 1 (PostgreSQL 13 to 16) and 2 (since 17, with the system's identifier). Nothing is believed
//! before the manifest's own hash, its last line, was computed anew.
//!
//! The format is that of PostgreSQL's documentation, "Backup Manifest Format". Hashes other than SHA-256 are refused: it
//! is what base backups are asked for.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::tar::inside;

/// No manifest is longer. It has some 200 bytes a file, so that this is enough for two and a half million.
pub(super) const LONGEST: usize = 512 << 20;

/// Why a manifest does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// Longer than any server's.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// Cut, or no manifest at all.
    #[error("its last line is not its checksum")]
    NoChecksum,
    /// Somebody changed it, or it was damaged.
    #[error("its checksum does not fit")]
    Checksum,
    /// It is authentic, and makes no sense.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Of a later server.
    #[error("its version {0} is not known")]
    Version(u32),
    /// A path in it leads elsewhere.
    #[error("its path {0:?} leads elsewhere")]
    Path(String),
    /// Two files of one name.
    #[error("it names {} twice", .0.display())]
    Twice(PathBuf),
    /// A file without a SHA-256.
    #[error("it has no SHA-256 of {}", .0.display())]
    NoHash(PathBuf),
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupManifest {
    pub(super) version: u32,
    /// The system's identifier; since version 2.
    pub(super) system: Option<u64>,
    /// The files, in the server's order.
    pub(super) files: Vec<ManifestFile>,
    /// The log that is needed, by timeline.
    pub(super) ranges: Vec<WalRange>,
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManifestFile {
    /// Relative to the data folder; those of tablespaces begin with `pg_tblspc/` and its number.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
}

/// Log that is needed to make the files consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalRange {
    pub(super) timeline: u32,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// As it stands in the JSON.
#[derive(Deserialize)]
struct Text {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<TextFile>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<TextRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct TextFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// Where the path is no UTF-8: in hexadecimal digits.
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct TextRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl BackupManifest {
    /// Reads a whole manifest, and believes it only if its own checksum fits.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ManifestFault> {
        if bytes.len() > LONGEST {
            return Err(ManifestFault::TooLong);
        }
        // The checksum is of everything before the line that it stands in, and that line is the last.
        let body = bytes.strip_suffix(b"\n").ok_or(ManifestFault::NoChecksum)?;
        let line = body
            .iter()
            .rposition(|byte| *byte == b'\n')
            .ok_or(ManifestFault::NoChecksum)?
            + 1;
        let said = std::str::from_utf8(&body[line..]).ok();
        let said = said.and_then(|line| line.strip_prefix("\"Manifest-Checksum\": \"")?.strip_suffix("\"}"));
        let said = said.ok_or(ManifestFault::NoChecksum)?;
        let hash: [u8; 32] = Sha256::digest(&bytes[..line]).into();
        if sha256(said) != Some(hash) {
            return Err(ManifestFault::Checksum);
        }
        let text: Text = serde_json::from_slice(bytes).map_err(|error| ManifestFault::Malformed(error.to_string()))?;
        if text.checksum != said {
            return Err(ManifestFault::Malformed("it has two checksums".to_owned()));
        }
        match (text.version, text.system) {
            (1, None) | (2, Some(_)) => {}
            (1 | 2, _) => return Err(ManifestFault::Malformed("its system's identifier".to_owned())),
            (version, _) => return Err(ManifestFault::Version(version)),
        }
        let files = text
            .files
            .into_iter()
            .map(TextFile::read)
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::with_capacity(files.len());
        if let Some(twice) = files.iter().find(|file| !names.insert(&file.path)) {
            return Err(ManifestFault::Twice(twice.path.clone()));
        }
        let ranges = text.ranges.into_iter().map(TextRange::read);
        Ok(Self {
            version: text.version,
            system: text.system,
            ranges: ranges.collect::<Result<_, _>>()?,
            files,
        })
    }
}

impl TextFile {
    fn read(self) -> Result<ManifestFile, ManifestFault> {
        let name = match (&self.path, &self.encoded) {
            (Some(path), None) => path.clone().into_bytes(),
            (None, Some(encoded)) => {
                hex::decode(encoded).map_err(|_| ManifestFault::Path(encoded.chars().take(100).collect()))?
            }
            _ => return Err(ManifestFault::Malformed("a file has one path".to_owned())),
        };
        let path = inside(&name).filter(|path| path.as_os_str().len() == name.len() && path != Path::new(""));
        let path =
            path.ok_or_else(|| ManifestFault::Path(String::from_utf8_lossy(&name).chars().take(100).collect()))?;
        let hash = self.checksum.filter(|_| self.algorithm.as_deref() == Some("SHA256"));
        match hash.and_then(|hash| sha256(&hash)) {
            Some(sha256) => Ok(ManifestFile {
                path,
                size: self.size,
                sha256,
            }),
            None => Err(ManifestFault::NoHash(path)),
        }
    }
}

impl TextRange {
    fn read(self) -> Result<WalRange, ManifestFault> {
        let position = |text: &str| {
            let (high, low) = text.split_once('/')?;
            let half = |digits: &str| {
                let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                plain.then(|| u64::from_str_radix(digits, 16).ok())?
            };
            Some(half(high)? << 32 | half(low)?)
        };
        match (position(&self.start), position(&self.end)) {
            (Some(start), Some(end)) if start <= end => Ok(WalRange {
                timeline: self.timeline,
                start,
                end,
            }),
            _ => Err(ManifestFault::Malformed("a range of the log".to_owned())),
        }
    }
}

fn sha256(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(hash)
}

#[cfg(test)]
#[path = "manifest/tests.rs"]
mod tests;
