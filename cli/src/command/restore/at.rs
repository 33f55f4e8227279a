//! `--at`: the way to the moment that is meant.

use backups::Repository as Engine;
use backups::pitr::sqlite::{self, Plan, RestoreTo};
use backups::snapshots::SnapshotRecord;

use super::Args;
use crate::config::{Config, Datastore, DatastoreKind};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::repository;

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
        return Err(only_shipped(store));
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

/// Only what is shipped has moments between snapshots.
pub(super) fn only_shipped(store: &Datastore) -> Failure {
    Failure::usage("not_shipped", format!("could not restore `{}`", store.name))
        .cause(format!(
            "it is of kind `{}`, and only the changes of sqlite stores are shipped",
            store.kind.word()
        ))
        .help("choose a snapshot with `--snapshot`: opsctl snapshot list")
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
