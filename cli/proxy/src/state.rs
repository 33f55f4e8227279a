//! What a restarted proxy comes back with, and the files that it needs: state, secret, lock. Not what is in force now.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use opsctl_proxy_control::{Route, token};
use serde::{Deserialize, Serialize};

use crate::ProxyError;

const SCHEMA: &str = "opsctl.proxy-state/v1";

/// The contents of the state file. Weights are kept so that their run can find them, and come back lapsed; faults are
/// not kept, a restart ends them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    schema: String,
    pub(crate) revision: u64,
    pub(crate) routes: Vec<Route>,
}

impl State {
    pub(crate) fn new(revision: u64, routes: Vec<Route>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            revision,
            routes,
        }
    }

    /// Reads the file; without one, nothing is configured.
    pub(crate) fn load(path: &Path) -> Result<Self, ProxyError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(0, Vec::new())),
            Err(source) => {
                return Err(ProxyError::File {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let corrupt = |detail: String| ProxyError::Corrupt {
            path: path.to_owned(),
            detail,
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if state.schema != SCHEMA {
            return Err(corrupt(format!("schema {:?} instead of {SCHEMA:?}", state.schema)));
        }
        Ok(state)
    }

    /// Replaces the file as a whole, mode 0600: whoever reads it sees the old or the new state.
    pub(crate) async fn save(&self, path: PathBuf) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        tokio::task::spawn_blocking(move || replace(&path, &bytes)).await?
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Reads the secret of the canary tokens, making it at first.
pub(crate) fn secret(path: &Path) -> Result<Vec<u8>, ProxyError> {
    let failed = |source| ProxyError::File {
        path: path.to_owned(),
        source,
    };
    match token::read_secret(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret: [u8; 32] = rand::random();
            replace(path, hex::encode(secret).as_bytes()).map_err(failed)?;
            Ok(secret.to_vec())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ProxyError::Corrupt {
            path: path.to_owned(),
            detail: "not 64 hex digits".to_owned(),
        }),
        other => other.map_err(failed),
    }
}

/// Excludes a second proxy of the same state folder for as long as the file is held.
pub(crate) fn lock(path: &Path) -> Result<File, ProxyError> {
    let failed = |source| ProxyError::File {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ProxyError::AlreadyRunning { lock: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}
