//! `opsctl drill restore`: brings a datastore back into a scratch place, checks it, asks it what the catalogue asserts,
//! and measures how long that took and how much would have been lost. Nothing that runs is touched, so nothing is asked.
//!
//! It is a run without a watchdog: a kill leaves the scratch folder alone, which the next drill removes; the run's record
//! is written when it is over. What it proved is kept in the repository.

mod physical;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::Repository as Engine;
use backups::pitr::sqlite::{self, RestoreTo, ShippingError};
use backups::postgres::DumpRevival;
use backups::proof::{self, Proof, Revive, Scratch, Terms, Verdict};
use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use jiff::Timestamp;
use opsctl_platform::Platform as _;
use opsctl_platform::local::StateDir;
use opsctl_platform::run::{Journal, Notifier, Outcome as RunOutcome, Phase, RunRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Datastore, DatastoreKind, PlatformKind};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::moment::{self, Moment};
use crate::output::bytes;
use crate::repository::{self, IfEmpty, Shown};
use crate::{platform, retention, target};
use report::Document;

/// The `kind` of its runs.
pub(crate) const KIND: &str = "drill/restore";

/// Bring a datastore back into a scratch place, check and time it
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A datastore, or a service that uses one
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Recover to this moment: a time such as 2026-03-14T02:30:00Z, or "10m ago" [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot", value_parser = moment::parse)]
    at: Option<Moment>,

    /// Bring back this snapshot: id, or its first digits
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,

    /// Another repository than the environment's, such as the one that copies go to
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,

    /// Restore below this folder instead of `.opsctl/scratch`
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,

    /// Keep what was restored
    #[arg(long)]
    keep: bool,

    /// How long one query of an assertion may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration, hide_short_help = true)]
    query_limit: std::time::Duration,

    /// Why this is done; recorded with the run
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn help() -> String {
    format!(
        "Examples:\n  # What if it all were lost now?\n  opsctl drill restore orders-db\n\n  \
         # What if it had been lost then?\n  opsctl drill restore orders-db --at 2026-03-14T02:30:00Z\n\n  \
         # Prove an older snapshot, on a disk with more room\n  opsctl drill restore uploads --snapshot 7f3a91c2 --scratch /mnt/big\n\n\
         What must hold stands in opsctl.toml: `objectives`, `canary` and `[[datastore.NAME.assert]]`.\n\
         A snapshot of which all held counts as proved: `opsctl snapshot list`.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::No,
            Exit::Unreachable,
            Exit::Locked,
            Exit::Inconclusive,
            Exit::Interrupted
        ])
    )
}

/// What will be brought back, and to when.
struct Plan {
    record: SnapshotRecord,
    moment: Timestamp,
    /// The way on from the snapshot, where changes are shipped.
    forward: Option<sqlite::Plan>,
    needed_bytes: u64,
    home: PathBuf,
    parent: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let store = target::store(context, &config, args.target.as_deref())?;
    if crate::physical::is_physical(store) {
        return physical::run(args, context, &config, store);
    }
    let declared = repository::declared(&config, args.repository.as_deref())?;
    repository::path_of(store)?;
    let (run, started_at) = (RunRecord::new_id(context.now()), context.now());
    repository::cancellable(context, async |cancel| {
        let started = Instant::now();
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let plan = plan(args, context, &config, store, &engine).await?;
        let opened = started.elapsed();
        if args.dry_run {
            return dry_run(context, store, &plan);
        }
        enough_room(context, store, &plan)?;
        let actor = context.actor();
        let path = repository::path_of(store)?;
        let terms = Terms {
            datastore: store.name.clone(),
            environment: config.environment.name.clone(),
            host: context.host(),
            actor,
            run: Some(run.clone()),
            moment: plan.moment,
            forward: plan.forward.clone(),
            objectives: store.proof.objectives,
            assertions: store.proof.assertions.clone(),
            canary: store.proof.canary.clone(),
            name: path.file_name().unwrap_or_default().to_owned(),
            is_database: store.kind == DatastoreKind::Sqlite,
            revive: (store.kind == DatastoreKind::Postgres).then(|| revival(store, &plan)),
            opened,
            query_limit: args.query_limit,
        };
        let (proof, kept) = rehearse(args, context, &config, store, &engine, &plan, &terms, &cancel).await?;
        finish(args, context, &config, &engine, (started_at, proof, kept)).await
    })
}

/// How dumps are brought to life: a server of our own with everything in it.
fn revival(store: &Datastore, plan: &Plan) -> Arc<dyn Revive> {
    Arc::new(DumpRevival {
        programs: repository::programs(store).map(Path::to_path_buf),
        home: plan.home.clone(),
        parent: plan.parent.clone(),
        asked: None,
    })
}

/// Which snapshot, to which moment, and where.
async fn plan(
    args: &Args,
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
) -> Result<Plan, Failure> {
    let what = format!("could not drill the restore of `{}`", store.name);
    let failed = |error| error::backups::failure(what.clone(), &error);
    let now = engine.store().time().await.map_err(|error| failed(error.into()))?;
    let at = args.at.map(|at| at.time(now));
    if let Some(at) = at.filter(|at| *at > now) {
        return Err(
            Failure::usage("usage", what).cause(format!("{at} has not come yet: it is {now} by the store's clock"))
        );
    }
    let (record, moment, forward) = if let Some(wanted) = args.snapshot.as_deref().filter(|wanted| *wanted != "latest")
    {
        let record = snapshots::find(engine, wanted, &SnapshotFilter::default())
            .await
            .map_err(failed)?;
        let of = repository::store_of(&record.snapshot.tags);
        if let Some(other) = of.filter(|other| *other != store.name) {
            return Err(Failure::usage("unknown_snapshot", what)
                .cause(format!("snapshot {} is of datastore `{other}`", record.id.short()))
                .help(format!("opsctl drill restore {other} --snapshot {}", record.id.short())));
        }
        let moment = record.snapshot.time;
        (record, moment, None)
    } else {
        let list = snapshots::list(engine, &repository::filter_of(config, store))
            .await
            .map_err(failed)?;
        for (id, damage) in &list.damaged {
            context
                .out
                .warn(format!("snapshot file {id} is {damage}, whatever it was of"));
        }
        // Without a time it is the newest, whatever the clocks say: a service may tell whole seconds, and be behind.
        let chosen = match at {
            Some(at) => proof::at_or_before(&list.snapshots, at),
            None => list.snapshots.last(),
        };
        let Some(record) = chosen else {
            let cause = match (list.snapshots.first(), at) {
                (Some(first), Some(at)) => {
                    let first = first.snapshot.time;
                    format!("the first snapshot of it, of {first}, is later than {at}")
                }
                _ => format!(
                    "there is no snapshot of it from environment `{}`",
                    config.environment.name
                ),
            };
            return Err(Failure::usage("unknown_snapshot", what)
                .cause(cause)
                .help(format!("opsctl backup {}", store.name)));
        };
        let moment = at.unwrap_or(now.max(record.snapshot.time));
        match forward(config, store, engine, record, moment).await? {
            Some((record, forward)) => (record, moment, Some(forward)),
            None => (record.clone(), moment, None),
        }
    };
    let mut needed_bytes = proof::needed_bytes(engine, &record).await.map_err(failed)?;
    if store.kind == DatastoreKind::Postgres {
        // The dumps, and the databases that are made of them.
        needed_bytes = needed_bytes.saturating_mul(2);
    }
    let home = config.state().join("scratch");
    let parent = args
        .scratch
        .as_ref()
        .map_or_else(|| home.clone(), |folder| context.absolute(folder));
    Ok(Plan {
        record,
        moment,
        forward,
        needed_bytes,
        home,
        parent,
    })
}

/// How shipped changes lead closer to a moment than the latest snapshot before it, if they do.
async fn forward(
    config: &Config,
    store: &Datastore,
    engine: &Engine,
    latest: &SnapshotRecord,
    moment: Timestamp,
) -> Result<Option<(SnapshotRecord, sqlite::Plan)>, Failure> {
    if store.kind != DatastoreKind::Sqlite {
        return Ok(None);
    }
    let to = RestoreTo {
        time: moment,
        allow_older: true,
    };
    let failed = |error| error::backups::failure(format!("could not drill the restore of `{}`", store.name), &error);
    let plan = match sqlite::plan(engine, &repository::shipped(config, store)?, &to).await {
        Ok(plan) if plan.reached > latest.snapshot.time => plan,
        Ok(_)
        | Err(backups::Error::Shipping(ShippingError::NothingShipped { .. } | ShippingError::BeforeFirst { .. })) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let id = plan.snapshot();
    let snapshot = engine.snapshot(&id).await.map_err(failed)?;
    Ok(Some((SnapshotRecord { id, snapshot }, plan)))
}

fn dry_run(context: &Context, store: &Datastore, plan: &Plan) -> Outcome {
    let document = serde_json::json!({
        "schema": "opsctl.restore_drill/v1",
        "type": "restore_drill_plan",
        "datastore": store.name,
        "snapshot": plan.record.id,
        "snapshot_time": plan.record.snapshot.time,
        "moment": plan.moment,
        "reached": plan.forward.as_ref().map(|forward| forward.reached),
        "needed_bytes": plan.needed_bytes,
        "scratch": plan.parent.display().to_string(),
        "assertions": store.proof.assertions.len(),
    });
    context.out.answer(&document, |_| {
        format!(
            "would bring {} back from snapshot {} of {} into {}, {}, and remove it again\n",
            store.name,
            plan.record.id.short(),
            plan.record.snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ"),
            context.shown(&plan.parent),
            bytes(plan.needed_bytes),
        )
    })?;
    Ok(Exit::Done)
}

fn enough_room(context: &Context, store: &Datastore, plan: &Plan) -> Result<(), Failure> {
    let what = format!("could not drill the restore of `{}`", store.name);
    // What a killed drill left may be what is missing.
    Scratch::sweep(&plan.home).map_err(|error| error::backups::failure(what.clone(), &error))?;
    let free = proof::free_bytes(&plan.parent).map_err(|error| error::backups::failure(what.clone(), &error))?;
    if free >= plan.needed_bytes {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "disk_full", what)
        .cause(format!(
            "it needs {}, and `{}` has {} free",
            bytes(plan.needed_bytes),
            context.shown(&plan.parent),
            bytes(free)
        ))
        .help("free some space there, or restore elsewhere with `--scratch FOLDER`"))
}

/// The drill itself, in a scratch folder that is gone when this returns, unless it is to be kept.
#[expect(clippy::too_many_arguments, reason = "everything that a drill stands on")]
async fn rehearse(
    args: &Args,
    context: &Context,
    config: &Config,
    store: &Datastore,
    engine: &Engine,
    plan: &Plan,
    terms: &Terms,
    cancel: &CancellationToken,
) -> Result<(Proof, Option<PathBuf>), Failure> {
    let what = format!("could not drill the restore of `{}`", store.name);
    let failed = |error| error::backups::failure(what.clone(), &error);
    let source = repository::source(config, store)?;
    let scratch = Scratch::make(&plan.home, &plan.parent).map_err(failed)?;
    let progress = Shown::start(context, format!("drill: restoring {}", store.name));
    let proof = proof::rehearse(
        engine,
        source.as_ref(),
        &plan.record,
        terms,
        scratch.folder(),
        &progress,
        cancel,
    )
    .await
    .map_err(failed)?;
    drop(progress);
    let kept = if args.keep {
        let name = format!("{}-{}", store.name, plan.record.id.short());
        Some(scratch.keep(&name).map_err(failed)?)
    } else {
        None
    };
    Ok((proof, kept))
}

/// Keeps the record, writes the report, tells what came of it.
async fn finish(
    args: &Args,
    context: &Context,
    config: &Config,
    engine: &Engine,
    (started_at, proof, kept): (Timestamp, Proof, Option<PathBuf>),
) -> Outcome {
    let saved = proof::save(engine, &proof).await;
    let list = proof::list(engine).await.unwrap_or_default();
    let history: Vec<Proof> = list.of(&proof.environment, &proof.datastore).cloned().collect();
    let document = Document::new(proof, saved.as_ref().ok().copied(), kept, args.reason.clone(), history);
    keep_run(args, context, config, &document, started_at).await?;
    context.out.answer(&document, |_| document.text())?;
    if let Some(kept) = &document.kept {
        context.out.note(format!("kept: {}", context.shown(kept.as_ref())));
    }
    let exit = match document.proof.verdict {
        Verdict::Proved => Exit::Done,
        Verdict::NotProved => Exit::No,
        Verdict::Inconclusive => Exit::Inconclusive,
    };
    if let Err(error) = saved {
        let told = error::backups::failure("could not keep the record of the drill in the repository", &error);
        // What was found is worth more than where it is noted; and a repository of version 1 is never written.
        if exit == Exit::Done && !matches!(error, backups::Error::ReadOnlyVersion) {
            return Err(told);
        }
        context
            .out
            .warn(format!("{}: {}", told.message, told.causes.join(": ")));
    }
    match exit {
        Exit::Done => {
            context.out.done(document.message());
            context.out.next("opsctl recovery status");
        }
        _ => context.out.warn(document.message()),
    }
    Ok(exit)
}

/// The report in the run's folder, and on this machine the record of the run.
async fn keep_run(
    args: &Args,
    context: &Context,
    config: &Config,
    document: &Document,
    started_at: Timestamp,
) -> Result<(), Failure> {
    let what = "could not write the report of the drill";
    let failed = |error| error::platform::failure(what, &error);
    let state = StateDir::open(config.state()).map_err(failed)?;
    let proof = &document.proof;
    // Who is told: the team of a service that uses the datastore.
    let users = config.users_of(&proof.datastore);
    let service = users.first().map(|service| service.name.as_str());
    let id = proof.run.clone().unwrap_or_default();
    let mut record = RunRecord::new(
        &id,
        KIND,
        format!("datastore/{}", proof.datastore),
        serde_json::json!({ "datastore": proof.datastore, "snapshot": proof.snapshot, "moment": proof.moment }),
        started_at,
    );
    record.actor.clone_from(&proof.actor);
    record.reason.clone_from(&args.reason);
    record.environment.clone_from(&proof.environment);
    record.phase = Phase::Closed;
    record.outcome = Some(match proof.verdict {
        Verdict::Proved => RunOutcome::Passed,
        Verdict::NotProved => RunOutcome::Failed,
        Verdict::Inconclusive => RunOutcome::Inconclusive,
    });
    record.message = Some(document.message());
    record.ended_at = Some(context.now());
    let (local, _) = platform::over(context, &state, platform::Servers::default())?;
    let here = config.environment.platform == PlatformKind::Local;
    let journal = if here {
        local.create_record(&record).await.map_err(failed)?;
        Journal::open(state.journal(&id), &id).unwrap_or_else(|_| Journal::memory(&id))
    } else {
        // The records of that environment are in its clusters, and this run has been in none.
        state.make(format!("runs/{id}")).map_err(failed)?;
        Journal::memory(&id)
    };
    platform::write_report(&state, &id, "report.html", document.page().as_bytes())?;
    let text = serde_json::to_vec_pretty(document).map_err(|error| Failure::bug(what).because(&error))?;
    platform::write_report(&state, &id, "report.json", &text)?;
    if let Some(notifier) = platform::notifier(context, config, service) {
        let event = Notifier::ending(&record);
        notifier.tell(&record, event, &journal, context.now()).await;
    }
    if here {
        retention::after_run(&local).await;
    } else {
        retention::after_run_there(&state);
    }
    Ok(())
}
