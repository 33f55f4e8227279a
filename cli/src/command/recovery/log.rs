//! How the log of a PostgreSQL stands that is saved as a whole: what the repository holds of it, and what the server says
//! of the slot by which it is received. The first is known without the server; of the second it is said why it is not.

use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::postgres::account::{Account, account};
use backups::pitr::postgres::receiver::{SlotStanding, look_at_slot};
use backups::pitr::postgres::recovery::backups_of;
use backups::pitr::postgres::{Lsn, Timeline};
use backups::snapshots::SnapshotRecord;
use jiff::Timestamp;
use serde::Serialize;

use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::{Style, Table, bytes};
use crate::physical;

/// How long a server may take to answer. What it says is worth having, and never worth waiting for.
const LIMIT: Duration = Duration::from_secs(5);

/// The log of a datastore.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Log {
    /// Where the log ends that is in the repository.
    pub(super) archived_lsn: Option<Lsn>,
    archived_timeline: Option<Timeline>,
    /// Everything that was acknowledged before, by the server's clock, can be restored.
    pub(super) until: Option<Timestamp>,
    /// The newest base backup from which a restore gets to the end of the log.
    base_backup: Option<String>,
    /// Why there is none.
    no_base_backup: Option<String>,
    /// What is lost for ever, and no base backup was taken after.
    pub(super) lost: Vec<Lost>,
    pub(super) slot: Slot,
}

/// Log that no restore leads over.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Lost {
    from: Lsn,
    until: Lsn,
    timeline: Timeline,
}

/// The slot on the server.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Slot {
    name: String,
    pub(super) state: State,
    /// Bytes of log that the server keeps for it: what was written and is not in the repository yet.
    pub(super) kept_bytes: Option<u64>,
    /// How many more may be written before the server gives up on it; absent where there is no limit.
    pub(super) safe_bytes: Option<i64>,
    /// As `pg_replication_slots` has it.
    wal_status: Option<String>,
    /// Why nothing is known of it.
    why: Option<String>,
    /// Less than a quarter is left of what it may keep.
    #[serde(skip)]
    is_short: bool,
    #[serde(skip)]
    is_unlimited: bool,
}

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Somebody receives by it now.
    Receiving,
    /// Nobody does; the server keeps the log.
    Idle,
    /// The server gave up on it.
    Lost,
    /// There is none: nobody ever received by it, such as where the server hands its log over itself.
    Missing,
    /// The server could not be asked.
    #[default]
    Unknown,
}

impl State {
    fn words(self) -> (&'static str, Style) {
        match self {
            Self::Receiving => ("receiving", Style::Done),
            Self::Idle => ("nobody", Style::Warning),
            Self::Lost => ("lost", Style::Error),
            Self::Missing => ("no slot", Style::Warning),
            Self::Unknown => ("not known", Style::Warning),
        }
    }
}

impl Log {
    /// What the repository tells. `snapshots` are those of the datastore, oldest first.
    pub(super) async fn archived(
        config: &Config,
        store: &Datastore,
        engine: &Engine,
        snapshots: &[SnapshotRecord],
    ) -> Result<Self, backups::Error> {
        let archive = physical::archive(config, store, engine).map_err(|failure| {
            let why = [&[failure.message], &failure.causes[..]].concat();
            backups::Error::Invalid(why.join(": "))
        })?;
        let bases = backups_of(engine, snapshots).await?;
        let account = account(&archive, &bases.known).await?;
        let mut log = Self {
            no_base_backup: Some("no log is archived".to_owned()),
            ..Self::default()
        };
        if let Some(Account {
            end,
            base,
            no_base,
            until,
            open,
            ..
        }) = account
        {
            let lost = open.iter().map(|lost| Lost {
                from: lost.from,
                until: lost.until,
                timeline: lost.timeline,
            });
            log = Self {
                archived_lsn: end.map(|end| end.lsn),
                archived_timeline: end.map(|end| end.timeline),
                until,
                base_backup: base.map(|base| base.to_string()),
                no_base_backup: no_base,
                lost: lost.collect(),
                slot: Slot::default(),
            };
        }
        Ok(log)
    }

    /// Whether it is known that nobody receives it.
    pub(super) fn is_not_received(&self) -> bool {
        matches!(self.slot.state, State::Idle | State::Lost | State::Missing)
    }

    /// What there is to worry about, in words.
    pub(super) fn worries(&self) -> Vec<String> {
        let lost = self.lost.iter().map(|lost| {
            let Lost { from, until, timeline } = lost;
            format!("the log from {from} to {until} of timeline {timeline} is lost: no restore leads over it")
        });
        let mut worries: Vec<String> = lost.collect();
        if let Some(why) = self.no_base_backup.as_ref().filter(|_| worries.is_empty()) {
            worries.push(format!("no base backup leads to the end of its log: {why}"));
        }
        worries.extend(self.slot.worry());
        worries
    }
}

impl Slot {
    fn worry(&self) -> Option<String> {
        let name = &self.name;
        match self.state {
            State::Lost => Some(format!(
                "the server has given up on slot {name}: what it wrote since is lost once somebody follows again, which takes \
                 a new base backup"
            )),
            State::Unknown => {
                let why = self.why.as_deref().unwrap_or("it was not asked");
                Some(format!("whether its log is received is not known: {why}"))
            }
            State::Idle | State::Receiving if self.is_short => Some(format!(
                "the server keeps {} of log for slot {name} and {} more before it gives up on it",
                bytes(self.kept_bytes.unwrap_or(0)),
                bytes(self.safe_bytes.and_then(|safe| u64::try_from(safe).ok()).unwrap_or(0))
            )),
            State::Idle => Some(format!("nobody receives its log by slot {name}")),
            State::Receiving if self.is_unlimited => Some(
                "max_slot_wal_keep_size is not set on the server: while nobody follows, the log fills its disk"
                    .to_owned(),
            ),
            // The server may hand its log over itself.
            State::Receiving | State::Missing => None,
        }
    }

    /// Asks the server, for a moment.
    pub(super) async fn ask(context: &Context, config: &Config, store: &Datastore) -> Self {
        let (mut name, mut found) = (String::new(), Err("it took longer than 5 s".to_owned()));
        match physical::receiver(context, config, store) {
            Ok(options) => {
                name = options.slot.to_string();
                let look = look_at_slot(&options.address, "opsctl status", &options.slot);
                if let Ok(looked) = tokio::time::timeout(LIMIT, look).await {
                    found = looked.map_err(|error| {
                        let failure = Failure::new(Exit::Unreachable, "unreachable", "").because(&error);
                        failure.causes.join(": ")
                    });
                }
            }
            Err(failure) => found = Err(told(failure)),
        }
        Self::of(name, found)
    }

    fn of(name: String, found: Result<Option<SlotStanding>, String>) -> Self {
        match found {
            Err(why) => Self {
                name,
                why: Some(why),
                ..Self::default()
            },
            Ok(None) => Self {
                name,
                state: State::Missing,
                ..Self::default()
            },
            Ok(Some(slot)) => Self {
                name,
                state: match &slot {
                    slot if slot.is_lost() => State::Lost,
                    slot if slot.active => State::Receiving,
                    _ => State::Idle,
                },
                kept_bytes: slot.restart.map(|_| slot.lag),
                safe_bytes: slot.safe_wal_size,
                is_short: slot.is_short(),
                is_unlimited: slot.is_unlimited(),
                wal_status: slot.wal_status,
                why: None,
            },
        }
    }
}

fn told(failure: Failure) -> String {
    [&[failure.message], &failure.causes[..]].concat().join(": ")
}

/// A line for each datastore that has a log.
pub(super) fn table<'a>(logs: impl Iterator<Item = (&'a str, &'a Log)>, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "log of",
        "receives",
        "archived",
        "lost now",
        "kept there",
        "may grow by",
    ]);
    for (name, log) in logs {
        let (state, style) = log.slot.state.words();
        let archived = log
            .archived_lsn
            .map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string());
        let lost = log.until.map(|until| now.duration_since(until).as_secs_f64().max(0.0));
        let none = || "?".to_owned();
        let grow = match (log.slot.safe_bytes, log.slot.is_unlimited) {
            (Some(safe), _) => bytes(u64::try_from(safe).unwrap_or(0)),
            (None, true) => "no limit".to_owned(),
            (None, false) => none(),
        };
        table.styled(vec![
            (name.to_owned(), None),
            (state.to_owned(), Some(style)),
            (archived, None),
            (lost.map_or_else(none, crate::output::seconds), None),
            (log.slot.kept_bytes.map_or_else(none, bytes), None),
            (grow, None),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(safe_wal_size: Option<i64>, wal_status: &str, active: bool) -> Slot {
        let standing = SlotStanding {
            restart: (wal_status != "lost").then_some(Lsn(1)),
            active,
            lag: 900,
            wal_status: Some(wal_status.to_owned()),
            safe_wal_size,
        };
        Slot::of("s".to_owned(), Ok(Some(standing)))
    }

    #[test]
    fn what_is_worth_worrying_about_is_said() {
        for (slot, state, said) in [
            (slot(Some(9000), "reserved", true), State::Receiving, ""),
            (slot(Some(9000), "reserved", false), State::Idle, "nobody receives"),
            (slot(Some(100), "extended", true), State::Receiving, "100 B more before"),
            (slot(Some(-5), "unreserved", false), State::Idle, "0 B more before"),
            (slot(None, "reserved", true), State::Receiving, "max_slot_wal_keep_size"),
            (slot(None, "lost", false), State::Lost, "given up"),
            (Slot::of("s".into(), Ok(None)), State::Missing, ""),
            (
                Slot::of("s".into(), Err("gone".into())),
                State::Unknown,
                "not known: gone",
            ),
        ] {
            assert_eq!(slot.state, state, "{slot:?}");
            assert!(slot.worry().unwrap_or_default().contains(said), "{said}: {slot:?}");
            assert_eq!(slot.worry().is_none(), said.is_empty(), "{slot:?}");
        }
    }
}
