//! Notes of undo on objects: what is left of them when a run ends, and runs of which nothing else is left.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use super::edit::{FENCE, Note, Patch, Patched, Target, annotation, notes};
use super::{KubePlatform, Provider, split};
use crate::run::{Outcome, Phase, RunRecord, UndoStep};
use crate::{Field, PlatformError, Result};

impl KubePlatform {
    /// Finds changes whose record is gone, and makes the records anew, so that `recover` undoes them: returns those.
    pub async fn strays(&self) -> Result<Vec<RunRecord>> {
        let mut runs: BTreeMap<String, Vec<Note>> = BTreeMap::new();
        let mut found = self.noted_nodes().await?;
        for namespace in self.settings.namespaces() {
            found.extend(self.noted(namespace).await?);
        }
        for note in found.iter().flat_map(|(_, object)| notes(object)) {
            runs.entry(note.run.clone()).or_default().push(note);
        }
        let mut made = Vec::new();
        for (run, notes) in runs {
            if self.find_record(&run).await?.is_some() {
                continue;
            }
            let record = anew(&run, notes, self.clients.now());
            match self.store_record(&record).await {
                Ok(revision) => made.push(RunRecord { revision, ..record }),
                Err(PlatformError::RecordExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// The objects of a namespace that a run has noted something on.
    async fn noted(&self, namespace: &str) -> Result<Vec<Noted>> {
        let mut kinds = vec![ApiResource::erase::<Deployment>(&())];
        for provider in self.settings.providers() {
            match provider {
                Provider::Gateway => kinds.extend(["HTTPRoute", "GRPCRoute"].map(split::route_kind)),
                Provider::IngressNginx => kinds.push(ApiResource::erase::<Ingress>(&())),
                Provider::Replicas => kinds.push(ApiResource::erase::<Service>(&())),
            }
        }
        let mut found = Vec::new();
        for kind in kinds {
            match self.noted_of(&kind, Some(namespace)).await {
                Ok(some) => found.extend(some),
                // A cluster without that kind has no objects of it.
                Err(PlatformError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The nodes that a run has noted something on. Who may not look at nodes has no run that changed one.
    async fn noted_nodes(&self) -> Result<Vec<Noted>> {
        match self.noted_of(&ApiResource::erase::<Node>(&()), None).await {
            Err(PlatformError::Forbidden { .. }) => Ok(Vec::new()),
            found => found,
        }
    }

    async fn noted_of(&self, kind: &ApiResource, namespace: Option<&str>) -> Result<Vec<Noted>> {
        let place = |name: &str| Target {
            resource: kind.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        let api = place("").api(self.clients.calls.clone());
        let mut found = Vec::new();
        self.each(&api, ListParams::default(), |object| {
            if !notes(object).is_empty() || annotation(object, FENCE).is_some() {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                found.push((place(name), object.clone()));
            }
        })
        .await?;
        Ok(found)
    }

    /// Removes from the objects what `new` does not have to undo any more and `old` had. Best effort: a note too many is
    /// removed when the record is.
    pub(super) async fn forget(&self, old: &RunRecord, new: &RunRecord) {
        let open = |record: &RunRecord, field: &Field| {
            record.phase != Phase::Closed && record.undo.iter().any(|step| step.field == *field && !step.settled())
        };
        for step in &old.undo {
            if open(new, &step.field) || !(open(old, &step.field) || old.phase != new.phase) {
                continue;
            }
            let keep = |note: &Note| note.run != new.id || note.field != step.field;
            let cleaned = match self.targets(&step.field).await {
                Ok(targets) => self.clean(&targets, &new.id, keep).await,
                Err(error) => Err(error),
            };
            if let Err(error) = cleaned {
                tracing::warn!(run = %new.id, field = %step.field, error = %crate::run::message_of(&error), "could not remove a note of undo");
            }
        }
    }

    /// Removes every note of closed runs from the objects of a namespace.
    pub(super) async fn sweep(&self, namespace: &str, closed: &[RunRecord]) -> Result<()> {
        let mut found = self.noted(namespace).await?;
        found.extend(self.noted_nodes().await?);
        for (target, _) in found {
            for run in closed {
                self.clean(std::slice::from_ref(&target), &run.id, |note| note.run != run.id)
                    .await?;
            }
        }
        Ok(())
    }

    async fn clean(&self, targets: &[Target], run: &str, keep: impl Fn(&Note) -> bool) -> Result<()> {
        for target in targets {
            while let Some(object) = self.read(target).await? {
                let all = notes(&object);
                let kept: Vec<Note> = all.iter().filter(|note| keep(note)).cloned().collect();
                let mark = annotation(&object, FENCE)
                    .and_then(|mark| mark.split_once('/'))
                    .is_some_and(|(of, _)| of == run);
                let mark = mark && !kept.iter().any(|note| note.run == run);
                if kept.len() == all.len() && !mark {
                    break;
                }
                let mut patch = Patch::new(&object);
                if kept.len() != all.len() {
                    patch.set_notes(&kept);
                }
                if mark {
                    patch.annotate(FENCE, None);
                }
                match self.patch(target, patch.into_ops(), false).await? {
                    Patched::Done | Patched::Gone => break,
                    Patched::Raced => {}
                }
            }
        }
        Ok(())
    }
}

/// Where an object is, and the object.
type Noted = (Target, DynamicObject);

/// A record with what the notes say. Its worker is unknown and cannot change anything: its fence had the record.
fn anew(run: &str, mut notes: Vec<Note>, now: Timestamp) -> RunRecord {
    notes.sort_by_key(|note| note.order);
    notes.dedup_by(|a, b| a.field == b.field);
    let (kind, target, epoch) = notes
        .first()
        .map(|note| (note.kind.clone(), note.target.clone(), note.epoch))
        .unwrap_or_default();
    let mut record = RunRecord::new(run, kind, target, Value::Null, now);
    record.epoch = epoch + 1;
    // Nobody works on it: it is lost at once, and not only when its time is over.
    record.phase = Phase::Closed;
    record.outcome = Some(Outcome::UndoIncomplete);
    record.message = Some("its record was deleted; made anew from what it noted on objects".to_owned());
    record.ended_at = Some(now);
    record.undo = notes
        .into_iter()
        .map(|note| UndoStep {
            order: note.order,
            field: note.field,
            before: note.before,
            ours: note.ours,
            after_seconds: 0,
            result: None,
        })
        .collect();
    record
}
