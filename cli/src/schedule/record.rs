//! What is remembered of a schedule, `.opsctl/schedule/ENVIRONMENT/NAME.json`: what was run last and how that ended.
//! Written as a whole, before and after every run, so that a kill at any instant leaves one of the two.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::local::StateDir;
use opsctl_platform::local::state_dir::{FileLock, read_json, write_json};
use opsctl_platform::process::Process;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{self, Failure};
use crate::exit::Exit;

/// `opsctl.schedule_record/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    schema: String,
    /// The schedule's name.
    pub(crate) schedule: String,
    /// The last occurrence that is done with, or when the schedule was first seen.
    pub(crate) handled: Timestamp,
    /// What runs now, or ran when a process was killed.
    pub(crate) running: Option<Running>,
    /// The last run that ended.
    pub(crate) last: Option<Last>,
    /// When the last one that went well ended.
    #[serde(default)]
    pub(crate) succeeded_at: Option<Timestamp>,
    /// How many ended how.
    #[serde(default)]
    pub(crate) counts: BTreeMap<Outcome, u64>,
    /// Times without a run of their own.
    #[serde(default)]
    pub(crate) missed: u64,
    /// Rows that went, of a cleanup.
    #[serde(default)]
    pub(crate) rows: u64,
    /// How often in a row something was in the way of the run that is due.
    #[serde(default)]
    pub(crate) tries: u32,
}

/// A run that began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// What it was due for; none when somebody asked for it.
    pub(crate) occurrence: Option<Timestamp>,
    /// When it began.
    pub(crate) started: Timestamp,
    /// The process that works on it.
    pub(crate) pid: u32,
    /// When that started, so that a reused id is not taken for it.
    pub(crate) start_ticks: u64,
    /// Where.
    pub(crate) host: String,
}

impl Running {
    /// Whether the process still works on it; of another machine that is not known, and so it does for a day.
    pub(crate) fn alive(&self, host: &str, now: Timestamp) -> bool {
        if self.host != host {
            return now.duration_since(self.started) < jiff::SignedDuration::from_hours(24);
        }
        Process {
            pid: self.pid,
            start_ticks: self.start_ticks,
        }
        .alive()
    }
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// What it was due for.
    pub(crate) occurrence: Option<Timestamp>,
    /// When it began.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// How.
    pub(crate) outcome: Outcome,
    /// The exit code of its command, where there was one.
    pub(crate) exit_code: Option<u8>,
    /// What went wrong, if that is known here.
    pub(crate) message: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All is done.
    Succeeded,
    /// A part was skipped.
    Partial,
    /// It failed.
    Failed,
    /// Somebody else was at it.
    Locked,
    /// Somebody stopped it.
    Interrupted,
    /// The process that worked on it is gone.
    Lost,
}

impl Outcome {
    /// How a command with this exit code ended.
    pub(crate) fn of(exit: Option<Exit>) -> Self {
        match exit {
            Some(Exit::Done) => Self::Succeeded,
            Some(Exit::Partial) => Self::Partial,
            Some(Exit::Locked) => Self::Locked,
            Some(Exit::Interrupted | Exit::Terminated) => Self::Interrupted,
            Some(
                Exit::Failed
                | Exit::Usage
                | Exit::No
                | Exit::Refused
                | Exit::UndoIncomplete
                | Exit::Unreachable
                | Exit::Inconclusive
                | Exit::Stop,
            )
            | None => Self::Failed,
        }
    }

    /// One word, also the label of the metric.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Locked => "locked",
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
        }
    }

    /// Whether nobody needs to look.
    pub(crate) fn good(self) -> bool {
        self == Self::Succeeded
    }
}

impl Record {
    fn new(schedule: &str, now: Timestamp) -> Self {
        Self {
            schema: "opsctl.schedule_record/v1".to_owned(),
            schedule: schedule.to_owned(),
            handled: now,
            running: None,
            last: None,
            succeeded_at: None,
            counts: BTreeMap::new(),
            missed: 0,
            rows: 0,
            tries: 0,
        }
    }

    /// Writes down how a run ended.
    pub(crate) fn end(&mut self, last: Last) {
        *self.counts.entry(last.outcome).or_default() += 1;
        if last.outcome.good() {
            self.succeeded_at = Some(last.ended);
        }
        self.last = Some(last);
        self.running = None;
    }
}

/// The records of an environment.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    state: StateDir,
    environment: String,
}

impl Records {
    /// Opens the folder, and makes it.
    pub(crate) fn open(state: PathBuf, environment: &str) -> Result<Self, Failure> {
        let failed = |error| error::platform::failure("could not open the records of schedules", &error);
        let state = StateDir::open(state).map_err(failed)?;
        let records = Self {
            state,
            environment: environment.to_owned(),
        };
        records.state.make(records.folder()).map_err(failed)?;
        Ok(records)
    }

    /// As [`Self::open`], without making anything.
    pub(crate) fn find(state: PathBuf, environment: &str) -> Result<Option<Self>, Failure> {
        let found = StateDir::find(state)
            .map_err(|error| error::platform::failure("could not open the records of schedules", &error))?;
        Ok(found.map(|state| Self {
            state,
            environment: environment.to_owned(),
        }))
    }

    fn folder(&self) -> PathBuf {
        // No name of a schedule holds a slash; one of an environment may hold anything.
        let safe: String = self
            .environment
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        PathBuf::from("schedule").join(safe)
    }

    fn file(&self, schedule: &str, ending: &str) -> PathBuf {
        self.folder().join(format!("{}.{ending}", schedule.replace(':', ".")))
    }

    /// Where metrics go when nobody says where.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.state.path(self.folder().join("metrics.prom"))
    }

    /// The record of a schedule, if it ever was seen. One that cannot be read is told and begun anew: no job waits for it.
    pub(crate) fn read(&self, context: &Context, schedule: &str) -> Option<Record> {
        match read_json(&self.state.path(self.file(schedule, "json"))) {
            Ok(record) => record,
            Err(error) => {
                let failure = error::platform::failure(format!("could not read the record of `{schedule}`"), &error);
                context
                    .out
                    .warn(format!("{}: {}", failure.message, failure.causes.join(": ")));
                None
            }
        }
    }

    /// The record of a schedule; a new one counts from now on.
    pub(crate) fn seen(&self, context: &Context, schedule: &str) -> Result<Record, Failure> {
        if let Some(record) = self.read(context, schedule) {
            return Ok(record);
        }
        let record = Record::new(schedule, context.now());
        self.write(&record)?;
        Ok(record)
    }

    /// Writes a record as a whole, to last.
    pub(crate) fn write(&self, record: &Record) -> Result<(), Failure> {
        let schedule = &record.schedule;
        write_json(&self.state.path(self.file(schedule, "json")), record, true)
            .map_err(|error| error::platform::failure(format!("could not write the record of `{schedule}`"), &error))
    }

    /// The right to run jobs by themselves in this environment: one process has it.
    pub(crate) async fn lock_all(&self) -> Result<FileLock, Failure> {
        self.lock(&self.folder().join("run.lock")).await
    }

    /// The right to run one schedule's job.
    pub(crate) async fn lock_one(&self, schedule: &str) -> Result<FileLock, Failure> {
        self.lock(&self.file(schedule, "lock")).await
    }

    async fn lock(&self, path: &std::path::Path) -> Result<FileLock, Failure> {
        let name = path.to_string_lossy();
        self.state
            .lock_file(&name, Duration::ZERO)
            .await
            .map_err(|error| Failure {
                help: Some(
                    "one `opsctl schedule run` at a time works on a schedule; `opsctl schedule list` shows what runs"
                        .to_owned(),
                ),
                ..error::platform::failure("another process runs these schedules", &error)
            })
    }
}
