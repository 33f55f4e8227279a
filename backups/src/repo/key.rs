//! Key files: the master key, sealed under a key that scrypt derives from a password.
//!
//! A key file is named after the SHA-256 of its bytes. That is how a wrong password is told from a damaged file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Id;
use super::crypto::{Key, KeyJson};

/// How costly one guess of the password is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Binary logarithm of scrypt's N.
    pub log_n: u8,
    /// Scrypt's block size r.
    pub r: u32,
    /// Scrypt's parallelism p.
    pub p: u32,
}

impl Default for KdfParams {
    /// N = 2^15, r = 8, p = 3, one of OWASP's recommendations: 32 MiB, about a quarter of a second.
    fn default() -> Self {
        Self { log_n: 15, r: 8, p: 3 }
    }
}

impl KdfParams {
    /// Limits on the parameters of foreign files: a gigabyte of memory, and about a minute of work.
    pub(super) fn are_bearable(self) -> bool {
        let Some(n) = 1_u64.checked_shl(self.log_n.into()).filter(|&n| n > 1) else {
            return false;
        };
        // Scrypt mixes p lanes, one after the other in one table, all of them made and folded together by SHA-256.
        let lane = 128 * u64::from(self.r);
        let table = lane.checked_mul(n);
        let lanes = lane.checked_mul(self.p.into());
        let work = table.and_then(|table| table.checked_mul(self.p.into()));
        let within = |bytes: Option<u64>, limit: u64| bytes.is_some_and(|bytes| (1..=limit).contains(&bytes));
        within(table, 1 << 30) && within(lanes, 16 << 20) && within(work, 1 << 34)
    }

    fn derive(self, password: &str, salt: &[u8]) -> Option<Key> {
        let params = scrypt::Params::new(self.log_n, self.r, self.p, 64).ok()?;
        let mut derived = Zeroizing::new([0; 64]);
        scrypt::scrypt(password.as_bytes(), salt, &params, &mut *derived).ok()?;
        Some(Key::from_bytes(&derived))
    }
}

/// A key file as it is stored, in restic's JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyFile {
    // Rustic leaves out what it was not told.
    #[serde(default)]
    pub(super) created: Timestamp,
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// What became of an attempt to open a key file.
pub(crate) enum Attempt {
    /// The master key.
    Opened(Box<Key>),
    /// The file is sound, the password is not its.
    WrongPassword,
    /// The file is not what was written.
    Damaged(crate::error::Damage),
}

impl KeyFile {
    /// Seals a master key under a password.
    pub(crate) fn seal(master: &Key, password: &str, params: KdfParams, now: Timestamp) -> Option<Self> {
        let json = Zeroizing::new(serde_json::to_vec(&KeyJson::from(master)).ok()?);
        Self::seal_bytes(&json, password, params, now)
    }

    /// Seals what should be a master key's JSON.
    pub(super) fn seal_bytes(json: &[u8], password: &str, params: KdfParams, now: Timestamp) -> Option<Self> {
        let salt: [u8; 64] = std::array::from_fn(|_| rand::random());
        let data = params.derive(password, &salt)?.seal_to_vec(json);
        Some(Self {
            created: now,
            username: super::host::user_name(super::host::user().0).unwrap_or_default(),
            hostname: super::host::name(),
            kdf: "scrypt".to_owned(),
            n: 1 << params.log_n,
            r: params.r,
            p: params.p,
            salt: BASE64_STANDARD.encode(salt),
            data: BASE64_STANDARD.encode(data),
        })
    }

    /// Tries a password on a stored key file. Takes as long as its parameters say; call it where that may block.
    pub(crate) fn open(id: &Id, bytes: &[u8], password: &str) -> Attempt {
        use crate::error::Damage::{Malformed, WrongHash};
        if Id::of(bytes) != *id {
            return Attempt::Damaged(WrongHash);
        }
        let Some((params, salt, data)) = Self::parse(bytes) else {
            return Attempt::Damaged(Malformed);
        };
        let Some(user_key) = params.derive(password, &salt) else {
            return Attempt::Damaged(Malformed);
        };
        let mut json = Zeroizing::new(Vec::new());
        if user_key.open(&data, &mut json).is_err() {
            return Attempt::WrongPassword;
        }
        let master = serde_json::from_slice::<KeyJson>(&json)
            .ok()
            .and_then(|json| json.key());
        master.map_or(Attempt::Damaged(Malformed), |key| Attempt::Opened(Box::new(key)))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<(KdfParams, Vec<u8>, Vec<u8>)> {
        let file: Self = serde_json::from_slice(bytes).ok()?;
        let params = KdfParams {
            log_n: u8::try_from(file.n.checked_ilog2()?).ok()?,
            r: file.r,
            p: file.p,
        };
        let sound =
            file.kdf == "scrypt" && file.n.is_power_of_two() && params.are_bearable() && file.salt.len() <= 1024;
        sound.then_some(())?;
        Some((
            params,
            BASE64_STANDARD.decode(file.salt).ok()?,
            BASE64_STANDARD.decode(file.data).ok()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: KdfParams = KdfParams { log_n: 4, r: 1, p: 1 };

    fn stored(edit: impl FnOnce(&mut KeyFile)) -> (Id, Vec<u8>) {
        let mut file = KeyFile::seal(&Key::random(), "right", CHEAP, Timestamp::UNIX_EPOCH).unwrap();
        edit(&mut file);
        let bytes = serde_json::to_vec(&file).unwrap();
        (Id::of(&bytes), bytes)
    }

    #[test]
    fn a_wrong_password_is_no_damage_and_damage_is_no_wrong_password() {
        let (id, bytes) = stored(|_| {});
        assert!(matches!(KeyFile::open(&id, &bytes, "right"), Attempt::Opened(_)));
        assert!(matches!(KeyFile::open(&id, &bytes, "wrong"), Attempt::WrongPassword));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(
                matches!(KeyFile::open(&id, &changed, "right"), Attempt::Damaged(_)),
                "byte {at}"
            );
        }
    }

    #[test]
    fn costs_beyond_all_measure_are_refused_before_they_are_paid() {
        let edits: [fn(&mut KeyFile); 9] = [
            |file| file.n = 1 << 40,
            |file| file.n = 1 << 25,
            |file| file.n = 1000,
            |file| file.n = 0,
            |file| file.r = u32::MAX,
            |file| file.p = u32::MAX,
            // Little work for each lane, and eight gigabytes of lanes.
            |file| (file.n, file.p) = (2, 1 << 26),
            |file| (file.n, file.r) = (2, 1 << 26),
            |file| file.kdf = "none".to_owned(),
        ];
        for edit in edits {
            let (id, bytes) = stored(edit);
            assert!(matches!(KeyFile::open(&id, &bytes, "right"), Attempt::Damaged(_)));
        }
    }
}
