//! Following a run that works in the background: its events as they come, its report at the end. Ctrl-C aborts the run and
//! waits for the undo, a second one stops waiting, closing the terminal changes nothing.

mod start;

use std::process::ExitStatus;
use std::time::Duration;

use opsctl_platform::PlatformError;
use opsctl_platform::process;
use opsctl_platform::run::{
    Cancel, Event, Journal, Outcome as RunOutcome, Phase, Reason, RunRecord, give_up, orphans, recover, request_cancel,
};
use opsctl_rollouts::{Report, Stage, Status, worker};
use serde_json::Value;
use tokio::process::Child;
use tokio::time::Instant;

use crate::context::{Context, Signals, Stop};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::Style;
use crate::platform::{EventTail, Opened, words};

pub(crate) use start::{Home, Worker, home, home_of, preflight, start, start_in};

/// How often the journal is read.
const POLL: Duration = Duration::from_millis(100);
/// The same where every look is a question to an API server.
const POLL_THERE: Duration = Duration::from_millis(500);
/// How long a process may take until it has taken its run up.
const CLAIM: Duration = Duration::from_secs(10);
/// How long a Job may take, whose image may have to be fetched first.
const CLAIM_THERE: Duration = Duration::from_mins(3);
/// How long a Job may be in a trouble that may go away.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long the report may take after the run was closed.
const REPORT: Duration = Duration::from_secs(3);
/// The same where it is written by a Job.
const REPORT_THERE: Duration = Duration::from_secs(15);
/// How long a cluster that does not answer is waited for.
const SILENCE: Duration = Duration::from_mins(10);

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

/// Closes a run that no worker has taken up.
async fn close_unclaimed(opened: &Opened, record: &RunRecord, message: &str) -> Result<(), Failure> {
    let run = &record.id;
    let what = || format!("could not close run `{run}`, which no worker has taken up");
    let journal = journal(opened, run, what())?;
    let closed = give_up(opened.platform.as_ref(), run, message, &journal)
        .await
        .map_err(|error| error::platform::run_failure(what(), &error))?;
    if closed.is_some()
        && let Some(there) = opened.there()
    {
        let deleted = there.kube.delete_job(record).await;
        deleted.map_err(|error| error::platform::failure(what(), &error))?;
    }
    Ok(())
}

/// The journal of a run for what this process has to say; of one that works elsewhere it is kept nowhere.
pub(crate) fn journal(opened: &Opened, run: &str, what: String) -> Result<Journal, Failure> {
    let file = opened.state.journal(run);
    if opened.there().is_some() && !file.exists() {
        return Ok(Journal::memory(run));
    }
    Journal::open(file, run).map_err(|error| error::platform::journal(what, &error))
}

/// Starts a new worker for a run that is not over and whose worker was lost. `None`: it needs none.
pub(crate) async fn resume_if_lost(
    context: &Context,
    opened: &Opened,
    record: &RunRecord,
) -> Result<Option<Worker>, Failure> {
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
        return start::resume(context, opened, record).await.map(Some);
    }
    Ok(None)
}

/// Follows a run and tells its end: `run attach`.
pub(crate) async fn follow(context: &Context, opened: &Opened, run: &str, worker: Option<Worker>) -> Outcome {
    let followed = watch_until(context, opened, run, worker, true, true).await?;
    tell_end(context, opened, &followed);
    Ok(followed.exit)
}

/// Follows a run that was just started to its end, to a hold, or until the terminal goes away.
pub(crate) async fn watch(context: &Context, opened: &Opened, run: &str, worker: Worker) -> Result<Followed, Failure> {
    watch_until(context, opened, run, Some(worker), false, true).await
}

/// Follows a run to its very end: one that was asked to promote or abort and is held until it hears of it.
pub(crate) async fn until_over(
    context: &Context,
    opened: &Opened,
    run: &str,
    worker: Option<Worker>,
) -> Result<Followed, Failure> {
    watch_until(context, opened, run, worker, false, false).await
}

/// `worker` is the run's new worker, if this process started it. `stream` writes the events to stdout as NDJSON under
/// `--json`.
async fn watch_until(
    context: &Context,
    opened: &Opened,
    run: &str,
    worker: Option<Worker>,
    stream: bool,
    stop_at_hold: bool,
) -> Result<Followed, Failure> {
    let what = || format!("could not follow run `{run}`");
    let there = opened.there().is_some();
    let poll = if there { POLL_THERE } else { POLL };
    let mut signals = Signals::listen()?;
    let mut tail: Option<EventTail> = None;
    let mut asked: Option<Stop> = None;
    let mut worker = StartedWorker::new(worker);
    let mut claim = Claim::new();
    let mut silence = Silence::default();
    loop {
        let ended = worker.ended;
        // The record first: what is in the journal by then belongs to it.
        let record = match opened.platform.record(run).await {
            Ok(record) => record.ok_or_else(|| match tail {
                None => Failure::usage("unknown_run", format!("there is no run `{run}`")),
                Some(_) => Failure::new(
                    Exit::Failed,
                    "record_gone",
                    format!("the record of run `{run}` was deleted"),
                )
                .cause("what it lies in was deleted, and most likely all that it had changed as well")
                .help("`opsctl recover` undoes what is noted on objects that are still there"),
            })?,
            // A run goes on while nobody can see it.
            Err(error) if there && silence.goes_on(context, &error) => {
                tokio::select! {
                    () = tokio::time::sleep(poll) => continue,
                    stop = signals.next() => {
                        return Err(error::platform::failure(what(), &error).help(format!(
                            "{}: the run goes on, `opsctl run attach {run}` follows it",
                            if stop == Stop::HangUp { "the terminal went away" } else { "it was not told to stop" }
                        )));
                    }
                }
            }
            Err(error) => return Err(error::platform::failure(what(), &error)),
        };
        silence = Silence::default();
        let tail = tail.get_or_insert_with(|| opened.tail(&record));
        for event in tail
            .poll(&what())
            .await
            .or_else(|failure| if there { Ok(Vec::new()) } else { Err(failure) })?
        {
            show(context, &event, stream)?;
        }
        if record.phase == Phase::Closed {
            let followed = closed(opened, record, asked).await;
            // Where they are published, the last ones come after the end.
            for event in tail.poll(&what()).await.unwrap_or_default() {
                show(context, &event, stream)?;
            }
            return Ok(followed);
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
            close_unclaimed(opened, &record, &told).await?;
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
            let report = live_report(opened, &record).await;
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
        if record.worker.is_none() && worker.job && asked.is_some() {
            close_unclaimed(opened, &record, "it was aborted before its job got to work").await?;
            continue;
        }
        if record.worker.is_none() {
            claim.check(context, opened, &record, worker.job).await?;
        }
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
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

/// How long the cluster has not answered.
#[derive(Debug, Default)]
struct Silence(Option<Instant>);

impl Silence {
    /// Whether to look again later: for minutes, when nobody answers at all.
    fn goes_on(&mut self, context: &Context, error: &PlatformError) -> bool {
        if !matches!(
            error,
            PlatformError::Unreachable { .. } | PlatformError::TimedOut { .. }
        ) {
            return false;
        }
        let since = *self.0.get_or_insert_with(|| {
            context.out.warn("the cluster cannot be reached; the run goes on");
            Instant::now()
        });
        since.elapsed() < SILENCE
    }
}

/// Waits for the first worker of a run.
struct Claim {
    since: Instant,
    /// When its Job was looked at, and since when something is amiss with it.
    looked: Instant,
    trouble: Option<Instant>,
}

impl Claim {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            looked: now,
            trouble: None,
        }
    }

    /// Fails when it takes too long, or when the Job says that it will not come. Then the run is closed.
    async fn check(
        &mut self,
        context: &Context,
        opened: &Opened,
        record: &RunRecord,
        job: bool,
    ) -> Result<(), Failure> {
        let run = &record.id;
        let late = self.since.elapsed() > if job { CLAIM_THERE } else { CLAIM };
        let Some(there) = opened.there().filter(|_| job) else {
            return if late {
                Err(no_worker(context, opened, run).help(format!("opsctl recover {run}")))
            } else {
                Ok(())
            };
        };
        if !late && self.looked.elapsed() < POLL_THERE * 4 {
            return Ok(());
        }
        self.looked = Instant::now();
        let trouble = match there.kube.job_trouble(record).await {
            Ok(trouble) => trouble,
            // Then time alone decides.
            Err(error) => {
                tracing::debug!(%error, "cannot look at the job");
                None
            }
        };
        let since = trouble
            .is_some()
            .then(|| *self.trouble.get_or_insert_with(Instant::now));
        self.trouble = since;
        let last = trouble.as_ref().is_some_and(|trouble| trouble.last);
        if !(last || late || since.is_some_and(|since| since.elapsed() > PATIENCE)) {
            return Ok(());
        }
        let why = trouble.map_or_else(|| "it does not come up".to_owned(), |trouble| trouble.why);
        close_unclaimed(opened, record, &format!("its job did not get to work: {why}")).await?;
        Err(Failure::new(
            Exit::Failed,
            "no_worker",
            format!("the job of run `{run}` did not get to work"),
        )
        .cause(why)
        .help("nothing was changed; `image` and `service_account` of the cluster in opsctl.toml say what it runs and as whom"))
    }
}

/// The worker that this process started, until its end was seen.
struct StartedWorker {
    child: Option<Child>,
    job: bool,
    pid: Option<u32>,
    ended: Option<ExitStatus>,
}

impl StartedWorker {
    fn new(worker: Option<Worker>) -> Self {
        let job = matches!(worker, Some(Worker::Job));
        let child = match worker {
            Some(Worker::Process(child)) => Some(child),
            Some(Worker::Job) | None => None,
        };
        let pid = child.as_ref().and_then(Child::id);
        Self {
            child,
            job,
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
        let journal = journal(opened, run, what())?;
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
async fn closed(opened: &Opened, record: RunRecord, asked: Option<Stop>) -> Followed {
    let (poll, limit) = match opened.there() {
        Some(_) => (POLL_THERE, REPORT_THERE),
        None => (POLL, REPORT),
    };
    let since = Instant::now();
    let expects_report = record.kind != "restore"
        && record.worker.is_some()
        && !matches!(record.outcome, Some(RunOutcome::Locked | RunOutcome::Lost));
    let mut report = opened.report(&record).await;
    while report.is_none() && expects_report && since.elapsed() < limit {
        tokio::time::sleep(poll).await;
        report = opened.report(&record).await;
    }
    let exit = match (asked, exit_of(&record)) {
        (_, Exit::UndoIncomplete) => Exit::UndoIncomplete,
        (Some(stop), _) => stop.exit(),
        (None, exit) => exit,
    };
    let report = match report {
        Some(report) => Some(report),
        None => live_report(opened, &record).await,
    };
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
        Some(RunOutcome::Refused) => Exit::Refused,
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
async fn live_report(opened: &Opened, record: &RunRecord) -> Option<Value> {
    if record.kind != worker::KIND {
        return None;
    }
    let events = opened.events(record).await;
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
