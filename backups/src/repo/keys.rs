//! Several passwords for one repository: key files listed, added, removed, and one password replaced by another.
//!
//! Every key file seals the same master key, so that a password that was told to the wrong people still opens copies of
//! the repository that were made before it was removed.

use bytes::Bytes;
use jiff::Timestamp;

use super::key::KeyFile;
use super::layout::FileKind;
use super::{Id, KEY_FILES_TRIED, KdfParams, Lock, LockMode, Repository, open_keys, read_within, write_key};
use crate::clock;
use crate::error::{Damage, Error};

/// A key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name.
    pub id: Id,
    /// The machine that made it.
    pub host: String,
    /// The user that made it.
    pub username: String,
    /// When.
    pub created: Timestamp,
    /// The repository was opened with it.
    pub current: bool,
}

/// What [`Repository::keys`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList {
    /// Sound ones, oldest first.
    pub keys: Vec<KeyRecord>,
    /// Those that cannot be read.
    pub damaged: Vec<(Id, Damage)>,
}

impl Repository {
    /// The key files. Whose password opens which, nobody can tell.
    pub async fn keys(&self) -> Result<KeyList, Error> {
        let mut list = KeyList::default();
        for (id, _) in self.list(FileKind::Key).await? {
            let (key, limit) = (FileKind::Key.key(&id), FileKind::Key.limit());
            let bytes = match read_within(&*self.store(), &key, limit).await {
                // Taken away since it was listed.
                Err(error) if error.is_not_found() => continue,
                bytes => bytes?,
            };
            match bytes.ok_or(Damage::WrongSize).and_then(|bytes| read(&id, &bytes)) {
                Ok(file) => list.keys.push(KeyRecord {
                    id,
                    host: file.hostname,
                    username: file.username,
                    created: file.created,
                    current: id == self.shared.key_file,
                }),
                Err(damage) => list.damaged.push((id, damage)),
            }
        }
        list.keys.sort_by_key(|key| (key.created, key.id));
        Ok(list)
    }

    /// Lets one more password open the repository. After `Ok` it does: the stored file was tried.
    pub async fn add_key(&self, password: &str, kdf: KdfParams) -> Result<Id, Error> {
        let lock = Lock::acquire(self, LockMode::Exclusive, clock::now()).await?;
        let added = self.add(password, kdf).await;
        lock.release().await;
        added
    }

    /// Removes the key file whose id begins with `wanted`; never the one that the repository was opened with, nor the last.
    pub async fn remove_key(&self, wanted: &str) -> Result<Id, Error> {
        let lock = Lock::acquire(self, LockMode::Exclusive, clock::now()).await?;
        let removed = self.remove(wanted).await;
        lock.release().await;
        removed
    }

    /// Replaces a password: adds the new one, tries it, and only then removes every key file that `old` opens. Cut in the
    /// middle, both open the repository. Returns the new key file and those removed.
    pub async fn rotate_key(&self, old: &str, new: &str, kdf: KdfParams) -> Result<(Id, Vec<Id>), Error> {
        if old == new {
            return Err(Error::Invalid("the new password is the old one".to_owned()));
        }
        let lock = Lock::acquire(self, LockMode::Exclusive, clock::now()).await?;
        let rotated = async {
            let replaced: Vec<Id> = open_keys(&*self.store(), old)
                .await?
                .into_iter()
                .map(|(id, _)| id)
                .collect();
            let added = self.add(new, kdf).await?;
            lock.confirm().await?;
            for id in &replaced {
                self.store().delete(&FileKind::Key.key(id)).await?;
            }
            Ok((added, replaced))
        };
        let rotated = rotated.await;
        lock.release().await;
        rotated
    }

    async fn add(&self, password: &str, kdf: KdfParams) -> Result<Id, Error> {
        // Of more files than are tried, the new one might never be.
        let count = self.list(FileKind::Key).await?.len();
        if count >= KEY_FILES_TRIED {
            return Err(Error::TooManyKeys { count });
        }
        let id = write_key(&*self.store(), self.key(), password, kdf).await?;
        // Proved through the store: what opens nothing must not replace what does.
        match open_keys(&*self.store(), password).await {
            Ok(opened) if opened.iter().any(|(opened, _)| *opened == id) => Ok(id),
            Ok(_) => Err(Error::Internal("the new key file does not open")),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, wanted: &str) -> Result<Id, Error> {
        let all = self.list(FileKind::Key).await?;
        let digits = wanted.to_ascii_lowercase();
        let fitting: Vec<Id> = all
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !digits.is_empty() && id.to_string().starts_with(&digits))
            .collect();
        let id = match fitting.as_slice() {
            [] => {
                return Err(Error::KeyNotFound {
                    wanted: wanted.to_owned(),
                });
            }
            [id] => *id,
            several => {
                return Err(Error::KeyAmbiguous {
                    wanted: wanted.to_owned(),
                    count: several.len(),
                });
            }
        };
        // Without our own there may be none left that opens.
        let current_is_there = all.iter().any(|(other, _)| *other == self.shared.key_file);
        if id == self.shared.key_file || !current_is_there {
            return Err(Error::KeyInUse { id });
        }
        self.store().delete(&FileKind::Key.key(&id)).await?;
        Ok(id)
    }
}

fn read(id: &Id, bytes: &Bytes) -> Result<KeyFile, Damage> {
    if Id::of(bytes) != *id {
        return Err(Damage::WrongHash);
    }
    serde_json::from_slice(bytes).map_err(|_| Damage::Malformed)
}
