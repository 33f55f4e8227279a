//! Copies of what runs, so that a rebuild never changes it: `releases/<service>/<version>/<program>`, and the versions
//! that were promoted, in `releases.json` (schema `opsctl.releases/v1`). It builds nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::state_dir::{StateDir, failed, read_json, write_json};
use crate::{Result, VersionSpec};

/// The file `releases.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// `opsctl.releases/v1`.
    pub schema: String,
    /// By service: the version that was promoted last.
    pub services: BTreeMap<String, Promoted>,
}

/// A version that was promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// How to run it.
    pub spec: VersionSpec,
    /// When it became stable.
    pub at: Timestamp,
}

impl Releases {
    /// Reads the file; none is an empty one.
    pub fn load(state: &StateDir) -> Result<Self> {
        Ok(read_json(&state.path("releases.json"))?.unwrap_or_else(|| Self {
            schema: "opsctl.releases/v1".to_owned(),
            services: BTreeMap::new(),
        }))
    }

    /// Writes the file.
    pub fn save(&self, state: &StateDir) -> Result<()> {
        write_json(&state.path("releases.json"), self, true)
    }
}

/// A copy of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The first 12 hexadecimal digits of the program's SHA-256.
    pub version: String,
    /// The copy.
    pub program: PathBuf,
}

/// Copies the program into the state folder under its digest. Idempotent; a copy appears whole or not at all.
pub fn store(state: &StateDir, service: &str, program: &Path) -> Result<Release> {
    let folder = state.make(Path::new("releases").join(service))?;
    let name = program.file_name().unwrap_or_else(|| "program".as_ref());
    let temporary = folder.join(format!(".{}.{:08x}", std::process::id(), rand::random::<u32>()));
    let digest = copy_hashing(program, &temporary).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed("copy", program)(error)
    })?;
    let version: String = digest.chars().take(12).collect();
    let target = state
        .make(Path::new("releases").join(service).join(&version))?
        .join(name);
    // Same content when it exists: a rename over it is harmless, also to what runs.
    fs::rename(&temporary, &target).map_err(failed("write", &target))?;
    Ok(Release {
        version,
        program: target,
    })
}

/// Copies while hashing, so that the digest is that of the copy, whatever happens to the original meanwhile.
fn copy_hashing(from: &Path, to: &Path) -> io::Result<String> {
    use io::{Read, Write};
    let mut source = File::open(from)?;
    let mut copy = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(to)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        copy.write_all(&buffer[..read])?;
    }
    copy.set_permissions(fs::Permissions::from_mode(0o700))?;
    copy.sync_data()?;
    Ok(hex::encode(hasher.finalize()))
}

/// The version of a command that is not copied (an interpreter and a script): the digest of its words and of the files
/// among them.
pub fn version_of(command: &[String], cwd: &Path) -> String {
    let mut hasher = Sha256::new();
    for word in command {
        hasher.update(word.as_bytes());
        hasher.update([0]);
        if let Ok(content) = fs::read(cwd.join(word)) {
            hasher.update(content);
        }
    }
    hex::encode(&hasher.finalize()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_does_not_change_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join(".opsctl")).unwrap();
        let program = folder.path().join("orders");
        fs::write(&program, "one").unwrap();
        let first = store(&state, "orders", &program).unwrap();
        assert_eq!(store(&state, "orders", &program).unwrap(), first);
        fs::write(&program, "two").unwrap();
        let second = store(&state, "orders", &program).unwrap();
        assert_ne!(first.version, second.version);
        assert_eq!(fs::read_to_string(&first.program).unwrap(), "one");
        let mode = fs::metadata(&first.program).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
