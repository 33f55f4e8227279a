//! Where content is cut into chunks: FastCDC (Xia et al. 2020), so that an insertion changes only the chunks around it.
//!
//! Restic cuts with a Rabin fingerprint; readers do not care how chunks were cut, and FastCDC is an order of magnitude
//! cheaper. The sizes lie within restic's limits. The gear table is derived from the repository's secret: chunk lengths
//! must not tell who knows a file that the file is in the repository (<https://eprint.iacr.org/2025/532>).

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use sha2::{Digest, Sha256};

/// No chunk but the last of a file is smaller.
pub(crate) const MIN_SIZE: usize = 512 << 10;
/// What chunks come to on average.
const AVERAGE_SIZE: usize = 1 << 20;
/// No chunk is larger.
pub(crate) const MAX_SIZE: usize = 8 << 20;

/// Cuts content of one repository.
pub(crate) struct Chunker {
    gear: [u64; 256],
    gear_shifted: [u64; 256],
    masks: (u64, u64),
}

impl Chunker {
    /// The chunker of the repository with this secret.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let gear = std::array::from_fn(|at| {
            let digest = Sha256::new()
                .chain_update(b"opsctl gear table 1")
                .chain_update([at as u8])
                .chain_update(secret)
                .finalize();
            u64::from_le_bytes(std::array::from_fn(|byte| digest[byte]))
        });
        Self {
            gear,
            gear_shifted: gear.map(|value| value << 1),
            masks: select_masks(AVERAGE_SIZE, Normalization::Level1),
        }
    }

    /// The length of the chunk at the start of `data`; `None` if more data is needed to know it.
    /// At the end of the content (`last`) whatever is left is a chunk.
    pub(crate) fn cut(&self, data: &[u8], last: bool) -> Option<usize> {
        if data.is_empty() {
            return None;
        }
        let ((small, large), (gear, shifted)) = (self.masks, (&self.gear, &self.gear_shifted));
        let masks_shifted = (small << 1, large << 1);
        let (_, length) = cut_gear(
            data,
            MIN_SIZE,
            AVERAGE_SIZE,
            MAX_SIZE,
            small,
            large,
            masks_shifted.0,
            masks_shifted.1,
            gear,
            shifted,
        );
        // A cut before the end of what is seen stays where it is, whatever follows.
        (last || length < data.len() || length == MAX_SIZE).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        StdRng::seed_from_u64(seed).fill_bytes(&mut data);
        data
    }

    fn lengths(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = chunker.cut(data, true) {
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    #[test]
    fn chunks_have_the_sizes_promised() {
        let lengths = lengths(&Chunker::new(b"secret"), &noise(1, 64 << 20));
        assert_eq!(lengths.iter().sum::<usize>(), 64 << 20);
        assert!(
            lengths[..lengths.len() - 1]
                .iter()
                .all(|&length| (MIN_SIZE..=MAX_SIZE).contains(&length))
        );
        let average = (64 << 20) / lengths.len();
        assert!((700 << 10..1500 << 10).contains(&average), "average {average}");
    }

    #[test]
    fn repositories_cut_differently() {
        let data = noise(2, 16 << 20);
        assert_ne!(
            lengths(&Chunker::new(b"one"), &data),
            lengths(&Chunker::new(b"two"), &data)
        );
    }

    #[test]
    fn constant_content_is_cut_at_the_largest_size() {
        assert_eq!(
            lengths(&Chunker::new(b"secret"), &vec![0; 20 << 20]),
            [MAX_SIZE, MAX_SIZE, 4 << 20]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn an_insertion_changes_few_chunks(seed: u64, at in 0..20_usize << 20, insert in 1..100_usize) {
            let chunker = Chunker::new(b"secret");
            let before = noise(seed, 20 << 20);
            let mut after = before.clone();
            after.splice(at..at, noise(!seed, insert));
            let cuts = |data: &[u8]| {
                let mut start = 0;
                lengths(&chunker, data).into_iter().map(|length| { start += length; data[start - length..start].to_vec() })
                    .collect::<std::collections::HashSet<_>>()
            };
            let (before, after) = (cuts(&before), cuts(&after));
            prop_assert!(after.difference(&before).count() <= 6);
        }

        #[test]
        fn how_much_is_seen_at_once_does_not_matter(seed: u64, seen in 1..9_usize << 20) {
            let chunker = Chunker::new(b"secret");
            let data = noise(seed, 9 << 20);
            if let Some(length) = chunker.cut(&data[..seen], false) {
                prop_assert_eq!(chunker.cut(&data, true), Some(length));
            }
        }
    }
}
