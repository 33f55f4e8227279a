//! `--at`: which moment is meant, and the way there. A moment is a time or so long before now.

use std::time::Duration;

use backups::Repository as Engine;
use backups::pitr::sqlite::{self, Plan, RestoreTo};
use backups::snapshots::SnapshotRecord;
use jiff::Timestamp;

use super::Args;
use crate::config::{Config, Datastore, DatastoreKind};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::repository;

/// What was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Time(Timestamp),
    Ago(Duration),
}

impl Moment {
    fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Ago(time) => now.checked_sub(time).unwrap_or(Timestamp::MIN),
        }
    }
}

/// Reads `2026-03-01T12:00:05Z` (with any offset, never without) and `10m ago`.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Some(ago) = text.strip_suffix("ago") {
        return humantime::parse_duration(ago.trim())
            .map(Moment::Ago)
            .map_err(|error| error.to_string());
    }
    let told = "expected a time with its zone such as 2026-03-01T12:00:05Z, or \"10m ago\"";
    text.parse().map(Moment::Time).map_err(|_| told.to_owned())
}

/// The way to a moment.
pub(super) struct Found {
    pub(super) plan: Plan,
}

impl Found {
    /// What the folder of it is called after.
    pub(super) fn name(&self) -> String {
        self.plan.reached.strftime("%Y%m%dT%H%M%S%.fZ").to_string()
    }
}

/// The snapshot that is meant, and the way on from there if a moment is.
pub(super) async fn find(
    args: &Args,
    context: &Context,
    config: &Config,
    engine: &Engine,
    store: &Datastore,
) -> Result<(SnapshotRecord, Option<Found>), Failure> {
    let Some(moment) = args.at else {
        return Ok((super::find(config, engine, store, &args.snapshot).await?, None));
    };
    let what = format!("could not restore `{}`", store.name);
    if store.kind != DatastoreKind::Sqlite {
        return Err(Failure::usage("not_shipped", what)
            .cause(format!(
                "it is of kind `{}`, and only the changes of sqlite stores are shipped",
                store.kind.word()
            ))
            .help("choose a snapshot with `--snapshot`: opsctl snapshot list"));
    }
    let to = RestoreTo {
        time: moment.time(context.now()),
        allow_older: args.allow_older,
    };
    let failed = |error| error::backups::failure(&what, &error);
    let plan = sqlite::plan(engine, &repository::shipped(config, store)?, &to)
        .await
        .map_err(failed)?;
    let id = plan.snapshot();
    let snapshot = engine.snapshot(&id).await.map_err(failed)?;
    Ok((SnapshotRecord { id, snapshot }, Some(Found { plan })))
}

/// What will be there, for people.
pub(super) fn told(record: &SnapshotRecord, moment: Option<&Found>) -> String {
    match moment {
        Some(moment) => format!("as it was at {}", moment.plan.reached),
        None => format!(
            "from snapshot {} of {}",
            record.id.short(),
            record.snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ")
        ),
    }
}

/// The words of the command that bring back the same.
pub(super) fn words(record: &SnapshotRecord, moment: Option<&Found>) -> String {
    match moment {
        // Not what was reached: the same question has the same answer.
        Some(moment) => format!("--at {}", moment.plan.wanted),
        None => format!("--snapshot {}", record.id.short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_so_long_ago() {
        let now: Timestamp = "2026-03-01T12:10:05Z".parse().unwrap();
        let cases = [
            ("2026-03-01T12:00:05Z", "2026-03-01T12:00:05Z"),
            ("2026-03-01 12:00:05.25Z", "2026-03-01T12:00:05.25Z"),
            ("2026-03-01T14:00:05+02:00", "2026-03-01T12:00:05Z"),
            ("10m ago", "2026-03-01T12:00:05Z"),
            (" 1h 30s ago", "2026-03-01T11:09:35Z"),
            ("1s ago", "2026-03-01T12:10:04Z"),
        ];
        for (text, time) in cases {
            assert_eq!(
                parse(text).map(|moment| moment.time(now)),
                Ok(time.parse().unwrap()),
                "{text}"
            );
        }
        for text in [
            "",
            "ago",
            "10 ago",
            "2026-03-01T12:00:05",
            "2026-03-01",
            "yesterday",
            "-5m ago",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Moment::Ago(Duration::MAX).time(now), Timestamp::MIN);
    }
}
