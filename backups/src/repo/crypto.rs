//! Encryption and authentication as restic does it: AES-256 in counter mode, then Poly1305-AES over the ciphertext.
//!
//! Sealed bytes are `nonce (16) | ciphertext | authentication code (16)`. Poly1305-AES is Bernstein's original MAC
//! (<https://cr.yp.to/mac.html>): the one-time pad is AES-128 of the nonce under a key of its own.

use aes::cipher::{BlockEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aes::{Aes128, Aes256};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ctr::{Ctr128BE, CtrCore};
use poly1305::universal_hash::UniversalHash;
use poly1305::{BLOCK_SIZE, Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

const NONCE: usize = 16;
const MAC: usize = 16;

/// How much longer sealed bytes are than plain ones.
pub(crate) const OVERHEAD: usize = NONCE + MAC;

/// The bytes are not what was sealed under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// What everything in a repository is sealed with.
#[derive(Clone)]
pub(crate) struct Key {
    secret: Secret,
    cipher: Aes256,
    pad: Aes128,
}

#[derive(Clone)]
struct Secret {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac_k.zeroize();
        self.mac_r.zeroize();
    }
}

impl Key {
    /// A fresh key.
    pub(crate) fn random() -> Self {
        Self::from_bytes(&Zeroizing::new(std::array::from_fn(|_| rand::random())))
    }

    /// Encryption key, MAC key k and MAC key r, one after the other: the order of scrypt's output.
    pub(crate) fn from_bytes(bytes: &[u8; 64]) -> Self {
        let part = |from: usize| -> [u8; 16] { std::array::from_fn(|at| bytes[from + at]) };
        let encrypt = std::array::from_fn(|at| bytes[at]);
        Self::new(Secret {
            encrypt,
            mac_k: part(32),
            mac_r: part(48),
        })
    }

    fn new(mut secret: Secret) -> Self {
        mask(&mut secret.mac_r);
        let (cipher, pad) = (Aes256::new(&secret.encrypt.into()), Aes128::new(&secret.mac_k.into()));
        Self { secret, cipher, pad }
    }

    /// Seals `plain` into `out`, which must be exactly [`OVERHEAD`] longer.
    pub(crate) fn seal(&self, plain: &[u8], out: &mut [u8]) {
        assert_eq!(
            out.len(),
            plain.len() + OVERHEAD,
            "the caller provides room for nonce and code"
        );
        let nonce: [u8; NONCE] = rand::random();
        let (head, rest) = out.split_at_mut(NONCE);
        let (ciphertext, code) = rest.split_at_mut(plain.len());
        head.copy_from_slice(&nonce);
        self.keystream(&nonce)
            .apply_keystream_b2b(plain, ciphertext)
            .expect("both have the same length");
        code.copy_from_slice(&self.code(&nonce, ciphertext));
    }

    /// Seals `plain`.
    pub(crate) fn seal_to_vec(&self, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plain.len() + OVERHEAD];
        self.seal(plain, &mut out);
        out
    }

    /// Opens `sealed` into `out`, replacing what is there.
    pub(crate) fn open(&self, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), NotAuthentic> {
        let (nonce, ciphertext) = self.authenticate(sealed)?;
        out.clear();
        out.extend_from_slice(ciphertext);
        self.keystream(&nonce).apply_keystream(out);
        Ok(())
    }

    fn authenticate<'a>(&self, sealed: &'a [u8]) -> Result<([u8; NONCE], &'a [u8]), NotAuthentic> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(NotAuthentic)?;
        let (ciphertext, code) = rest.split_last_chunk::<MAC>().ok_or(NotAuthentic)?;
        let expected = self.code(nonce, ciphertext);
        // All bytes are compared, so that the time taken says nothing about where they differ.
        let difference = expected
            .iter()
            .zip(code)
            .fold(0, |difference, (a, b)| difference | (a ^ b));
        if std::hint::black_box(difference) == 0 {
            Ok((*nonce, ciphertext))
        } else {
            Err(NotAuthentic)
        }
    }

    fn keystream(&self, nonce: &[u8; NONCE]) -> Ctr128BE<Aes256> {
        StreamCipherCoreWrapper::from_core(CtrCore::inner_iv_init(self.cipher.clone(), nonce.into()))
    }

    fn code(&self, nonce: &[u8; NONCE], ciphertext: &[u8]) -> [u8; MAC] {
        let mut pad = (*nonce).into();
        self.pad.encrypt_block(&mut pad);
        let mut key = poly1305::Key::default();
        key[..16].copy_from_slice(&self.secret.mac_r);
        key[16..].copy_from_slice(&pad);
        let mut code = Poly1305::new(&key);
        // Whole blocks at once: several go through the processor side by side, at three times the speed.
        let (blocks, rest) = ciphertext.split_at(ciphertext.len() / BLOCK_SIZE * BLOCK_SIZE);
        code.update_padded(blocks);
        code.compute_unpadded(rest).into()
    }
}

/// Clears the bits of r that Poly1305 does not use, as restic does before it stores a key.
fn mask(r: &mut [u8; 16]) {
    for at in [3, 7, 11, 15] {
        r[at] &= 0x0f;
    }
    for at in [4, 8, 12] {
        r[at] &= 0xfc;
    }
}

/// The JSON in which a master key is kept inside its key file.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    k: String,
    r: String,
}

impl Drop for KeyJson {
    fn drop(&mut self) {
        self.mac.k.zeroize();
        self.mac.r.zeroize();
        self.encrypt.zeroize();
    }
}

impl From<&Key> for KeyJson {
    fn from(key: &Key) -> Self {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let mac = MacJson {
            k: encode(&key.secret.mac_k),
            r: encode(&key.secret.mac_r),
        };
        Self {
            mac,
            encrypt: encode(&key.secret.encrypt),
        }
    }
}

impl KeyJson {
    /// The key, if every part has its length and is not all zero.
    pub(crate) fn key(&self) -> Option<Key> {
        fn part<const N: usize>(text: &str) -> Option<[u8; N]> {
            let bytes: [u8; N] = BASE64_STANDARD.decode(text).ok()?.try_into().ok()?;
            (bytes != [0; N]).then_some(bytes)
        }
        Some(Key::new(Secret {
            encrypt: part(&self.encrypt)?,
            mac_k: part(&self.mac.k)?,
            mac_r: part(&self.mac.r)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first test of restic's `internal/crypto/crypto_int_test.go`, which takes it from Bernstein's Poly1305-AES paper.
    #[test]
    fn the_code_is_bernsteins() {
        let hex = |text: &str| hex::decode(text).unwrap();
        let mut bytes = [1; 64];
        bytes[32..48].copy_from_slice(&hex("ec074c835580741701425b623235add6"));
        bytes[48..].copy_from_slice(&hex("851fc40c3467ac0be05cc20404f3f700"));
        let key = Key::from_bytes(&bytes);
        let nonce = hex("fb447350c4e868c52ac3275cf9d4327e").try_into().unwrap();
        assert_eq!(
            key.code(&nonce, &hex("f3f6")).to_vec(),
            hex("f4c633c3044fc145f84f335cb81953de")
        );
    }

    #[test]
    fn a_changed_bit_anywhere_is_seen() {
        let key = Key::random();
        let sealed = key.seal_to_vec(b"attack at dawn");
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(key.open(&changed, &mut Vec::new()), Err(NotAuthentic), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert_eq!(
                key.open(&sealed[..length], &mut Vec::new()),
                Err(NotAuthentic),
                "length {length}"
            );
        }
        assert_eq!(Key::random().open(&sealed, &mut Vec::new()), Err(NotAuthentic));
    }

    proptest! {
        #[test]
        fn the_code_is_that_of_one_block_after_the_other(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (key, nonce) = (Key::random(), [7; NONCE]);
            let mut pad = nonce.into();
            key.pad.encrypt_block(&mut pad);
            let mut whole = poly1305::Key::default();
            whole[..16].copy_from_slice(&key.secret.mac_r);
            whole[16..].copy_from_slice(&pad);
            let expected = Poly1305::new(&whole).compute_unpadded(&content);
            prop_assert_eq!(key.code(&nonce, &content).to_vec(), expected.to_vec());
        }

        #[test]
        fn what_is_sealed_can_be_opened(plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let key = Key::random();
            let key = KeyJson::from(&key).key().unwrap();
            let sealed = key.seal_to_vec(&plain);
            let mut opened = Vec::new();
            prop_assert_eq!(key.open(&sealed, &mut opened), Ok(()));
            prop_assert_eq!(&opened, &plain);
        }
    }
}
