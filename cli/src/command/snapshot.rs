//! `opsctl snapshot`: looking at what was saved.

mod diff;
mod dump;
mod list;
mod ls;
mod show;

use std::collections::BTreeMap;

use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use backups::{Id, Repository as Engine};
use clap::Subcommand;
use serde::Serialize;

use crate::config::{self, Config};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::repository::{self, IfEmpty};

/// List, show, compare and read snapshots
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Another repository than the environment's
    #[arg(long, value_name = "NAME", global = true)]
    repository: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Ls(ls::Args),
    Diff(diff::Args),
    Dump(dump::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    let repository = args.repository.as_deref();
    match args.command {
        Command::List(args) => list::run(&args, repository, context),
        Command::Show(args) => show::run(&args, repository, context),
        Command::Ls(args) => ls::run(&args, repository, context),
        Command::Diff(args) => diff::run(&args, repository, context),
        Command::Dump(args) => dump::run(&args, repository, context),
    }
}

/// The exit codes of commands that read the repository.
fn exit_section() -> String {
    Exit::section(&[Exit::Failed, Exit::Usage, Exit::Locked])
}

/// Opens the repository to read it.
async fn open(context: &Context, config: &Config, repository: Option<&str>) -> Result<Engine, Failure> {
    repository::open(context, repository::declared(config, repository)?, IfEmpty::Fail).await
}

/// Runs a reading command on the open repository.
fn with_repository<F>(repository: Option<&str>, context: &Context, work: impl FnOnce(Config, Engine) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let config = config::load(context)?;
    context.block_on(async {
        let engine = open(context, &config, repository).await?;
        work(config, engine).await
    })
}

/// The snapshot that a word means: an id, its first digits, or `latest`.
async fn find(engine: &Engine, wanted: &str, filter: &SnapshotFilter) -> Result<SnapshotRecord, Failure> {
    snapshots::find(engine, wanted, filter)
        .await
        .map_err(|error| error::backups::failure(format!("could not find snapshot `{wanted}`"), &error))
}

/// When restore drills proved each snapshot last.
async fn proved(context: &Context, engine: &Engine) -> Result<BTreeMap<Id, jiff::Timestamp>, Failure> {
    let list = backups::proof::list(engine)
        .await
        .map_err(|error| error::backups::failure("could not read the records of restore drills", &error))?;
    repository::warn_of_damaged_proofs(context, &list);
    Ok(list.proved())
}

/// A snapshot in documents.
#[derive(Debug, Serialize)]
struct Told {
    snapshot: String,
    time: jiff::Timestamp,
    datastore: Option<String>,
    host: String,
    user: String,
    tags: Vec<String>,
    paths: Vec<String>,
    parent: Option<String>,
    tree: String,
    program: Option<String>,
    files: Option<u64>,
    total_bytes: Option<u64>,
    added_bytes: Option<u64>,
    /// When a restore drill proved it last.
    proved: Option<jiff::Timestamp>,
}

impl Told {
    fn new(record: &SnapshotRecord, proved: &BTreeMap<Id, jiff::Timestamp>) -> Self {
        let snapshot = &record.snapshot;
        Self {
            snapshot: record.id.to_string(),
            time: snapshot.time,
            datastore: repository::store_of(&snapshot.tags).map(str::to_owned),
            host: snapshot.hostname.clone(),
            user: snapshot.username.clone(),
            tags: snapshot.tags.clone(),
            paths: snapshot.paths.clone(),
            parent: snapshot.parent.map(|parent: Id| parent.to_string()),
            tree: snapshot.tree.to_string(),
            program: snapshot.program_version.clone(),
            files: snapshot.summary.as_ref().map(|summary| summary.total_files_processed),
            total_bytes: snapshot.summary.as_ref().map(|summary| summary.total_bytes_processed),
            added_bytes: snapshot.summary.as_ref().map(|summary| summary.data_added),
            proved: proved.get(&record.id).copied(),
        }
    }

    fn short(&self) -> &str {
        &self.snapshot[..8]
    }
}
