//! What is remembered of a database that was shipped: a hash of each page, and their sum, which stands for the whole.

use sha2::{Digest, Sha256};

/// The hash of a page under its number: the first half of a SHA-256. Zero means that the page is not known.
pub(super) fn hash_page(number: u32, content: &[u8]) -> u128 {
    let mut hash = Sha256::new();
    hash.update(number.to_le_bytes());
    hash.update(content);
    let digest: [u8; 32] = hash.finalize().into();
    let (half, _) = digest.split_at(16);
    half.iter().rev().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// Whether SQLite can have pages of this size.
pub(super) fn is_page_size(size: u32) -> bool {
    size.is_power_of_two() && (512..=65536).contains(&size)
}

/// The hashes of all pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Bytes in a page; 0 for a database without pages.
    pub(super) page_size: u32,
    hashes: Vec<u128>,
    sum: u128,
}

impl Table {
    pub(super) fn page_count(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The sum of the hashes, modulo 2^128: it does not depend on the order in which pages changed.
    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    /// Forgets pages beyond, and makes room for new ones.
    pub(super) fn resize(&mut self, pages: u32) {
        for gone in self.hashes.get(pages as usize..).unwrap_or_default() {
            self.sum = self.sum.wrapping_sub(*gone);
        }
        self.hashes.resize(pages as usize, 0);
    }

    /// Whether a page is as it was.
    pub(super) fn has(&self, number: u32, hash: u128) -> bool {
        self.slot(number).is_some_and(|at| self.hashes[at] == hash)
    }

    /// Remembers a page.
    pub(super) fn set(&mut self, number: u32, hash: u128) {
        if let Some(at) = self.slot(number) {
            self.sum = self.sum.wrapping_sub(self.hashes[at]).wrapping_add(hash);
            self.hashes[at] = hash;
        }
    }

    fn push(&mut self, content: &[u8]) {
        let hash = hash_page(self.page_count() + 1, content);
        self.sum = self.sum.wrapping_add(hash);
        self.hashes.push(hash);
    }

    fn slot(&self, number: u32) -> Option<usize> {
        let at = (number as usize).checked_sub(1)?;
        (at < self.hashes.len()).then_some(at)
    }
}

/// The table of a database file that passes by as a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    table: Table,
    rest: Vec<u8>,
}

impl StreamTable {
    /// Takes the next bytes of the file.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        if self.table.page_size == 0 {
            let Some(size) = self.rest.get(16..18) else { return };
            // 65536 does not fit: it is written as 1.
            self.table.page_size = match u32::from(size[0]) << 8 | u32::from(size[1]) {
                1 => 65536,
                // No size at all either, and not one that is still to come.
                0 => 1,
                size => size,
            };
        }
        if !is_page_size(self.table.page_size) {
            // No database: nothing of it is needed, however long it is.
            self.rest.truncate(1);
            return;
        }
        let size = self.table.page_size as usize;
        let whole = self.rest.len() / size * size;
        for page in self.rest[..whole].chunks_exact(size) {
            self.table.push(page);
        }
        self.rest.drain(..whole);
    }

    /// Bytes of a page that is not whole yet.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn waiting(&self) -> usize {
        self.rest.len()
    }

    /// The table, if this was a database of whole pages.
    pub(crate) fn finish(self) -> Option<Table> {
        let sound = self.rest.is_empty() && (is_page_size(self.table.page_size) || self.table.page_size == 0);
        sound.then_some(self.table)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the changes came about, the same pages have the same sum, and others do not.
        #[test]
        fn the_sum_is_that_of_the_pages(changes in proptest::collection::vec((1_u32..20, any::<u8>(), 1_u32..20), 0..60)) {
            let (mut table, mut model) = (Table::default(), Vec::<Option<u8>>::new());
            for (number, content, pages) in changes {
                table.resize(pages);
                model.resize(pages as usize, None);
                if number <= pages {
                    table.set(number, hash_page(number, &[content; 512]));
                    model[number as usize - 1] = Some(content);
                }
            }
            let fresh = model.iter().enumerate().filter_map(|(at, content)| Some(hash_page(at as u32 + 1, &[(*content)?; 512])));
            prop_assert_eq!(table.sum(), fresh.fold(0, u128::wrapping_add));
            prop_assert_eq!(table.page_count() as usize, model.len());
        }

        /// A stream has the table of its pages, wherever it is cut.
        #[test]
        fn a_stream_has_the_table_of_its_pages(cuts in proptest::collection::vec(1_usize..1500, 1..40), pages in 1_usize..8) {
            let mut file = vec![7; pages * 512];
            file[16..18].copy_from_slice(&[2, 0]);
            let mut stream = StreamTable::default();
            let mut rest = &file[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                stream.update(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let table = stream.finish().unwrap();
            let expected = file.chunks(512).enumerate().map(|(at, page)| hash_page(at as u32 + 1, page)).fold(0, u128::wrapping_add);
            prop_assert_eq!((table.page_count() as usize, table.sum()), (pages, expected));
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_no_database() {
        for byte in [0, 3] {
            let mut stream = StreamTable::default();
            for _ in 0..50 {
                stream.update(&[byte; 10_000]);
                assert!(stream.waiting() <= 1);
            }
            assert!(stream.finish().is_none());
        }
    }

    #[test]
    fn a_stream_that_is_no_database_has_none() {
        for bytes in [&[0_u8; 600][..], &[3; 600], &[2; 10]] {
            let mut stream = StreamTable::default();
            stream.update(bytes);
            assert!(stream.finish().is_none(), "{bytes:?}");
        }
        assert!(
            StreamTable::default()
                .finish()
                .is_some_and(|table| table.page_count() == 0)
        );
    }
}
