//! Following a run that works in the background: its events as they come, its report at the end. Ctrl-C aborts the run and
//! waits for the undo, a second one stops waiting, closing the terminal changes nothing.

use std::process::ExitStatus;
use std::time::Duration;

use opsctl_platform::local::Role;
use opsctl_platform::process;
use opsctl_platform::run::{
    Cancel, Event, Journal, Outcome as RunOutcome, Phase, Reason, RunRecord, Tail, give_up, orphans, read_events,
    recover, request_cancel, this_process,
};
use opsctl_rollouts::{Report, Stage, Status, worker};
use serde_json::Value;
use tokio::process::Child;

use crate::context::{Context, Signals, Stop};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::Style;
use crate::platform::{Opened, words};

/// How often the journal is read.
const POLL: Duration = Duration::from_millis(100);

/// What a followed run came to.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The exit code of whoever followed.
    pub(crate) exit: Exit,
    /// The record as last read.
    pub(crate) record: RunRecord,
    /// The report, when there is one.
    pub(crate) report: Option<Value>,
    /// It still runs: held until somebody decides, or the terminal went away.
    pub(crate) goes_on: bool,
}

/// Stores a new run and starts its worker, which starts the watchdog.
pub(crate) async fn start(
    context: &Context,
    opened: &Opened,
    record: &mut RunRecord,
    reason: Option<&str>,
) -> Result<Child, Failure> {
    record.starter = Some(this_process(&record.id));
    record.actor = context.actor();
    record.reason = reason.map(str::to_owned);
    record.environment.clone_from(&opened.config.environment.name);
    let what = || format!("could not start run `{}`", record.id);
    opened
        .state
        .make(format!("runs/{}", record.id))
        .map_err(|error| error::platform::failure(what(), &error))?;
    opened
        .platform
        .create_record(record)
        .await
        .map_err(|error| error::platform::failure(what(), &error))?;
    match start_worker(opened, &record.id) {
        Ok(worker) => Ok(worker),
        Err(failure) => {
            close_unclaimed(opened, &record.id, &failure.message).await?;
            Err(failure)
        }
    }
}

fn start_worker(opened: &Opened, run: &str) -> Result<Child, Failure> {
    let launcher = opened
        .local
        .launcher()
        .ok_or_else(|| Failure::bug("the platform has no launcher"))?;
    launcher
        .spawn_child(Role::Worker { run }, &opened.state)
        .map(|(_, child)| child)
        .map_err(|error| error::platform::failure(format!("could not start the worker of run `{run}`"), &error))
}

/// Closes a run that no worker has taken up.
async fn close_unclaimed(opened: &Opened, run: &str, message: &str) -> Result<(), Failure> {
    let what = || format!("could not close run `{run}`, which no worker has taken up");
    let journal =
        Journal::open(opened.state.journal(run), run).map_err(|error| error::platform::journal(what(), &error))?;
    give_up(opened.platform.as_ref(), run, message, &journal)
        .await
        .map_err(|error| error::platform::run_failure(what(), &error))?;
    Ok(())
}

/// Starts a new worker for a run that is not over and whose worker was lost. `None`: it needs none.
pub(crate) async fn resume_if_lost(
    context: &Context,
    opened: &Opened,
    record: &RunRecord,
) -> Result<Option<Child>, Failure> {
    if record.phase == Phase::Closed {
        return Ok(None);
    }
    let lost = orphans(opened.platform.as_ref())
        .await
        .map_err(|error| error::platform::run_failure("could not look for dead runs", &error))?;
    if lost.iter().any(|orphan| orphan.record.id == record.id) {
        context
            .out
            .note(format!("the worker of run {} was lost; another one goes on", record.id));
        return start_worker(opened, &record.id).map(Some);
    }
    Ok(None)
}

/// Follows a run and tells its end: `run attach`.
pub(crate) async fn follow(context: &Context, opened: &Opened, run: &str, worker: Option<Child>) -> Outcome {
    let followed = watch_until(context, opened, run, worker, true, true).await?;
    tell_end(context, opened, &followed);
    Ok(followed.exit)
}

/// Follows a run that was just started to its end, to a hold, or until the terminal goes away.
pub(crate) async fn watch(context: &Context, opened: &Opened, run: &str, worker: Child) -> Result<Followed, Failure> {
    watch_until(context, opened, run, Some(worker), false, true).await
}

/// Follows a run to its very end: one that was asked to promote or abort and is held until it hears of it.
pub(crate) async fn until_over(
    context: &Context,
    opened: &Opened,
    run: &str,
    worker: Option<Child>,
) -> Result<Followed, Failure> {
    watch_until(context, opened, run, worker, false, false).await
}

/// `worker` is the run's new worker, if this process started it. `stream` writes the events to stdout as NDJSON under
/// `--json`.
async fn watch_until(
    context: &Context,
    opened: &Opened,
    run: &str,
    worker: Option<Child>,
    stream: bool,
    stop_at_hold: bool,
) -> Result<Followed, Failure> {
    let what = || format!("could not follow run `{run}`");
    let mut signals = Signals::listen()?;
    let mut tail = Tail::new(opened.state.journal(run));
    let mut asked: Option<Stop> = None;
    let mut lonely = 0_u32;
    let mut worker = StartedWorker::new(worker);
    loop {
        let ended = worker.ended;
        // The record first: what is in the journal by then belongs to it.
        let record = opened
            .platform
            .record(run)
            .await
            .map_err(|error| error::platform::failure(what(), &error))?
            .ok_or_else(|| Failure::usage("unknown_run", format!("there is no run `{run}`")))?;
        for event in tail.poll().map_err(|error| error::platform::journal(what(), &error))? {
            show(context, &event, stream)?;
        }
        if record.phase == Phase::Closed {
            return Ok(closed(opened, record, asked, &mut lonely).await);
        }
        if let Some(status) = ended {
            // Whatever it was to write into the record is there by now.
            let claimed = record.worker.as_ref().map(|claimed| claimed.process.pid) == worker.pid;
            worker.ended = None;
            if claimed {
                undo_unwatched(opened, run).await?;
                continue;
            }
            let told = format!(
                "its worker ended before it took the run up: {}",
                process::describe(status)
            );
            close_unclaimed(opened, run, &told).await?;
            if asked.is_none() {
                return Err(no_worker(context, opened, run)
                    .cause(told)
                    .help(format!("opsctl run show {run}")));
            }
            continue;
        }
        if stop_at_hold
            && asked.is_none()
            && let Some(inconclusive) = held(&record)
        {
            let exit = if inconclusive { Exit::Inconclusive } else { Exit::Done };
            let report = live_report(opened, &record);
            return Ok(Followed {
                exit,
                record,
                report,
                goes_on: true,
            });
        }
        if context.out.is_closed() && stream {
            return Ok(Followed {
                exit: Exit::Done,
                record,
                report: None,
                goes_on: true,
            });
        }
        if record.worker.is_none() {
            lonely += 1;
            if lonely > 100 {
                return Err(no_worker(context, opened, run).help(format!("opsctl recover {run}")));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = worker.end() => {}
            stop = signals.next() => match (stop, asked) {
                (Stop::HangUp, _) => return Ok(Followed { exit: Exit::Done, record, report: None, goes_on: true }),
                (_, Some(_)) => {
                    context.out.warn(format!("not waiting for the undo; the run's worker goes on with it: opsctl run show {run}"));
                    return Ok(Followed { exit: stop.exit(), record, report: None, goes_on: true });
                }
                (stop, None) => {
                    asked = Some(stop);
                    context.out.note("aborting, and undoing what was done (once more: do not wait) …");
                    abort(context, opened, run, Reason::Interrupt).await?;
                }
            },
        }
    }
}

/// The worker that this process started, until its end was seen.
struct StartedWorker {
    child: Option<Child>,
    pid: Option<u32>,
    ended: Option<ExitStatus>,
}

impl StartedWorker {
    fn new(child: Option<Child>) -> Self {
        let pid = child.as_ref().and_then(Child::id);
        Self {
            child,
            pid,
            ended: None,
        }
    }

    /// Resolves when it ends; never when there is none.
    async fn end(&mut self) {
        let Some(child) = &mut self.child else {
            return std::future::pending().await;
        };
        match child.wait().await {
            Ok(status) => self.ended = Some(status),
            // Then the record alone tells.
            Err(error) => tracing::warn!(%error, "cannot wait for the worker"),
        }
        self.child = None;
    }
}

/// A worker that has died is undone by its watchdog; by this process when there is none.
async fn undo_unwatched(opened: &Opened, run: &str) -> Result<(), Failure> {
    let what = || format!("could not undo run `{run}`");
    let lost = orphans(opened.platform.as_ref())
        .await
        .map_err(|error| error::platform::run_failure("could not look for dead runs", &error))?;
    if lost.iter().any(|orphan| orphan.record.id == run && !orphan.watched) {
        let journal =
            Journal::open(opened.state.journal(run), run).map_err(|error| error::platform::journal(what(), &error))?;
        recover(opened.platform.as_ref(), run, &journal)
            .await
            .map_err(|error| error::platform::run_failure(what(), &error))?;
    }
    Ok(())
}

fn no_worker(context: &Context, opened: &Opened, run: &str) -> Failure {
    let log = opened.state.run_dir(run).join("judge.log");
    Failure::new(
        Exit::Failed,
        "no_worker",
        format!("the worker of run `{run}` did not start"),
    )
    .details([format!("its log is `{}`", context.shown(&log))])
}

/// Asks a run to stop. `None`: it is over.
pub(crate) async fn abort(
    context: &Context,
    opened: &Opened,
    run: &str,
    reason: Reason,
) -> Result<Option<RunRecord>, Failure> {
    let cancel = Cancel {
        by: context.actor(),
        at: context.now(),
        reason,
    };
    request_cancel(opened.platform.as_ref(), run, cancel)
        .await
        .map_err(|error| error::platform::run_failure(format!("could not abort run `{run}`"), &error))
}

fn show(context: &Context, event: &Event, stream: bool) -> Result<(), Failure> {
    if context.out.json {
        return if stream { context.out.event(event) } else { Ok(()) };
    }
    if let Some(line) = words::event_line(event) {
        let time = event.ts.strftime("%H:%M:%S").to_string();
        context
            .out
            .note(format!("{}  {line}", context.out.stderr.apply(Style::Faint, &time)));
    }
    Ok(())
}

/// The worker writes the report right after it closed the run.
async fn closed(opened: &Opened, record: RunRecord, asked: Option<Stop>, waited: &mut u32) -> Followed {
    *waited = 0;
    let expects_report = record.kind != "restore"
        && record.worker.is_some()
        && !matches!(record.outcome, Some(RunOutcome::Locked | RunOutcome::Lost));
    let mut report = opened.report(&record.id);
    while report.is_none() && expects_report && *waited < 30 {
        *waited += 1;
        tokio::time::sleep(POLL).await;
        report = opened.report(&record.id);
    }
    let exit = match (asked, exit_of(&record)) {
        (_, Exit::UndoIncomplete) => Exit::UndoIncomplete,
        (Some(stop), _) => stop.exit(),
        (None, exit) => exit,
    };
    let report = report.or_else(|| live_report(opened, &record));
    Followed {
        exit,
        record,
        report,
        goes_on: false,
    }
}

/// The exit code of a run that is over.
pub(crate) fn exit_of(record: &RunRecord) -> Exit {
    match record.outcome {
        Some(RunOutcome::Passed) => Exit::Done,
        Some(RunOutcome::Failed | RunOutcome::Aborted) => Exit::No,
        Some(RunOutcome::Inconclusive) => Exit::Inconclusive,
        Some(RunOutcome::Locked) => Exit::Locked,
        Some(RunOutcome::UndoIncomplete) => Exit::UndoIncomplete,
        Some(RunOutcome::Lost | RunOutcome::Error) | None => Exit::Failed,
    }
}

/// Whether a canary is held, and then whether nothing was proven by then.
fn held(record: &RunRecord) -> Option<bool> {
    if record.kind != worker::KIND {
        return None;
    }
    let state: worker::State = serde_json::from_value(record.stats.clone()).ok()?;
    match state.judge.stage {
        Stage::Holding { inconclusive, .. } => Some(inconclusive),
        _ => None,
    }
}

/// The report of a canary as it is now.
fn live_report(opened: &Opened, record: &RunRecord) -> Option<Value> {
    if record.kind != worker::KIND {
        return None;
    }
    let events = read_events(&opened.state.journal(&record.id)).ok()?;
    serde_json::to_value(Report::new(record, &events).ok()?).ok()
}

/// Says how it ended, and the likely next command.
pub(crate) fn tell_end(context: &Context, opened: &Opened, followed: &Followed) {
    let record = &followed.record;
    if followed.goes_on {
        context.out.note(format!("run {} goes on in the background", record.id));
        context.out.next(format!("opsctl run attach {}", record.id));
        return;
    }
    let (state, style) = words::state(record);
    let message = record.message.clone().unwrap_or_default();
    context.out.note(format!(
        "{} {} {}: {state}; {message}",
        context.out.stderr.mark(style),
        record.kind,
        words::target(record)
    ));
    for step in record.undo.iter().filter(|step| !step.settled()) {
        context.out.warn(format!("{} {}", step.field, words::undo(step)));
    }
    if record.outcome == Some(RunOutcome::UndoIncomplete) {
        context.out.next(format!("opsctl recover {}", record.id));
    }
    if let Some(path) = opened.report_files(&record.id).first() {
        context.out.note(format!("report: {}", context.shown(path)));
    }
}

/// Whether the status of a canary's report is one of a canary that is still on.
pub(crate) fn is_on(status: Status) -> bool {
    matches!(
        status,
        Status::Starting | Status::Judging | Status::Held | Status::Baking | Status::RollingBack
    )
}
