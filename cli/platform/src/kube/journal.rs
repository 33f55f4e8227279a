//! What a run tells, kept in the cluster: the last part of its journal and its report, in a ConfigMap beside its record.
//! The worker's own file has all of it; this is for whoever is elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::KubePlatform;
use super::edit::MANAGER;
use super::record::{MANAGED_BY, RUN, journal_name};
use crate::run::{Event, RunRecord, message_of};
use crate::{PlatformError, Result};

/// The most of a journal that is kept. A ConfigMap holds no more than 1 MiB in all.
const RING: usize = 256 * 1024;
/// Between two looks at the journal.
const POLL: Duration = Duration::from_secs(1);
/// Between two writes of a journal that is long: every write goes to all of the control plane.
const LONG_POLL: Duration = Duration::from_secs(5);
/// From here on it is long.
const LONG: usize = 64 * 1024;

/// What a run told so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// The last events, oldest first.
    pub events: Vec<Event>,
    /// The report, once there is one.
    pub report: Option<Value>,
}

impl KubePlatform {
    fn journals(&self, record: &RunRecord) -> Api<ConfigMap> {
        Api::namespaced(self.clients.calls.clone(), self.record_namespace(record))
    }

    /// What a run told so far.
    pub async fn told(&self, record: &RunRecord) -> Result<Told> {
        let map = self.journals(record).get_opt(&journal_name(&record.id)).await;
        let mut data = map
            .map_err(|error| self.error(error))?
            .and_then(|map| map.data)
            .unwrap_or_default();
        let events = data.remove("events").unwrap_or_default();
        Ok(Told {
            events: events
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
            report: data
                .remove("report")
                .and_then(|report| serde_json::from_str(&report).ok()),
        })
    }

    /// Keeps a part of what a run tells: `events` or `report`.
    async fn tell(&self, record: &RunRecord, key: &str, text: &str) -> Result<()> {
        let (api, name) = (self.journals(record), journal_name(&record.id));
        let patch = Patch::Merge(json!({ "data": { key: text } }));
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match api.patch(&name, &parameters, &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop).map_err(|error| self.error(error)),
        }
        let map = json!({
            // Not the label of records, whose list would bring along all journals.
            "metadata": { "name": name, "labels": { MANAGED_BY: MANAGER, RUN: record.id } },
            "data": { key: text },
        });
        let map = serde_json::from_value(map).expect("it is a ConfigMap");
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match api.create(&parameters, &map).await {
            // The worker's watchdog was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patched = api.patch(&name, &PatchParams::default(), &patch).await;
                patched.map(drop).map_err(|error| self.error(error))
            }
            other => other.map(drop).map_err(|error| self.error(error)),
        }
    }

    /// Keeps a run's report.
    pub async fn tell_report(&self, record: &RunRecord, report: &Value) -> Result<()> {
        self.tell(record, "report", &report.to_string()).await
    }

    /// Keeps the last part of the journal `file` in the cluster for as long as the publisher lives.
    pub fn publish(self: &Arc<Self>, record: &RunRecord, file: PathBuf) -> Publisher {
        let done = Arc::new(Notify::new());
        let (platform, record, told) = (Arc::clone(self), record.clone(), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let mut last = String::new();
            loop {
                let pause = if last.len() < LONG { POLL } else { LONG_POLL };
                let over = tokio::select! {
                    () = tokio::time::sleep(pause) => false,
                    () = told.notified() => true,
                };
                let text = match ring(&file).await {
                    Ok(text) => text,
                    Err(error) => {
                        tracing::warn!(%error, "could not read the journal");
                        String::new()
                    }
                };
                if !text.is_empty() && text != last {
                    match platform.tell(&record, "events", &text).await {
                        Ok(()) => last = text,
                        // The next look tries again; the file has it all.
                        Err(error) => tracing::warn!(error = %message_of(&error), "could not publish the journal"),
                    }
                }
                if over {
                    return;
                }
            }
        });
        Publisher { task, done }
    }
}

/// Publishes a journal until it is finished or dropped.
#[derive(Debug)]
pub struct Publisher {
    task: JoinHandle<()>,
    done: Arc<Notify>,
}

impl Publisher {
    /// Publishes what is new once more, and ends.
    pub async fn finish(mut self) {
        self.done.notify_one();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last whole lines of a file that fit.
async fn ring(file: &std::path::Path) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    let failed = |source| PlatformError::Io {
        action: "read",
        path: file.to_owned(),
        source,
    };
    let mut open = match tokio::fs::File::open(file).await {
        Ok(open) => open,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let length = open.metadata().await.map_err(failed)?.len();
    let start = length.saturating_sub(RING as u64);
    open.seek(std::io::SeekFrom::Start(start)).await.map_err(failed)?;
    let mut text = Vec::new();
    open.take(RING as u64).read_to_end(&mut text).await.map_err(failed)?;
    let first = if start == 0 {
        0
    } else {
        text.iter()
            .position(|byte| *byte == b'\n')
            .map_or(text.len(), |end| end + 1)
    };
    let last = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(first, |end| end + 1);
    Ok(String::from_utf8_lossy(&text[first.min(last)..last]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ring_has_whole_lines_of_the_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("events.ndjson");
        assert_eq!(ring(&file).await.expect("no file is no text"), "");
        std::fs::write(&file, "one\ntwo\nthr").expect("written");
        assert_eq!(ring(&file).await.expect("readable"), "one\ntwo\n");
        let line = format!("{}\n", "x".repeat(999));
        std::fs::write(&file, line.repeat(400)).expect("written");
        let text = ring(&file).await.expect("readable");
        assert!(text.len() <= RING && text.len() > RING - 1000, "{}", text.len());
        assert!(text.lines().all(|line| line.len() == 999));
    }
}
