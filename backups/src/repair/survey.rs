//! What there is: every index file, every pack, and which of their blobs can be read. Changes nothing.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::Scope;
use crate::check::data::Examiner;
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::index::{Index, PackJson};
use crate::repo::layout::FileKind;
use crate::repo::pack::{self, PackedBlob, expected_size};
use crate::repo::{Id, Reader, Repository};
use crate::store::StoreError;

/// Everything that a repair rests on.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Every index file that can be read, and the packs that it names.
    pub(super) indexes: HashMap<Id, Vec<Id>>,
    /// What each of them says is to be deleted.
    pub(super) marked: HashMap<Id, Vec<PackJson>>,
    /// Index files that cannot be read.
    pub(super) damaged_indexes: Vec<(Id, Damage)>,
    /// Packs that some index names.
    pub(super) listed: HashSet<Id>,
    /// Packs that some index names and that are not there, with the blobs that they had.
    pub(super) missing: HashMap<Id, Vec<PackedBlob>>,
    /// Packs that are whole, as far as was looked, with the right list of their blobs.
    pub(super) sound: HashMap<Id, Vec<PackedBlob>>,
    /// Sound packs that some index names wrongly.
    pub(super) misnamed: HashSet<Id>,
    /// Packs that are not whole.
    pub(super) damaged: HashMap<Id, Broken>,
    /// Bytes that were read of packs.
    pub(super) bytes_read: u64,
}

/// A damaged pack.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) damage: Damage,
    /// Its blobs that can be read all the same.
    pub(super) good: Vec<PackedBlob>,
    /// Its blobs that cannot.
    pub(super) bad: Vec<PackedBlob>,
    /// It was read, so that what is good and bad is known.
    pub(super) proved: bool,
}

impl Survey {
    pub(super) async fn make(repository: &Repository, scope: &Scope, progress: &dyn Progress) -> Result<Self, Error> {
        progress.phase(Phase::CheckingStructure, None, None);
        let mut survey = Self::default();
        let mut lists = survey.read_indexes(repository).await?;
        survey.listed = lists.keys().copied().collect();
        let present: HashMap<Id, u64> = repository.list(FileKind::Pack).await?.into_iter().collect();
        for (id, list) in lists.extract_if(|id, _| !present.contains_key(id)) {
            survey.missing.insert(id, list.blobs);
        }
        let (mut to_read, mut to_head) = (Vec::new(), Vec::new());
        for (id, size) in present {
            let list = lists.remove(&id).unwrap_or_default();
            let listed_rightly = list.one && expected_size(&list.blobs) == size;
            if scope.reads(&id) || (!listed_rightly && !list.blobs.is_empty() && *scope != Scope::Index) {
                to_read.push((id, size, list));
            } else if listed_rightly {
                survey.sound.insert(id, list.blobs);
            } else {
                to_head.push((id, size, list));
            }
        }
        survey.read_headers(repository, to_head).await?;
        survey.read_packs(repository, to_read, progress).await?;
        Ok(survey)
    }

    async fn read_indexes(&mut self, repository: &Repository) -> Result<HashMap<Id, List>, Error> {
        let mut lists: HashMap<Id, List> = HashMap::new();
        let files = repository.list(FileKind::Index).await?;
        let mut loading = stream::iter(files)
            .map(|(id, _)| async move { (id, repository.load_index_file(&id).await) })
            .buffered(8);
        while let Some((id, loaded)) = loading.next().await {
            let file = match loaded {
                Ok(file) => file,
                Err(Error::Damaged { damage, .. }) => {
                    self.damaged_indexes.push((id, damage));
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.indexes.insert(id, file.packs.iter().map(|pack| pack.id).collect());
            for pack in &file.packs {
                lists.entry(pack.id).or_default().add(pack);
            }
            self.marked.insert(id, file.packs_to_delete);
        }
        Ok(lists)
    }

    /// Packs that no index names rightly: their headers say what they hold.
    async fn read_headers(&mut self, repository: &Repository, packs: Vec<(Id, u64, List)>) -> Result<(), Error> {
        let mut reading = stream::iter(packs)
            .map(|(id, size, list)| async move {
                let header = header(repository, &id, size).await?;
                Ok::<_, Error>((id, list, header))
            })
            .buffer_unordered(8);
        while let Some((id, list, header)) = reading.try_next().await? {
            match header {
                Ok(blobs) => self.is_sound(id, &list, blobs),
                Err(Damage::Missing) => drop(self.missing.insert(id, list.blobs)),
                Err(damage) => {
                    let broken = Broken {
                        damage,
                        // What the index said stays to be tried.
                        good: list.blobs,
                        bad: Vec::new(),
                        proved: false,
                    };
                    self.damaged.insert(id, broken);
                }
            }
        }
        Ok(())
    }

    /// Packs that are read in full.
    async fn read_packs(
        &mut self,
        repository: &Repository,
        mut packs: Vec<(Id, u64, List)>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        if packs.is_empty() {
            return Ok(());
        }
        packs.sort_unstable_by_key(|(id, _, _)| *id);
        let expected = packs.iter().map(|(_, size, _)| size).sum();
        progress.phase(Phase::CheckingData, Some(expected), Some(packs.len() as u64));
        let examiner = Examiner::new(repository);
        let mut reading = stream::iter(packs)
            .map(|(id, size, list)| {
                let reading = examiner.examine(id, size, list.blobs.clone(), true);
                async move { Ok::<_, Error>((id, list, reading.await?)) }
            })
            .buffered(examiner.at_once());
        while let Some((id, list, found)) = reading.try_next().await? {
            self.bytes_read += found.bytes;
            progress.bytes(found.bytes);
            progress.file_done();
            let misnamed = found.damage.as_slice() == [Damage::Malformed];
            let worst = found.damage.first().copied();
            if worst == Some(Damage::Missing) {
                self.missing.insert(id, list.blobs);
                continue;
            }
            if let Some(header) = found.header.filter(|_| worst.is_none() || misnamed) {
                // The file is what its name says, and only the index is wrong about it. Is every blob whole as well?
                let wrong = found.blobs.iter().filter(|(_, damage)| damage.is_some());
                let wrong: HashSet<PackedBlob> = wrong.map(|(blob, _)| *blob).collect();
                if header.iter().all(|blob| !wrong.contains(blob)) {
                    self.is_sound(id, &list, header);
                    continue;
                }
            }
            let (bad, good): (Vec<_>, Vec<_>) = found.blobs.into_iter().partition(|(_, damage)| damage.is_some());
            let damage = worst.or_else(|| bad.iter().find_map(|(_, damage)| *damage));
            let broken = Broken {
                damage: damage.unwrap_or(Damage::Malformed),
                good: good.into_iter().map(|(blob, _)| blob).collect(),
                bad: bad.into_iter().map(|(blob, _)| blob).collect(),
                proved: true,
            };
            self.damaged.insert(id, broken);
        }
        Ok(())
    }

    fn is_sound(&mut self, id: Id, list: &List, blobs: Vec<PackedBlob>) {
        let said: HashSet<&PackedBlob> = list.blobs.iter().collect();
        let right = list.one && said.len() == blobs.len() && blobs.iter().all(|blob| said.contains(blob));
        if self.listed.contains(&id) && !right {
            self.misnamed.insert(id);
        }
        self.sound.insert(id, blobs);
    }

    /// Whether some index file is wrong.
    pub(super) fn index_is_damaged(&self) -> bool {
        !self.damaged_indexes.is_empty() || !self.misnamed.is_empty()
    }

    /// An index of what can be read: sound packs first, those that an index names before others, and last what is still
    /// good of the damaged ones.
    pub(super) fn usable(&self) -> Index {
        let mut index = self.of_sound();
        for (id, broken) in &self.damaged {
            index.add_pack(*id, &broken.good);
        }
        index
    }

    /// An index of the sound packs alone, those that an index names first.
    pub(super) fn of_sound(&self) -> Index {
        let mut index = Index::default();
        for named in [true, false] {
            for (id, blobs) in &self.sound {
                if self.listed.contains(id) == named {
                    index.add_pack(*id, blobs);
                }
            }
        }
        index
    }
}

/// What the indexes say of one pack.
#[derive(Debug, Default)]
struct List {
    blobs: Vec<PackedBlob>,
    /// Some index names it, and all that do say the same.
    one: bool,
}

impl List {
    fn add(&mut self, pack: &PackJson) {
        let mut blobs = pack.blobs();
        blobs.sort_unstable_by_key(|blob| (blob.offset, blob.kind, blob.id, blob.length, blob.uncompressed));
        if self.blobs.is_empty() {
            self.one = true;
            self.blobs = blobs;
        } else if self.blobs != blobs {
            self.one = false;
            let known: HashSet<PackedBlob> = self.blobs.iter().copied().collect();
            self.blobs
                .extend(blobs.into_iter().filter(|blob| !known.contains(blob)));
        }
    }
}

/// The header of a pack, without reading the rest.
async fn header(repository: &Repository, id: &Id, size: u64) -> Result<Result<Vec<PackedBlob>, Damage>, Error> {
    let key = FileKind::Pack.key(id);
    let store = repository.store();
    // Enough for most packs, so that one question is enough.
    let mut length = size.min(16 << 10);
    loop {
        let end = match store.get_range(&key, size - length, length).await {
            Err(StoreError::NotFound { .. }) => return Ok(Err(Damage::Missing)),
            end => end?,
        };
        let needed = match pack::trailer_length(&end, size) {
            Ok(needed) => needed,
            Err(damage) => return Ok(Err(damage)),
        };
        if let Some(from) = (end.len() as u64).checked_sub(needed) {
            return Ok(pack::parse_trailer(repository.key(), &end[from as usize..], size));
        }
        if end.len() as u64 != length || needed <= length {
            return Ok(Err(Damage::WrongSize));
        }
        length = needed;
    }
}

/// What a reader of the survey's packs sees.
pub(super) fn reader(repository: &Repository, index: Index) -> Reader {
    repository.reader_with(index)
}
