//! `opsctl schedule run`: runs what is due, in the foreground until it is stopped, once, or one job now.

use std::cell::RefCell;
use std::path::PathBuf;

use backups::schedule::{Decision, Timing, runner};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cleanup::{self, Preview};
use crate::config::{self, Cleanup, Config, Schedule};
use crate::consent::{self, ConsentArgs, Consequence, Stake};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::plural;
use crate::repository;
use crate::schedule::{self, Named, Ran, Records, Work, staying};

/// Run jobs when they are due, or one now
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Run this schedule or cleanup now, whether it is due or not
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Run what is due now and end: for cron and systemd
    #[arg(long, conflicts_with = "name")]
    once: bool,

    /// Say what would run, and run nothing; a cleanup counts and shows what would go
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Wait for the jitter and the end of quiet hours first: for timers that know neither
    #[arg(long, requires = "name")]
    as_scheduled: bool,

    /// Write metrics to this file, for a collector of text files
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # In the foreground, as a service: each job when it is due\n  opsctl schedule run\n\n  \
         # From cron, every few minutes\n  opsctl schedule run --once\n\n  \
         # What a cleanup would delete, then the cleanup\n  opsctl schedule run old-sessions --dry-run\n  opsctl schedule run old-sessions\n\n\
         A job never runs beside itself. However many runs a downtime missed, one makes up for them. Each job is a process\n\
         of its own; cleanups delete in batches and end between two. Ctrl-C stops what runs and waits for it; what was\n\
         stopped stays due.\n\n\
         As long as it runs, the log of each PostgreSQL that is saved as a whole is received, and what changes in SQLite\n\
         databases with `backup.ship` is shipped, as by `opsctl backup NAME --follow` and `--continuous`; with --once it is not.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Refused,
            Exit::Unreachable,
            Exit::Locked,
            Exit::Interrupted
        ])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    runs: Vec<Ran>,
}

#[derive(Serialize)]
struct Plan<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    dry_run: bool,
    jobs: Vec<Planned>,
}

#[derive(Serialize)]
struct Planned {
    schedule: String,
    job: String,
    /// The command line that would be run.
    command: Option<Vec<String>>,
    /// What a cleanup would delete.
    cleanup: Option<Preview>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let named = args
        .name
        .as_deref()
        .map(|name| schedule::find(&config, name))
        .transpose()?;
    let records = Records::open(config.state(), &config.environment.name)?;
    let metrics = args
        .metrics
        .as_ref()
        .map_or_else(|| records.metrics(), |path| context.absolute(path));
    let work = Work {
        context,
        config: &config,
        records,
        schedules: config.schedules.values().filter(|schedule| schedule.enabled).collect(),
        metrics,
        stream: args.name.is_none() && !args.once,
        ended: RefCell::default(),
    };
    if args.dry_run {
        return plan(context, &work, named.as_ref());
    }
    let question = match &named {
        Some(named) => format!("run `{}` now?", named.name()),
        None => format!(
            "run {} when they are due?",
            plural(work.schedules.len() as u64, "schedule", "schedules")
        ),
    };
    let stake = Stake {
        question,
        name: &config.environment.name,
        consequence: Consequence::UndoneByItself,
        protected: config.protected(),
    };
    consent::approve(context, &args.consent, (), &stake)?.into_plan();
    repository::cancellable(context, async |cancel| match named {
        Some(named) => one(context, &work, named, args.as_scheduled, cancel).await,
        None if args.once => once(context, &work, cancel).await,
        None => serve(context, &work, cancel).await,
    })
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted", "interrupted").help("what was stopped stays due")
}

async fn one(
    context: &Context,
    work: &Work<'_>,
    named: Named<'_>,
    as_scheduled: bool,
    cancel: CancellationToken,
) -> Outcome {
    if as_scheduled && let Named::Schedule(schedule) = &named {
        wait(context, schedule, &cancel).await?;
    }
    // Found again in the configuration that the work borrows.
    let ran = match schedule::find(work.config, &named.name())? {
        Named::Schedule(schedule) => work.run_schedule(schedule, cancel.clone()).await?,
        Named::Cleanup(cleanup) => work.run_cleanup(cleanup, cancel.clone()).await?,
    };
    if context.out.json {
        context.out.document(&ran)?;
    }
    if cancel.is_cancelled() && !ran.outcome.good() {
        return Err(interrupted());
    }
    Ok(Exit::from_number(ran.exit_code).unwrap_or(Exit::Failed))
}

/// Waits until the occurrence that a timer of others just had is to begin by our jitter and quiet hours.
async fn wait(context: &Context, schedule: &Schedule, cancel: &CancellationToken) -> Result<(), Failure> {
    let now = context.now();
    let back = jiff::SignedDuration::from_mins(30);
    let from = now.checked_sub(back).unwrap_or(now);
    let due = schedule
        .timing
        .upcoming(from)
        .take_while(|due| due.occurrence <= now)
        .last();
    let Some(due) = due.filter(|due| due.start > now) else {
        return Ok(());
    };
    let pause = std::time::Duration::try_from(due.start.duration_since(now)).unwrap_or_default();
    context.out.note(format!("{} begins at {}", schedule.name, due.start));
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = cancel.cancelled() => Err(interrupted()),
    }
}

async fn once(context: &Context, work: &Work<'_>, cancel: CancellationToken) -> Outcome {
    let _only_one = work.records.lock_all().await?;
    work.take_stock()?;
    let timings: Vec<Timing> = work.schedules.iter().map(|schedule| schedule.timing.clone()).collect();
    let tried = runner::once(&timings, work, &cancel).await;
    let document = Document {
        schema: "opsctl.schedule_runs/v1",
        r#type: "schedule_runs",
        environment: &work.config.environment.name,
        runs: work.ended.take(),
    };
    if context.out.json {
        context.out.document(&document)?;
    } else if tried == 0 {
        context.out.note("nothing is due");
    }
    if cancel.is_cancelled() {
        return Err(interrupted());
    }
    let good = document.runs.iter().filter(|ran| ran.outcome.good()).count();
    let worst = document
        .runs
        .iter()
        .filter(|ran| !ran.outcome.good())
        .find_map(|ran| Exit::from_number(ran.exit_code));
    Ok(match worst {
        None if document.runs.len() < tried => Exit::Locked,
        None => Exit::Done,
        Some(_) if good > 0 => Exit::Partial,
        Some(exit) => exit,
    })
}

async fn serve(context: &Context, work: &Work<'_>, cancel: CancellationToken) -> Outcome {
    let _only_one = work.records.lock_all().await?;
    let staying = staying::of(work.config);
    if work.schedules.is_empty() && staying.is_empty() {
        return Err(
            Failure::usage("nothing_declared", "there is nothing to run: no schedule is declared")
                .help("a datastore has `backup = { schedule = \"0 2 * * *\" }`, other jobs are `[schedule.NAME]`"),
        );
    }
    work.take_stock()?;
    let timings: Vec<Timing> = work.schedules.iter().map(|schedule| schedule.timing.clone()).collect();
    let stays = match staying.len() {
        0 => String::new(),
        some => format!(
            ", and what changes in {} is received",
            plural(some as u64, "datastore", "datastores")
        ),
    };
    context.out.note(format!(
        "running {} of environment `{}`{stays}; Ctrl-C ends it",
        plural(timings.len() as u64, "schedule", "schedules"),
        work.config.environment.name
    ));
    let jobs = runner::serve(&timings, work, &cancel);
    tokio::join!(jobs, staying::keep(work, &staying, &cancel));
    Err(interrupted())
}

/// What would run: the named job, else what is due.
fn plan(context: &Context, work: &Work<'_>, named: Option<&Named<'_>>) -> Outcome {
    let config = work.config;
    let mut jobs = Vec::new();
    match named {
        Some(Named::Schedule(schedule)) => jobs.push(planned(context, work, schedule)?),
        Some(Named::Cleanup(cleanup)) => jobs.push(Planned {
            schedule: format!("cleanup:{}", cleanup.name),
            job: format!("cleanup {}", cleanup.name),
            command: None,
            cleanup: Some(preview(context, config, cleanup)?),
        }),
        None => {
            for schedule in &work.schedules {
                let record = work.records.read(context, &schedule.name);
                let handled = record.map_or_else(|| context.now(), |record| record.handled);
                if let Decision::Run { .. } = schedule.timing.decide(handled, context.now()) {
                    jobs.push(planned(context, work, schedule)?);
                }
            }
        }
    }
    let document = Plan {
        schema: "opsctl.schedule_plan/v1",
        r#type: "schedule_plan",
        environment: &config.environment.name,
        dry_run: true,
        jobs,
    };
    if document.jobs.is_empty() {
        context.out.note("nothing is due");
    }
    context.out.answer(&document, |_| {
        let mut text = String::new();
        for job in &document.jobs {
            match (&job.command, &job.cleanup) {
                (_, Some(preview)) => {
                    let rows = preview.rows.map_or_else(String::new, |rows| {
                        format!(": {} would go", plural(rows, "row", "rows"))
                    });
                    text.push_str(&format!("would run {}{rows}\n  {}\n", job.schedule, preview.how));
                    for line in &preview.sample {
                        text.push_str(&format!("  {}\n", crate::output::printable(line)));
                    }
                }
                (Some(command), None) => {
                    text.push_str(&format!("would run {}: opsctl {}\n", job.schedule, command.join(" ")));
                }
                (None, None) => {}
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

fn planned(context: &Context, work: &Work<'_>, schedule: &Schedule) -> Result<Planned, Failure> {
    let cleanup = schedule::cleanup_of(work.config, schedule);
    Ok(Planned {
        schedule: schedule.name.clone(),
        job: schedule::what(schedule),
        command: cleanup.is_none().then(|| work.arguments(schedule)),
        cleanup: cleanup
            .map(|cleanup| preview(context, work.config, cleanup))
            .transpose()?,
    })
}

fn preview(context: &Context, config: &Config, cleanup: &Cleanup) -> Result<Preview, Failure> {
    context.interruptible(cleanup::preview(context, config, cleanup, context.now()))?
}
