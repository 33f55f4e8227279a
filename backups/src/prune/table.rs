//! Every blob that the index names, in 48 bytes each, and every pack: repositories have millions of blobs, and a prune
//! must know of all of them at once.

use std::collections::HashMap;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{bad_pack, lost};
use crate::error::{Damage, Error};
use crate::prune::choose::Fate;
use crate::repo::index::Index;
use crate::repo::layout::FileKind;
use crate::repo::pack::{PackedBlob, expected_size};
use crate::repo::{BlobKind, Id, Repository};
use crate::store::list_all;

/// A place where a blob lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    id: Id,
    /// The pack's number, and the flags below.
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed: u32,
}

const TREE: u32 = 1 << 31;
/// A snapshot needs the blob.
const NEEDED: u32 = 1 << 30;
/// Of several copies this is the one that stays.
const KEPT: u32 = 1 << 29;
const PACK: u32 = KEPT - 1;

impl Place {
    fn pack(&self) -> usize {
        (self.pack & PACK) as usize
    }

    fn is(&self, flag: u32) -> bool {
        self.pack & flag != 0
    }

    fn kind(&self) -> BlobKind {
        if self.is(TREE) { BlobKind::Tree } else { BlobKind::Data }
    }

    fn blob(&self) -> PackedBlob {
        PackedBlob {
            kind: self.kind(),
            id: self.id,
            offset: self.offset,
            length: self.length,
            uncompressed: (self.uncompressed > 0).then_some(self.uncompressed),
        }
    }
}

/// A pack.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) id: Id,
    /// Its length in the store; `None` where it is not there.
    pub(super) size: Option<u64>,
    /// An index file lists it as one that stays.
    pub(super) is_indexed: bool,
    /// When it was marked, if the index tells.
    pub(super) marked: Option<Timestamp>,
    /// The index files that list it.
    pub(super) files: Vec<u32>,
    /// Where its places are in the table, once that is sorted by packs.
    pub(super) places: Range<usize>,
    /// What its blobs take together.
    pub(super) bytes: u64,
    /// What those of them take that snapshots need, copies of which may lie elsewhere, too.
    pub(super) needed_bytes: u64,
    /// What those of them take that stay.
    pub(super) kept_bytes: u64,
    pub(super) kept_blobs: u32,
    /// The length that it must have.
    pub(super) expected: u64,
    pub(super) has_data: bool,
    pub(super) has_trees: bool,
}

impl Pack {
    /// Nothing is known of it yet.
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            size: None,
            is_indexed: false,
            marked: None,
            files: Vec::new(),
            places: 0..0,
            bytes: 0,
            needed_bytes: 0,
            kept_bytes: 0,
            kept_blobs: 0,
            expected: 0,
            has_data: false,
            has_trees: false,
        }
    }

    pub(super) fn unused_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.kept_bytes)
    }

    fn is_sound(&self) -> bool {
        self.size == Some(self.expected)
    }
}

/// What the index says, all of it.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<Place>,
    /// Where the ids begin whose first two bytes are the position.
    starts: Vec<u32>,
    pub(super) packs: Vec<Pack>,
    numbers: HashMap<Id, u32>,
    /// The index files, and how many blobs each names.
    pub(super) files: Vec<(Id, usize)>,
}

/// An index file with fewer blobs is worth merging with another.
const SMALL_FILE: usize = 5_000;

impl Table {
    /// Reads the index. The other result finds trees, and nothing else.
    pub(super) async fn load(repository: &Repository) -> Result<(Self, Index), Error> {
        let (mut table, mut trees) = (Self::default(), Index::default());
        let store = repository.store();
        let listed = list_all(&*store, FileKind::Index.folder()).await?;
        let files = listed
            .iter()
            .filter_map(|entry| Some((entry.key.file_name().parse::<Id>().ok()?, entry.modified)));
        let mut loading = stream::iter(files)
            .map(async |(id, modified)| Ok::<_, Error>((id, modified, repository.load_index_file(&id).await?)))
            .boxed()
            .buffered(3);
        while let Some((id, modified, file)) = loading.try_next().await? {
            let number = table.files.len() as u32;
            let before = table.places.len();
            for (pack, is_marked) in file
                .packs
                .iter()
                .map(|pack| (pack, false))
                .chain(file.packs_to_delete.iter().map(|pack| (pack, true)))
            {
                let blobs = pack.blobs();
                table.add(number, pack.id, &blobs);
                let known = &mut table.packs[table.numbers[&pack.id] as usize];
                if is_marked {
                    // No pack was marked later than the file says that was written.
                    let time = pack
                        .time
                        .map(|time| modified.map_or(time, |modified| time.min(modified)));
                    known.marked = known.marked.max(time);
                } else {
                    known.is_indexed = true;
                }
                let only_trees: Vec<PackedBlob> =
                    blobs.into_iter().filter(|blob| blob.kind == BlobKind::Tree).collect();
                if !only_trees.is_empty() {
                    trees.add_pack(pack.id, &only_trees);
                }
            }
            table.files.push((id, table.places.len() - before));
        }
        drop(loading);
        table.sort_by_ids();
        Ok((table, trees))
    }

    fn add(&mut self, file: u32, id: Id, blobs: &[PackedBlob]) {
        let number = *self.numbers.entry(id).or_insert_with(|| {
            self.packs.push(Pack::new(id));
            self.packs.len() as u32 - 1
        });
        let pack = &mut self.packs[number as usize];
        if pack.files.last() != Some(&file) {
            pack.files.push(file);
        }
        self.places.extend(blobs.iter().map(|blob| Place {
            id: blob.id,
            pack: number | if blob.kind == BlobKind::Tree { TREE } else { 0 },
            offset: blob.offset,
            length: blob.length,
            uncompressed: blob.uncompressed.unwrap_or(0),
        }));
    }

    /// Sorts by ids. What several index files say of one pack counts once.
    fn sort_by_ids(&mut self) {
        let handle = |place: &Place| (place.id, place.pack, place.offset);
        self.places.sort_unstable_by_key(handle);
        self.places.dedup_by_key(|place| handle(place));
        self.starts = vec![0; (1 << 16) + 1];
        for place in &self.places {
            self.starts[first_bytes(&place.id) + 1] += 1;
        }
        for at in 1..self.starts.len() {
            self.starts[at] += self.starts[at - 1];
        }
    }

    /// Looks which packs the store has. Returns those that no index names: name, length, and when they were written.
    pub(super) async fn find_packs(
        &mut self,
        repository: &Repository,
    ) -> Result<Vec<(Id, u64, Option<Timestamp>)>, Error> {
        const PAGE: usize = 10_000;
        let store = repository.store();
        let (mut stray, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(FileKind::Pack.folder(), after.as_ref(), PAGE).await?;
            for entry in page.entries {
                let Ok(id) = entry.key.file_name().parse::<Id>() else {
                    continue;
                };
                match self.numbers.get(&id) {
                    Some(number) => self.packs[*number as usize].size = Some(entry.size),
                    None => stray.push((id, entry.size, entry.modified)),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(stray),
            }
        }
    }

    /// Notes that a snapshot needs a blob. Says whether that is news; a blob that is nowhere is an error.
    pub(super) fn need(&mut self, kind: BlobKind, id: &Id) -> Result<bool, Error> {
        let bucket = first_bytes(id);
        let bounds = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        let bucket = &mut self.places[bounds];
        let first = bucket.partition_point(|place| place.id < *id);
        let copies = bucket[first..].iter_mut().take_while(|place| place.id == *id);
        let mut news = None;
        for place in copies.filter(|place| place.kind() == kind) {
            news.get_or_insert(!place.is(NEEDED));
            place.pack |= NEEDED;
        }
        news.ok_or_else(|| lost(kind.object(*id)))
    }

    /// Chooses which copy of each needed blob stays, sums up what each pack holds, and sorts by packs. Fails if a needed
    /// blob lies in packs alone that are gone or of the wrong size.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.sum_up();
        // First what has no choice, then what has one: a pack that stays anyway is the best place, then one that can stand
        // for many others.
        for several in [false, true] {
            let mut from = 0;
            while from < self.places.len() {
                let (id, kind) = (self.places[from].id, self.places[from].kind());
                let same = |place: &&Place| place.id == id && place.kind() == kind;
                let count = self.places[from..].iter().take_while(same).count();
                let copies = from..from + count;
                from += count;
                if self.places[copies.start].is(NEEDED) && (count > 1) == several {
                    let chosen = self.best(copies)?;
                    self.places[chosen].pack |= KEPT;
                    let (number, length) = (self.places[chosen].pack(), self.places[chosen].length);
                    self.packs[number].kept_bytes += u64::from(length);
                    self.packs[number].kept_blobs += 1;
                }
            }
        }
        self.starts = Vec::new();
        self.places
            .sort_unstable_by_key(|place| (place.pack & PACK, place.offset, place.id));
        let mut from = 0;
        while from < self.places.len() {
            let number = self.places[from].pack();
            let count = self.places[from..]
                .iter()
                .take_while(|place| place.pack() == number)
                .count();
            self.packs[number].places = from..from + count;
            from += count;
        }
        Ok(())
    }

    fn best(&self, copies: Range<usize>) -> Result<usize, Error> {
        let sound = copies
            .clone()
            .filter(|at| self.packs[self.places[*at].pack()].is_sound());
        let best = sound.min_by_key(|at| {
            let number = self.places[*at].pack();
            let pack = &self.packs[number];
            let most = std::cmp::Reverse(pack.needed_bytes);
            (!pack.is_indexed, pack.kept_blobs == 0, most, number)
        });
        best.ok_or_else(|| {
            let pack = &self.packs[self.places[copies.start].pack()];
            let damage = if pack.size.is_some() {
                Damage::WrongSize
            } else {
                Damage::Missing
            };
            bad_pack(pack.id, damage)
        })
    }

    fn sum_up(&mut self) {
        // The length of a header does not depend on the order of its entries.
        let empty = expected_size(&[]);
        for pack in &mut self.packs {
            pack.expected = empty;
        }
        for place in &self.places {
            let pack = &mut self.packs[(place.pack & PACK) as usize];
            pack.bytes += u64::from(place.length);
            if place.is(NEEDED) {
                pack.needed_bytes += u64::from(place.length);
            }
            pack.expected += expected_size(&[place.blob()]) - empty;
            pack.has_trees |= place.is(TREE);
            pack.has_data |= !place.is(TREE);
        }
    }

    /// The blobs of a pack, in their order; the flag says which of them stay.
    pub(super) fn blobs(&self, number: usize) -> impl Iterator<Item = (PackedBlob, bool)> + '_ {
        let places = &self.places[self.packs[number].places.clone()];
        places.iter().map(|place| (place.blob(), place.is(KEPT)))
    }

    /// Which index files have to be written anew: those that list a pack whose state changes, or one that another file
    /// lists, too; and small ones, if there are several.
    pub(super) fn changed_files(&self, fates: &[Fate]) -> Vec<bool> {
        let small = |blobs: usize| blobs < SMALL_FILE;
        let many = self.files.iter().filter(|(_, blobs)| small(*blobs)).count() > 1;
        let mut changed: Vec<bool> = self
            .files
            .iter()
            .map(|(_, blobs)| *blobs == 0 || (many && small(*blobs)))
            .collect();
        for (pack, fate) in self.packs.iter().zip(fates) {
            let stays = match fate {
                Fate::Keep => pack.is_indexed,
                Fate::Wait(since) => !pack.is_indexed && pack.marked == Some(*since),
                _ => false,
            };
            if !stays || pack.files.len() > 1 || (pack.is_indexed && pack.marked.is_some()) {
                for file in &pack.files {
                    changed[*file as usize] = true;
                }
            }
        }
        // What one changed file shares with others is listed anew, so those are changed already: see above.
        changed
    }

    /// Whether one of the files that list a pack is among those.
    pub(super) fn is_listed_in(&self, number: usize, files: &[bool]) -> bool {
        self.packs[number].files.iter().any(|file| files[*file as usize])
    }
}

fn first_bytes(id: &Id) -> usize {
    usize::from(u16::from_be_bytes([id.as_bytes()[0], id.as_bytes()[1]]))
}

const _: () = assert!(size_of::<Place>() == 48, "millions of them are in memory at once");
