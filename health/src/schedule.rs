//! [`Health`]: runs the checks in the background, keeps what they said, publishes the state of the service.
//! What answers mean is `state`; how probes are answered is `http_server` and `grpc`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::check::{Check, Failure, Outcome, Reason, Role, Spec};
use crate::live::Beat;
use crate::state::{Record, State, Status, aggregate, stale_after};

/// Checks that may run at one time in one service.
const CONCURRENT_CHECKS: usize = 8;
/// Interval of a check until its first success.
const STARTING_INTERVAL: Duration = Duration::from_secs(1);

/// The health of one service. Clones share; the checks stop with [`Health::stop`] or with the last clone.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
    tasks: Arc<Tasks>,
}

pub(crate) struct Inner {
    entries: Vec<Entry>,
    liveness: Vec<(String, Box<dyn Fn() -> Beat + Send + Sync>)>,
    state: watch::Sender<State>,
    life: Mutex<Life>,
    /// True once long streams must end, so that they cannot hold up the shutdown.
    closing: watch::Sender<bool>,
    pub(crate) services: Vec<String>,
}

#[derive(Default)]
struct Life {
    started: bool,
    /// Set by draining and stopping; no check changes the state after that.
    ended: bool,
}

struct Entry {
    name: String,
    check: Box<dyn Check>,
    interval: Duration,
    timeout: Duration,
    told: Mutex<Told>,
}

struct Told {
    record: Record,
    last_duration: Duration,
    last_answer: Instant,
    last_success: Option<jiff::Timestamp>,
}

/// Aborts the checks when the last handle goes.
struct Tasks(Mutex<Vec<JoinHandle<()>>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Health {
    /// Starts the description of a service's health.
    pub fn builder() -> HealthBuilder {
        HealthBuilder::default()
    }

    /// State of the service now.
    pub fn state(&self) -> State {
        *self.inner.state.borrow()
    }

    /// A receiver that sees every change of the state (the last value wins).
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    /// Waits until the state is one that `wanted` accepts, and returns it.
    pub async fn wait_until(&self, wanted: impl Fn(State) -> bool) -> State {
        let mut receiver = self.subscribe();
        match receiver.wait_for(|state| wanted(*state)).await {
            Ok(state) => *state,
            // Cannot happen while `self` holds the sender; a closed channel means that nothing changes any more.
            Err(_) => self.state(),
        }
    }

    /// Whether every liveness check says [`Beat::Alive`]. Runs them now.
    pub fn is_alive(&self) -> bool {
        self.inner.liveness.iter().all(|(_, check)| check() == Beat::Alive)
    }

    /// Says that the service is draining: not ready, still alive. For good.
    pub fn drain(&self) {
        self.end(State::Draining);
    }

    /// Says that the service has stopped and ends its checks. For good.
    pub fn stop(&self) {
        self.end(State::Stopped);
        self.inner.close_streams();
        for task in self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn end(&self, state: State) {
        let mut life = self.inner.life.lock().unwrap_or_else(PoisonError::into_inner);
        life.ended = true;
        self.inner.state.send_if_modified(|now| {
            let changed = *now != state && *now != State::Stopped;
            if changed {
                tracing::info!(from = now.as_str(), to = state.as_str(), "health state");
                *now = state;
            }
            changed
        });
    }

    /// Everything that is known, for the admin listener, metrics and tests.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let checks = self.inner.entries.iter().map(|entry| entry.snapshot(now)).collect();
        let liveness = self
            .inner
            .liveness
            .iter()
            .map(|(name, check)| LivenessSnapshot {
                name: name.clone(),
                alive: check() == Beat::Alive,
            })
            .collect();
        Snapshot {
            schema: "opsctl.health/v1",
            state: self.state(),
            checks,
            liveness,
        }
    }

    /// `/healthz /readyz /health /health/live /health/ready /health/startup` for the service's HTTP port: 200 or 503
    /// and a status word, no details.
    pub fn http_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        crate::http_server::public(self)
    }

    /// `/health/details` for the admin listener: the [`Snapshot`] as JSON.
    pub fn details_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        crate::http_server::details(self)
    }

    /// grpc.health.v1 for the service's gRPC server.
    pub fn grpc_service(&self) -> tonic_health::pb::health_server::HealthServer<crate::GrpcHealth> {
        tonic_health::pb::health_server::HealthServer::new(crate::GrpcHealth::new(self.clone()))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

/// Describes the health of a service; see [`Health::builder`].
#[derive(Default)]
pub struct HealthBuilder {
    specs: Vec<Spec>,
    liveness: Vec<(String, Box<dyn Fn() -> Beat + Send + Sync>)>,
    services: Vec<String>,
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBuilder")
            .field("checks", &self.specs.len())
            .finish_non_exhaustive()
    }
}

impl HealthBuilder {
    /// A check with its own times and rules.
    #[must_use]
    pub fn check(mut self, spec: Spec) -> Self {
        self.specs.push(spec);
        self
    }

    /// [`Spec::critical`] with the default times.
    #[must_use]
    pub fn critical(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::critical(name, check))
    }

    /// [`Spec::degraded`] with the default times.
    #[must_use]
    pub fn degraded(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::degraded(name, check))
    }

    /// [`Spec::informative`] with the default times.
    #[must_use]
    pub fn informative(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check(Spec::informative(name, check))
    }

    /// A synchronous question about the process itself; it is asked by every liveness probe and must not block.
    #[must_use]
    pub fn liveness<B: Into<Beat>>(
        mut self,
        name: impl Into<String>,
        check: impl Fn() -> B + Send + Sync + 'static,
    ) -> Self {
        self.liveness.push((name.into(), Box::new(move || check().into())));
        self
    }

    /// Name of a gRPC service whose health follows readiness, besides `""`, `readiness`, `liveness`, `startup`.
    #[must_use]
    pub fn grpc_name(mut self, service: impl Into<String>) -> Self {
        self.services.push(service.into());
        self
    }

    /// Starts the checks. Without a critical check the service is ready at once.
    ///
    /// # Errors
    /// A name twice, a timeout that is not less than its interval, or no tokio runtime.
    pub fn build(self) -> Result<Health, BuildError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let now = Instant::now();
        let mut entries: Vec<Entry> = Vec::with_capacity(self.specs.len());
        for spec in self.specs {
            if entries.iter().any(|entry| entry.name == spec.name) {
                return Err(BuildError::NameTwice { name: spec.name });
            }
            if spec.timeout >= spec.interval || spec.timeout.is_zero() {
                return Err(BuildError::Timeout {
                    name: spec.name,
                    timeout: spec.timeout,
                    interval: spec.interval,
                });
            }
            let record = Record::new(spec.role, spec.on_down, spec.down_after, spec.up_after);
            entries.push(Entry {
                name: spec.name,
                check: spec.check,
                interval: spec.interval,
                timeout: spec.timeout,
                told: Mutex::new(Told {
                    record,
                    last_duration: Duration::ZERO,
                    last_answer: now,
                    last_success: None,
                }),
            });
        }
        let inner = Arc::new(Inner {
            entries,
            liveness: self.liveness,
            state: watch::Sender::new(State::Starting),
            life: Mutex::new(Life::default()),
            closing: watch::Sender::new(false),
            services: self.services,
        });
        inner.publish();
        let permits = Arc::new(Semaphore::new(CONCURRENT_CHECKS));
        let mut tasks: Vec<_> = (0..inner.entries.len())
            .map(|index| runtime.spawn(run_check(Arc::clone(&inner), index, Arc::clone(&permits))))
            .collect();
        tasks.push(runtime.spawn(watch_staleness(Arc::clone(&inner))));
        Ok(Health {
            inner,
            tasks: Arc::new(Tasks(Mutex::new(tasks))),
        })
    }
}

/// Why a [`HealthBuilder`] was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two checks have one name.
    #[error("there are two checks named {name}")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A check could overlap with its next run.
    #[error("check {name}: its timeout {timeout:?} must be above zero and less than its interval {interval:?}")]
    Timeout {
        /// The check.
        name: String,
        /// Its timeout.
        timeout: Duration,
        /// Its interval.
        interval: Duration,
    },
    /// Checks are tasks.
    #[error("health checks need a tokio runtime")]
    NoRuntime,
}

/// Runs one check for ever: one run after the other, so that runs never overlap.
async fn run_check(inner: Arc<Inner>, index: usize, permits: Arc<Semaphore>) {
    let entry = &inner.entries[index];
    loop {
        let started;
        let outcome = {
            let Ok(_permit) = permits.acquire().await else { return };
            started = Instant::now();
            let run = std::panic::AssertUnwindSafe(async { entry.check.run().await }).catch_unwind();
            match tokio::time::timeout(entry.timeout, run).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_panic)) => Outcome::Fail(Failure::new(Reason::Panic, "the check panicked")),
                Err(_) => Outcome::Fail(Failure::new(
                    Reason::Timeout,
                    format!("no answer in {:?}", entry.timeout),
                )),
            }
        };
        let passed_once = entry.take(&outcome, started);
        inner.publish();
        let interval = if passed_once {
            entry.interval
        } else {
            entry.interval.min(STARTING_INTERVAL)
        };
        let spread: f64 = rand::random_range(0.8..=1.2);
        tokio::time::sleep(interval.mul_f64(spread)).await;
    }
}

/// Turns checks without an answer for too long into failures (a starved runtime, a full semaphore).
async fn watch_staleness(inner: Arc<Inner>) {
    let Some(period) = inner.entries.iter().map(|entry| entry.interval).min() else {
        return;
    };
    loop {
        tokio::time::sleep(period).await;
        let now = Instant::now();
        let mut changed = false;
        for entry in &inner.entries {
            let mut told = entry.told();
            if now.duration_since(told.last_answer) > stale_after(entry.interval, entry.timeout) {
                changed |= told.record.no_answer();
            }
        }
        if changed {
            inner.publish();
        }
    }
}

impl Inner {
    /// Computes and publishes the state.
    fn publish(&self) {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if life.ended {
            return;
        }
        let records: Vec<Record> = self.entries.iter().map(|entry| entry.told().record.clone()).collect();
        let state = aggregate(records.iter(), life.started);
        life.started |= state != State::Starting;
        self.state.send_if_modified(|now| {
            let changed = *now != state;
            if changed {
                tracing::info!(from = now.as_str(), to = state.as_str(), "health state");
                *now = state;
            }
            changed
        });
    }

    /// Ends the Watch streams.
    pub(crate) fn close_streams(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when streams must end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Whether the service was ready once.
    pub(crate) fn started(&self) -> bool {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).started
    }
}

impl Entry {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one answer; true when the check has passed at least once.
    fn take(&self, outcome: &Outcome, started: Instant) -> bool {
        let now = Instant::now();
        let mut told = self.told();
        told.last_duration = now.duration_since(started);
        told.last_answer = now;
        if !matches!(outcome, Outcome::Fail(_)) {
            told.last_success = Some(wall_clock());
        }
        let changed = told.record.answer(outcome);
        let (status, passed_once) = (told.record.status, told.record.passed_once);
        drop(told);
        match outcome {
            Outcome::Fail(failure) | Outcome::Warn(failure) if changed => {
                tracing::warn!(
                    check = self.name, status = status.as_str(), reason = ?failure.reason, detail = failure.detail,
                    "health check"
                );
            }
            Outcome::Fail(failure) | Outcome::Warn(failure) => {
                tracing::debug!(check = self.name, reason = ?failure.reason, detail = failure.detail, "health check");
            }
            Outcome::Pass if changed => {
                tracing::info!(check = self.name, status = status.as_str(), "health check");
            }
            Outcome::Pass => {}
        }
        passed_once
    }

    fn snapshot(&self, now: Instant) -> CheckSnapshot {
        let told = self.told();
        CheckSnapshot {
            name: self.name.clone(),
            role: told.record.role,
            status: told.record.status,
            reason: told.record.reason,
            failures_in_a_row: told.record.failures,
            runs: told.record.runs,
            transitions: told.record.transitions,
            duration_seconds: told.last_duration.as_secs_f64(),
            age_seconds: now.duration_since(told.last_answer).as_secs_f64(),
            last_success: told.last_success,
        }
    }
}

/// The crate's one wall clock: `last_success` is shown to people and scraped as Unix time.
fn wall_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Everything that is known of a service's health.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Snapshot {
    /// `opsctl.health/v1`.
    pub schema: &'static str,
    /// State of the service.
    pub state: State,
    /// Every check, in the order of the builder.
    pub checks: Vec<CheckSnapshot>,
    /// Every liveness check.
    pub liveness: Vec<LivenessSnapshot>,
}

/// What is known of one liveness check.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LivenessSnapshot {
    /// Its name.
    pub name: String,
    /// What it said just now.
    pub alive: bool,
}

/// What is known of one check.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CheckSnapshot {
    /// Its name.
    pub name: String,
    /// What it means for the service.
    pub role: Role,
    /// Settled status; `fail` with reason `pending` before the first answer.
    pub status: Status,
    /// Why it is not `pass`.
    pub reason: Option<Reason>,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Runs since the start.
    pub runs: u64,
    /// How often it turned to pass, warn, fail.
    pub transitions: [u64; 3],
    /// Time that the last run took.
    pub duration_seconds: f64,
    /// Time since the last answer.
    pub age_seconds: f64,
    /// When it last succeeded.
    pub last_success: Option<jiff::Timestamp>,
}
