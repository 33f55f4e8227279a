//! What to read of the repository: every blob that a file lacks, sorted by where it lies, and cut into runs of neighbours.

use std::collections::HashMap;

use super::{Files, OneFile};
use crate::repo::{BlobKind, Id, Reader};

/// Neighbouring blobs are read together up to this many bytes,
const RUN_LENGTH: u32 = 8 << 20;
/// with up to so many bytes between them that nobody needs.
const RUN_GAP: u32 = 128 << 10;

/// A place that needs a blob. There may be millions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// The pack, by the order in which packs are read.
    pack: u32,
    /// Where the blob begins in it.
    start: u32,
    pub(super) file: u32,
    /// Which one of the file's blobs it is.
    pub(super) blob: u32,
    /// Where it belongs in the file.
    pub(super) offset: u64,
}

/// Blobs of one pack that are read together.
pub(super) struct Run {
    pub(super) pack: Id,
    pub(super) start: u32,
    pub(super) end: u32,
    /// By where the blobs lie, so that the places of one blob follow each other.
    pub(super) needs: Vec<Need>,
}

impl Files {
    /// What to read: packs in the order in which the files need them first.
    pub(super) fn runs<'a>(&'a self, reader: &'a Reader) -> impl Iterator<Item = Run> + 'a {
        let mut packs: Vec<Id> = Vec::new();
        let mut numbers: HashMap<Id, u32> = HashMap::new();
        let mut needs = Vec::new();
        for file in self.all().filter(OneFile::is_pending) {
            let mut offset = 0;
            for (blob, id) in (0..).zip(file.content) {
                let Some(location) = reader.index().find(BlobKind::Data, id).next() else {
                    continue;
                };
                let length = location.blob.plain_length();
                if !self.has(file, blob) {
                    let pack = *numbers.entry(location.pack).or_insert_with(|| {
                        packs.push(location.pack);
                        packs.len() as u32 - 1
                    });
                    needs.push(Need {
                        pack,
                        start: location.blob.offset,
                        file: file.number,
                        blob,
                        offset,
                    });
                }
                offset += length;
            }
        }
        needs.sort_unstable_by_key(|need| (need.pack, need.start, need.file, need.blob));
        let length = |need: &Need| {
            let found = reader.index().find(BlobKind::Data, self.id(need)).next();
            found.map_or(0, |found| found.blob.length)
        };
        let mut at = 0;
        std::iter::from_fn(move || {
            let (start, end, count) = first_run(&needs[at..], length)?;
            let run = &needs[at..at + count];
            at += count;
            Some(Run {
                pack: packs[run.first()?.pack as usize],
                start,
                end,
                needs: run.to_vec(),
            })
        })
    }

    /// The blob that is needed.
    pub(super) fn id(&self, need: &Need) -> &Id {
        &self.file(need.file).content[need.blob as usize]
    }
}

/// From where to where the first run goes, and how many of the needs it serves.
fn first_run(needs: &[Need], length: impl Fn(&Need) -> u32) -> Option<(u32, u32, usize)> {
    let first = needs.first()?;
    let (start, mut end) = (first.start, first.start);
    let mut count = 0;
    for need in needs {
        let is_near = need.start.saturating_sub(end) <= RUN_GAP && end - start <= RUN_LENGTH;
        if need.pack != first.pack || !is_near {
            break;
        }
        // Offsets and lengths of a foreign index may not add up; then the read comes back short and says so.
        end = end.max(need.start.saturating_add(length(need)));
        count += 1;
    }
    Some((start, end, count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every need is served by exactly one run, which covers it, is of one pack, and is not much longer than allowed.
        #[test]
        fn runs_serve_every_need_once(mut blobs in proptest::collection::vec((0..3_u32, 0..40_000_000_u32, 1..9_000_000_u32), 0..60)) {
            blobs.sort_unstable();
            let need = |(number, (pack, start, _)): (usize, &(u32, u32, u32))| Need {
                pack: *pack,
                start: *start,
                file: number as u32,
                blob: 0,
                offset: 0,
            };
            let needs: Vec<Need> = blobs.iter().enumerate().map(need).collect();
            let length = |need: &Need| blobs[need.file as usize].2;
            let mut at = 0;
            while let Some((start, end, count)) = first_run(&needs[at..], length) {
                prop_assert!(count > 0);
                for need in &needs[at..at + count] {
                    prop_assert_eq!(need.pack, needs[at].pack);
                    prop_assert!(start <= need.start && need.start + length(need) <= end);
                }
                prop_assert!(end - start <= RUN_LENGTH + RUN_GAP + 9_000_000);
                at += count;
            }
            prop_assert_eq!(at, needs.len());
        }
    }

    #[test]
    fn a_foreign_index_makes_nothing_overflow() {
        let need = |start| Need {
            pack: 0,
            start,
            file: 0,
            blob: 0,
            offset: 0,
        };
        let needs = [need(u32::MAX - 1), need(u32::MAX)];
        assert_eq!(first_run(&needs, |_| u32::MAX), Some((u32::MAX - 1, u32::MAX, 2)));
        assert_eq!(first_run(&[], |_| 0), None);
    }

    #[test]
    fn needs_are_small() {
        assert_eq!(size_of::<Need>(), 24);
    }
}
