//! The kinds of drills there are. What each does is in its own file.

pub mod db_down;
mod enforced;
mod keep;
pub mod latency;
pub mod node_drain;
pub mod pod_kill;
pub mod service_down;

use opsctl_platform::run::{Run, RunRecord};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Report;
use crate::course::{self, Spec, With, WorkError};

/// A kind of drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Kills instances.
    PodKill,
    /// Takes a service away.
    ServiceDown,
    /// Slows answers.
    Latency,
    /// Takes the way to a database away.
    DbDown,
    /// Has everything leave a node.
    NodeDrain,
}

/// What a list of drills says of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The kind; its name is its word on the command line.
    pub kind: Kind,
    /// What it does, one sentence without a full stop.
    pub does: &'static str,
    /// What it finds out.
    pub shows: &'static str,
    /// How its effect ends.
    pub undo: &'static str,
    /// When it refuses.
    pub guard: &'static str,
}

impl Kind {
    /// All kinds, in the order of a list.
    pub const ALL: [Self; 5] = [
        Self::PodKill,
        Self::ServiceDown,
        Self::Latency,
        Self::DbDown,
        Self::NodeDrain,
    ];

    /// Its name: `pod-kill`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodKill => "pod-kill",
            Self::ServiceDown => "service-down",
            Self::Latency => "latency",
            Self::DbDown => "db-down",
            Self::NodeDrain => "node-drain",
        }
    }

    /// The `kind` of its runs' records: `drill/pod-kill`.
    pub fn record_kind(self) -> String {
        format!("drill/{}", self.as_str())
    }

    /// What it is.
    pub fn describe(self) -> Description {
        match self {
            Self::PodKill => Description {
                kind: self,
                does: "Kill instances of a service without warning",
                shows: "whether clients notice, and how long it takes until as many instances are ready as before",
                undo: "nothing to undo: the platform replaces what was killed, and the drill waits for it",
                guard: "never the last ready instance",
            },
            Self::ServiceDown => Description {
                kind: self,
                does: "Take a whole service away for a while",
                shows: "whether the services that depend on it stand, and how soon all are whole when it is back",
                undo: "the hold is taken away: as many instances as before are started",
                guard: "never a service that is held already, or not whole",
            },
            Self::Latency => Description {
                kind: self,
                does: "Slow the answers of a service, or of one that it depends on",
                shows: "whether callers that wait longer fail, fall, or send everything again",
                undo: "the delay is taken away; it ends by itself within half a minute when nobody keeps it up",
                guard: "never where another fault is played, and not without a probe that can see it",
            },
            Self::DbDown => Description {
                kind: self,
                does: "Take the way to its database away from a service for a while",
                shows: "whether it outlives its database, and how soon all is whole when that is back",
                undo: "the way leads to the database again; it does by itself within half a minute when nobody keeps it cut; a \
                       NetworkPolicy is taken away",
                guard: "never where another fault is played or another NetworkPolicy governs the way, and only where there is \
                        a network in between",
            },
            Self::NodeDrain => Description {
                kind: self,
                does: "Have everything leave a node, as before its maintenance",
                shows: "whether all that ran there is ready elsewhere in time, and what its clients noticed",
                undo: "the node takes new instances again, unless it did not before",
                guard: "disruption budgets hold; never the last node, what has no controller, or local data unasked",
            },
        }
    }
}

/// Which kind of drill a run is, if it is one.
pub fn of(record: &RunRecord) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.record_kind() == record.kind)
}

/// Works on the run of a drill of any kind: see [`course::work`].
pub async fn work(run: Run, with: With) -> Result<Report, WorkError> {
    match of(run.record()) {
        Some(Kind::PodKill) => {
            let Spec { terms, fault } = spec(&run)?;
            course::work(run, terms, pod_kill::PodKill::new(fault), with).await
        }
        Some(Kind::ServiceDown) => {
            let Spec { terms, fault } = spec(&run)?;
            let fault = service_down::ServiceDown::new(fault, &terms);
            course::work(run, terms, fault, with).await
        }
        Some(Kind::Latency) => {
            let Spec { terms, fault } = spec(&run)?;
            let fault = latency::Delay::new(fault, &terms);
            course::work(run, terms, fault, with).await
        }
        Some(Kind::DbDown) => {
            let Spec { terms, fault } = spec(&run)?;
            let fault = db_down::Away::new(fault, &terms);
            course::work(run, terms, fault, with).await
        }
        Some(Kind::NodeDrain) => {
            let Spec { terms, fault } = spec(&run)?;
            course::work(run, terms, node_drain::NodeDrain::new(fault), with).await
        }
        None => Err(WorkError::NoDrill {
            run: run.id().to_owned(),
            kind: run.record().kind.clone(),
        }),
    }
}

fn spec<F: DeserializeOwned>(run: &Run) -> Result<Spec<F>, WorkError> {
    serde_json::from_value(run.record().spec.clone()).map_err(|source| WorkError::Spec {
        run: run.id().to_owned(),
        source,
    })
}

/// Every kind with its description.
pub fn list() -> Vec<Description> {
    Kind::ALL.into_iter().map(Kind::describe).collect()
}
