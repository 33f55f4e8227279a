//! Runs a plan: one thread with a runtime of its own notices arrivals when they are due and hands them to connections.
//! Not the counting and not the wire format.
//!
//! A [`Job`] is one arrival that has not ended. It settles itself as interrupted when it is dropped, so the
//! accounting holds however the run ends.

mod connection;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pacer::Pacer;
use crate::plan::{LoadError, Plan, Progress};
use crate::record::{End, Recorder};
use crate::request::{Failure, FailureKind, Outcome, Response};
use crate::summary::Summary;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// After so many arrivals without a pause, connections get a turn.
const BURST: u32 = 64;

/// Runs the plan to its end, or until `cancel`, and sums it up. Dropping the future cancels as well.
///
/// The generator has a thread of its own, so neither the caller's runtime nor its other work delays arrivals.
///
/// # Errors
/// [`LoadError`] when the run could not start. A target that cannot be reached is no error but counted.
pub async fn run(plan: Plan, progress: Arc<dyn Progress>, cancel: CancellationToken) -> Result<Summary, LoadError> {
    if plan.connections == 0 {
        return Err(LoadError::InvalidPlan("at least one connection is needed"));
    }
    if plan.duration.is_zero() {
        return Err(LoadError::InvalidPlan("the duration must be more than zero"));
    }
    if plan.timeouts.connect.is_zero() || plan.timeouts.response.is_zero() {
        return Err(LoadError::InvalidPlan("time-outs must be more than zero"));
    }
    let addresses = resolve(&plan).await?;
    let cancel = cancel.child_token();
    let _cancel_on_drop = cancel.clone().drop_guard();
    let (result, outcome) = oneshot::channel();
    std::thread::Builder::new()
        .name("opsctl-load".to_owned())
        .spawn(move || {
            let _ = result.send(generate(plan, addresses, progress, &cancel));
        })
        .map_err(LoadError::Start)?;
    outcome.await.unwrap_or(Err(LoadError::Stopped))
}

async fn resolve(plan: &Plan) -> Result<Vec<SocketAddr>, LoadError> {
    let host = plan.target.host();
    let addresses: Vec<_> = tokio::net::lookup_host((host, plan.target.port()))
        .await
        .map_err(|source| LoadError::Resolve {
            host: host.to_owned(),
            source,
        })?
        .collect();
    if addresses.is_empty() {
        return Err(LoadError::Resolve {
            host: host.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        });
    }
    Ok(addresses)
}

fn generate(
    plan: Plan,
    addresses: Vec<SocketAddr>,
    progress: Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Summary, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Start)?;
    let local = LocalSet::new();
    let shared = Rc::new(Shared {
        start: Cell::new(now_in(&runtime)),
        addresses,
        next_address: Cell::new(0),
        state: RefCell::new(State {
            idle: Vec::new(),
            queue: VecDeque::new(),
            open: 0,
            recorder: Recorder::new(),
        }),
        settled: Notify::new(),
        plan,
    });
    let cpu_before = thread_cpu();
    let cancelled = local.block_on(&runtime, async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(true),
            result = drive(&shared, &*progress) => result.map(|()| false),
        }
    });
    // Whatever is queued was never sent; whatever connections still hold is interrupted by their end.
    shared.drop_queue();
    drop(local);
    let elapsed = runtime.block_on(async { shared.start.get().elapsed() });
    let cancelled = cancelled.map_err(LoadError::Start)?;
    let cpu = thread_cpu()
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    let connections = shared.state.borrow().open;
    progress.update(
        &shared
            .state
            .borrow()
            .recorder
            .snapshot(&shared.plan, elapsed, connections),
    );
    let recorder = std::mem::replace(&mut shared.state.borrow_mut().recorder, Recorder::new());
    Ok(recorder.summary(&shared.plan, elapsed, cpu, cancelled))
}

fn now_in(runtime: &tokio::runtime::Runtime) -> Instant {
    runtime.block_on(async { Instant::now() })
}

/// Notices arrivals, then waits until all have ended.
async fn drive(shared: &Rc<Shared>, progress: &dyn Progress) -> std::io::Result<()> {
    let mut pacer = Pacer::new()?;
    let start = Instant::now();
    shared.start.set(start);
    let plan = &shared.plan;
    let arrivals = plan.rate.arrivals_in(plan.duration);
    let mut next_progress = start + PROGRESS_EVERY;
    let mut burst = 0;
    for seq in 0..arrivals {
        let due = plan.rate.due(seq);
        let mut now = Instant::now();
        if now < start + due {
            burst = 0;
            while next_progress < start + due {
                pacer.wait(next_progress, now).await?;
                now = Instant::now();
                shared.tell(progress, now);
                next_progress += PROGRESS_EVERY;
            }
            pacer.wait(start + due, now).await?;
            now = Instant::now();
        } else {
            burst += 1;
            if burst >= BURST {
                burst = 0;
                tokio::task::yield_now().await;
                now = Instant::now();
            }
        }
        shared.arrive(seq, due, now);
    }
    // Every request is bounded by its time-outs, so this ends; the bound is for a bug in that sentence.
    let last = Instant::now() + plan.timeouts.response * 2 + plan.timeouts.connect + Duration::from_secs(5);
    while shared.in_flight() > 0 {
        tokio::select! {
            () = shared.settled.notified() => {}
            () = tokio::time::sleep_until(next_progress.min(last)) => {
                let now = Instant::now();
                shared.expire_queue(now);
                shared.tell(progress, now);
                next_progress = now + PROGRESS_EVERY;
                if now >= last {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// What the generator's tasks share; they all run on its thread.
struct Shared {
    plan: Plan,
    addresses: Vec<SocketAddr>,
    next_address: Cell<usize>,
    start: Cell<Instant>,
    state: RefCell<State>,
    /// Told when no arrival is under way any more.
    settled: Notify,
}

struct State {
    /// Connections without a job; the last one used is the first to be used again, so that spare ones stay cold.
    idle: Vec<Rc<Slot>>,
    /// Arrivals that wait for a connection.
    queue: VecDeque<Job>,
    /// Connections open or opening.
    open: usize,
    recorder: Recorder,
}

/// Where an idle connection finds its next job.
#[derive(Default)]
struct Slot {
    job: RefCell<Option<Job>>,
    filled: Notify,
}

/// One arrival that has not ended.
struct Job {
    seq: u64,
    /// When it was due, from the start of the run.
    due: Duration,
    settled: bool,
    shared: Rc<Shared>,
}

impl Shared {
    fn arrive(self: &Rc<Self>, seq: u64, due: Duration, now: Instant) {
        let late = now.saturating_duration_since(self.start.get() + due);
        let job = Job {
            seq,
            due,
            settled: false,
            shared: Rc::clone(self),
        };
        let mut state = self.state.borrow_mut();
        state.recorder.arrival(due, late);
        if let Some(slot) = state.idle.pop() {
            *slot.job.borrow_mut() = Some(job);
            slot.filled.notify_one();
        } else if state.open < self.plan.connections {
            state.open += 1;
            drop(state);
            tokio::task::spawn_local(connection::serve(Rc::clone(self), job));
        } else {
            state.queue.push_back(job);
            drop(state);
            self.expire_queue(now);
        }
    }

    /// The next arrival that waits for a connection and has not waited too long.
    fn next_job(&self, now: Instant) -> Option<Job> {
        self.expire_queue(now);
        self.state.borrow_mut().queue.pop_front()
    }

    /// Drops the arrivals that waited longer for a connection than a response may take.
    fn expire_queue(&self, now: Instant) {
        loop {
            let mut state = self.state.borrow_mut();
            let overdue = state.queue.front().is_some_and(|job| {
                now.saturating_duration_since(self.start.get() + job.due) > self.plan.timeouts.response
            });
            let job = if overdue { state.queue.pop_front() } else { None };
            drop(state);
            match job {
                Some(job) => job.dropped(now),
                None => return,
            }
        }
    }

    fn drop_queue(&self) {
        let now = self
            .state
            .try_borrow_mut()
            .map(|mut state| std::mem::take(&mut state.queue));
        for job in now.unwrap_or_default() {
            let at = self.start.get() + job.due;
            job.dropped(at);
        }
    }

    fn in_flight(&self) -> u64 {
        let now = Duration::ZERO;
        self.state.borrow().recorder.snapshot(&self.plan, now, 0).in_flight
    }

    fn tell(&self, progress: &dyn Progress, now: Instant) {
        let state = self.state.borrow();
        let elapsed = now.saturating_duration_since(self.start.get());
        progress.update(&state.recorder.snapshot(&self.plan, elapsed, state.open));
    }
}

impl Job {
    fn due_at(&self) -> Instant {
        self.shared.start.get() + self.due
    }

    fn completed(mut self, status: u16, body: &[u8], body_bytes: u64, sent: Instant, now: Instant) {
        let response = Response {
            status,
            body,
            response_time: now.saturating_duration_since(self.due_at()),
            service_time: now.saturating_duration_since(sent),
        };
        let end = End::Completed {
            status,
            success: self.shared.plan.source.is_success(status),
            response: response.response_time,
            service: response.service_time,
            body_bytes,
        };
        self.settle(now, &end, &Outcome::Completed(response));
    }

    fn failed(mut self, failure: &Failure, now: Instant) {
        self.settle(now, &End::Failed(failure), &Outcome::Failed(failure));
    }

    fn dropped(mut self, now: Instant) {
        self.settle(now, &End::Dropped, &Outcome::Dropped);
    }

    fn settle(&mut self, now: Instant, end: &End<'_>, outcome: &Outcome<'_>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let at = now.saturating_duration_since(self.shared.start.get());
        self.shared.state.borrow_mut().recorder.end(self.due, at, end);
        self.shared.plan.source.observe(self.seq, outcome);
        if self.shared.in_flight() == 0 {
            self.shared.settled.notify_one();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let failure = Failure {
            kind: FailureKind::Interrupted,
            message: "the run ended while the request was under way".to_owned(),
        };
        let now = Instant::now();
        self.settle(now, &End::Failed(&failure), &Outcome::Failed(&failure));
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "not every system tells it")]
fn thread_cpu() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}

#[cfg(not(target_os = "linux"))]
fn thread_cpu() -> Option<Duration> {
    None
}
