//! The drill of a PostgreSQL that is saved as a whole: the newest base backup and the log up to what is archived, or to a
//! moment, recovered by a server that nobody else reaches, and then everything that PostgreSQL can say of the copy.

use std::os::unix::fs::{MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::Repository as Engine;
use backups::pitr::postgres::reach::Branch;
use backups::pitr::postgres::recovery::drill::{self, Rehearsal};
use backups::pitr::postgres::recovery::{
    BaseBackup, BaseBackups, DamagedBase, FromArchive, Plan, RecoveryError, Target, plan,
};
use backups::postgres::ladder::Step;
use backups::proof::{Proof, Scratch, Terms};
use backups::snapshots::SnapshotRecord;
use jiff::Timestamp;
use opsctl_platform::run::RunRecord;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Args, finish};
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::bytes;
use crate::physical::{self, Kept};
use crate::repository::{self, IfEmpty, Shown};

/// Relations are looked through so many at one time at most: who asks a drill has other work, too.
const JOBS: usize = 4;

/// Where to, from what.
struct Way {
    moment: Timestamp,
    /// The base backup that it begins with, or would have.
    record: SnapshotRecord,
    /// No way is what a drill is there to find.
    plan: Result<Plan, backups::Error>,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    let what = format!("could not drill the restore of `{}`", store.name);
    let declared = repository::declared(config, args.repository.as_deref())?;
    let (run, started_at) = (RunRecord::new_id(context.now()), context.now());
    repository::cancellable(context, async |cancel| {
        let started = Instant::now();
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let Way { moment, record, plan } = way(args, config, store, &engine).await?;
        let terms = Terms {
            datastore: store.name.clone(),
            environment: config.environment.name.clone(),
            host: context.host(),
            actor: context.actor(),
            run: Some(run.clone()),
            moment,
            forward: None,
            objectives: store.proof.objectives,
            assertions: store.proof.assertions.clone(),
            canary: store.proof.canary.clone(),
            name: store.name.clone().into(),
            is_database: false,
            revive: None,
            opened: started.elapsed(),
            query_limit: args.query_limit,
        };
        let home = config.state().join("scratch");
        let wanted = args.scratch.as_ref().map(|folder| context.absolute(folder));
        if let (Some(folder), false) = (&wanted, args.dry_run) {
            // Made for us alone it would keep the server's user out.
            std::fs::create_dir_all(folder).map_err(|error| Failure::io(what.clone(), &error))?;
        }
        let parent = backups::postgres::scratch::parent(wanted.as_ref().unwrap_or(&home), &home);
        let (proof, kept) = match plan {
            Ok(plan) if args.dry_run => return dry_run(context, store, &plan, &record, moment, &parent),
            Ok(plan) => {
                // What a killed drill left may be what is missing.
                Scratch::sweep(&home).map_err(|error| error::backups::failure(&what, &error))?;
                let needed = physical::needed_bytes(&plan);
                physical::enough_room(context, &what, needed, &parent, "--scratch FOLDER")?;
                let copy = Copy {
                    context,
                    config,
                    store,
                    engine: &engine,
                    home,
                    parent,
                };
                copy.rehearse(args.keep, &terms, record, plan, &cancel).await?
            }
            Err(error) if args.dry_run => return Err(error::backups::failure(what, &error)),
            Err(error) => {
                let proof = drill::no_way(&engine, &terms, &record, error).await;
                (proof.map_err(|error| error::backups::failure(what, &error))?, None)
            }
        };
        finish(args, context, config, &engine, (started_at, proof, kept)).await
    })
}

/// Finds the way: along the newest timeline to the end of what is held or to a moment; of a snapshot that is named to
/// where that is whole.
async fn way(args: &Args, config: &Config, store: &Datastore, engine: &Engine) -> Result<Way, Failure> {
    let what = format!("could not drill the restore of `{}`", store.name);
    let failed = |error| error::backups::failure(what.clone(), &error);
    let now = engine.store().time().await.map_err(|error| failed(error.into()))?;
    let at = args.at.map(|at| at.time(now));
    if let Some(at) = at.filter(|at| *at > now) {
        return Err(
            Failure::usage("usage", what).cause(format!("{at} has not come yet: it is {now} by the store's clock"))
        );
    }
    let archive = physical::archive(config, store, engine)?;
    let BaseBackups {
        known: mut bases,
        damaged,
    } = physical::base_backups(config, store, engine).await.map_err(failed)?;
    if let Some(base) = meant(args, &bases, damaged) {
        // That it cannot be read is what the drill found.
        return Ok(Way {
            moment: at.unwrap_or_else(|| now.max(base.record.snapshot.time)),
            record: base.record,
            plan: Err(base.error),
        });
    }
    let (target, branch) = match (args.snapshot.as_deref(), at) {
        (Some(wanted), _) if wanted != "latest" => {
            let base = named(store, engine, &bases, wanted).await?;
            let target = Target::Lsn {
                at: base.base.end,
                inclusive: false,
            };
            let branch = Branch::Exactly(base.base.timeline);
            bases = vec![base];
            (target, branch)
        }
        (_, Some(at)) => (Target::Time(at), Branch::Newest),
        _ => (Target::Latest, Branch::Newest),
    };
    let mut found = plan(&archive, &bases, &target, branch, false).await;
    if let (Err(backups::Error::Recovery(error)), Some(_)) = (&found, at)
        && matches!(**error, RecoveryError::Beyond { .. })
    {
        // What was written between the last that is held and then would be lost: that is measured.
        found = plan(&archive, &bases, &Target::Latest, branch, false).await;
    }
    let begins = found.as_ref().ok().map(|plan| &plan.backup).or(bases.last());
    let Some(newest) = begins.map(|backup| backup.snapshot) else {
        let nothing = RecoveryError::NoBackup {
            datastore: store.name.clone(),
        };
        return Err(failed(nothing.into()));
    };
    let snapshot = engine.snapshot(&newest).await.map_err(failed)?;
    let moment = match (args.snapshot.is_some(), at) {
        (_, Some(at)) => at,
        (true, None) => snapshot.time,
        (false, None) => now.max(snapshot.time),
    };
    Ok(Way {
        moment,
        record: SnapshotRecord { id: newest, snapshot },
        plan: found,
    })
}

/// The damaged base backup, if it is the one to drill: the one that is named, or the newest of all.
fn meant(args: &Args, bases: &[BaseBackup], damaged: Vec<DamagedBase>) -> Option<DamagedBase> {
    let newest = bases.last().map(|base| base.base.finished_at);
    damaged.into_iter().rev().find(
        |base| match args.snapshot.as_deref().filter(|wanted| *wanted != "latest") {
            Some(wanted) => base.record.id.to_string().starts_with(wanted),
            None => args.at.is_none() && newest.is_none_or(|newest| newest <= base.record.snapshot.time),
        },
    )
}

/// The base backup that is meant.
async fn named(store: &Datastore, engine: &Engine, bases: &[BaseBackup], wanted: &str) -> Result<BaseBackup, Failure> {
    let what = format!("could not drill the restore of `{}`", store.name);
    let record = backups::snapshots::find(engine, wanted, &backups::snapshots::SnapshotFilter::default())
        .await
        .map_err(|error| error::backups::failure(what.clone(), &error))?;
    let found = bases.iter().find(|base| base.snapshot == record.id);
    found.cloned().ok_or_else(|| {
        Failure::usage("unknown_snapshot", what)
            .cause(format!("snapshot {} is no base backup of it", record.id.short()))
            .help("opsctl snapshot list")
    })
}

fn dry_run(
    context: &Context,
    store: &Datastore,
    plan: &Plan,
    record: &SnapshotRecord,
    moment: Timestamp,
    parent: &Path,
) -> Outcome {
    let needed = physical::needed_bytes(plan);
    let document = serde_json::json!({
        "schema": "opsctl.restore_drill/v1",
        "type": "restore_drill_plan",
        "datastore": store.name,
        "snapshot": record.id,
        "snapshot_time": record.snapshot.time,
        "moment": moment,
        "reached": plan.moment(),
        "needed_bytes": needed,
        "scratch": parent.display().to_string(),
        "assertions": store.proof.assertions.len(),
        "lsn": plan.stop.lsn,
        "timeline": plan.way.timeline,
        "segments": plan.way.pieces.len(),
    });
    context.out.answer(&document, |_| {
        format!(
            "would bring {} back from snapshot {} of {} and {} files of its log, to position {} of timeline {}, into {}, {}, and remove it again\n",
            store.name,
            record.id.short(),
            record.snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ"),
            plan.way.pieces.len(),
            plan.stop.lsn,
            plan.way.timeline,
            context.shown(parent),
            bytes(needed),
        )
    })?;
    Ok(Exit::Done)
}

/// What the drill is carried through with.
struct Copy<'a> {
    context: &'a Context,
    config: &'a Config,
    store: &'a Datastore,
    engine: &'a Engine,
    home: PathBuf,
    parent: PathBuf,
}

impl Copy<'_> {
    /// The drill itself, in a scratch folder that is gone when this returns, unless it is to be kept.
    async fn rehearse(
        &self,
        keep: bool,
        terms: &Terms,
        record: SnapshotRecord,
        plan: Plan,
        cancel: &CancellationToken,
    ) -> Result<(Proof, Option<PathBuf>), Failure> {
        let what = format!("could not drill the restore of `{}`", self.store.name);
        let failed = |error| error::backups::failure(what.clone(), &error);
        let scratch = physical::scratch(&self.home, &self.parent).map_err(failed)?;
        let data = scratch.folder().join("data");
        let archive = physical::archive(self.config, self.store, self.engine)?;
        let supply = FromArchive::new(&archive, plan.backup.base.system, plan.way.size);
        let jobs = std::thread::available_parallelism().map_or(1, |count| count.get().min(JOBS));
        let numbers: Vec<u32> = plan.backup.base.tablespaces.iter().map(|of| of.oid).collect();
        let name = format!("{}-{}", self.store.name, record.id.short());
        let rehearsal = Rehearsal {
            plan,
            record,
            place: physical::place(self.context, self.config, self.store, &data, Kept::No)?,
            supply: Arc::new(supply),
            owner: physical::owner(&what)?,
            jobs: u32::try_from(jobs).unwrap_or(1),
        };
        let progress = Shown::start(self.context, format!("drill: restoring {}", self.store.name));
        let tell = |step: Step| progress.say(step.name());
        let proof = drill::rehearse(self.engine, terms, &rehearsal, &progress, &tell, cancel).await;
        let proof = proof.map_err(failed)?;
        drop(progress);
        if !keep {
            return Ok((proof, None));
        }
        let kept = scratch.keep(&name).map_err(failed)?;
        lead_to(&kept, &numbers).map_err(|error| Failure::io("could not keep the tablespaces of the copy", &error))?;
        Ok((proof, Some(kept)))
    }
}

/// The links to the tablespaces lead to where the folder was.
fn lead_to(kept: &Path, numbers: &[u32]) -> std::io::Result<()> {
    for number in numbers.iter().map(u32::to_string) {
        let link = kept.join("data/pg_tblspc").join(&number);
        let Ok(was) = link.symlink_metadata() else { continue };
        std::fs::remove_file(&link)?;
        symlink(drill::beside(&kept.join("data")).join(&number), &link)?;
        lchown(&link, Some(was.uid()), Some(was.gid()))?;
    }
    Ok(())
}
