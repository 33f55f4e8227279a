//! Running jobs: a command of opsctl as a process of its own, so that nothing of one run is left in the next, and a
//! cleanup in this one. Before and after there is a record, a ping, and the metrics.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use backups::schedule::Due;
use backups::schedule::runner::{Ended, Jobs};
use jiff::Timestamp;
use opsctl_platform::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::ping::{Sign, ping};
use super::record::{Last, Outcome, Record, Records, Running};
use crate::cleanup::{self, StoppedBy, Swept};
use crate::config::{Cleanup, Config, Job, Ping, Schedule};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::{plural, seconds};

/// Runs jobs and remembers how they ended.
pub(crate) struct Work<'a> {
    pub(crate) context: &'a Context,
    pub(crate) config: &'a Config,
    pub(crate) records: Records,
    /// The schedules that run by themselves, in the order of the runner's numbers.
    pub(crate) schedules: Vec<&'a Schedule>,
    /// Where metrics go.
    pub(crate) metrics: PathBuf,
    /// Whether each end is told on stdout at once.
    pub(crate) stream: bool,
    /// What ended, in order.
    pub(crate) ended: std::cell::RefCell<Vec<Ran>>,
}

/// A run that ended, for documents.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ran {
    schema: &'static str,
    r#type: &'static str,
    /// The schedule.
    pub(crate) schedule: String,
    /// What ran, for example `backup orders-db`.
    pub(crate) job: String,
    /// What it was due for.
    pub(crate) occurrence: Option<Timestamp>,
    /// Times before that without a run of their own.
    pub(crate) missed: u32,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: u8,
    /// What a cleanup did.
    pub(crate) cleanup: Option<Swept>,
}

/// A job to run now.
struct Task<'a> {
    name: String,
    what: String,
    ping: Option<&'a Ping>,
    body: Body<'a>,
}

enum Body<'a> {
    Command(&'a Schedule),
    Cleanup(&'a Cleanup),
}

/// How a job ended.
struct Finished {
    exit: Exit,
    message: Option<String>,
    swept: Option<Swept>,
}

/// After this time something that was in the way is tried again, and that often.
const AGAIN: Duration = Duration::from_mins(1);
const TRIES: u32 = 10;

impl<'a> Work<'a> {
    /// Makes the records of schedules that were never seen, and closes those of processes that are gone.
    pub(crate) fn take_stock(&self) -> Result<(), Failure> {
        let now = self.context.now();
        for schedule in &self.schedules {
            let mut record = self.records.seen(self.context, &schedule.name)?;
            let gone = record
                .running
                .clone()
                .filter(|running| !running.alive(&self.context.host(), now));
            if let Some(running) = gone {
                self.context.out.warn(format!(
                    "the run of `{}` that began at {} is gone with its process",
                    schedule.name, running.started
                ));
                record.end(Last {
                    occurrence: running.occurrence,
                    started: running.started,
                    ended: now,
                    outcome: Outcome::Lost,
                    exit_code: None,
                    message: None,
                });
                self.records.write(&record)?;
            }
        }
        self.write_metrics();
        Ok(())
    }

    /// Runs the job of a schedule that somebody asks for; what is due later stays due.
    pub(crate) async fn run_schedule(&self, schedule: &'a Schedule, cancel: CancellationToken) -> Result<Ran, Failure> {
        let task = self.task(schedule)?;
        self.perform(&task, None, 0, cancel).await
    }

    /// Runs a cleanup that somebody asks for.
    pub(crate) async fn run_cleanup(&self, cleanup: &'a Cleanup, cancel: CancellationToken) -> Result<Ran, Failure> {
        let task = Task {
            name: format!("cleanup:{}", cleanup.name),
            what: format!("cleanup {}", cleanup.name),
            ping: None,
            body: Body::Cleanup(cleanup),
        };
        self.perform(&task, None, 0, cancel).await
    }

    fn task(&self, schedule: &'a Schedule) -> Result<Task<'a>, Failure> {
        let body =
            if schedule.job == Job::Cleanup {
                Body::Cleanup(super::cleanup_of(self.config, schedule).ok_or_else(|| {
                    Failure::usage("unknown_schedule", format!("`{}` names no cleanup", schedule.name))
                })?)
            } else {
                Body::Command(schedule)
            };
        Ok(Task {
            name: schedule.name.clone(),
            what: super::what(schedule),
            ping: schedule.ping.as_ref(),
            body,
        })
    }

    async fn perform(
        &self,
        task: &Task<'a>,
        due: Option<Due>,
        missed: u32,
        cancel: CancellationToken,
    ) -> Result<Ran, Failure> {
        let _only_one = self.records.lock_one(&task.name).await?;
        let mut record = self.records.seen(self.context, &task.name)?;
        if let Some(running) = &record.running
            && running.alive(&self.context.host(), self.context.now())
        {
            return Err(
                Failure::new(Exit::Locked, "busy", format!("`{}` runs already", task.name)).cause(format!(
                    "process {} on {} began at {}",
                    running.pid, running.host, running.started
                )),
            );
        }
        let started = self.context.now();
        let me = Process::current();
        let mut running = Running {
            occurrence: due.map(|due| due.occurrence),
            started,
            pid: me.pid,
            start_ticks: me.start_ticks,
            host: self.context.host(),
        };
        record.running = Some(running.clone());
        self.records.write(&record)?;
        self.context.out.note(format!("{} begins: {}", task.name, task.what));
        if let Some(check) = task.ping {
            ping(self.context, &task.name, check, Sign::Start, &task.what).await;
        }
        let result = match &task.body {
            Body::Cleanup(cleanup) => self.clean(cleanup, &cancel).await,
            Body::Command(schedule) => {
                self.command(schedule, &cancel, |process| {
                    // Whoever comes after a kill of ours must know what goes on.
                    running.pid = process.pid;
                    running.start_ticks = process.start_ticks;
                    record.running = Some(running.clone());
                    self.records.write(&record)
                })
                .await
            }
        };
        let ended = self.context.now();
        let outcome = Outcome::of(Some(result.exit));
        self.remember(&mut record, due, missed, &result, (started, ended))?;
        self.tell(task, outcome, &result, (started, ended)).await;
        let ran = Ran {
            schema: "opsctl.schedule_run/v1",
            r#type: "schedule_run",
            schedule: task.name.clone(),
            job: task.what.clone(),
            occurrence: due.map(|due| due.occurrence),
            missed,
            started,
            ended,
            outcome,
            exit_code: result.exit.number(),
            cleanup: result.swept,
        };
        if self.stream && self.context.out.json {
            self.context.out.event(&ran)?;
        }
        self.ended.borrow_mut().push(ran.clone());
        Ok(ran)
    }

    fn remember(
        &self,
        record: &mut Record,
        due: Option<Due>,
        missed: u32,
        result: &Finished,
        (started, ended): (Timestamp, Timestamp),
    ) -> Result<(), Failure> {
        let outcome = Outcome::of(Some(result.exit));
        if let Some(due) = due {
            // What was stopped, or had somebody in its way, stays due.
            let again = outcome == Outcome::Locked && record.tries + 1 < TRIES;
            if again {
                record.tries += 1;
            } else if outcome != Outcome::Interrupted {
                record.handled = due.occurrence;
                record.missed += u64::from(missed);
                record.tries = 0;
            }
        }
        record.rows += result.swept.as_ref().map_or(0, |swept| swept.rows);
        record.end(Last {
            occurrence: due.map(|due| due.occurrence),
            started,
            ended,
            outcome,
            exit_code: Some(result.exit.number()),
            message: result.message.clone(),
        });
        self.records.write(record)?;
        self.write_metrics();
        Ok(())
    }

    async fn tell(
        &self,
        task: &Task<'a>,
        outcome: Outcome,
        result: &Finished,
        (started, ended): (Timestamp, Timestamp),
    ) {
        let took = seconds(ended.duration_since(started).as_secs_f64());
        let rows = result.swept.as_ref().map_or_else(String::new, |swept| {
            let stopped = match swept.stopped_by {
                Some(StoppedBy::MaxRows) => ", stopped by `max_rows`",
                Some(StoppedBy::MaxTime) => ", stopped by `max_time`",
                Some(StoppedBy::Interrupted) => ", stopped",
                None => "",
            };
            format!(", {}{stopped}", plural(swept.rows, "row deleted", "rows deleted"))
        });
        let line = format!("{} {}{rows}, {took}", task.name, outcome.word());
        if outcome.good() {
            self.context.out.done(&line);
        } else {
            self.context.out.warn(&line);
        }
        if let Some(check) = task.ping {
            let sign = if outcome.good() { Sign::Success } else { Sign::Fail };
            ping(self.context, &task.name, check, sign, &line).await;
        }
    }

    async fn clean(&self, cleanup: &Cleanup, cancel: &CancellationToken) -> Finished {
        let context = self.context;
        match cleanup::run(context, self.config, cleanup, context.now(), cancel).await {
            Ok(swept) => Finished {
                exit: match swept.stopped_by {
                    Some(StoppedBy::Interrupted) => Exit::Interrupted,
                    // The rest goes next time, as the limits mean it.
                    Some(StoppedBy::MaxRows | StoppedBy::MaxTime) | None => Exit::Done,
                },
                message: None,
                swept: Some(swept),
            },
            Err((swept, failure)) => {
                context.out.failure(&failure);
                Finished {
                    exit: failure.exit,
                    message: Some(failure.message),
                    swept: Some(swept),
                }
            }
        }
    }

    /// The arguments of a process of ours, before those of its command.
    pub(super) fn global_arguments(&self) -> Vec<String> {
        let global = &self.context.global;
        let mut arguments: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--config", self.config.file.display().to_string());
        flag("--env", self.config.environment.name.clone());
        if let Some(cluster) = &global.cluster {
            flag("--cluster", cluster.clone());
        }
        arguments.push("--no-input".to_owned());
        if global.json {
            arguments.push("--json".to_owned());
        }
        if self.context.out.quiet > 0 {
            arguments.push("--quiet".to_owned());
        }
        arguments
    }

    /// The arguments of the process that does a schedule's job.
    pub(crate) fn arguments(&self, schedule: &Schedule) -> Vec<String> {
        let mut arguments = self.global_arguments();
        arguments.extend(schedule.job.command().iter().map(|word| (*word).to_owned()));
        arguments.extend(schedule.args.iter().cloned());
        if schedule.job.asks() {
            arguments.extend([
                "--yes".to_owned(),
                "--reason".to_owned(),
                format!("schedule {}", schedule.name),
            ]);
        }
        arguments.extend(schedule.target.iter().cloned());
        arguments
    }

    async fn command(
        &self,
        schedule: &Schedule,
        cancel: &CancellationToken,
        started: impl FnOnce(Process) -> Result<(), Failure>,
    ) -> Finished {
        let failed = |failure: Failure| {
            self.context.out.failure(&failure);
            Finished {
                exit: failure.exit,
                message: Some(failure.message),
                swept: None,
            }
        };
        let executable = match self.context.executable() {
            Ok(executable) => executable,
            Err(failure) => return failed(failure),
        };
        // What the job prints is told, not our data.
        let stdout = rustix::io::dup(std::io::stderr()).map_or_else(|_| Stdio::null(), Stdio::from);
        let child = tokio::process::Command::new(executable)
            .args(self.arguments(schedule))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::inherit())
            // Ctrl-C is ours to pass on, once.
            .process_group(0)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return failed(Failure::io("could not start the job", &error)),
        };
        let process = child.id().and_then(Process::find);
        if let Some(process) = process
            && let Err(failure) = started(process)
        {
            self.context.out.failure(&failure);
        }
        let mut asked = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = cancel.cancelled(), if !asked => {
                    asked = true;
                    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
                    if let Some(pid) = pid {
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
            }
        };
        match status {
            Ok(status) => {
                let exit = status
                    .code()
                    .and_then(|code| Exit::from_number(u8::try_from(code).ok()?));
                let message = exit
                    .is_none()
                    .then(|| format!("its process {}", opsctl_platform::process::describe(status)));
                if let Some(message) = &message {
                    self.context.out.warn(format!("{}: {message}", schedule.name));
                }
                Finished {
                    exit: exit.unwrap_or(Exit::Failed),
                    message,
                    swept: None,
                }
            }
            Err(error) => failed(Failure::io("could not wait for the job", &error)),
        }
    }

    fn write_metrics(&self) {
        let mut names: Vec<String> = self.config.schedules.keys().cloned().collect();
        names.extend(self.config.cleanups.keys().map(|name| format!("cleanup:{name}")));
        names.sort();
        names.dedup();
        let records: Vec<(Option<&Schedule>, Record)> = names
            .iter()
            .filter_map(|name| Some((self.config.schedules.get(name), self.records.read(self.context, name)?)))
            .collect();
        if let Err(failure) = metrics::write(&self.metrics, &records, self.context.now()) {
            self.context
                .out
                .warn(format!("{}: {}", failure.message, failure.causes.join(": ")));
        }
    }
}

impl Jobs for Work<'_> {
    fn now(&self) -> Timestamp {
        self.context.now()
    }

    fn handled(&self, schedule: usize) -> Timestamp {
        let name = &self.schedules[schedule].name;
        self.records
            .seen(self.context, name)
            .map_or_else(|_| self.context.now(), |record| record.handled)
    }

    fn busy(&self, schedule: usize) -> bool {
        let record = self.records.read(self.context, &self.schedules[schedule].name);
        record
            .and_then(|record| record.running)
            .is_some_and(|running| running.alive(&self.context.host(), self.context.now()))
    }

    async fn run(&self, schedule: usize, due: Due, missed: u32, cancel: CancellationToken) -> Ended {
        let ended = match self.task(self.schedules[schedule]) {
            Ok(task) => self.perform(&task, Some(due), missed, cancel).await,
            Err(failure) => Err(failure),
        };
        match ended {
            Ok(ran) if ran.outcome == Outcome::Locked => Ended::Again(AGAIN),
            Ok(_) => Ended::Handled,
            Err(failure) => {
                self.context.out.failure(&failure);
                Ended::Again(AGAIN)
            }
        }
    }
}
