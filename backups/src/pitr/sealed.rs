//! One object beside restic's folders, sealed with the repository's key: the envelope that everything of this module is
//! stored in. Not what stands in it.
//!
//! Sealed is a magic of eight bytes, which says what it is and in which version, the length of the body (eight bytes,
//! little-endian), and the body as one zstd frame. Nothing that is read is believed: neither that length nor the frame.

use crate::error::{Damage, Error};
use crate::repo::Repository;
use crate::repo::compress::Zstd;
use crate::repo::crypto::OVERHEAD;

const LENGTH: usize = 8;

/// A kind of objects.
pub(super) struct Envelope {
    magic: [u8; 8],
    body_limit: usize,
}

impl Envelope {
    /// Objects that begin with `magic`, whose bodies are never larger than `body_limit` bytes.
    pub(super) const fn new(magic: [u8; 8], body_limit: usize) -> Self {
        Self { magic, body_limit }
    }

    /// No stored object of this kind is larger: a body that does not compress at all fits.
    pub(super) const fn sealed_limit(&self) -> u64 {
        (self.body_limit + self.body_limit / 128 + (1 << 16) + self.magic.len() + LENGTH + OVERHEAD) as u64
    }

    /// The stored bytes of a body. Takes long: not for a thread that others wait for.
    pub(super) fn seal(&self, repository: &Repository, body: &[u8]) -> Result<Vec<u8>, Error> {
        if body.len() > self.body_limit {
            return Err(Error::Internal("a body is never sealed beyond the limit of its kind"));
        }
        let mut packed = Vec::new();
        Zstd::new()
            .and_then(|mut zstd| zstd.compress(body, &mut packed))
            .map_err(|_| Error::Internal("zstd failed"))?;
        let length = (body.len() as u64).to_le_bytes();
        Ok(repository
            .key()
            .seal_to_vec(&[&self.magic[..], &length, &packed].concat()))
    }

    /// The body of stored bytes. The outer error is ours, the inner one is the object's.
    pub(super) fn open(&self, repository: &Repository, sealed: &[u8]) -> Result<Result<Vec<u8>, Damage>, Error> {
        if sealed.len() as u64 > self.sealed_limit() {
            return Ok(Err(Damage::WrongSize));
        }
        let mut plain = Vec::new();
        if repository.key().open(sealed, &mut plain).is_err() {
            return Ok(Err(Damage::NotAuthentic));
        }
        let Some((length, packed)) = self.prefix(&plain) else {
            return Ok(Err(Damage::Malformed));
        };
        if length > self.body_limit {
            return Ok(Err(Damage::NotDecompressible));
        }
        let mut body = Vec::new();
        let mut zstd = Zstd::new().map_err(|_| Error::Internal("zstd failed"))?;
        let unpacked = zstd.decompress_within(packed, length, self.body_limit, &mut body);
        Ok(unpacked.map(|()| body).map_err(|_| Damage::NotDecompressible))
    }

    fn prefix<'a>(&self, plain: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let rest = plain.strip_prefix(&self.magic[..])?;
        let (length, packed) = rest.split_first_chunk::<LENGTH>()?;
        Some((usize::try_from(u64::from_le_bytes(*length)).ok()?, packed))
    }
}
