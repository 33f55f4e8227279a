//! What is kept of one drill: which snapshot, how long each part took, what was checked and what came of it. Not how it
//! is decided.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::repo::Id;

/// The `schema` of a record.
pub const SCHEMA: &str = "opsctl.proof/v1";

/// The record of one drill. Fields are only ever added; unknown ones are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// [`SCHEMA`].
    pub schema: String,
    /// The snapshot that was brought back.
    pub snapshot: Id,
    /// When that was made.
    pub snapshot_time: Timestamp,
    /// The datastore, by its name in the catalogue.
    pub datastore: String,
    /// The source's kind: `sqlite`, `files`.
    pub kind: String,
    /// The environment.
    #[serde(default)]
    pub environment: String,
    /// When the drill ended, by the store's clock.
    pub at: Timestamp,
    /// The moment that was to be recovered: what was written between the newest row that came back and then is lost.
    pub moment: Timestamp,
    /// Who asked for it.
    #[serde(default)]
    pub actor: String,
    /// The machine that it was done on.
    #[serde(default)]
    pub host: String,
    /// The run on that machine, where its report lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How long each part took.
    pub phases: Phases,
    /// The whole of it, from opening the repository to the last answer; of a server that replays its log to its first
    /// answer, since what is looked at afterwards nobody waits for. Absent when the data did not come back.
    pub rto_seconds: Option<f64>,
    /// From the newest data that came back to `moment`; absent when it could not be told.
    pub rpo_seconds: Option<f64>,
    /// What told how new the data is.
    pub rpo_basis: RpoBasis,
    /// The objectives at that time.
    #[serde(default)]
    pub objectives: Objectives,
    /// Everything that was held against an expectation.
    pub checks: Vec<Check>,
    /// Files that came back.
    #[serde(default)]
    pub files: u64,
    /// Bytes in them.
    #[serde(default)]
    pub bytes: u64,
    /// What it comes to.
    pub verdict: Verdict,
    /// The program that did it, with its version.
    #[serde(default)]
    pub tool_version: String,
    /// The version of SQLite that checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite_version: Option<String>,
    /// The version of the server that it was brought back into, where it is one of a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
}

/// How long each part took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Opening the repository and finding the snapshot.
    pub open_seconds: f64,
    /// Bringing the data back.
    pub restore_seconds: f64,
    /// Of a server that replays its log: from its start to its first answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovery_seconds: f64,
    /// The source's own checks.
    pub checks_seconds: f64,
    /// The first query, the assertions and the canary row.
    pub assertions_seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

impl Phases {
    /// All of them, by name, in their order; recovery where there was one.
    pub fn all(&self) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("open", self.open_seconds),
            ("restore", self.restore_seconds),
            ("recovery", self.recovery_seconds),
            ("checks", self.checks_seconds),
            ("assertions", self.assertions_seconds),
        ];
        all.retain(|(name, seconds)| *name != "recovery" || !is_zero(seconds));
        all
    }

    /// The time of all together.
    pub fn total(&self) -> f64 {
        self.all().iter().map(|(_, seconds)| seconds).sum()
    }
}

/// What must hold, in seconds; what is absent was not declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Objectives {
    /// So much may be lost.
    pub rpo_seconds: Option<f64>,
    /// So long may it take until the data is back.
    pub rto_seconds: Option<f64>,
    /// A proof may be so old.
    pub prove_every_seconds: Option<f64>,
}

/// What told how new the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RpoBasis {
    /// The time of the snapshot: no row was asked for.
    Snapshot,
    /// The moment that shipped changes reach: no row was asked for.
    Shipped,
    /// The newest row, by the canary's query.
    Canary,
}

/// One expectation and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// Its name: `integrity_check`, an assertion's name or query, `rto`.
    pub name: String,
    /// What was expected, in words.
    pub expected: String,
    /// What was seen, in words.
    pub observed: String,
    /// What was seen as a number, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figure: Option<f64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Whether everything came back.
    Restore,
    /// The source's own checks.
    Source,
    /// What the catalogue asserts.
    Assertion,
    /// The objectives.
    Objective,
}

/// What became of an expectation. Not known is neither, and leaves a verdict open; what was skipped does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It held.
    Met,
    /// It did not.
    NotMet,
    /// There was not enough to tell.
    Unknown,
    /// It could not be tried here, or not of this data, and others say enough.
    Skipped,
}

impl Outcome {
    /// Whether it held, where that is known.
    pub fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }

    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::Unknown => "not known",
            Self::Skipped => "skipped",
        }
    }
}

/// What a drill comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was expected held.
    Proved,
    /// Something did not.
    NotProved,
    /// Nothing failed, and something could not be told.
    Inconclusive,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Proved, Self::NotProved, Self::Inconclusive];

    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::NotProved => "not proved",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A longer time than this is no time: thirty thousand years.
const LONGEST: f64 = 1e12;

impl Proof {
    /// Whether a record that was read is one of ours, with figures that can be calculated with.
    pub(super) fn makes_sense(&self) -> bool {
        let objectives = &self.objectives;
        let seconds = [
            self.rto_seconds,
            self.rpo_seconds,
            objectives.rpo_seconds,
            objectives.rto_seconds,
            objectives.prove_every_seconds,
        ];
        let phases: Vec<Option<f64>> = self
            .phases
            .all()
            .into_iter()
            .map(|(_, seconds)| Some(seconds))
            .collect();
        self.schema == SCHEMA
            && seconds
                .iter()
                .chain(&phases)
                .flatten()
                .all(|seconds| (0.0..=LONGEST).contains(seconds))
    }

    /// The checks of one group.
    pub fn group(&self, group: Group) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.group == group)
    }

    /// The checks that did not hold, or of which it is not known.
    pub fn open(&self) -> impl Iterator<Item = &Check> {
        let is_open = |check: &&Check| matches!(check.outcome, Outcome::NotMet | Outcome::Unknown);
        self.checks.iter().filter(is_open)
    }
}
