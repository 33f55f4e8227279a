//! Packs: many blobs in one file, and a sealed header at the end that says where each begins.
//!
//! `blob | blob | … | sealed header | length of the sealed header (u32, little endian)`. A header entry is a type byte
//! (0 data, 1 tree, 2 and 3 the same compressed), the sealed length (u32), if compressed the plain length (u32), the id.

use serde::{Deserialize, Serialize};

use super::Id;
use super::crypto::{Key, OVERHEAD};
use crate::error::{Damage, Object};

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A part of a file.
    Data,
    /// A directory.
    Tree,
}

impl BlobKind {
    /// How messages name such a blob.
    pub(crate) fn object(self, id: Id) -> Object {
        match self {
            Self::Data => Object::DataBlob(id),
            Self::Tree => Object::tree(id),
        }
    }
}

/// One blob in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PackedBlob {
    pub(crate) kind: BlobKind,
    pub(crate) id: Id,
    /// Where its sealed bytes begin.
    pub(crate) offset: u32,
    /// How many sealed bytes it has.
    pub(crate) length: u32,
    /// Its plain length, if it is compressed.
    pub(crate) uncompressed: Option<u32>,
}

impl PackedBlob {
    /// Its plain length.
    pub(crate) fn plain_length(&self) -> u64 {
        self.uncompressed
            .map_or((self.length as usize).saturating_sub(OVERHEAD) as u64, u64::from)
    }

    fn entry_length(&self) -> usize {
        if self.uncompressed.is_some() { 41 } else { 37 }
    }
}

/// No pack is longer: a tree of [`BLOB_LIMIT`](super::compress::BLOB_LIMIT) bytes that did not shrink, behind restic's
/// largest pack. What is longer was not written by anybody who means well, and is not read into memory.
pub(crate) const SIZE_LIMIT: u64 = 1 << 30;

/// No header is longer: a pack of 128 MiB full of the smallest blobs.
const HEADER_LIMIT: usize = 128 << 20;

/// The bytes that follow the blobs.
pub(crate) fn trailer(key: &Key, blobs: &[PackedBlob]) -> Vec<u8> {
    let mut header = Vec::with_capacity(blobs.len() * 41);
    for blob in blobs {
        let kind = match (blob.kind, blob.uncompressed) {
            (BlobKind::Data, None) => 0,
            (BlobKind::Tree, None) => 1,
            (BlobKind::Data, Some(_)) => 2,
            (BlobKind::Tree, Some(_)) => 3,
        };
        header.push(kind);
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed {
            header.extend_from_slice(&length.to_le_bytes());
        }
        header.extend_from_slice(blob.id.as_bytes());
    }
    let mut sealed = key.seal_to_vec(&header);
    sealed.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    sealed
}

/// The length that a pack of these blobs has.
pub(crate) fn expected_size(blobs: &[PackedBlob]) -> u64 {
    let content: u64 = blobs.iter().map(|blob| u64::from(blob.length)).sum();
    content + blobs.iter().map(PackedBlob::entry_length).sum::<usize>() as u64 + OVERHEAD as u64 + 4
}

/// The blobs of a pack, from its whole bytes.
pub(crate) fn parse(key: &Key, pack: &[u8]) -> Result<Vec<PackedBlob>, Damage> {
    let length = trailer_length(pack, pack.len() as u64)?;
    parse_trailer(key, &pack[pack.len() - length as usize..], pack.len() as u64)
}

/// How many bytes at the end of a pack of `size` bytes are header, by what its last bytes say.
pub(crate) fn trailer_length(end: &[u8], size: u64) -> Result<u64, Damage> {
    let (_, length) = end.split_last_chunk::<4>().ok_or(Damage::WrongSize)?;
    let length = u64::from(u32::from_le_bytes(*length));
    if length <= HEADER_LIMIT as u64 && length + 4 <= size {
        Ok(length + 4)
    } else {
        Err(Damage::Malformed)
    }
}

/// The blobs of a pack of `size` bytes, from the bytes of its header and what follows.
pub(crate) fn parse_trailer(key: &Key, trailer: &[u8], size: u64) -> Result<Vec<PackedBlob>, Damage> {
    let (sealed, _) = trailer.split_last_chunk::<4>().ok_or(Damage::WrongSize)?;
    let mut header = Vec::new();
    key.open(sealed, &mut header).map_err(|_| Damage::NotAuthentic)?;
    let blobs = parse_header(&header).ok_or(Damage::Malformed)?;
    let end = blobs
        .last()
        .map_or(0, |blob| u64::from(blob.offset) + u64::from(blob.length));
    if end + trailer.len() as u64 == size {
        Ok(blobs)
    } else {
        Err(Damage::Malformed)
    }
}

/// The entries of an opened header.
pub(super) fn parse_header(mut header: &[u8]) -> Option<Vec<PackedBlob>> {
    fn number(bytes: &mut &[u8]) -> Option<u32> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(u32::from_le_bytes(*head))
    }
    let mut blobs = Vec::new();
    let mut offset = 0_u32;
    while let Some((&kind, rest)) = header.split_first() {
        header = rest;
        let length = number(&mut header)?;
        let uncompressed = if kind & 2 == 2 {
            Some(number(&mut header)?)
        } else {
            None
        };
        let kind = match kind {
            0 | 2 => BlobKind::Data,
            1 | 3 => BlobKind::Tree,
            _ => return None,
        };
        let (id, rest) = header.split_first_chunk::<32>()?;
        header = rest;
        blobs.push(PackedBlob {
            kind,
            id: Id::from_bytes(*id),
            offset,
            length,
            uncompressed,
        });
        offset = offset.checked_add(length)?;
    }
    Some(blobs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blobs(lengths: &[(bool, u16, Option<u32>)]) -> Vec<PackedBlob> {
        let mut offset = 0;
        lengths
            .iter()
            .map(|&(tree, length, uncompressed)| {
                let kind = if tree { BlobKind::Tree } else { BlobKind::Data };
                let blob = PackedBlob {
                    kind,
                    id: Id::random(),
                    offset,
                    length: length.into(),
                    uncompressed,
                };
                offset += u32::from(length);
                blob
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_header_says_what_was_packed(lengths in proptest::collection::vec((any::<bool>(), any::<u16>(), any::<Option<u32>>()), 0..20)) {
            let (key, blobs) = (Key::random(), blobs(&lengths));
            let content: usize = blobs.iter().map(|blob| blob.length as usize).sum();
            let mut pack = vec![7; content];
            pack.extend(trailer(&key, &blobs));
            prop_assert_eq!(parse(&key, &pack), Ok(blobs.clone()));
            prop_assert_eq!(expected_size(&blobs), pack.len() as u64);
            prop_assert!(parse(&key, &pack[1..]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(pack in proptest::collection::vec(any::<u8>(), 0..300), header in proptest::collection::vec(0..4_u8, 0..300)) {
            prop_assert!(parse(&Key::random(), &pack).is_err());
            let _ = parse_header(&header);
        }
    }

    #[test]
    fn huge_lengths_are_refused() {
        let key = Key::random();
        let mut entry = vec![0];
        entry.extend(u32::MAX.to_le_bytes());
        entry.extend([0; 32]);
        assert_eq!(parse_header(&entry.repeat(2)), None, "offsets beyond 4 GiB");
        let mut pack = vec![0; 40];
        pack.extend(u32::MAX.to_le_bytes());
        assert_eq!(parse(&key, &pack), Err(Damage::Malformed));
    }
}
