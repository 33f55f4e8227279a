//! `opsctl restore` of a PostgreSQL that is saved as a whole: a base backup, then its log up to a moment, a position or a
//! restore point, recovered by PostgreSQL itself, and held against what was asked for. Beside the original or into a
//! folder; the server that runs is never touched.

use std::path::Path;
use std::sync::Arc;

use backups::Repository as Engine;
use backups::pitr::postgres::reach::Branch;
use backups::pitr::postgres::recovery::run::recover;
use backups::pitr::postgres::recovery::{BaseBackups, FromArchive, Plan, Target, plan};
use backups::pitr::postgres::{Lsn, Timeline};
use backups::source::postgres::base::{BaseRestore, restore_base};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Args, fetch};
use crate::config::{Config, Datastore};
use crate::consent::{Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{bytes, plural, seconds};
use crate::physical::{self, Kept};
use crate::repository::{self, IfEmpty, Shown};

/// `opsctl.restore/v1` of a cluster.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    run: Option<String>,
    datastore: String,
    snapshot: String,
    snapshot_time: Timestamp,
    /// The moment that the state is of, by the server's clock, as far as it is known.
    reached: Option<Timestamp>,
    /// The data folder.
    target: String,
    kept: Option<String>,
    files: u64,
    restored_bytes: u64,
    elapsed_seconds: f64,
    /// Up to where the log was replayed.
    reached_lsn: Option<Lsn>,
    /// The timeline whose log was replayed.
    timeline: Timeline,
    /// The timeline that the restored cluster is on.
    new_timeline: Option<Timeline>,
    /// The last commit in it.
    last_commit: Option<Timestamp>,
    /// Files of the log that were replayed.
    segments: u64,
    /// PostgreSQL's version.
    version: String,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    let what = format!("could not restore `{}`", store.name);
    refuse_others(args, &what)?;
    let declared = repository::declared(config, args.repository.as_deref())?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let plan = way(args, context, config, store, &engine).await?;
        let told = told(&plan);
        let target = match &args.into {
            Some(into) => context.absolute(into),
            None => fetch::beside(&repository::path_of(store)?, &format!("restored-{}", name(&plan))),
        };
        if args.dry_run {
            context.out.line(&format!(
                "would restore {} {told} into {}",
                store.name,
                context.shown(&target)
            ))?;
            return Ok(Exit::Done);
        }
        if std::fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(
                Failure::refused("exists", format!("`{}` is not empty", context.shown(&target)))
                    .cause("a cluster is restored into a folder of its own")
                    .help("remove it, or restore elsewhere with `--into FOLDER`"),
            );
        }
        let stake = Stake {
            question: format!("restore `{}` into `{}`?", store.name, context.shown(&target)),
            name: &store.name,
            consequence: Consequence::UndoneByItself,
            protected: config.protected().filter(|_| args.into.is_some()),
        };
        approve(context, &args.consent, (), &stake)?.into_plan();
        let needed = physical::needed_bytes(&plan);
        physical::enough_room(context, &what, needed, &target, "--into FOLDER")?;
        let document = Box::pin(apply(context, config, store, &engine, &plan, &target, &cancel)).await?;
        context.out.answer(&document, |_| format!("{}\n", document.target))?;
        context.out.done(format!(
            "restored {} {told}: {}, {} of log, {}",
            store.name,
            bytes(document.restored_bytes),
            plural(document.segments, "file", "files"),
            seconds(document.elapsed_seconds)
        ));
        if !target.join("postgresql.conf").exists() {
            context
                .out
                .note("its configuration lay outside of the data folder, and is not in the backup");
        }
        context.out.next(format!(
            "postgres -D {}   (PostgreSQL {}, as the folder's owner)",
            context.shown(&target),
            document.version
        ));
        Ok(Exit::Done)
    })
}

/// What makes no sense for a cluster as a whole.
pub(super) fn refuse_others(args: &Args, what: &str) -> Result<(), Failure> {
    let given = [
        (!args.wants_all(), "--include and --exclude"),
        (!args.with.is_empty(), "--with"),
        (args.snapshot != "latest", "--snapshot"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, flag)) => Err(Failure::usage("usage", what)
            .cause(format!("{flag} is not for a PostgreSQL that is saved as a whole"))
            .help("say where to with `--at TIME`, `--lsn POSITION` or `--name POINT`; without them it is the latest state")),
        None => Ok(()),
    }
}

/// Finds the way. Nothing is written.
pub(super) async fn way(
    args: &Args,
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
) -> Result<Plan, Failure> {
    let target = match (args.at, args.lsn, &args.name) {
        (Some(at), ..) => Target::Time(at.time(context.now())),
        (_, Some(at), _) => Target::Lsn {
            at,
            inclusive: !args.exclusive,
        },
        (.., Some(name)) => Target::Name(name.clone()),
        _ => Target::Latest,
    };
    let branch = args.timeline.map_or(Branch::Newest, Branch::Exactly);
    let failed = |error| error::backups::failure(format!("could not restore `{}`", store.name), &error);
    let archive = physical::archive(config, store, engine)?;
    let BaseBackups { known, mut damaged } = physical::base_backups(config, store, engine).await.map_err(failed)?;
    for base in &damaged {
        let why = error::backups::failure("it is damaged", &base.error).causes.join(": ");
        let name = base.record.id.short();
        context
            .out
            .warn(format!("snapshot {name} of {} cannot be used: {why}", store.name));
    }
    match damaged.pop() {
        Some(base) if known.is_empty() => Err(failed(base.error)),
        _ => plan(&archive, &known, &target, branch, args.allow_older)
            .await
            .map_err(failed),
    }
}

/// What will be there, for people.
pub(super) fn told(plan: &Plan) -> String {
    let state = match &plan.target {
        Target::Time(time) => format!("as it was at {time}"),
        Target::Latest => "as it was last".to_owned(),
        other => format!("at {other}"),
    };
    format!("{state} (position {} of timeline {})", plan.stop.lsn, plan.way.timeline)
}

/// What the folder of it is called after.
fn name(plan: &Plan) -> String {
    match &plan.target {
        Target::Time(time) => time.strftime("%Y%m%dT%H%M%S%.fZ").to_string(),
        _ => plan.stop.lsn.to_string().replace('/', "-"),
    }
}

/// The files, the recovery, and the end of the server that recovered.
async fn apply(
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
    plan: &Plan,
    target: &Path,
    cancel: &CancellationToken,
) -> Result<Document, Failure> {
    let what = format!("could not restore `{}`", store.name);
    let failed = |error| error::backups::failure(&what, &error);
    let started = context.now();
    let progress = Shown::start(context, format!("restoring {}", store.name));
    let options = BaseRestore {
        owner: physical::owner(&what)?,
        durable: false,
        ..BaseRestore::default()
    };
    let base = restore_base(engine, &plan.backup.snapshot, target, &options, &progress, cancel);
    let unfinished = base.await.map_err(failed)?;
    let restored = unfinished.finish(engine, &progress, cancel).await.map_err(failed)?;
    drop(progress);

    let place = physical::place(context, config, store, target, Kept::Yes)?;
    let archive = physical::archive(config, store, engine)?;
    let supply = FromArchive::new(&archive, plan.backup.base.system, plan.way.size);
    let line = context.out.progress(format!("recovering {}", store.name));
    let tell = |served: &backups::pitr::postgres::serve::Served| {
        line.phase(format!("replaying the log, file {} of {}", served.segments, served.of));
    };
    let recovering = recover(plan, &place, Arc::new(supply), &tell, cancel);
    let recovered = recovering.await.map_err(failed)?;
    let (reached, timeline, version) = (recovered.reached, recovered.timeline, recovered.version().to_owned());
    line.phase("stopping in good order");
    recovered.stop().await.map_err(failed)?;
    drop(line);
    let snapshot = engine.snapshot(&plan.backup.snapshot).await.map_err(failed)?;
    Ok(Document {
        schema: "opsctl.restore/v1",
        r#type: "restore",
        run: None,
        datastore: store.name.clone(),
        snapshot: plan.backup.snapshot.to_string(),
        snapshot_time: snapshot.time,
        reached: plan.moment(),
        target: target.display().to_string(),
        kept: None,
        files: restored.report.files,
        restored_bytes: restored.report.bytes,
        elapsed_seconds: context.now().duration_since(started).as_secs_f64(),
        reached_lsn: Some(reached),
        timeline: plan.way.timeline,
        new_timeline: Some(timeline),
        last_commit: plan.stop.last_commit,
        segments: plan.way.pieces.len() as u64,
        version,
    })
}
