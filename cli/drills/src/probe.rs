//! The probe: what a drill sends to a service when nobody else does, counted apart from everything else. It says nothing
//! about whether what came back is good enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opsctl_load::{LoadError, Outcome, Plan, Rate, Request, RequestSource, Silent, Summary, Target};
use opsctl_proxy_control::PROBE_HEADER;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::figures::Figures;

/// The longest that a probe runs by itself, should nobody stop it.
const LONGEST: Duration = Duration::from_hours(2);
/// Connections that a probe opens at most.
const CONNECTIONS: usize = 32;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// An `http://` URL of the service's front door.
    pub url: String,
    /// The name that the service is asked for by, when the URL has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How often, such as `20/s`.
    pub rate: String,
}

/// What a probe came to, from its own point of view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What was sent.
    pub spec: ProbeSpec,
    /// Requests that came due.
    pub scheduled: u64,
    /// Answered, and not with an error.
    pub succeeded: u64,
    /// Answered with an error or not at all.
    pub failed: u64,
    /// Median response time.
    pub p50_seconds: f64,
    /// 95th percentile of the response time.
    pub p95_seconds: f64,
    /// 99th percentile of the response time.
    pub p99_seconds: f64,
    /// Different errors in the order in which they first came, with how often.
    pub errors: Vec<String>,
    /// Why the figures say more about this machine than about the service; empty when they do not.
    pub generator_bound: Vec<String>,
}

/// A probe that runs.
pub struct Probe {
    spec: ProbeSpec,
    counts: Arc<Counts>,
    cancel: CancellationToken,
    task: JoinHandle<Result<Summary, LoadError>>,
}

impl Probe {
    /// Starts sending on behalf of the run `run`. An answer slower than `slow` counts as slow, a status of 500 and above
    /// as an error.
    pub fn start(spec: &ProbeSpec, run: &str, slow: Option<Duration>) -> Result<Self, LoadError> {
        let mut target: Target = spec.url.parse()?;
        if let Some(host) = &spec.host {
            target = target.called(host);
        }
        let rate: Rate = spec.rate.parse()?;
        let request = Request::get(target.path())?.header(PROBE_HEADER, run)?;
        let counts = Arc::new(Counts::default());
        let source = Source {
            request,
            slow,
            counts: Arc::clone(&counts),
        };
        let mut plan = Plan::new(target, rate, LONGEST, Arc::new(source));
        plan.connections = CONNECTIONS;
        let cancel = CancellationToken::new();
        let task = tokio::spawn(opsctl_load::run(plan, Arc::new(Silent), cancel.clone()));
        Ok(Self {
            spec: spec.clone(),
            counts,
            cancel,
            task,
        })
    }

    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        Figures {
            requests: self.counts.requests.load(Ordering::Relaxed),
            errors: self.counts.errors.load(Ordering::Relaxed),
            slow: self.counts.slow.load(Ordering::Relaxed),
        }
    }

    /// From now on answers that take at least this long are counted apart: see [`Probe::marked`].
    pub fn mark(&self, limit: Duration) {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        self.counts.mark_micros.store(micros, Ordering::Relaxed);
    }

    /// How many answers took as long as the mark.
    pub fn marked(&self) -> u64 {
        self.counts.marked.load(Ordering::Relaxed)
    }

    /// Stops it and sums it up. Absent when the generator did not come up or broke.
    pub async fn stop(mut self) -> Option<ProbeReport> {
        self.cancel.cancel();
        let summary = (&mut self.task).await.ok()?.ok()?;
        // What was under way at the end says nothing about the service.
        let interrupted = summary
            .failures
            .get(&opsctl_load::FailureKind::Interrupted)
            .copied()
            .unwrap_or(0);
        let scheduled = summary.scheduled.saturating_sub(interrupted);
        Some(ProbeReport {
            spec: self.spec.clone(),
            scheduled,
            succeeded: summary.succeeded,
            failed: scheduled.saturating_sub(summary.succeeded),
            p50_seconds: summary.response.p50_seconds,
            p95_seconds: summary.response.p95_seconds,
            p99_seconds: summary.response.p99_seconds,
            errors: summary
                .errors
                .iter()
                .filter(|error| error.kind != Some(opsctl_load::FailureKind::Interrupted))
                .map(|error| format!("{} ({} times)", error.message, error.count))
                .collect(),
            generator_bound: summary.generator.reasons,
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
    slow: AtomicU64,
    mark_micros: AtomicU64,
    marked: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            requests: zero(),
            errors: zero(),
            slow: zero(),
            mark_micros: AtomicU64::new(u64::MAX),
            marked: zero(),
        }
    }
}

struct Source {
    request: Request,
    slow: Option<Duration>,
    counts: Arc<Counts>,
}

impl RequestSource for Source {
    fn request(&self, _seq: u64) -> Request {
        self.request.clone()
    }

    /// A probe asks whether the service answers; that it may not like the question is not its failure.
    fn is_success(&self, status: u16) -> bool {
        status < 500
    }

    fn observe(&self, _seq: u64, outcome: &Outcome<'_>) {
        let (error, slow) = match outcome {
            Outcome::Completed(response) => {
                let micros = response.response_time.as_micros();
                let marked = micros >= u128::from(self.counts.mark_micros.load(Ordering::Relaxed));
                self.counts.marked.fetch_add(u64::from(marked), Ordering::Relaxed);
                (
                    !self.is_success(response.status),
                    self.slow.is_some_and(|limit| response.response_time > limit),
                )
            }
            Outcome::Failed(failure) if failure.kind == opsctl_load::FailureKind::Interrupted => return,
            Outcome::Failed(_) | Outcome::Dropped => (true, true),
        };
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts.errors.fetch_add(u64::from(error), Ordering::Relaxed);
        self.counts
            .slow
            .fetch_add(u64::from(slow && self.slow.is_some()), Ordering::Relaxed);
    }
}
