//! The kinds of drills there are. What each does is in its own file.

pub mod pod_kill;

use serde::{Deserialize, Serialize};

/// A kind of drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Kills instances.
    PodKill,
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
    pub const ALL: [Self; 1] = [Self::PodKill];

    /// Its name: `pod-kill`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodKill => "pod-kill",
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
        }
    }
}

/// Every kind with its description.
pub fn list() -> Vec<Description> {
    Kind::ALL.into_iter().map(Kind::describe).collect()
}
