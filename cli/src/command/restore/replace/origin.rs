//! Where the database that takes another's place comes from: a dump in a snapshot, or a cluster that is saved as a whole,
//! which is recovered to where it is wanted in a scratch place and dumped there. What follows is the same.

use std::path::Path;

use backups::Repository as Engine;
use backups::pitr::postgres::recovery::Plan as Recovery;
use backups::proof::Scratch;
use backups::repo::Id;
use backups::snapshots::SnapshotRecord;
use backups::source::postgres::manifest::Dumped;
use tokio_util::sync::CancellationToken;

use super::super::database::{Fetch, Here};
use super::super::recovered::Copy;
use super::super::{Args, at, find, physical as cluster, recovered};
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::physical;

/// What is found before anything is changed.
pub(super) struct Origin<'a> {
    args: &'a Args,
    context: &'a Context,
    config: &'a Config,
    store: &'a Datastore,
    engine: &'a Engine,
    of: Of,
}

enum Of {
    Dump {
        record: Box<SnapshotRecord>,
        dumped: Dumped,
        /// No other database is in the snapshot.
        is_alone: bool,
    },
    Cluster {
        plan: Box<Recovery>,
        database: String,
    },
}

/// A dump that is here, and whether its database was the only one.
pub(super) struct Brought {
    pub(super) here: Here,
    pub(super) is_alone: bool,
}

/// A place for what is brought.
pub(super) fn scratch(config: &Config, store: &Datastore, what: &str) -> Result<Scratch, Failure> {
    if physical::is_physical(store) {
        return recovered::scratch(config, what);
    }
    let home = config.state().join("scratch");
    Scratch::make(&home, &home).map_err(|error| error::backups::failure(what, &error))
}

impl<'a> Origin<'a> {
    /// Finds what is meant; of a dump its manifest is brought to `folder`.
    pub(super) async fn find(
        args: &'a Args,
        context: &'a Context,
        config: &'a Config,
        store: &'a Datastore,
        engine: &'a Engine,
        (folder, cancel): (&Path, &CancellationToken),
    ) -> Result<Self, Failure> {
        let of = if physical::is_physical(store) {
            let what = format!("could not restore `{}` in place", store.name);
            cluster::refuse_others(args, &what)?;
            let database = args.database.clone().ok_or_else(|| {
                Failure::usage("usage", what)
                    .cause("it is not said which database of the cluster takes the place of the one that is there")
                    .help(format!("opsctl restore {} --replace --database NAME", store.name))
            })?;
            let plan = cluster::way(args, context, config, store, engine).await?;
            let plan = Box::new(plan);
            Of::Cluster { plan, database }
        } else {
            if args.at.is_some() {
                return Err(at::only_shipped(store));
            }
            let record = find(config, engine, store, &args.snapshot).await?;
            let fetch = Fetch {
                context,
                store,
                engine,
                record: &record,
                folder,
            };
            let (dumped, manifest) = fetch.meant(args, cancel).await?;
            let is_alone = manifest.databases.len() == 1;
            Of::Dump {
                record: Box::new(record),
                dumped,
                is_alone,
            }
        };
        Ok(Self {
            args,
            context,
            config,
            store,
            engine,
            of,
        })
    }

    /// The database that is meant.
    pub(super) fn database(&self) -> &str {
        match &self.of {
            Of::Dump { dumped, .. } => &dumped.name,
            Of::Cluster { database, .. } => database,
        }
    }

    /// The snapshot that it comes from.
    pub(super) fn snapshot(&self) -> Id {
        match &self.of {
            Of::Dump { record, .. } => record.id,
            Of::Cluster { plan, .. } => plan.backup.snapshot,
        }
    }

    /// Which state it is, for people.
    pub(super) fn told(&self) -> String {
        match &self.of {
            Of::Dump { record, .. } => format!(
                "from snapshot {} of {}",
                record.id.short(),
                record.snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ")
            ),
            Of::Cluster { plan, .. } => cluster::told(plan),
        }
    }

    /// Brings a dump of it to `folder`. For a cluster that takes as long as its recovery.
    pub(super) async fn bring(&self, folder: &Path, cancel: &CancellationToken) -> Result<Brought, Failure> {
        let &Self {
            args,
            context,
            config,
            store,
            engine,
            ref of,
        } = self;
        match of {
            Of::Dump {
                record,
                dumped,
                is_alone,
            } => {
                let fetch = Fetch {
                    context,
                    store,
                    engine,
                    record,
                    folder,
                };
                let (dump, options, fetched) = fetch.bring(args, dumped, None, cancel).await?;
                let here = Here {
                    record: (**record).clone(),
                    dumped: dumped.clone(),
                    dump,
                    options,
                    fetched,
                    recovered: None,
                };
                Ok(Brought {
                    here,
                    is_alone: *is_alone,
                })
            }
            Of::Cluster { plan, .. } => {
                let what = format!("could not restore `{}` in place", store.name);
                // The cluster, and a database of it once more.
                let needed = physical::needed_bytes(plan).saturating_add(plan.backup.base.bytes);
                physical::enough_room(context, &what, needed, folder, "--into FOLDER")?;
                let copy = Copy {
                    args,
                    context,
                    config,
                    store,
                    engine,
                    folder,
                };
                let (here, is_alone) = copy.dump(plan, cancel).await?;
                Ok(Brought { here, is_alone })
            }
        }
    }
}
