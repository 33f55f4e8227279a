//! Zstandard, with limits on how far foreign bytes may grow. Contexts are kept and used again: making one costs more
//! than compressing a small file.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// The level for everything, with tables that stay in a core's own cache and matches of six bytes and more. Measured on a
/// gigabyte in PostgreSQL's COPY format, zstd alone: level 1 takes 2.5 CPU seconds and makes 392 MiB of it, level 3 3.9
/// and 374, these 3.1 and 378; restic 0.14 makes 374. Programs, sources and logs come out 2 to 5 % smaller than restic's
/// with both. Data that does not compress costs the same.
const LEVEL: i32 = 3;
const PARAMETERS: [CParameter; 3] = [
    CParameter::HashLog(16),
    CParameter::ChainLog(13),
    CParameter::MinMatch(6),
];

/// No blob may become larger than this, whatever it claims: a hundred times restic's largest chunk, and room for the
/// tree of a directory with a million entries.
pub(crate) const BLOB_LIMIT: usize = 800 << 20;

/// How many plain bytes one byte of zstd can stand for at most: a block of 128 KiB takes four bytes at least. So much room
/// a claimed length is given, and no more.
const MOST_EXPANSION: usize = 32 << 10;

/// The first byte of a compressed index, snapshot or lock file.
const UNPACKED_ZSTD: u8 = 2;

/// Not zstd, or larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDecompressible;

/// Contexts for one worker at a time.
pub(crate) struct Zstd {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

impl Zstd {
    /// Fresh contexts. Fails only for want of memory.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        for parameter in PARAMETERS {
            compressor.set_parameter(parameter)?;
        }
        Ok(Self {
            compressor,
            decompressor: Decompressor::new()?,
        })
    }

    /// Compresses into `out`, replacing what is there.
    pub(crate) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress_to_buffer(plain, out).map(drop)
    }

    /// Decompresses into `out`, which must become exactly `length` bytes.
    pub(crate) fn decompress(
        &mut self,
        packed: &[u8],
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NotDecompressible> {
        self.decompress_within(packed, length, BLOB_LIMIT, out)
    }

    /// The same, for what may become up to `limit` bytes.
    pub(crate) fn decompress_within(
        &mut self,
        packed: &[u8],
        length: usize,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NotDecompressible> {
        if length > limit.min(packed.len().saturating_mul(MOST_EXPANSION)) {
            return Err(NotDecompressible);
        }
        out.clear();
        out.reserve_exact(length);
        let written = self
            .decompressor
            .decompress_to_buffer(packed, out)
            .map_err(|_| NotDecompressible)?;
        if written == length {
            Ok(())
        } else {
            Err(NotDecompressible)
        }
    }
}

/// Compresses an index, snapshot or lock file as format 2 has it.
pub(crate) fn pack_file(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Zstd::new()?.compress(json, &mut out)?;
    out.insert(0, UNPACKED_ZSTD);
    Ok(out)
}

/// The JSON of an index, snapshot or lock file, compressed or (as in format 1) not, which is never larger than `limit`.
pub(crate) fn unpack_file_within(bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, NotDecompressible> {
    match bytes.first() {
        Some(b'{' | b'[') => Ok(bytes),
        Some(&UNPACKED_ZSTD) => {
            use std::io::Read;
            let mut json = Vec::new();
            let decoder = zstd::stream::read::Decoder::new(&bytes[1..]).map_err(|_| NotDecompressible)?;
            let read = decoder
                .take(limit as u64 + 1)
                .read_to_end(&mut json)
                .map_err(|_| NotDecompressible)?;
            if read <= limit {
                Ok(json)
            } else {
                Err(NotDecompressible)
            }
        }
        _ => Err(NotDecompressible),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bomb_does_not_go_off() {
        let mut zstd = Zstd::new().unwrap();
        let mut bomb = Vec::new();
        zstd.compress(&vec![0; 100 << 20], &mut bomb).unwrap();
        let mut out = Vec::new();
        assert_eq!(zstd.decompress(&bomb, 1000, &mut out), Err(NotDecompressible));
        assert!(out.capacity() < 1 << 20, "no more room is made than was claimed");
        assert_eq!(zstd.decompress(&bomb, usize::MAX, &mut out), Err(NotDecompressible));
        assert_eq!(zstd.decompress(b"no zstd", 7, &mut out), Err(NotDecompressible));
        assert_eq!(
            zstd.decompress(b"no zstd", BLOB_LIMIT, &mut out),
            Err(NotDecompressible)
        );
        assert!(out.capacity() < 1 << 20, "seven bytes cannot grow that much");
    }

    /// The densest content there is must still fit the room that it is given.
    #[test]
    fn what_shrinks_most_still_comes_back() {
        let mut zstd = Zstd::new().unwrap();
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        for length in [0, 1, 100, 128 << 10, (128 << 10) + 1, 40 << 20] {
            let plain = vec![0; length];
            zstd.compress(&plain, &mut packed).unwrap();
            assert_eq!(zstd.decompress(&packed, length, &mut out), Ok(()), "{length}");
            assert!(out == plain);
        }
    }

    #[test]
    fn a_file_that_claims_too_much_is_refused() {
        let frame = zstd::encode_all(std::io::repeat(b' ').take(LIMIT as u64 + 10), 1).unwrap();
        assert_eq!(
            unpack_file([&[UNPACKED_ZSTD][..], &frame].concat()),
            Err(NotDecompressible)
        );
    }

    use std::io::Read;

    const LIMIT: usize = 10 << 20;

    fn unpack_file(bytes: Vec<u8>) -> Result<Vec<u8>, NotDecompressible> {
        unpack_file_within(bytes, LIMIT)
    }

    proptest! {
        #[test]
        fn no_room_is_made_for_what_is_only_claimed(bytes in proptest::collection::vec(any::<u8>(), 0..300), sound: bool, claimed: u32) {
            let mut zstd = Zstd::new().unwrap();
            let (mut packed, mut out) = (Vec::new(), Vec::new());
            zstd.compress(&bytes, &mut packed).unwrap();
            let packed = if sound { packed } else { bytes.clone() };
            let decompressed = zstd.decompress(&packed, claimed as usize, &mut out);
            prop_assert!(decompressed.is_err() || out == bytes || !sound);
            prop_assert!(out.capacity() <= packed.len() * MOST_EXPANSION);
        }

        #[test]
        fn files_survive(json in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let json = [&b"{"[..], &json].concat();
            prop_assert_eq!(unpack_file(pack_file(&json).unwrap()), Ok(json.clone()));
            prop_assert_eq!(unpack_file(json.clone()), Ok(json));
        }
    }
}
