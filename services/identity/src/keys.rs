//! The signing keys: files that all instances share and read again and again, so that a key is rotated by adding a file
//! and withdrawn by removing one. It makes and publishes tokens' keys; what is in a token is `token`'s matter.
//!
//! A folder of `*.pem` files (PKCS #8, EC P-256). All of them are published; the one with the last name signs, once it has
//! been there for a while: until then some instance may not have seen it, or some verifier may hold a list without it. The
//! folder is the instances' own ([`Keys::open`]), or somebody else fills it ([`Keys::given`]): a Secret that Kubernetes
//! mounts.

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
/// The same for a folder that is given: a Secret's change takes up to two minutes to get to all nodes.
pub const SETTLE_GIVEN: Duration = Duration::from_mins(5);
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
    /// From when it may sign.
    settled: Timestamp,
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
    #[error("{} may be read by others (mode {mode:o}): it must be {expected}, and the key should be replaced", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it may be.
        expected: &'static str,
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
    whose: Whose,
    current: Arc<RwLock<Arc<Vec<Key>>>>,
}

/// Who fills the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The instances themselves.
    Own,
    /// Somebody else, who lets the instances read by way of a group: Kubernetes mounts a Secret as root's, with the
    /// pod's `fsGroup`.
    Given,
}

impl Whose {
    fn settle(self) -> Duration {
        match self {
            Self::Own => SETTLE,
            Self::Given => SETTLE_GIVEN,
        }
    }

    /// The bits that no key's mode may have, and what it may be.
    fn forbidden(self) -> (u32, &'static str) {
        match self {
            Self::Own => (0o077, "600"),
            Self::Given => (0o037, "440 (`defaultMode` of a Secret's volume)"),
        }
    }
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
        Self::read(folder, Whose::Own)
    }

    /// Reads a folder that somebody else fills and in which nothing is ever made. Its files may be readable for their
    /// group.
    pub fn given(folder: &Path) -> Result<Self, KeyError> {
        Self::read(folder, Whose::Given)
    }

    fn read(folder: &Path, whose: Whose) -> Result<Self, KeyError> {
        let current = Arc::new(RwLock::new(Arc::new(read(folder, whose)?)));
        Ok(Self {
            folder: folder.into(),
            whose,
            current,
        })
    }

    /// Reads the folder again. On an error the keys stay as they were. Says whether they changed.
    pub fn reload(&self) -> Result<bool, KeyError> {
        let mut fresh = read(&self.folder, self.whose)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // When a Secret changes, also the files that are as they were are written anew.
        for key in &mut fresh {
            let known = current.iter().find(|known| known.id == key.id);
            key.settled = known.map_or(key.settled, |known| known.settled.min(key.settled));
        }
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
    keys.iter()
        .rev()
        .find(|key| key.settled <= now)
        .or_else(|| keys.first())
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

/// A new key as the text of a file: for whoever fills a folder that is given.
pub fn new_pem() -> Result<String, KeyError> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| KeyError::Make)?;
    let text = STANDARD.encode(document.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(pem)
}

/// Puts a new key into a file, unless there is one of that name.
fn write_new(path: &Path) -> Result<bool, KeyError> {
    private::create_once(path, new_pem()?.as_bytes()).map_err(|source| KeyError::Io {
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

fn read(folder: &Path, whose: Whose) -> Result<Vec<Key>, KeyError> {
    let keys = files(folder)?
        .iter()
        .map(|path| read_key(path, whose))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        Err(KeyError::Missing {
            path: folder.to_owned(),
        })
    } else {
        Ok(keys)
    }
}

fn read_key(path: &Path, whose: Whose) -> Result<Key, KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    let (forbidden, expected) = whose.forbidden();
    if mode & forbidden != 0 {
        return Err(KeyError::Open {
            path: path.to_owned(),
            mode,
            expected,
        });
    }
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let settled = since.saturating_add(whose.settle()).unwrap_or(Timestamp::MAX);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).map_err(failed)?;
    key(&text, name, settled).map_err(|reason| KeyError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

fn key(pem: &str, name: String, settled: Timestamp) -> Result<Key, String> {
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
        settled,
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
        let now = Timestamp::now();
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
        let (settled, instant) = (all[1].settled, SignedDuration::from_nanos(1));
        assert!(settled > now + SignedDuration::try_from(SETTLE).unwrap() - SignedDuration::from_secs(2));
        assert_eq!(signer(&all, settled - instant).unwrap().id, old);
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
    /// Puts keys into a folder as the kubelet does with a Secret: a folder of its own for each state, to which one
    /// symbolic link points that is swapped, and a link for each file.
    fn mount(folder: &Path, state: &str, keys: &[(&str, &str)], mode: u32) {
        let target = folder.join(format!("..{state}"));
        fs::create_dir(&target).unwrap();
        for (name, pem) in keys {
            fs::write(target.join(name), pem).unwrap();
            fs::set_permissions(target.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let next = folder.join("..data_tmp");
        std::os::unix::fs::symlink(format!("..{state}"), &next).unwrap();
        fs::rename(next, folder.join("..data")).unwrap();
        for (name, _) in keys {
            let _ = std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name));
        }
    }

    #[test]
    fn a_mounted_secret_is_read_again_when_it_is_rotated_and_never_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Keys::given(folder.path()), Err(KeyError::Missing { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made there");
        let (one, two) = (new_pem().unwrap(), new_pem().unwrap());
        mount(folder.path(), "first", &[("1.pem", &one)], 0o440);
        let keys = Keys::given(folder.path()).unwrap();
        let old = keys.all()[0].id.clone();
        let settled = keys.all()[0].settled;

        mount(folder.path(), "second", &[("1.pem", &one), ("2.pem", &two)], 0o440);
        assert!(keys.reload().unwrap());
        let all = keys.all();
        assert_eq!(
            (all.len(), all[0].settled),
            (2, settled),
            "a file written anew is no new key"
        );
        assert_eq!(
            signer(&all, settled).unwrap().id,
            old,
            "not all nodes have the new one yet"
        );
        assert_eq!(signer(&all, all[1].settled).unwrap().id, all[1].id);

        for (mode, is_refused) in [(0o400, false), (0o640, false), (0o660, true), (0o444, true)] {
            let state = format!("mode-{mode:o}");
            mount(folder.path(), &state, &[("1.pem", &one), ("2.pem", &two)], mode);
            let reloaded = keys.reload();
            assert_eq!(
                matches!(reloaded, Err(KeyError::Open { .. })),
                is_refused,
                "{mode:o}: {reloaded:?}"
            );
        }
    }
}
