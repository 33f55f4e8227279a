//! Repairs a damaged repository, as far as it can be: the index from the packs, packs from what of them is good, from
//! other packs and from a second repository, snapshots by leaving out what is lost for good.
//!
//! [`plan`] reads and changes nothing; [`apply`] does what the plan says under an exclusive lock and nothing else. The
//! order of writes is rescued blobs, their index, the corrected index, and only then are damaged files moved away: cut
//! anywhere, whatever could be read before can be read after. Damaged packs and snapshots are never deleted but kept
//! under [`DAMAGED_FOLDER`], where neither restic nor this engine looks.

mod apply;
mod surgery;
mod survey;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;

use tokio_util::sync::CancellationToken;

use crate::copy::Copies;
use crate::error::{Damage, Error, Object};
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::{BlobKind, Id, Lock, Reader, Repository};
use crate::snapshots::{self, SnapshotFilter};
use crate::transfer::BlobName;
use surgery::{Supply, Surgeon, Verdict};
use survey::Survey;

pub use apply::apply;

/// Where damaged files are kept: `damaged/<id>` a pack, `damaged/snapshot-<id>` a snapshot.
pub const DAMAGED_FOLDER: &str = "damaged/";

/// The label of a snapshot that was stored without what it lost: restic's word.
pub(crate) const REPAIRED: &str = "repaired";

/// What to repair. Each includes the index, without which nothing else can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everything, all data read.
    #[default]
    All,
    /// The index alone, from what the headers of packs say.
    Index,
    /// Packs: these, and those whose damage shows in their size; none named means that all are read.
    Packs(Vec<Id>),
    /// Snapshots, without reading the data of files.
    Snapshots,
}

impl Scope {
    fn reads(&self, pack: &Id) -> bool {
        match self {
            Self::All => true,
            Self::Packs(packs) => packs.is_empty() || packs.contains(pack),
            Self::Index | Self::Snapshots => false,
        }
    }

    fn packs(&self) -> bool {
        matches!(self, Self::All | Self::Packs(_))
    }

    fn snapshots(&self) -> bool {
        matches!(self, Self::All | Self::Snapshots)
    }
}

/// How to repair.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// What to repair.
    pub scope: Scope,
    /// Remove a snapshot that lost something once the one without it is stored, and snapshots of which nothing is left.
    pub forget: bool,
}

/// What would be done.
#[derive(Debug)]
pub struct Plan {
    /// Index files that cannot be read; they are taken away.
    pub damaged_indexes: Vec<(Id, Damage)>,
    /// Index files that name packs wrongly, or packs that are gone or moved away; they are written anew.
    pub replaced_indexes: Vec<Id>,
    /// Packs that no index names, and that will be named.
    pub found_packs: Vec<Id>,
    /// Packs that are named and not there; they will no longer be named.
    pub missing_packs: Vec<Id>,
    /// Packs that are not whole.
    pub damaged_packs: Vec<DamagedPack>,
    /// How many blobs will be stored again from damaged packs.
    pub rescued: u64,
    /// How many blobs that snapshots need will be looked for in the second repository.
    pub fetched: u64,
    /// Snapshots that have lost something, whatever is done.
    pub snapshots: Vec<DamagedSnapshot>,
    /// Snapshot files that cannot be read.
    pub unreadable_snapshots: Vec<UnreadableSnapshot>,
    /// Bytes that were read of packs to find this out.
    pub bytes_read: u64,
    options: RepairOptions,
    survey: Survey,
    /// Blobs to store again from damaged packs, and from the second repository.
    rescue: Vec<BlobName>,
    fetch: Vec<BlobName>,
    /// The names of everything when the plan was made.
    rests_on: Id,
}

/// A pack that is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPack {
    /// The pack.
    pub id: Id,
    /// What is wrong with it.
    pub damage: Damage,
    /// How many of its blobs are good.
    pub good: u64,
    /// How many are not.
    pub bad: u64,
    /// It will be moved away. If not, only its packs' repair can tell what of it is good.
    pub isolated: bool,
}

/// A snapshot that has lost something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// The snapshot.
    pub id: Id,
    /// What is lost; everything, if there is one item without a path.
    pub lost: Vec<LostItem>,
    /// It will be stored again without what is lost. If not, nothing is left of it, it was done before, or snapshots are
    /// not to be repaired.
    pub rewritten: bool,
    /// It will be removed.
    pub removed: bool,
}

/// Something that a snapshot has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostItem {
    /// The path inside the snapshot.
    pub path: PathBuf,
    /// It is a directory, and with it everything in it.
    pub directory: bool,
    /// What is damaged.
    pub reason: String,
}

/// A snapshot file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableSnapshot {
    /// The snapshot.
    pub id: Id,
    /// What is wrong with it.
    pub damage: Damage,
    /// The second repository's copy of it, which will be stored here.
    pub copy: Option<Id>,
    /// It will be moved away.
    pub isolated: bool,
}

impl Plan {
    /// There is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.damaged_indexes.is_empty()
            && self.replaced_indexes.is_empty()
            && self.found_packs.is_empty()
            && self.rescued + self.fetched == 0
            && !self.damaged_packs.iter().any(|pack| pack.isolated)
            && !self
                .snapshots
                .iter()
                .any(|snapshot| snapshot.rewritten || snapshot.removed)
            && !self.unreadable_snapshots.iter().any(|snapshot| snapshot.isolated)
    }

    /// Something stays damaged or lost, whatever is done.
    pub fn leaves_damage(&self) -> bool {
        !self.snapshots.is_empty()
            || self.damaged_packs.iter().any(|pack| !pack.isolated)
            || self.unreadable_snapshots.iter().any(|snapshot| snapshot.copy.is_none())
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs stored again from damaged packs.
    pub rescued: u64,
    /// Blobs stored from the second repository.
    pub fetched: u64,
    /// Blobs that snapshots need and that nobody has.
    pub lost: Vec<Object>,
    /// Index files written.
    pub indexes_written: u64,
    /// Index files taken away.
    pub indexes_removed: u64,
    /// Damaged files that were moved away, and where they are now.
    pub isolated: Vec<(Object, String)>,
    /// Damaged packs that stay where they are since they are too large to be moved; no index names them any more.
    pub left: Vec<Id>,
    /// Snapshots that were stored without what they lost: the old name and the new one.
    pub rewritten: Vec<(Id, Id)>,
    /// Snapshots that were stored from the second repository: the damaged one's name and the new one.
    pub restored: Vec<(Id, Id)>,
    /// Snapshots that were removed.
    pub removed: Vec<Id>,
    /// Snapshots that turned out to have lost more than the plan said, and were left alone.
    pub unsettled: Vec<Id>,
}

/// Finds out what is damaged and what can be done about it. `second` is where lost blobs and snapshots are looked for.
pub async fn plan(
    repository: &Repository,
    second: Option<&Repository>,
    options: &RepairOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Plan, Error> {
    let work = Box::pin(planned(repository, second, options, progress));
    if let Some(second) = second {
        let work = Box::pin(Lock::while_reading(second, cancel, work));
        return Lock::while_reading(repository, cancel, work).await;
    }
    Lock::while_reading(repository, cancel, work).await
}

async fn planned(
    repository: &Repository,
    second: Option<&Repository>,
    options: &RepairOptions,
    progress: &dyn Progress,
) -> Result<Plan, Error> {
    if repository.version() == 1 {
        return Err(Error::ReadOnlyVersion);
    }
    let rests_on = names_of_everything(repository).await?;
    let survey = Survey::make(repository, &options.scope, progress).await?;
    let mut plan = Plan {
        damaged_indexes: survey.damaged_indexes.clone(),
        replaced_indexes: Vec::new(),
        found_packs: Vec::new(),
        missing_packs: sorted(survey.missing.keys().copied()),
        damaged_packs: Vec::new(),
        rescued: 0,
        fetched: 0,
        snapshots: Vec::new(),
        unreadable_snapshots: Vec::new(),
        bytes_read: survey.bytes_read,
        options: options.clone(),
        survey,
        rescue: Vec::new(),
        fetch: Vec::new(),
        rests_on,
    };
    let needed = plan.look_at_snapshots(repository, second, progress).await?;
    plan.decide(&needed);
    Ok(plan)
}

fn sorted(ids: impl Iterator<Item = Id>) -> Vec<Id> {
    let mut ids: Vec<Id> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Snapshots that were stored again without what they lost, and still are here.
async fn snapshots_repaired(repository: &Repository) -> Result<HashSet<Id>, Error> {
    let filter = SnapshotFilter {
        tags: vec![REPAIRED.to_owned()],
        ..SnapshotFilter::default()
    };
    let list = snapshots::list(repository, &filter).await?;
    Ok(list
        .snapshots
        .iter()
        .filter_map(|record| record.snapshot.original)
        .collect())
}

/// A name that changes with anything that is added or taken away.
async fn names_of_everything(repository: &Repository) -> Result<Id, Error> {
    let mut names = String::new();
    for kind in [FileKind::Index, FileKind::Pack, FileKind::Snapshot] {
        for (id, size) in repository.list(kind).await? {
            names.extend([kind.key(&id).as_str(), " ", &size.to_string(), " "]);
        }
    }
    Ok(Id::of(names.as_bytes()))
}

impl Plan {
    /// Walks through all snapshots. Returns the unnamed packs that they need.
    async fn look_at_snapshots(
        &mut self,
        repository: &Repository,
        second: Option<&Repository>,
        progress: &dyn Progress,
    ) -> Result<HashSet<Id>, Error> {
        progress.phase(Phase::CheckingStructure, None, None);
        let packs = self.options.scope.packs();
        let here = survey::reader(repository, self.survey.usable());
        // Where packs are not repaired nothing is fetched, and a snapshot is whole only with what is here.
        let second_reader = match second.filter(|_| packs) {
            Some(second) => Some(second.reader().await?),
            None => None,
        };
        let copies = match second.filter(|_| packs) {
            Some(second) => Some(Copies::load(second).await?),
            None => None,
        };
        let supply = Planned {
            here: &here,
            second: second_reader.as_ref(),
            unnamed: &self.survey,
            needed: Mutex::default(),
            fetch: Mutex::default(),
        };
        let mut surgeon = Surgeon::new(&supply, None, progress);
        let (mut cut, mut unreadable) = (Vec::new(), Vec::new());
        let repaired = snapshots_repaired(repository).await?;
        for (id, _) in repository.list(FileKind::Snapshot).await? {
            let tree = match repository.snapshot(&id).await {
                Ok(snapshot) => snapshot.tree,
                Err(Error::Damaged { damage, .. }) => {
                    let copy = copies.as_ref().and_then(|copies| copies.of_unreadable(&id));
                    if let Some(copy) = copy {
                        surgeon.snapshot(copy.snapshot.tree).await?;
                    }
                    unreadable.push(UnreadableSnapshot {
                        id,
                        damage,
                        copy: copy.map(|copy| copy.id),
                        isolated: self.options.scope.snapshots(),
                    });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let wanted = self.options.scope.snapshots();
            let (lost, left) = match surgeon.snapshot(tree).await? {
                Verdict::Whole => continue,
                Verdict::Cut(lost, _) => (lost, true),
                Verdict::Gone(damage) => {
                    let everything = LostItem {
                        path: PathBuf::new(),
                        directory: true,
                        reason: Error::damaged(Object::tree(tree), damage).to_string(),
                    };
                    (vec![everything], false)
                }
            };
            cut.push(DamagedSnapshot {
                id,
                lost,
                rewritten: wanted && left && !repaired.contains(&id),
                removed: wanted && self.options.forget,
            });
        }
        let (needed, fetch) = (supply.needed.into_inner(), supply.fetch.into_inner());
        let poisoned = |_| Error::Internal("nobody panics with these locks");
        let fetch: HashSet<BlobName> = fetch.map_err(poisoned)?;
        self.fetch = fetch.into_iter().collect();
        self.fetched = self.fetch.len() as u64;
        (self.snapshots, self.unreadable_snapshots) = (cut, unreadable);
        needed.map_err(|_| Error::Internal("nobody panics with these locks"))
    }

    /// What follows for packs and indexes.
    fn decide(&mut self, needed: &HashSet<Id>) {
        let repairs_packs = self.options.scope.packs();
        let name_all = self.options.scope == Scope::Index || self.survey.index_is_damaged();
        let unnamed = self.survey.sound.keys().filter(|id| !self.survey.listed.contains(id));
        self.found_packs = sorted(unnamed.filter(|id| name_all || needed.contains(id)).copied());
        let sound = self.survey.of_sound();
        let mut rescue = HashSet::new();
        for (id, broken) in &self.survey.damaged {
            let isolated = repairs_packs && broken.proved;
            if isolated {
                let good = broken.good.iter().map(|blob| (blob.kind, blob.id));
                rescue.extend(good.filter(|(kind, id)| !sound.contains(*kind, id)));
            }
            self.damaged_packs.push(DamagedPack {
                id: *id,
                damage: broken.damage,
                good: if broken.proved { broken.good.len() as u64 } else { 0 },
                bad: broken.bad.len() as u64,
                isolated,
            });
        }
        self.damaged_packs.sort_by_key(|pack| pack.id);
        self.rescued = rescue.len() as u64;
        self.rescue = rescue.into_iter().collect();
        let gone: HashSet<Id> = self
            .damaged_packs
            .iter()
            .filter(|pack| pack.isolated)
            .map(|pack| pack.id)
            .chain(self.survey.missing.keys().copied())
            .chain(self.survey.misnamed.iter().copied())
            .collect();
        let wrong = self
            .survey
            .indexes
            .iter()
            .filter(|(_, packs)| packs.iter().any(|id| gone.contains(id)));
        self.replaced_indexes = sorted(wrong.map(|(id, _)| *id));
    }
}

/// What can be read when the plan is carried out.
struct Planned<'a> {
    here: &'a Reader,
    second: Option<&'a Reader>,
    unnamed: &'a Survey,
    /// Packs that no index names and that hold something that is needed.
    needed: Mutex<HashSet<Id>>,
    /// Blobs that the second repository has to give.
    fetch: Mutex<HashSet<BlobName>>,
}

impl Planned<'_> {
    fn is_here(&self, kind: BlobKind, id: &Id) -> bool {
        let Some(place) = self.here.index().find(kind, id).next() else {
            return false;
        };
        if !self.unnamed.listed.contains(&place.pack)
            && let Ok(mut needed) = self.needed.lock()
        {
            needed.insert(place.pack);
        }
        true
    }

    fn fetch(&self, kind: BlobKind, id: &Id) {
        if let Ok(mut fetch) = self.fetch.lock() {
            fetch.insert((kind, *id));
        }
    }
}

#[async_trait::async_trait]
impl Supply for Planned<'_> {
    async fn tree(&self, id: &Id) -> Result<Vec<u8>, Error> {
        let outcome = if self.is_here(BlobKind::Tree, id) {
            self.here.blob(BlobKind::Tree, id).await
        } else {
            Err(Error::damaged(Object::tree(*id), Damage::Missing))
        };
        match (outcome, self.second) {
            (Err(Error::Damaged { .. }), Some(second)) => {
                let json = second.blob(BlobKind::Tree, id).await?;
                self.fetch(BlobKind::Tree, id);
                Ok(json)
            }
            (outcome, _) => outcome,
        }
    }

    fn has(&self, id: &Id) -> bool {
        if self.is_here(BlobKind::Data, id) {
            return true;
        }
        let there = self
            .second
            .is_some_and(|second| second.index().contains(BlobKind::Data, id));
        if there {
            self.fetch(BlobKind::Data, id);
        }
        there
    }
}
