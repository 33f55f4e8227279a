//! Turns plain blobs into packs: hash, compress, encrypt, prove that it can be read back, append. Pure computation on
//! buffers that are used again; the [writer](super::writer) runs one per worker.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Id;
use super::compress::Zstd;
use super::crypto::{Key, OVERHEAD};
use super::pack::{self, BlobKind, PackedBlob};
use crate::error::Error;

/// A pack is closed once it is this large: restic's default.
pub(crate) const PACK_SIZE: usize = 16 << 20;
/// Room for a pack and one blob more, so that buffers seldom grow.
const BUFFER_SIZE: usize = PACK_SIZE + (9 << 20);

/// A pack that is ready for the store.
pub(crate) struct FinishedPack {
    pub(crate) id: Id,
    pub(crate) bytes: Bytes,
    pub(crate) blobs: Vec<PackedBlob>,
}

/// The state of one worker. It has one pack open.
pub(crate) struct Sealer {
    zstd: Zstd,
    compressed: Vec<u8>,
    opened: Vec<u8>,
    plain: Vec<u8>,
    buffers: Buffers,
    /// Of full length from the start; `filled` says how much of it is pack.
    pack: Vec<u8>,
    filled: usize,
    blobs: Vec<PackedBlob>,
}

impl Sealer {
    pub(crate) fn new(buffers: Buffers) -> Result<Self, Error> {
        let zstd = Zstd::new().map_err(|_| Error::Internal("no memory for zstd"))?;
        let (compressed, opened, plain) = (Vec::new(), Vec::new(), Vec::new());
        let pack = Vec::new();
        Ok(Self {
            zstd,
            compressed,
            opened,
            plain,
            buffers,
            pack,
            filled: 0,
            blobs: Vec::new(),
        })
    }

    /// Appends a blob to the open pack. Returns the blob's place, and the pack if that is full now.
    pub(crate) fn add(
        &mut self,
        key: &Key,
        kind: BlobKind,
        id: Id,
        plain: &[u8],
        compress: bool,
    ) -> Result<(PackedBlob, Option<FinishedPack>), Error> {
        let too_large = || Error::Invalid(format!("a {kind:?} of {} bytes is too large to be stored", plain.len()));
        let plain_length = u32::try_from(plain.len()).map_err(|_| too_large())?;
        if compress {
            let compressed = self.zstd.compress(plain, &mut self.compressed);
            compressed.map_err(|_| Error::Internal("zstd failed"))?;
        }
        // What does not shrink is kept as it is: cheaper to read back. Trees are always compressed, as restic expects.
        let shrunk = compress && (self.compressed.len() < plain.len() || kind == BlobKind::Tree);
        let content = if shrunk { &self.compressed } else { plain };
        let length = content.len() + OVERHEAD;
        if self.pack.is_empty() {
            self.pack = self.buffers.take();
        }
        if self.filled + length > self.pack.len() {
            self.pack.resize(self.filled + length, 0);
        }
        let place = self.filled..self.filled + length;
        key.seal(content, &mut self.pack[place.clone()]);
        let blob = PackedBlob {
            kind,
            id,
            offset: u32::try_from(self.filled).map_err(|_| too_large())?,
            length: u32::try_from(length).map_err(|_| too_large())?,
            uncompressed: shrunk.then_some(plain_length),
        };
        self.prove(key, &blob, place, plain)?;
        self.filled += length;
        self.blobs.push(blob);
        let full = if self.filled >= PACK_SIZE {
            self.finish(key)
        } else {
            None
        };
        Ok((blob, full))
    }

    /// Decodes what was just encoded and compares: faulty memory must not make a backup that cannot be read.
    fn prove(
        &mut self,
        key: &Key,
        blob: &PackedBlob,
        place: std::ops::Range<usize>,
        plain: &[u8],
    ) -> Result<(), Error> {
        let failed =
            || Error::Internal("a blob could not be read back after it was encoded: memory or processor are faulty");
        key.open(&self.pack[place], &mut self.opened).map_err(|_| failed())?;
        let decoded = if blob.uncompressed.is_some() {
            self.zstd
                .decompress(&self.opened, plain.len(), &mut self.plain)
                .map_err(|_| failed())?;
            &self.plain
        } else {
            &self.opened
        };
        if decoded == plain { Ok(()) } else { Err(failed()) }
    }

    /// Closes the open pack, if there is anything in it.
    pub(crate) fn finish(&mut self, key: &Key) -> Option<FinishedPack> {
        if self.blobs.is_empty() {
            return None;
        }
        let blobs = std::mem::take(&mut self.blobs);
        let mut buffer = std::mem::take(&mut self.pack);
        let trailer = pack::trailer(key, &blobs);
        let length = self.filled + trailer.len();
        if length > buffer.len() {
            buffer.resize(length, 0);
        }
        buffer[self.filled..length].copy_from_slice(&trailer);
        self.filled = 0;
        let id = Id::of(&buffer[..length]);
        let bytes = Bytes::from_owner(Lent {
            buffer,
            length,
            home: self.buffers.clone(),
        });
        Some(FinishedPack { id, bytes, blobs })
    }
}

/// Pack buffers that come back when the store is done with them.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; BUFFER_SIZE])
    }
}

/// A buffer on its way through the store.
struct Lent {
    buffer: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() <= BUFFER_SIZE {
            self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::Decoder;
    use super::*;

    #[test]
    fn packs_are_closed_when_they_are_full_and_can_be_read() {
        let (key, mut sealer) = (Key::random(), Sealer::new(Buffers::default()).unwrap());
        let plains: Vec<Vec<u8>> = (0..12_u8)
            .map(|at| {
                (0..3 << 20)
                    .map(|byte: u32| (byte.wrapping_mul(2_654_435_761) >> 20) as u8 ^ at)
                    .collect()
            })
            .collect();
        let mut packs = Vec::new();
        for plain in &plains {
            let (_, full) = sealer.add(&key, BlobKind::Data, Id::of(plain), plain, false).unwrap();
            packs.extend(full);
        }
        packs.extend(sealer.finish(&key));
        assert_eq!(packs.iter().map(|pack| pack.blobs.len()).collect::<Vec<_>>(), [6, 6]);
        let mut decoder = Decoder::new().unwrap();
        let mut read = Vec::new();
        for pack in &packs {
            assert_eq!(Id::of(&pack.bytes), pack.id);
            assert_eq!(pack::parse(&key, &pack.bytes).unwrap(), pack.blobs);
            for blob in &pack.blobs {
                let sealed = &pack.bytes[blob.offset as usize..][..blob.length as usize];
                read.push(decoder.decode(&key, blob, sealed).unwrap().to_vec());
            }
        }
        assert!(read == plains);
        assert!(sealer.finish(&key).is_none());
    }

    #[test]
    fn a_blob_under_another_name_is_refused() {
        let (key, mut sealer) = (Key::random(), Sealer::new(Buffers::default()).unwrap());
        let (blob, _) = sealer
            .add(&key, BlobKind::Data, Id::of(b"other"), b"content", true)
            .unwrap();
        let pack = sealer.finish(&key).unwrap();
        let sealed = &pack.bytes[..blob.length as usize];
        assert_eq!(
            Decoder::new().unwrap().decode(&key, &blob, sealed).err(),
            Some(crate::Damage::WrongHash)
        );
    }
}
