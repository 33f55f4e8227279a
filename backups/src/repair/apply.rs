//! Carries a plan out: rescued blobs first, then the index, then the damaged files go, then the snapshots.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::surgery::{Supply, Surgeon, Verdict};
use super::{DAMAGED_FOLDER, Plan, REPAIRED, Report, names_of_everything, survey};
use crate::clock;
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::index::{IndexFile, PackJson};
use crate::repo::layout::FileKind;
use crate::repo::pack::{PackedBlob, SIZE_LIMIT};
use crate::repo::{BlobKind, Id, Lock, LockMode, Reader, Repository, Writer};
use crate::store::{StoreError, StoreKey};
use crate::transfer::{BlobName, packed_length, transfer};

/// An index file has no more blobs: as large as restic makes them.
const BLOBS_PER_INDEX: usize = 50_000;

/// Carries the plan out under an exclusive lock. Fails with [`Error::PlanOutdated`], and changes nothing, if anything was
/// added or taken away since it was made. `second` must be the one of the plan. After any other error, and when it is
/// cut off, nothing is worse than before, and a new plan goes on from there.
pub async fn apply(
    repository: &Repository,
    second: Option<&Repository>,
    plan: Plan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    let work = Box::pin(async {
        let lock = Lock::acquire(repository, LockMode::Exclusive, clock::now()).await?;
        let work = Work {
            repository,
            lock: &lock,
            progress,
            cancel,
            report: Report::default(),
        };
        let outcome = Box::pin(work.all(second, plan)).await;
        lock.release().await;
        outcome
    });
    if let Some(second) = second {
        return Lock::while_reading(second, cancel, work).await;
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        outcome = work => outcome,
    }
}

/// Packs and their blobs.
type Lists = HashMap<Id, Vec<PackedBlob>>;

struct Work<'a> {
    repository: &'a Repository,
    lock: &'a Lock,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    report: Report,
}

impl Work<'_> {
    async fn all(mut self, second: Option<&Repository>, plan: Plan) -> Result<Report, Error> {
        if names_of_everything(self.repository).await? != plan.rests_on {
            return Err(Error::PlanOutdated {
                location: self.repository.location(),
            });
        }
        self.blobs(second, &plan).await?;
        self.index(&plan).await?;
        for pack in plan.damaged_packs.iter().filter(|pack| pack.isolated) {
            self.isolate_pack(pack.id).await?;
        }
        self.snapshots(second, &plan).await?;
        Ok(self.report)
    }

    /// Stores again what of damaged packs is good, and what the second repository has.
    async fn blobs(&mut self, second: Option<&Repository>, plan: &Plan) -> Result<(), Error> {
        if plan.rescue.is_empty() && plan.fetch.is_empty() {
            return Ok(());
        }
        let here = survey::reader(self.repository, plan.survey.usable());
        let there = match second.filter(|_| !plan.fetch.is_empty()) {
            Some(second) => Some(second.reader().await?),
            None => None,
        };
        let expected =
            packed_length(&here, &plan.rescue) + there.as_ref().map_or(0, |there| packed_length(there, &plan.fetch));
        self.progress.phase(Phase::Transferring, Some(expected), None);
        let known = Arc::new(plan.survey.of_sound());
        let writer = Writer::knowing(self.repository, known, None, self.progress, self.cancel)?;
        let rescue = plan.rescue.iter().copied();
        let mut lost: HashMap<BlobName, Damage> = transfer(&here, rescue, &writer, self.progress).await?;
        self.report.rescued = (plan.rescue.len() - lost.len()) as u64;
        if let Some(there) = &there {
            let fetch = plan.fetch.iter().copied();
            let missed = transfer(there, fetch, &writer, self.progress).await?;
            self.report.fetched = (plan.fetch.len() - missed.len()) as u64;
            lost.extend(missed);
        }
        writer.finish().await?;
        let lost = lost.keys().map(|(kind, id)| kind.object(*id));
        self.report.lost.extend(lost);
        self.report.lost.sort_unstable();
        Ok(())
    }

    /// Writes anew what the wrong and unreadable index files should say; then those go.
    async fn index(&mut self, plan: &Plan) -> Result<(), Error> {
        let survey = &plan.survey;
        let replaced: HashSet<Id> = plan.replaced_indexes.iter().copied().collect();
        let kept_elsewhere: HashSet<Id> = survey
            .indexes
            .iter()
            .filter(|(index, _)| !replaced.contains(index))
            .flat_map(|(_, packs)| packs.iter().copied())
            .collect();
        let isolated: HashSet<Id> = plan
            .damaged_packs
            .iter()
            .filter(|pack| pack.isolated)
            .map(|pack| pack.id)
            .collect();
        let mut packs: Vec<Id> = plan
            .replaced_indexes
            .iter()
            .filter_map(|index| survey.indexes.get(index))
            .flatten()
            .chain(&plan.found_packs)
            .filter(|pack| !kept_elsewhere.contains(pack) && !isolated.contains(pack))
            .copied()
            .collect();
        packs.sort_unstable();
        packs.dedup();
        let removed: Vec<Id> = plan
            .replaced_indexes
            .iter()
            .copied()
            .chain(plan.damaged_indexes.iter().map(|(id, _)| *id))
            .collect();
        // What was to be deleted still is, unless it is named again.
        let mut marked: Vec<PackJson> = plan
            .replaced_indexes
            .iter()
            .filter_map(|index| survey.marked.get(index))
            .flatten()
            .filter(|pack| packs.binary_search(&pack.id).is_err())
            .cloned()
            .collect();
        let mut lists: Lists = HashMap::new();
        let mut blobs = 0;
        for pack in packs {
            let list = match (survey.sound.get(&pack), survey.damaged.get(&pack)) {
                (Some(list), _) => list,
                // It stays until somebody looks into it.
                (None, Some(broken)) if !broken.proved => &broken.good,
                _ => continue,
            };
            blobs += list.len();
            lists.insert(pack, list.clone());
            if blobs >= BLOBS_PER_INDEX {
                self.write_index(std::mem::take(&mut lists), std::mem::take(&mut marked), &removed)
                    .await?;
                blobs = 0;
            }
        }
        if !lists.is_empty() || !marked.is_empty() {
            self.write_index(lists, marked, &removed).await?;
        }
        for id in removed {
            self.lock.still_held()?;
            self.repository.store().delete(&FileKind::Index.key(&id)).await?;
            self.report.indexes_removed += 1;
        }
        Ok(())
    }

    async fn write_index(
        &mut self,
        lists: Lists,
        packs_to_delete: Vec<PackJson>,
        supersedes: &[Id],
    ) -> Result<(), Error> {
        let file = IndexFile {
            supersedes: supersedes.to_vec(),
            packs: lists.iter().map(|(id, blobs)| PackJson::new(*id, blobs)).collect(),
            packs_to_delete,
        };
        self.repository.save_file(FileKind::Index, &file).await?;
        self.report.indexes_written += 1;
        Ok(())
    }

    /// Moves a damaged pack to where nobody reads it.
    async fn isolate_pack(&mut self, id: Id) -> Result<(), Error> {
        let store = self.repository.store();
        match store.stat(&FileKind::Pack.key(&id)).await {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Ok(entry) if entry.size > SIZE_LIMIT => {
                self.report.left.push(id);
                return Ok(());
            }
            entry => drop(entry?),
        }
        self.isolate(FileKind::Pack, id, &id.to_string()).await
    }

    async fn isolate(&mut self, kind: FileKind, id: Id, name: &str) -> Result<(), Error> {
        let (store, key) = (self.repository.store(), kind.key(&id));
        let bytes = match store.get(&key).await {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            bytes => bytes?,
        };
        let mut place = StoreKey::new(format!("{DAMAGED_FOLDER}{name}"))?;
        match store.put(&place, bytes.clone()).await {
            Err(error) if error.is_exists() => {
                // A copy that was cut off; or the same file, damaged once more and in another way.
                if store.get(&place).await? != bytes {
                    place = StoreKey::new(format!("{DAMAGED_FOLDER}{name}-{}", Id::of(&bytes).short()))?;
                    match store.put(&place, bytes).await {
                        Err(error) if error.is_exists() => {}
                        outcome => outcome?,
                    }
                }
            }
            outcome => outcome?,
        }
        self.lock.still_held()?;
        store.delete(&key).await?;
        self.report.isolated.push((kind.object(id), place.to_string()));
        Ok(())
    }

    async fn snapshots(&mut self, second: Option<&Repository>, plan: &Plan) -> Result<(), Error> {
        let cut: Vec<_> = plan
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.rewritten || snapshot.removed)
            .collect();
        let unreadable: Vec<_> = plan
            .unreadable_snapshots
            .iter()
            .filter(|snapshot| snapshot.isolated)
            .collect();
        if cut.is_empty() && unreadable.is_empty() {
            return Ok(());
        }
        let supply = Actual {
            reader: self.repository.reader().await?,
            present: self
                .repository
                .list(FileKind::Pack)
                .await?
                .into_iter()
                .map(|(id, _)| id)
                .collect(),
            bad: bad_blobs(plan),
        };
        let writer = Writer::new(self.repository, None, self.progress, self.cancel).await?;
        let mut surgeon = Surgeon::new(&supply, Some(&writer), self.progress);
        let mut rewritten = Vec::new();
        for planned in cut {
            let tree = self.repository.snapshot(&planned.id).await?.tree;
            match surgeon.snapshot(tree).await? {
                Verdict::Cut(lost, root) if planned.rewritten && is_within(&lost, &planned.lost) => {
                    rewritten.push((planned.id, Some(root), planned.removed));
                }
                // Stored again by an earlier repair.
                Verdict::Cut(lost, _) if !planned.rewritten && is_within(&lost, &planned.lost) => {
                    rewritten.push((planned.id, None, planned.removed));
                }
                Verdict::Gone(_) if !planned.rewritten => rewritten.push((planned.id, None, planned.removed)),
                // Repaired after all.
                Verdict::Whole => {}
                Verdict::Cut(..) | Verdict::Gone(_) => self.report.unsettled.push(planned.id),
            }
        }
        let mut restored = Vec::new();
        for planned in unreadable {
            let copy = planned.copy.zip(second);
            if let Some((copy, second)) = copy {
                let json = second.snapshot_json(&copy).await?;
                let tree = second.snapshot(&copy).await?.tree;
                if !matches!(surgeon.snapshot(tree).await?, Verdict::Whole) {
                    self.report.unsettled.push(planned.id);
                    continue;
                }
                restored.push((planned.id, Some(json)));
            } else {
                restored.push((planned.id, None));
            }
        }
        writer.finish().await?;
        for (id, root, remove) in rewritten {
            if let Some(root) = root {
                let new = self.rewrite(&id, root).await?;
                self.report.rewritten.push((id, new));
            }
            if remove {
                self.lock.still_held()?;
                self.repository.store().delete(&FileKind::Snapshot.key(&id)).await?;
                self.report.removed.push(id);
            }
        }
        for (id, json) in restored {
            if let Some(mut json) = json {
                self.lock.still_held()?;
                json.remove("parent");
                json.insert("original".to_owned(), id.to_string().into());
                let new = self.repository.save_file(FileKind::Snapshot, &json).await?;
                self.report.restored.push((id, new));
            }
            self.isolate(FileKind::Snapshot, id, &format!("snapshot-{id}")).await?;
        }
        Ok(())
    }

    /// Stores a snapshot with another root, marked as restic's `repair snapshots` marks it.
    async fn rewrite(&self, id: &Id, root: Id) -> Result<Id, Error> {
        self.lock.still_held()?;
        let mut json = self.repository.snapshot_json(id).await?;
        // Its figures are no longer right.
        json.remove("summary");
        json.insert("tree".to_owned(), root.to_string().into());
        json.insert("original".to_owned(), id.to_string().into());
        let tags = json.entry("tags").or_insert_with(|| serde_json::json!([]));
        match tags.as_array_mut() {
            Some(tags) if tags.iter().any(|tag| tag == REPAIRED) => {}
            Some(tags) => tags.push(REPAIRED.into()),
            None => *tags = serde_json::json!([REPAIRED]),
        }
        self.repository.save_file(FileKind::Snapshot, &json).await
    }
}

/// A snapshot has lost nothing that the plan did not say.
fn is_within(lost: &[super::LostItem], planned: &[super::LostItem]) -> bool {
    let said: HashSet<_> = planned.iter().map(|item| &item.path).collect();
    lost.iter().all(|item| said.contains(&item.path))
}

/// Blobs that damaged packs hold and that cannot be read there. Packs that were moved away are out of the index by now.
fn bad_blobs(plan: &Plan) -> HashSet<(Id, Id)> {
    let bad = plan.survey.damaged.iter().flat_map(|(pack, broken)| {
        let blobs = broken.bad.iter().map(|blob| blob.id);
        blobs.map(|blob| (*pack, blob))
    });
    bad.collect()
}

/// What can be read now.
struct Actual {
    reader: Reader,
    present: HashSet<Id>,
    bad: HashSet<(Id, Id)>,
}

#[async_trait::async_trait]
impl Supply for Actual {
    async fn tree(&self, id: &Id) -> Result<Vec<u8>, Error> {
        self.reader.blob(BlobKind::Tree, id).await
    }

    fn has(&self, id: &Id) -> bool {
        let mut places = self.reader.index().find(BlobKind::Data, id);
        places.any(|place| self.present.contains(&place.pack) && !self.bad.contains(&(place.pack, *id)))
    }
}
