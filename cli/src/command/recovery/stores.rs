//! What the repository knows of each datastore: its snapshots and its drills. Read once; what it means is decided by the
//! crate `backups`.

use backups::Repository as Engine;
use backups::pitr::sqlite;
use backups::proof::standing::Standing;
use backups::proof::{self, Proof};
use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use futures::future::join_all;
use jiff::Timestamp;

use super::log::{Log, Slot};
use crate::config::{self, Config, Datastore, DatastoreKind, Job, Schedule};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::physical;
use crate::repository::{self, IfEmpty};
use crate::target;

/// Everything that is known.
pub(super) struct Known {
    pub(super) config: Config,
    /// The repository's declaration.
    pub(super) repository: config::Repository,
    /// The store's time.
    pub(super) now: Timestamp,
    pub(super) stores: Vec<Store>,
    /// Snapshot files and records of drills that could not be read.
    pub(super) damaged: Vec<String>,
}

/// What is known of one datastore.
pub(super) struct Store {
    pub(super) declared: Datastore,
    /// Oldest first.
    pub(super) snapshots: Vec<SnapshotRecord>,
    /// Oldest first.
    pub(super) drills: Vec<Proof>,
    /// The latest state that was shipped after a snapshot.
    pub(super) shipped: Option<Timestamp>,
    /// The log of a PostgreSQL that is saved as a whole.
    pub(super) log: Option<Log>,
    /// When it is backed up next, by its schedules.
    pub(super) next_backup: Option<Timestamp>,
}

impl Store {
    /// How it stands at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        let drills: Vec<&Proof> = self.drills.iter().collect();
        Standing::of(
            &self.snapshots,
            self.shipped,
            &drills,
            self.declared.proof.objectives,
            now,
        )
    }
}

impl Known {
    /// Reads the repository of the chosen environment for the datastores that `target` means.
    pub(super) async fn read(context: &Context, target: Option<&str>) -> Result<Self, Failure> {
        let config = config::load(context)?;
        let declared = repository::declared(&config, None)?.clone();
        let stores: Vec<Datastore> = target::stores(&config, target)?.into_iter().cloned().collect();
        let engine = repository::open(context, &declared, IfEmpty::Fail).await?;
        Self::of(context, config, declared, stores, &engine).await
    }

    /// Asks the servers of which a log is received how they stand, all at once.
    pub(super) async fn ask_servers(&mut self, context: &Context) {
        let config = &self.config;
        let asked = self.stores.iter_mut().filter_map(|store| {
            let (declared, log) = (&store.declared, store.log.as_mut()?);
            Some(async move { log.slot = Slot::ask(context, config, declared).await })
        });
        join_all(asked).await;
    }

    async fn of(
        context: &Context,
        config: Config,
        repository: config::Repository,
        stores: Vec<Datastore>,
        engine: &Engine,
    ) -> Result<Self, Failure> {
        let failed = |error| error::backups::failure("could not read what was backed up and proved", &error);
        let now = engine.store().time().await.map_err(|error| failed(error.into()))?;
        let listed = snapshots::list(engine, &SnapshotFilter::default())
            .await
            .map_err(failed)?;
        let proofs = proof::list(engine).await.map_err(failed)?;
        repository::warn_of_damaged_proofs(context, &proofs);
        let mut damaged: Vec<String> = listed
            .damaged
            .iter()
            .map(|(id, damage)| format!("snapshot file {id} is {damage}"))
            .collect();
        for told in &damaged {
            context.out.warn(told);
        }
        damaged.extend(proofs.damaged.iter().map(|(key, damage)| format!("{key} is {damage}")));
        let mut known = Vec::new();
        for declared in stores {
            let filter = repository::filter_of(&config, &declared);
            let of_it = listed.snapshots.iter().filter(|record| filter.fits(&record.snapshot));
            let snapshots: Vec<SnapshotRecord> = of_it.cloned().collect();
            let shipped = match declared.kind {
                DatastoreKind::Sqlite => sqlite::status(engine, &repository::shipped(&config, &declared)?)
                    .await
                    .map_err(failed)?,
                _ => None,
            };
            let log = if physical::is_physical(&declared) {
                let log = Log::archived(&config, &declared, engine, &snapshots).await;
                Some(log.map_err(failed)?)
            } else {
                None
            };
            let until = log.as_ref().and_then(|log| log.until);
            known.push(Store {
                snapshots,
                drills: proofs.of(&config.environment.name, &declared.name).cloned().collect(),
                shipped: shipped.map(|status| status.latest).max(until),
                log,
                next_backup: next_backup(&config, &declared, context.now()),
                declared,
            });
        }
        Ok(Self {
            config,
            repository,
            now,
            stores: known,
            damaged,
        })
    }
}

/// The first time at which a schedule backs a datastore up: its own, or one that backs up everything.
fn next_backup(config: &Config, store: &Datastore, now: Timestamp) -> Option<Timestamp> {
    let backs_up = |schedule: &&Schedule| {
        let target = schedule.target.as_ref().is_none_or(|target| *target == store.name);
        schedule.enabled && schedule.job == Job::Backup && target
    };
    let due = config.schedules.values().filter(backs_up);
    due.filter_map(|schedule| Some(schedule.timing.next(now)?.start)).min()
}
