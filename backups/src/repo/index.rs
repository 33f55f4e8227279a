//! Which blob lies where. Index files are restic's JSON, also the older form of format 1; in memory it is one map.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as HashTableEntry;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::Id;
use super::pack::{BlobKind, PackedBlob};

/// So many further copies of a blob are remembered. Who names more wants us to look through them all.
const MOST_COPIES: usize = 64;

/// Where one blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: Id,
    pub(crate) blob: PackedBlob,
}

/// Every blob that the index files name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    files: HashSet<Id>,
    packs: Vec<Id>,
    /// The first copy of each blob.
    first: Table,
    /// Further copies of blobs that lie in several packs.
    copies: HashMap<(BlobKind, Id), Vec<Entry>>,
    /// Blobs of packs that are marked to be deleted: still to be read, never to be relied upon.
    marked: HashMap<(BlobKind, Id), Entry>,
}

/// A table of where blobs lie, for few bytes a blob: repositories have millions. The entries lie one behind the other, and
/// what finds them holds their numbers alone, so that the room which a hash table keeps free is small. It is in many parts:
/// each is moved when it grows, and only that part is there twice meanwhile.
#[derive(Debug, Clone, Default)]
struct Table {
    /// Ids come from whoever wrote the repository, who might choose those that a known hash puts into one place.
    hasher: RandomState,
    data: [Shard; SHARDS],
    trees: [Shard; SHARDS],
}

/// A part of a table.
#[derive(Debug, Clone, Default)]
struct Shard {
    entries: Vec<(Id, Entry)>,
    numbers: HashTable<u32>,
}

const SHARDS: usize = 32;

impl Table {
    fn get(&self, kind: BlobKind, id: &Id) -> Option<&Entry> {
        let shard = &self.shards(kind)[shard_of(id)];
        let is_it = |number: &u32| shard.entries[*number as usize].0 == *id;
        let number = shard.numbers.find(self.hasher.hash_one(id), is_it)?;
        Some(&shard.entries[*number as usize].1)
    }

    /// Adds an entry for a blob that has none; returns the one that it has.
    fn insert(&mut self, kind: BlobKind, id: &Id, entry: Entry) -> Option<Entry> {
        let hasher = &self.hasher;
        let shards = match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        let Shard { entries, numbers } = &mut shards[shard_of(id)];
        let is_it = |number: &u32| entries[*number as usize].0 == *id;
        let place = numbers.entry(hasher.hash_one(id), is_it, |number| {
            hasher.hash_one(entries[*number as usize].0)
        });
        match place {
            HashTableEntry::Occupied(first) => Some(entries[*first.get() as usize].1),
            HashTableEntry::Vacant(vacant) => {
                // A shard of more blobs than numbers would take more memory than there is.
                vacant.insert(entries.len() as u32);
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(entries.len() / 4 + 16);
                }
                entries.push((*id, entry));
                None
            }
        }
    }

    fn shards(&self, kind: BlobKind) -> &[Shard; SHARDS] {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }
}

fn shard_of(id: &Id) -> usize {
    usize::from(id.as_bytes()[0]) % SHARDS
}

/// A location, small: repositories have millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed: Option<std::num::NonZeroU32>,
}

impl Entry {
    fn new(pack: u32, blob: &PackedBlob) -> Self {
        Self {
            pack,
            offset: blob.offset,
            length: blob.length,
            uncompressed: blob.uncompressed.and_then(std::num::NonZeroU32::new),
        }
    }
}

impl Index {
    /// The names of the index files that went into it.
    pub(crate) fn files(&self) -> &HashSet<Id> {
        &self.files
    }

    /// Adds what one index file says.
    pub(crate) fn add_file(&mut self, id: Id, file: &IndexFile) {
        if self.files.insert(id) {
            for pack in &file.packs {
                self.add_pack(pack.id, &pack.blobs());
            }
            for pack in &file.packs_to_delete {
                self.add_marked(pack.id, &pack.blobs());
            }
        }
    }

    /// Adds a pack that is marked to be deleted. Whoever was away while it was marked may need it yet, so that its blobs
    /// are found; [`Self::contains`] knows nothing of them, so that nobody relies on them from now on.
    fn add_marked(&mut self, pack: Id, blobs: &[PackedBlob]) {
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        for blob in blobs {
            self.marked
                .entry((blob.kind, blob.id))
                .or_insert_with(|| Entry::new(number, blob));
        }
    }

    /// Adds one pack.
    pub(crate) fn add_pack(&mut self, pack: Id, blobs: &[PackedBlob]) {
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        for blob in blobs {
            let entry = Entry::new(number, blob);
            if let Some(first) = self.first.insert(blob.kind, &blob.id, entry) {
                let same = |other: &Entry| self.packs[other.pack as usize] == pack && other.offset == entry.offset;
                let known = self.copies.entry((blob.kind, blob.id)).or_default();
                if known.len() < MOST_COPIES && !same(&first) && !known.iter().any(same) {
                    known.push(entry);
                }
            }
        }
    }

    /// Whether the blob lies anywhere where it stays.
    pub(crate) fn contains(&self, kind: BlobKind, id: &Id) -> bool {
        self.first.get(kind, id).is_some()
    }

    /// Where the blob lies: every copy, those that are to be deleted last.
    pub(crate) fn find(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Location> + '_ {
        let handle = (kind, *id);
        let copies = self.copies.get(&handle).into_iter().flatten();
        self.first
            .get(kind, id)
            .into_iter()
            .chain(copies)
            .chain(self.marked.get(&handle))
            .map(move |entry| self.location(handle, entry))
    }

    /// Blobs that lie in several places.
    pub(crate) fn duplicates(&self) -> impl Iterator<Item = (BlobKind, Id)> + '_ {
        self.copies
            .iter()
            .filter(|(_, copies)| !copies.is_empty())
            .map(|(handle, _)| *handle)
    }

    fn location(&self, (kind, id): (BlobKind, Id), entry: &Entry) -> Location {
        let uncompressed = entry.uncompressed.map(std::num::NonZeroU32::get);
        let blob = PackedBlob {
            kind,
            id,
            offset: entry.offset,
            length: entry.length,
            uncompressed,
        };
        Location {
            pack: self.packs[entry.pack as usize],
            blob,
        }
    }
}

/// One index file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    /// Index files whose content this one repeats, and which may be deleted.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::null_is_default"
    )]
    pub(crate) supersedes: Vec<Id>,
    /// The packs.
    #[serde(deserialize_with = "super::json::null_is_default")]
    pub(crate) packs: Vec<PackJson>,
    /// Packs that nothing needed when they were marked, and when that was. Rustic's field, which restic passes over.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::null_is_default"
    )]
    pub(crate) packs_to_delete: Vec<PackJson>,
}

/// One pack in an index file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackJson {
    pub(crate) id: Id,
    #[serde(deserialize_with = "super::json::null_is_default")]
    blobs: Vec<BlobJson>,
    /// When it was written, or marked.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "time_or_none")]
    pub(crate) time: Option<Timestamp>,
    /// Its length: rustic may mark packs without naming their blobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

/// A time that makes no sense is as good as none.
fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct BlobJson {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

impl PackJson {
    pub(crate) fn new(id: Id, blobs: &[PackedBlob]) -> Self {
        let json = |blob: &PackedBlob| BlobJson {
            id: blob.id,
            kind: blob.kind,
            offset: blob.offset,
            length: blob.length,
            uncompressed_length: blob.uncompressed,
        };
        Self {
            id,
            blobs: blobs.iter().map(json).collect(),
            time: None,
            size: None,
        }
    }

    /// The same, marked at a time.
    pub(crate) fn marked(id: Id, blobs: &[PackedBlob], time: Timestamp, size: u64) -> Self {
        Self {
            time: Some(time),
            size: u32::try_from(size).ok(),
            ..Self::new(id, blobs)
        }
    }

    pub(crate) fn blobs(&self) -> Vec<PackedBlob> {
        let packed = |blob: &BlobJson| PackedBlob {
            kind: blob.kind,
            id: blob.id,
            offset: blob.offset,
            length: blob.length,
            uncompressed: blob.uncompressed_length.filter(|&length| length > 0),
        };
        self.blobs.iter().map(packed).collect()
    }
}

impl IndexFile {
    /// Reads an index file, in today's form or as the bare list of packs that early versions of format 1 wrote.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        if json.first() == Some(&b'[') {
            Ok(Self {
                packs: serde_json::from_slice(json)?,
                ..Self::default()
            })
        } else {
            serde_json::from_slice(json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(id: Id, offset: u32) -> PackedBlob {
        PackedBlob {
            kind: BlobKind::Data,
            id,
            offset,
            length: 100,
            uncompressed: None,
        }
    }

    #[test]
    fn every_copy_is_known_once() {
        let (id, one, two) = (Id::of(b"blob"), Id::of(b"pack 1"), Id::of(b"pack 2"));
        let mut index = Index::default();
        for pack in [one, two, one] {
            index.add_pack(pack, &[blob(id, 0)]);
        }
        let packs: Vec<Id> = index.find(BlobKind::Data, &id).map(|location| location.pack).collect();
        assert_eq!(packs, [one, two]);
        assert!(
            !index.contains(BlobKind::Tree, &id),
            "the same bytes as a tree are another blob"
        );
    }

    #[test]
    fn a_blob_in_more_places_than_anybody_needs_costs_no_more() {
        let id = Id::of(b"blob");
        let mut index = Index::default();
        let everywhere: Vec<PackedBlob> = (0..200_000).map(|offset| blob(id, offset)).collect();
        index.add_pack(Id::of(b"pack"), &everywhere);
        assert_eq!(index.find(BlobKind::Data, &id).count(), 1 + MOST_COPIES);
    }

    #[test]
    fn what_is_marked_can_be_read_and_is_not_relied_upon() {
        let (id, going, staying) = (Id::of(b"blob"), Id::of(b"pack 1"), Id::of(b"pack 2"));
        let marked = PackJson::marked(going, &[blob(id, 0)], Timestamp::UNIX_EPOCH, 100);
        let json = serde_json::to_vec(&IndexFile {
            packs_to_delete: vec![marked],
            ..IndexFile::default()
        });
        let mut index = Index::default();
        index.add_file(Id::of(b"file"), &IndexFile::parse(&json.unwrap()).unwrap());
        assert!(!index.contains(BlobKind::Data, &id));
        let packs = |index: &Index| {
            index
                .find(BlobKind::Data, &id)
                .map(|found| found.pack)
                .collect::<Vec<_>>()
        };
        assert_eq!(packs(&index), [going]);
        index.add_pack(staying, &[blob(id, 0)]);
        assert!(index.contains(BlobKind::Data, &id));
        assert_eq!(packs(&index), [staying, going]);
    }

    #[test]
    fn both_forms_are_read() {
        let packs = r#"[{"id":"73d04e6125cf3c28a299cc2f3cca3b78ceac396e4fcf9575e34536b26782413c","blobs":[
            {"id":"3ec79977ef0cf5de7b08cd12b874cd0f62bbaf7f07f3497a5b1bbcc8cb39b1ce","type":"data","offset":38,"length":112,"uncompressed_length":511}]}]"#;
        let new = format!(r#"{{"supersedes":null,"packs":{packs},"later":1}}"#);
        for form in [packs, &new] {
            let file = IndexFile::parse(form.as_bytes()).unwrap();
            let blobs = file.packs[0].blobs();
            assert_eq!((blobs[0].offset, blobs[0].uncompressed), (38, Some(511)));
        }
        assert!(IndexFile::parse(b"{}").is_err());
    }
}
