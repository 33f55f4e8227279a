//! The signing keys: files that all instances share and read again and again, so that a key is rotated by adding a file
//! and withdrawn by removing one. It makes and publishes tokens' keys; what is in a token is `token`'s matter.
//!
//! A folder of `*.pem` files (PKCS #8, EC P-256, mode 0600). All of them are published; the one with the last name signs,
//! once it has been there for [`SETTLE`]: until then some verifier may hold a list without it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chassis::private;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Serialize;

/// How often instances read the folder.
pub const RELOAD: Duration = Duration::from_secs(5);
/// How long a new key is published before it signs: longer than every instance needs to see it, and every verifier to
/// ask again ([`MAX_AGE`]).
pub const SETTLE: Duration = Duration::from_mins(1);
/// How long verifiers may keep the list.
pub const MAX_AGE: Duration = Duration::from_secs(30);

/// One key.
pub struct Key {
    /// Its thumbprint (RFC 7638), which tokens name.
    pub id: String,
    /// PKCS #8.
    pub secret: Vec<u8>,
    /// As published.
    pub public: Jwk,
    name: String,
    since: Timestamp,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A public key (RFC 7517, RFC 7518 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
    kid: String,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or the folder cannot be read or made.
    #[error("{} cannot be read or made", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read a key.
    #[error("{} may be read by others (mode {mode:o}): it must be 600, and the key should be replaced", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that holds no key.
    #[error("{} is no EC P-256 key in PKCS #8 PEM: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The folder holds no key any more.
    #[error("{} holds no key", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error("a key cannot be made")]
    Make,
}

/// The keys as last read. Clones share.
#[derive(Debug, Clone)]
pub struct Keys {
    folder: Arc<Path>,
    current: Arc<RwLock<Arc<Vec<Key>>>>,
}

impl Keys {
    /// Reads the folder; makes it, and a first key, when there is none. Of instances that start at once one makes the
    /// key, and all use it.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        private::folder(folder).map_err(|source| KeyError::Io {
            path: folder.to_owned(),
            source,
        })?;
        if files(folder)?.is_empty() {
            write_new(&folder.join(name(1)))?;
        }
        let current = Arc::new(RwLock::new(Arc::new(read(folder)?)));
        Ok(Self {
            folder: folder.into(),
            current,
        })
    }

    /// Reads the folder again. On an error the keys stay as they were. Says whether they changed.
    pub fn reload(&self) -> Result<bool, KeyError> {
        let fresh = read(&self.folder)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = !fresh.iter().map(|key| &key.id).eq(current.iter().map(|key| &key.id));
        *current = Arc::new(fresh);
        Ok(changed)
    }

    /// All keys, in the order of their names.
    pub fn all(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which of `keys` signs at `now`: the last that has settled, or the first when none has. `None` when there is none.
pub fn signer(keys: &[Key], now: Timestamp) -> Option<&Key> {
    let settled = |key: &&Key| now.duration_since(key.since).unsigned_abs() >= SETTLE && now > key.since;
    keys.iter().rev().find(settled).or_else(|| keys.first())
}

/// Adds a key that takes over after [`SETTLE`]. Says which file it is.
pub fn rotate(folder: &Path) -> Result<PathBuf, KeyError> {
    private::folder(folder).map_err(|source| KeyError::Io {
        path: folder.to_owned(),
        source,
    })?;
    loop {
        let last = files(folder)?.iter().filter_map(|path| number(path)).max().unwrap_or(0);
        let path = folder.join(name(last + 1));
        if write_new(&path)? {
            return Ok(path);
        }
    }
}

fn name(number: u32) -> String {
    format!("{number:08}.pem")
}

fn number(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Puts a new key into a file, unless there is one of that name.
fn write_new(path: &Path) -> Result<bool, KeyError> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| KeyError::Make)?;
    let text = STANDARD.encode(document.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    private::create_once(path, pem.as_bytes()).map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The key files, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let failed = |source| KeyError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(folder: &Path) -> Result<Vec<Key>, KeyError> {
    let keys = files(folder)?
        .iter()
        .map(|path| read_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        Err(KeyError::Missing {
            path: folder.to_owned(),
        })
    } else {
        Ok(keys)
    }
}

fn read_key(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).map_err(failed)?;
    key(&text, name, since).map_err(|reason| KeyError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

fn key(pem: &str, name: String, since: Timestamp) -> Result<Key, String> {
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PRIVATE KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
        .ok_or("it does not begin with BEGIN PRIVATE KEY")?;
    let body: String = body.split_whitespace().collect();
    let secret = STANDARD.decode(body).map_err(|error| error.to_string())?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &secret, &SystemRandom::new())
        .map_err(|error| error.to_string())?;
    // An uncompressed point: 4, x, y.
    let point = pair.public_key().as_ref();
    let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
        return Err("its point is malformed".into());
    };
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, thumbprint.as_bytes()));
    let public = Jwk {
        kty: "EC",
        crv: "P-256",
        x,
        y,
        kid: id.clone(),
        alg: "ES256",
        usage: "sig",
    };
    Ok(Key {
        id,
        secret,
        public,
        name,
        since,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn instances_that_start_at_once_share_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let ids: HashSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Keys::open(&path).unwrap().all()[0].id.clone()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("00000001.pem"))), (0o700, 0o600));
    }

    #[test]
    fn a_new_key_is_published_at_once_and_signs_later() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let old = keys.all()[0].id.clone();
        let now = keys.all()[0].since;
        assert_eq!(
            signer(&keys.all(), now).unwrap().id,
            old,
            "the only key need not settle"
        );
        rotate(folder.path()).unwrap();
        assert!(keys.reload().unwrap());
        assert!(!keys.reload().unwrap());
        let all = keys.all();
        assert_eq!(all.len(), 2);
        assert_eq!(signer(&all, all[1].since).unwrap().id, old);
        let settled = all[1].since + SignedDuration::try_from(SETTLE).unwrap();
        assert_eq!(signer(&all, settled).unwrap().id, all[1].id);
        fs::remove_file(folder.path().join("00000001.pem")).unwrap();
        keys.reload().unwrap();
        assert_eq!(keys.all().len(), 1);
        assert_ne!(keys.all()[0].id, old, "a removed key is withdrawn");
    }

    #[test]
    fn bad_files_are_refused_and_the_keys_stay() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let path = folder.path().join("9.pem");
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(keys.reload(), Err(KeyError::Malformed { .. })), "{text}");
        }
        fs::copy(folder.path().join("00000001.pem"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys.reload(), Err(KeyError::Open { mode: 0o640, .. })));
        fs::remove_file(&path).unwrap();
        fs::remove_file(folder.path().join("00000001.pem")).unwrap();
        assert!(matches!(keys.reload(), Err(KeyError::Missing { .. })));
        assert_eq!(keys.all().len(), 1);
    }
}
