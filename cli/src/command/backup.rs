//! `opsctl backup`: saves datastores into the repository. Bare, it takes every store; one that fails does not keep the
//! others from being saved.

mod continuous;
mod follow;
mod staying;

use std::sync::Arc;
use std::time::Duration;

use backups::{BackupOptions, BackupReport, Parent, Repository as Engine};
use serde::Serialize;

use crate::config::{self, Config, Datastore, DatastoreKind};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, plural, seconds};
use crate::physical;
use crate::repository::{self, IfEmpty, Shown};
use crate::target;

/// Save datastores into the repository
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A datastore, or a service (the stores that it uses); without it every datastore
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Read every file, also those that look unchanged since the last snapshot
    #[arg(long)]
    full: bool,

    /// Add a tag to the snapshots
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Go on: ship what changes in SQLite databases until Ctrl-C, so that a restore reaches any second
    #[arg(long, conflicts_with = "full")]
    continuous: bool,

    /// With --continuous: how often, instead of `backup.ship` in opsctl.toml
    #[arg(long, value_name = "TIME", requires = "continuous", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,

    /// Go on: receive the log of PostgreSQL servers that are saved as a whole until Ctrl-C
    #[arg(long, conflicts_with_all = ["full", "continuous"])]
    follow: bool,

    /// With --continuous or --follow: end when stdin does. For `schedule run`, whose process may be killed
    #[arg(long, hide = true)]
    until_stdin_ends: bool,

    /// Say what would be saved, and save nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn help() -> String {
    format!(
        "Examples:\n  # Every datastore, also from cron\n  opsctl backup\n\n  \
         # The stores of one service\n  opsctl backup orders\n\n  \
         # Until Ctrl-C: a snapshot, then every second what changed\n  opsctl backup orders-db --continuous --interval 1s\n\n  \
         # Until Ctrl-C: the log of a PostgreSQL, and a base backup where none leads to it\n  opsctl backup pg-main --follow\n\n\
         A snapshot appears once all its data is durable, never before. The first backup makes the repository;\n\
         its password comes from where opsctl.toml says, and only `opsctl init` makes a password file.\n\
         SQLite databases are copied while they are written to. What a command prints counts only if it ends with\n\
         status 0. Files that cannot be read are listed; the snapshot is then partial (3). Of a PostgreSQL every database\n\
         is dumped, or those in `backup.databases`, and its roles; `pg_dump` of the server's version or newer must be here.\n\n\
         With --continuous the command stays. It takes a snapshot of each SQLite database with `backup.ship`, then ships\n\
         the pages that changed, as often as that says; `opsctl restore --at` goes back to any moment of it. A store\n\
         that is away for a while is tried again, and so is a database. Ctrl-C ships what is left and ends with 0.\n\n\
         A PostgreSQL with `backup.method = \"physical\"` is saved as a whole: all its files, and the log that makes them fit\n\
         each other. With --follow the command stays and receives the log as it is written, by a replication slot that is\n\
         called after the datastore; `opsctl restore` then goes back to any moment. What the server removed before it\n\
         was received is told, here and to the webhook, and a new base backup is taken. Ctrl-C keeps what was received, and\n\
         ends with 0; the slot stays, so that the server keeps the rest for the next time.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Unreachable,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    repository: &'a str,
    dry_run: bool,
    datastores: Vec<Saved>,
}

#[derive(Debug, Default, Serialize)]
struct Saved {
    datastore: String,
    kind: &'static str,
    snapshot: Option<String>,
    parent: Option<String>,
    files: u64,
    total_bytes: u64,
    added_bytes: u64,
    stored_bytes: u64,
    elapsed_seconds: f64,
    skipped: Vec<Skipped>,
    /// What else is worth knowing of what was saved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Skipped {
    path: String,
    reason: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let stores = target::stores(&config, args.target.as_deref())?;
    if args.continuous {
        return continuous::run(args, context, &config, &stores);
    }
    if args.follow {
        return follow::run(args, context, &config, &stores);
    }
    let declared = repository::declared(&config, None)?;
    for store in &stores {
        repository::path_of(store)?;
    }
    if args.dry_run {
        return plan(context, &config, &stores, &declared.name);
    }
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Make).await?;
        let mut document = Document {
            schema: "opsctl.backup/v1",
            r#type: "backup",
            environment: &config.environment.name,
            repository: &declared.name,
            dry_run: false,
            datastores: Vec::new(),
        };
        let mut failures: Vec<Failure> = Vec::new();
        for store in stores {
            let (saved, failure) = match save(context, args, &config, store, &engine, &cancel).await {
                Ok(saved) => (saved, None),
                Err(failure) => (
                    Saved {
                        datastore: store.name.clone(),
                        kind: store.kind.word(),
                        error: Some(failure.message.clone()),
                        ..Saved::default()
                    },
                    Some(failure),
                ),
            };
            document.datastores.push(saved);
            failures.extend(failure);
            if cancel.is_cancelled() {
                break;
            }
        }
        finish(context, &document, failures)
    })
}

fn plan(context: &Context, config: &Config, stores: &[&Datastore], repository: &str) -> Outcome {
    let datastores: Vec<Saved> = stores
        .iter()
        .map(|store| Saved {
            datastore: store.name.clone(),
            kind: store.kind.word(),
            ..Saved::default()
        })
        .collect();
    let document = Document {
        schema: "opsctl.backup/v1",
        r#type: "backup_plan",
        environment: &config.environment.name,
        repository,
        dry_run: true,
        datastores,
    };
    context.out.answer(&document, |_| {
        stores
            .iter()
            .map(|store| {
                let path = match (&store.command, &store.path) {
                    _ if store.kind == DatastoreKind::Postgres => "its databases".to_owned(),
                    (Some(keys), _) => keys.command.first().cloned().unwrap_or_default(),
                    (None, path) => path.as_deref().map(|path| context.shown(path)).unwrap_or_default(),
                };
                format!(
                    "would back up {} ({}, {path}) to {repository}\n",
                    store.name,
                    store.kind.word()
                )
            })
            .collect()
    })?;
    Ok(Exit::Done)
}

/// How a snapshot of a datastore is made, and what it says of itself.
fn options(args: &Args, context: &Context, config: &Config, store: &Datastore) -> BackupOptions {
    let mut tags = vec![
        repository::store_tag(&store.name),
        repository::environment_tag(&config.environment.name),
    ];
    tags.extend(args.tags.iter().cloned());
    let actor = context.actor();
    let (user, host) = actor.split_once('@').unwrap_or((&actor, "localhost"));
    BackupOptions {
        now: context.now(),
        host: host.to_owned(),
        username: user.to_owned(),
        tags,
        parent: if args.full { Parent::None } else { Parent::Latest },
    }
}

async fn save(
    context: &Context,
    args: &Args,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
    cancel: &tokio_util::sync::CancellationToken,
) -> Result<Saved, Failure> {
    let keeper = if physical::is_physical(store) {
        Some(physical::keeper(context, config, store, engine)?)
    } else {
        None
    };
    let source = match &keeper {
        Some(keeper) => Box::new(physical::source(context, store, Arc::clone(keeper) as _)?),
        None => repository::source_to_save(context, config, store)?,
    };
    let options = options(args, context, config, store);
    let started = options.now;
    let progress = Shown::start(context, format!("backing up {}", store.name));
    let report = backups::backup(engine, source.as_ref(), &options, &progress, cancel)
        .await
        .map_err(|error| error::backups::failure(format!("could not back up `{}`", store.name), &error));
    drop(progress);
    if let Some(keeper) = keeper {
        keeper.finish().await;
    }
    let report = report?;
    let elapsed = context.now().duration_since(started).as_secs_f64();
    tell(context, store, &report, elapsed);
    let notes = source.notes();
    for note in &notes {
        context.out.note(note);
    }
    Ok(Saved {
        datastore: store.name.clone(),
        kind: store.kind.word(),
        snapshot: Some(report.snapshot.to_string()),
        parent: report.parent.map(|parent| parent.to_string()),
        files: report.summary.total_files_processed,
        total_bytes: report.summary.total_bytes_processed,
        added_bytes: report.summary.data_added,
        stored_bytes: report.summary.data_added_packed,
        elapsed_seconds: elapsed,
        skipped: report
            .skipped
            .into_iter()
            .map(|skipped| Skipped {
                path: skipped.path.display().to_string(),
                reason: skipped.reason,
            })
            .collect(),
        notes,
        error: None,
    })
}

fn tell(context: &Context, store: &Datastore, report: &BackupReport, elapsed: f64) {
    context.out.done(format!(
        "backed up {}: {} read, {} stored, snapshot {}, {}",
        store.name,
        bytes(report.summary.total_bytes_processed),
        bytes(report.summary.data_added_packed),
        report.snapshot.short(),
        seconds(elapsed)
    ));
    for skipped in &report.skipped {
        context
            .out
            .warn(format!("not saved: {}: {}", skipped.path.display(), skipped.reason));
    }
}

fn finish(context: &Context, document: &Document<'_>, mut failures: Vec<Failure>) -> Outcome {
    if context.out.json {
        context.out.document(document)?;
    } else {
        for saved in document
            .datastores
            .iter()
            .filter_map(|saved| saved.snapshot.as_ref().map(|id| (id, &saved.datastore)))
        {
            context
                .out
                .line(&format!("{}  {}", &saved.0[..8.min(saved.0.len())], saved.1))?;
        }
    }
    let saved = document.datastores.iter().filter(|saved| saved.error.is_none()).count();
    if let Some(last) = failures.pop() {
        for failure in failures {
            context.out.failure(&failure);
        }
        return Err(if saved > 0 {
            last.cause(format!(
                "{} saved all the same",
                plural(saved as u64, "datastore was", "datastores were")
            ))
        } else {
            last
        });
    }
    if document.datastores.iter().any(|saved| !saved.skipped.is_empty()) {
        return Ok(Exit::Partial);
    }
    context.out.next("opsctl snapshot list");
    Ok(Exit::Done)
}
