//! `opsctl restore`: brings a datastore back. Beside the original unless told otherwise; `--replace` puts it in place.

mod at;
mod beside;
mod fetch;
mod replace;

use std::path::PathBuf;

use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use backups::{Error, Repository as Engine};

use crate::config::{self, Config, Datastore};
use crate::consent::ConsentArgs;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::repository;
use crate::target;

/// Bring a datastore back from a snapshot
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A datastore, or a service that uses one
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Which snapshot: id, its first digits, or latest
    #[arg(long, value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,

    /// The state of this moment, of a SQLite database whose changes are shipped: a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = at::parse, conflicts_with_all = ["snapshot", "include"])]
    at: Option<at::Moment>,

    /// With --at: take the state before it, however much older, where the state of the moment itself is not known
    #[arg(long, requires = "at", hide_short_help = true)]
    allow_older: bool,

    /// Put it in place of the original: stops the services that use it, swaps, starts them, keeps the old
    #[arg(long, conflicts_with_all = ["into", "include"])]
    replace: bool,

    /// Restore into this folder instead of beside the original
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,

    /// Only this path inside the snapshot, and what lies under it
    #[arg(long, value_name = "PATH")]
    include: Vec<PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # Beside the original, verified; nothing is replaced\n  opsctl restore orders-db\n\n  \
         # In place: holds orders down, swaps, starts it again, keeps the old database\n  \
         opsctl restore orders-db --replace --yes\n\n  \
         # As it was at that second, or ten minutes ago\n  opsctl restore orders-db --at 2026-03-01T12:00:05Z\n  \
         opsctl restore orders-db --at \"10m ago\"\n\n  \
         # One folder of an older snapshot, elsewhere\n  opsctl restore uploads --snapshot 7f3a91c2 --include uploads/2026 --into /tmp/look\n\n\
         --at needs `opsctl backup --continuous`, and says which moment was reached; one that was not shipped is an error\n\
         that names those before and after it.\n\n\
         While --replace runs, requests to the service get 503 with Retry-After. Ctrl-C puts everything back.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let store = target::store(context, &config, args.target.as_deref())?;
    if args.replace {
        replace::run(args, context, &config, store)
    } else {
        beside::run(args, context, &config, store)
    }
}

/// Finds the snapshot that is meant: by id anywhere, `latest` among those of the datastore and the environment.
async fn find(config: &Config, engine: &Engine, store: &Datastore, wanted: &str) -> Result<SnapshotRecord, Failure> {
    let filter = if wanted == "latest" {
        SnapshotFilter {
            tags: vec![
                repository::store_tag(&store.name),
                repository::environment_tag(&config.environment.name),
            ],
            ..SnapshotFilter::default()
        }
    } else {
        SnapshotFilter::default()
    };
    let what = format!("could not restore `{}`", store.name);
    let record = snapshots::find(engine, wanted, &filter)
        .await
        .map_err(|error| match error {
            Error::SnapshotNotFound { .. } if wanted == "latest" => Failure::usage("unknown_snapshot", what.clone())
                .cause(format!(
                    "there is no snapshot of it from environment `{}`",
                    config.environment.name
                ))
                .help(format!("opsctl backup {}", store.name)),
            error => error::backups::failure(what.clone(), &error),
        })?;
    match repository::store_of(&record.snapshot.tags) {
        Some(other) if other != store.name => Err(Failure::usage("unknown_snapshot", what)
            .cause(format!("snapshot {} is of datastore `{other}`", record.id.short()))
            .help(format!("opsctl restore {other} --snapshot {}", record.id.short()))),
        _ => Ok(record),
    }
}
