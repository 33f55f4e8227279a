//! `opsctl restore`: brings a datastore back. Beside the original unless told otherwise; `--replace` puts it in place.

mod at;
mod beside;
mod database;
mod fetch;
mod physical;
mod recovered;
mod replace;

use std::path::PathBuf;
use std::time::Duration;

use backups::pitr::postgres::{Lsn, Timeline};
use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use backups::source::{PatternError, Patterns};
use backups::{Error, Namespace, Namespaces, Repository as Engine, RestoreOptions};

use crate::config::{self, Config, Datastore, DatastoreKind};
use crate::consent::ConsentArgs;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::moment::{self, Moment};
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

    /// The state of this moment, a time or so long ago: of a SQLite that is shipped, or a PostgreSQL with its log
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with_all = ["snapshot", "include", "exclude"])]
    at: Option<Moment>,

    /// Another repository than the environment's, such as the one that copies go to
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,

    /// The state at this position of a PostgreSQL's log, such as 16/B374D848: with the record that begins there
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["at", "snapshot", "include", "exclude"], hide_short_help = true)]
    lsn: Option<Lsn>,

    /// With --lsn: without the record that begins there
    #[arg(long, requires = "lsn", hide_short_help = true)]
    exclusive: bool,

    /// The state at this restore point of a PostgreSQL: what pg_create_restore_point was given
    #[arg(long, value_name = "POINT", conflicts_with_all = ["at", "lsn", "snapshot", "include", "exclude"], hide_short_help = true)]
    name: Option<String>,

    /// Along this timeline of a PostgreSQL instead of the newest
    #[arg(long, value_name = "NUMBER", hide_short_help = true)]
    timeline: Option<Timeline>,

    /// Take the state before it, however much older, where the state of the moment itself is not known
    #[arg(long, hide_short_help = true)]
    allow_older: bool,

    /// Put it in place of the original: stops the services that use it, swaps, starts them, keeps the old
    #[arg(long, conflicts_with_all = ["into", "include", "exclude"])]
    replace: bool,

    /// With --replace: how long services may take to be ready again; by itself a minute, on Kubernetes ten
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "replace", hide_short_help = true)]
    timeout: Option<Duration>,

    /// Restore into this folder instead of beside the original, or into a new database
    ///
    /// A database of PostgreSQL comes back as a new one of this name, or at an address such as postgres://user@host/name.
    /// A name with a `/` that is no address is a folder.
    #[arg(long, value_name = "PLACE")]
    into: Option<PathBuf>,

    /// Recover a PostgreSQL into a server of its own that nobody else reaches, and keep it until Ctrl-C
    #[arg(long, conflicts_with_all = ["into", "replace", "include", "exclude"], hide_short_help = true)]
    serve: bool,

    /// With a database as --into, or --replace: which one of the snapshot, if it holds several
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    database: Option<String>,

    /// With a database as --into: only this schema
    #[arg(long, value_name = "NAME", requires = "into", hide_short_help = true)]
    schema: Vec<String>,

    /// With a database as --into: only this table, and what belongs to it or is needed by it: NAME or SCHEMA.NAME
    #[arg(long, value_name = "NAME", requires = "into", hide_short_help = true)]
    table: Vec<String>,

    /// With a database as --into: make the roles that are missing on the server
    #[arg(long, requires = "into", hide_short_help = true)]
    globals: bool,

    /// With a database as --into: everything belongs to whom the address connects as
    #[arg(long, requires = "into", conflicts_with = "globals", hide_short_help = true)]
    no_owner: bool,

    /// Only this path inside the snapshot, or what fits a pattern such as `*.png`, and what lies under it
    #[arg(long, value_name = "PATH")]
    include: Vec<PathBuf>,

    /// Not what fits this pattern, nor what lies under it
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Also what is restored on request only
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    with: Vec<With>,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// What may give somebody rights, or needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum With {
    /// Users and groups by their numbers
    Owners,
    /// The setuid and setgid bits
    Setuid,
    /// Device nodes
    Devices,
    /// Extended attributes `security.*`: capabilities, labels
    Security,
    /// Extended attributes `trusted.*`
    Trusted,
}

impl Args {
    /// Whether the snapshot is wanted as a whole.
    fn wants_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// What the engine is asked for.
    fn options(&self) -> Result<RestoreOptions, Failure> {
        let unusable = |error: PatternError| Failure::usage("usage", "a pattern cannot be used").because(&error);
        let (patterns, paths): (Vec<_>, Vec<_>) = self
            .include
            .iter()
            .cloned()
            .partition(|path| Patterns::is_pattern(path));
        let patterns = patterns.iter().map(|pattern| pattern.to_string_lossy());
        let chosen = |with| self.with.contains(&with);
        let mut attributes = Namespaces::default();
        for (with, namespace) in [
            (With::Security, Namespace::Security),
            (With::Trusted, Namespace::Trusted),
        ] {
            if chosen(with) {
                attributes = attributes.with(namespace);
            }
        }
        Ok(RestoreOptions {
            include: paths,
            include_patterns: Patterns::new(patterns).map_err(unusable)?,
            exclude: Patterns::new(&self.exclude).map_err(unusable)?,
            attributes,
            setuid: chosen(With::Setuid),
            devices: chosen(With::Devices),
            owners: chosen(With::Owners),
            durable: self.replace,
        })
    }
}

fn help() -> String {
    format!(
        "Examples:\n  # Beside the original, verified; nothing is replaced\n  opsctl restore orders-db\n\n  \
         # In place: holds orders down, swaps, starts it again, keeps the old database\n  \
         opsctl restore orders-db --replace --yes\n\n  \
         # As it was at that second, or ten minutes ago\n  opsctl restore orders-db --at 2026-03-01T12:00:05Z\n  \
         opsctl restore orders-db --at \"10m ago\"\n\n  \
         # One folder of an older snapshot, elsewhere\n  opsctl restore uploads --snapshot 7f3a91c2 --include uploads/2026 --into /tmp/look\n\n  \
         # All pictures but the small ones\n  opsctl restore uploads --include '*.png' --exclude thumbnails/ --into /tmp/look\n\n  \
         # A PostgreSQL: the dumps as files; a database of it beside the old one; one table of it; in place of the old one\n  \
         opsctl restore pg-main\n  opsctl restore pg-main --database orders --into orders_restored\n  \
         opsctl restore pg-main --database orders --table sales.items --into look\n  \
         opsctl restore pg-main --database orders --replace\n\n\
         Everything is verified while it is written. Interrupted, the same command goes on where it stopped.\n\
         --at needs `opsctl backup --continuous`, and says which moment was reached; one that was not shipped is an error\n\
         that names those before and after it.\n\n\
         A database is filled under a temporary name and gets its own when everything is in it; one that is there is never\n\
         written to. A part of it comes with its indexes, constraints and rights, and with what it needs.\n\n\
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
    if crate::physical::is_physical(store) && !args.replace {
        return match database::place(args, context, store)? {
            None if args.serve => recovered::serve(args, context, &config, store),
            Some(place) => recovered::run(args, context, &config, store, &place),
            None => physical::run(args, context, &config, store),
        };
    }
    if args.lsn.is_some() || args.name.is_some() || args.timeline.is_some() || args.serve {
        crate::physical::only(store, &format!("could not restore `{}`", store.name))?;
    }
    if args.replace && (args.database.is_none() || store.kind == DatastoreKind::Postgres) {
        replace::run(args, context, &config, store)
    } else if let Some(place) = database::place(args, context, store)? {
        database::run(args, context, &config, store, &place)
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
