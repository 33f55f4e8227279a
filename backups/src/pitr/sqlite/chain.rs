//! Which generations and sets were shipped, by their names alone: `ship/<datastore>/<generation>/<sequence>-<time>`, where
//! a generation is `<time>-<snapshot>`, times are milliseconds since 1970, and a set that needs the next one to be a state
//! ends in `-part`. Names are not sealed: they choose what is read, and what is read must agree with them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, Unit};

use super::set::{self, Header, SEALED_LIMIT, Set};
use super::{Datastore, ShippingError};
use crate::error::{Damage, Error};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Repository};
use crate::store::{Entry, StoreKey, list_all};

/// What the keys of all sets begin with.
const KIND: &str = "ship";
const PART: &str = "-part";

/// A snapshot and what was shipped since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its name.
    pub name: String,
    /// The snapshot that it begins with.
    pub snapshot: Id,
    /// The sets, in order; the first stands for the snapshot. Never empty.
    pub sets: Vec<SetEntry>,
}

impl Generation {
    /// The earliest state that it holds.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.sets.first().map(|set| set.taken_at)
    }

    /// The latest state that it holds.
    pub fn latest(&self) -> Option<Timestamp> {
        self.sets.iter().rfind(|set| !set.partial).map(|set| set.taken_at)
    }

    /// Bytes stored, without the snapshot.
    pub fn bytes(&self) -> u64 {
        self.sets.iter().map(|set| set.bytes).sum()
    }
}

/// One set in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetEntry {
    /// Where it lies.
    pub key: StoreKey,
    /// Its place in the generation, from 0.
    pub sequence: u64,
    /// The time of its state.
    pub taken_at: Timestamp,
    /// It is no state of its own: the next one belongs to it.
    pub partial: bool,
    /// Its size.
    pub bytes: u64,
}

/// How far shipping has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The earliest time that can be restored.
    pub earliest: Timestamp,
    /// The latest state that was shipped: now minus this is what would be lost now.
    pub latest: Timestamp,
    /// Generations that there are.
    pub generations: u64,
    /// Sets in them.
    pub sets: u64,
    /// Bytes stored, without the snapshots.
    pub bytes: u64,
}

/// The time as a set names it: rounded to milliseconds, so that name and header say the same.
pub(super) fn rounded(time: Timestamp, up: bool) -> Timestamp {
    let mode = if up {
        jiff::RoundMode::Ceil
    } else {
        jiff::RoundMode::Floor
    };
    time.round(jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(mode))
        .unwrap_or(time)
}

pub(super) fn generation_name(started: Timestamp, snapshot: Id) -> String {
    format!("{:013}-{snapshot}", started.as_millisecond().max(0))
}

pub(super) fn set_key(datastore: &Datastore, header: &Header) -> Result<StoreKey, Error> {
    let (generation, sequence) = (&header.generation, header.sequence);
    let time = header.taken_at.as_millisecond().max(0);
    let end = if header.partial { PART } else { "" };
    Ok(StoreKey::new(format!(
        "{}{generation}/{sequence:010}-{time:013}{end}",
        datastore.folder(KIND)
    ))?)
}

/// Every generation of a datastore, in the order of their beginnings. One whose snapshot is gone is listed, too.
pub async fn list(repository: &Repository, datastore: &Datastore) -> Result<Vec<Generation>, Error> {
    Ok(generations(
        &datastore.folder(KIND),
        &list_all(&*repository.store(), &datastore.folder(KIND)).await?,
    ))
}

pub(super) fn generations(folder: &str, entries: &[Entry]) -> Vec<Generation> {
    let mut found = BTreeMap::<String, Generation>::new();
    for entry in entries {
        let Some((name, snapshot, set)) = parse(folder, entry) else {
            continue;
        };
        let generation = found.entry(name.clone()).or_insert_with(|| Generation {
            name,
            snapshot,
            sets: Vec::new(),
        });
        generation.sets.push(set);
    }
    for generation in found.values_mut() {
        generation.sets.sort_by_key(|set| (set.sequence, set.taken_at));
    }
    found.into_values().collect()
}

fn parse(folder: &str, entry: &Entry) -> Option<(String, Id, SetEntry)> {
    let (generation, set) = entry.key.as_str().strip_prefix(folder)?.split_once('/')?;
    let (started, snapshot) = generation.split_once('-')?;
    let whole = set.strip_suffix(PART);
    let (sequence, time) = whole.unwrap_or(set).split_once('-')?;
    let number = |digits: &str, length: usize| {
        let plain = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten()
    };
    number(started, 13)?;
    let set = SetEntry {
        key: entry.key.clone(),
        sequence: number(sequence, 10)?,
        taken_at: Timestamp::from_millisecond(i64::try_from(number(time, 13)?).ok()?).ok()?,
        partial: whole.is_some(),
        bytes: entry.size,
    };
    Some((generation.to_owned(), snapshot.parse().ok()?, set))
}

/// How far shipping of a datastore has come; `None` if it never began. Generations without their snapshot do not count.
pub async fn status(repository: &Repository, datastore: &Datastore) -> Result<Option<Status>, Error> {
    let usable = usable(repository, datastore).await?;
    let earliest = usable.iter().filter_map(Generation::earliest).min();
    let latest = usable.iter().filter_map(Generation::latest).max();
    Ok(earliest.zip(latest).map(|(earliest, latest)| Status {
        earliest,
        latest,
        generations: usable.len() as u64,
        sets: usable.iter().map(|generation| generation.sets.len() as u64).sum(),
        bytes: usable.iter().map(Generation::bytes).sum(),
    }))
}

/// The generations whose snapshot is there.
pub(super) async fn usable(repository: &Repository, datastore: &Datastore) -> Result<Vec<Generation>, Error> {
    let mut generations = list(repository, datastore).await?;
    let kept = snapshots(repository).await?;
    generations.retain(|generation| kept.contains(&generation.snapshot));
    Ok(generations)
}

async fn snapshots(repository: &Repository) -> Result<BTreeSet<Id>, Error> {
    Ok(repository
        .list(FileKind::Snapshot)
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect())
}

/// The objects that serve no restore any more: those of generations whose snapshot is not kept. In an order in which they
/// can be deleted one by one: what is left at any time is still the beginning of a chain.
pub fn unneeded(generations: &[Generation], kept: &BTreeSet<Id>) -> Vec<StoreKey> {
    let gone = generations
        .iter()
        .filter(|generation| !kept.contains(&generation.snapshot));
    gone.flat_map(|generation| generation.sets.iter().rev().map(|set| set.key.clone()))
        .collect()
}

/// Deletes what serves no restore any more, for every datastore; returns how many objects. Belongs beside a prune: who may
/// only write cannot do it.
pub async fn sweep(repository: &Repository) -> Result<u64, Error> {
    let store = repository.store();
    let mut folders = BTreeMap::<String, Vec<Entry>>::new();
    for entry in list_all(&*store, "ship/").await? {
        if let Some(name) = entry.key.as_str().split('/').nth(1) {
            folders.entry(format!("ship/{name}/")).or_default().push(entry);
        }
    }
    // After the generations: each of them had its snapshot before it was there.
    let kept = snapshots(repository).await?;
    let mut deleted = 0;
    for (folder, entries) in &folders {
        for key in unneeded(&generations(folder, entries), &kept) {
            store.delete(&key).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Reads a set and holds it against its place.
pub(super) async fn read(
    repository: &Repository,
    datastore: &Datastore,
    generation: &str,
    entry: &SetEntry,
) -> Result<Set, Error> {
    let damaged = |damage| {
        let key = entry.key.to_string();
        Error::Shipping(ShippingError::Damaged { key, damage })
    };
    if entry.bytes > SEALED_LIMIT {
        return Err(damaged(Damage::WrongSize));
    }
    let sealed = match repository.store().get(&entry.key).await {
        Err(error) if error.is_not_found() => return Err(damaged(Damage::Missing)),
        sealed => sealed?,
    };
    let set = set::open(repository, entry.key.as_str(), &sealed)?;
    let header = &set.header;
    let in_place = header.datastore == datastore.as_str()
        && header.generation == generation
        && header.sequence == entry.sequence
        && header.taken_at == entry.taken_at
        && header.partial == entry.partial
        && header.previous.is_some() == (entry.sequence > 0);
    if in_place {
        Ok(set)
    } else {
        Err(damaged(Damage::Malformed))
    }
}
