//! Records of runs: a ConfigMap each, in the namespace of what the run acts on. The record is one JSON text, compared by
//! its own revision; the journal and the report go into a second ConfigMap, so that reading a record stays cheap.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::client::doubtful;
use super::edit::{MANAGER, Patched, Target};
use super::{KubePlatform, PAGE};
use crate::run::{Outcome, Phase, RunRecord};
use crate::{PlatformError, Result};

/// On everything that we make.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The run that made an object, or that a record is of.
pub(super) const RUN: &str = "opsctl.dev/run";
/// Records only: the kind of run, with a dot for the slash.
const KIND: &str = "opsctl.dev/kind";
/// Closed records that are kept in a namespace.
const KEPT: usize = 20;
/// Somebody may be faster so often before we give up.
const ROUNDS: usize = 8;

/// The name of the record's ConfigMap.
pub fn record_name(run: &str) -> String {
    format!("opsctl-run-{run}")
}

impl KubePlatform {
    /// Where the record of a run on `target` goes.
    pub(super) fn record_namespace(&self, record: &RunRecord) -> &str {
        record
            .service()
            .and_then(|service| self.settings.workload(service))
            .map_or(&self.settings.namespace, |workload| &workload.namespace)
    }

    fn config_maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.clients.calls.clone(), namespace)
    }

    /// The ConfigMap of a run's record.
    pub(super) async fn record_map(&self, run: &str) -> Result<Option<ConfigMap>> {
        let known = self.places.lock().expect("no panic in here").get(run).cloned();
        let namespaces = match &known {
            Some(namespace) => vec![namespace.as_str()],
            None => self.settings.namespaces(),
        };
        for namespace in namespaces {
            let map = self.config_maps(namespace).get_opt(&record_name(run)).await;
            if let Some(map) = map.map_err(|error| self.error(error))? {
                let mut places = self.places.lock().expect("no panic in here");
                places.insert(run.to_owned(), namespace.to_owned());
                return Ok(Some(map));
            }
        }
        Ok(None)
    }

    pub(super) async fn find_record(&self, run: &str) -> Result<Option<RunRecord>> {
        let map = self.record_map(run).await?;
        map.as_ref().map(parse).transpose()
    }

    pub(super) async fn list_records(&self) -> Result<Vec<RunRecord>> {
        let mut records = Vec::new();
        for namespace in self.settings.namespaces() {
            records.extend(self.records_in(namespace).await?);
        }
        records.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        Ok(records)
    }

    async fn records_in(&self, namespace: &str) -> Result<Vec<RunRecord>> {
        let api = self.config_maps(namespace);
        let mut page = ListParams::default()
            .labels(&format!("{MANAGED_BY}=opsctl,{RUN},{KIND}"))
            .limit(PAGE);
        let mut records = Vec::new();
        loop {
            let maps = api.list(&page).await.map_err(|error| self.error(error))?;
            records.extend(maps.items.iter().filter_map(|map| parse(map).ok()));
            match maps.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(records),
            }
        }
    }

    pub(super) async fn store_record(&self, record: &RunRecord) -> Result<u64> {
        let namespace = self.record_namespace(record).to_owned();
        let stored = RunRecord {
            revision: 1,
            updated_at: self.clients.now(),
            ..record.clone()
        };
        let map = self.map_of(&stored, &namespace);
        let exists = || PlatformError::RecordExists { run: record.id.clone() };
        match self.config_maps(&namespace).create(&PostParams::default(), &map).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => return Err(exists()),
            Err(error) => {
                let error = self.error(error);
                // The answer may have been lost.
                if !doubtful(&error) || self.find_record(&record.id).await?.as_ref() != Some(&stored) {
                    return Err(error);
                }
            }
        }
        self.places
            .lock()
            .expect("no panic in here")
            .insert(record.id.clone(), namespace.clone());
        if let Err(error) = self.prune(&namespace).await {
            tracing::warn!(namespace, error = %crate::run::message_of(&error), "could not remove old records");
        }
        Ok(1)
    }

    fn map_of(&self, record: &RunRecord, namespace: &str) -> ConfigMap {
        let settings = serde_json::to_string(self.settings.as_ref()).expect("strings and numbers are JSON");
        let map = json!({
            "metadata": {
                "name": record_name(&record.id),
                "namespace": namespace,
                "labels": labels(record),
            },
            "data": { "record": text_of(record), "platform": settings },
        });
        serde_json::from_value(map).expect("it is a ConfigMap")
    }

    pub(super) async fn replace_record(&self, record: &RunRecord) -> Result<u64> {
        let missing = || PlatformError::RecordMissing { run: record.id.clone() };
        let stored = RunRecord {
            revision: record.revision + 1,
            updated_at: self.clients.now(),
            ..record.clone()
        };
        let mut doubt = None;
        for _ in 0..ROUNDS {
            let map = self.record_map(&record.id).await?.ok_or_else(missing)?;
            let now = parse(&map)?;
            if now == stored {
                // Ours, whose answer was lost.
                return Ok(stored.revision);
            }
            if now.revision != record.revision {
                return Err(PlatformError::RecordConflict { run: record.id.clone() });
            }
            let target =
                Target::of::<ConfigMap>(map.metadata.namespace.as_deref().unwrap_or_default(), &map.name_any());
            let ops = vec![
                json!({ "op": "test", "path": "/metadata/uid", "value": map.metadata.uid }),
                json!({ "op": "test", "path": "/metadata/resourceVersion", "value": map.metadata.resource_version }),
                json!({ "op": "add", "path": "/data/record", "value": text_of(&stored) }),
            ];
            match self.patch(&target, ops, false).await {
                Ok(Patched::Done) => {
                    self.forget(&now, &stored).await;
                    return Ok(stored.revision);
                }
                Ok(Patched::Raced | Patched::Gone) => {}
                Err(error) if doubtful(&error) => doubt = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(doubt.unwrap_or(PlatformError::RecordConflict { run: record.id.clone() }))
    }

    /// Removes the oldest closed records beyond those that are kept, with what notes of them are left on objects.
    async fn prune(&self, namespace: &str) -> Result<()> {
        let mut closed = self.records_in(namespace).await?;
        closed.retain(|record| record.phase == Phase::Closed && record.outcome != Some(Outcome::UndoIncomplete));
        if closed.len() <= KEPT {
            return Ok(());
        }
        closed.sort_by_key(|record| record.ended_at);
        closed.truncate(closed.len() - KEPT);
        self.sweep(namespace, &closed).await?;
        for record in closed {
            for name in [record_name(&record.id), journal_name(&record.id)] {
                match self
                    .config_maps(namespace)
                    .delete(&name, &DeleteParams::default())
                    .await
                {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other.map_err(|error| self.error(error))?),
                }
            }
        }
        Ok(())
    }
}

pub(super) fn journal_name(run: &str) -> String {
    format!("opsctl-run-{run}-journal")
}

pub(super) fn labels(record: &RunRecord) -> Value {
    json!({ MANAGED_BY: MANAGER, RUN: record.id, KIND: record.kind.replace('/', ".") })
}

fn text_of(record: &RunRecord) -> String {
    serde_json::to_string(record).expect("a record is JSON")
}

fn parse(map: &ConfigMap) -> Result<RunRecord> {
    let text = map.data.as_ref().and_then(|data| data.get("record"));
    serde_json::from_str(text.map_or("", String::as_str)).map_err(|source| PlatformError::Corrupt {
        path: format!(
            "configmap {}/{}",
            map.metadata.namespace.as_deref().unwrap_or_default(),
            map.name_any()
        )
        .into(),
        source,
    })
}
