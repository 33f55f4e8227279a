//! What a run tells, wherever it was written: in the run's folder where it works here, beside its record where it works in
//! a cluster or on another machine.

use std::path::PathBuf;
use std::sync::Arc;

use opsctl_platform::kube::{KubePlatform, Told};
use opsctl_platform::run::{Event, RunRecord, Tail, read_events};
use serde_json::Value;

use super::Opened;
use crate::error::{self, Failure};

impl Opened {
    /// The report that a run's worker left, if it is over.
    pub(crate) async fn report(&self, record: &RunRecord) -> Option<Value> {
        let here = std::fs::read(self.state.run_dir(&record.id).join("report.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        match here {
            Some(report) => Some(report),
            None => self.told(record).await.report,
        }
    }

    /// The events of a run, as far as they are kept.
    pub(crate) async fn events(&self, record: &RunRecord) -> Vec<Event> {
        match read_events(&self.state.journal(&record.id)) {
            Ok(events) if !events.is_empty() => events,
            _ => self.told(record).await.events,
        }
    }

    /// What the cluster keeps of it.
    async fn told(&self, record: &RunRecord) -> Told {
        match self.there() {
            Some(there) => there.kube.told(record).await.unwrap_or_default(),
            None => Told::default(),
        }
    }

    /// The events of a run as they come.
    pub(crate) fn tail(&self, record: &RunRecord) -> EventTail {
        let here = self.state.journal(&record.id);
        match self.there() {
            Some(there) if !here.exists() => EventTail::There {
                kube: Arc::clone(&there.kube),
                record: Box::new(record.clone()),
                seen: 0,
            },
            _ => EventTail::Here(Tail::new(here)),
        }
    }

    /// The files of a run's report.
    pub(crate) fn report_files(&self, run: &str) -> Vec<PathBuf> {
        let folder = self.state.run_dir(run);
        ["report.html", "report.json"]
            .iter()
            .map(|name| folder.join(name))
            .filter(|path| path.is_file())
            .collect()
    }
}

/// Reads a run's events while they are written.
pub(crate) enum EventTail {
    /// From its journal's file.
    Here(Tail),
    /// From what the cluster keeps.
    There {
        /// The platform on it.
        kube: Arc<KubePlatform>,
        /// The run.
        record: Box<RunRecord>,
        /// The number of the last event.
        seen: u64,
    },
}

impl EventTail {
    /// The events that are new.
    pub(crate) async fn poll(&mut self, what: &str) -> Result<Vec<Event>, Failure> {
        match self {
            Self::Here(tail) => tail.poll().map_err(|error| error::platform::journal(what, &error)),
            Self::There { kube, record, seen } => {
                let mut told = kube
                    .told(record)
                    .await
                    .map_err(|error| error::platform::failure(what, &error))?;
                told.events.retain(|event| event.seq > *seen);
                *seen = told.events.last().map_or(*seen, |event| event.seq);
                Ok(told.events)
            }
        }
    }
}
