//! Metrics to a collector by OTLP, each interval and at the end, from a thread of its own. What is counted in the sink's
//! account are points: one series at one moment. A push that fails is tried again until the next one is due, whose
//! points say all that the lost ones did; so nothing waits in memory, and the lost points are counted as dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Histogram, Metrics, wire};
use crate::InitError;
use crate::otlp::{Answer, Target, Transport};
use crate::report::{DropReason, RejectReason, SinkCounts};
use crate::sink::account::{Account, Fate};
use crate::sink::retry::Backoff;
use crate::sink::{Sink, thread};

/// The sink's name, in the report and as a label.
const NAME: &str = "otlp_metrics";
/// First and longest wait before a push is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);

/// The sink.
#[derive(Debug)]
pub(crate) struct Push {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The thread waits here between pushes,
    asked: Notify,
    /// and those who asked it for one here.
    served: Condvar,
}

#[derive(Debug, Default)]
struct State {
    account: Account,
    /// Pushes that were asked for, and the last of them that is over.
    asked: u64,
    served: u64,
    /// End of the shutdown's time, once it has begun.
    deadline: Option<Instant>,
}

impl Push {
    /// Starts the thread. The collector need not be there.
    pub(super) fn start(
        target: Target,
        resource: &[(&str, &str)],
        interval: Duration,
        metrics: &Metrics,
    ) -> Result<Self, InitError> {
        let shared = Arc::new(Shared::default());
        // A wrong certificate is told at once, and not by a thread that ends.
        crate::otlp::probe(|| Transport::new(&target))?;
        let pusher = Pusher {
            shared: Arc::clone(&shared),
            interval: interval.max(SHORTEST),
            resource: Resource {
                attributes: resource.iter().map(|(key, value)| wire::text(key, value)).collect(),
                ..Resource::default()
            },
            start: crate::wall_nanos(),
            took: metrics.histogram(catalogue::TELEMETRY_EXPORT_DURATION_SECONDS, [NAME]),
            metrics: metrics.clone(),
        };
        let run = move || async move {
            if let Ok(transport) = Transport::new(&target) {
                pusher.run(&transport).await;
            }
        };
        thread::spawn("telemetry-metrics", run).map_err(|source| InitError::Thread { source })?;
        Ok(Self { shared })
    }

    /// Has everything pushed now, and waits at most `limit` for the end of that.
    fn push_now(&self, limit: Duration, is_last: bool) {
        let mut state = self.shared.lock();
        if is_last {
            // A little is left for the thread to say how it went.
            state
                .deadline
                .get_or_insert_with(|| Instant::now() + limit.mul_f64(0.9));
        }
        state.asked += 1;
        let wanted = state.asked;
        self.shared.asked.notify_one();
        let waits = |state: &mut State| state.served < wanted;
        let waited = self.shared.served.wait_timeout_while(state, limit, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Sink for Push {
    fn name(&self) -> &'static str {
        NAME
    }

    fn counts(&self) -> SinkCounts {
        self.shared.lock().account.counts()
    }

    /// Nothing waits: points are made when they are sent.
    fn queued_bytes(&self) -> usize {
        0
    }

    fn flush(&self, limit: Duration) {
        self.push_now(limit, false);
    }

    fn close(&self, limit: Duration) -> SinkCounts {
        let is_open = self.shared.lock().deadline.is_none();
        if is_open {
            self.push_now(limit, true);
        }
        let mut state = self.shared.lock();
        state.account.seal(0);
        state.account.counts()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_asked(&self) -> bool {
        let state = self.lock();
        state.asked != state.served
    }

    fn settle(&self, points: u64, fate: Fate) {
        self.lock().account.settle(points, fate);
    }
}

/// The thread's part.
struct Pusher {
    shared: Arc<Shared>,
    metrics: Metrics,
    resource: Resource,
    interval: Duration,
    /// When the series began, in nanoseconds of Unix time.
    start: u64,
    took: Histogram,
}

impl Pusher {
    async fn run(&self, transport: &Transport) {
        let mut next = Instant::now() + self.interval;
        loop {
            while !self.shared.is_asked() && Instant::now() < next {
                let _ = tokio::time::timeout_at(next, self.shared.asked.notified()).await;
            }
            let (asked, deadline) = {
                let state = self.shared.lock();
                (state.asked, state.deadline)
            };
            next = Instant::now() + self.interval;
            self.push(transport, asked, deadline.unwrap_or(next)).await;
            self.shared.lock().served = asked;
            self.shared.served.notify_all();
            if deadline.is_some() {
                return;
            }
        }
    }

    /// Sends everything as it is now; in parts, where the collector finds it too large.
    async fn push(&self, transport: &Transport, asked: u64, until: Instant) {
        let all = self.read();
        self.shared
            .lock()
            .account
            .emit(all.iter().map(|(_, points)| points).sum());
        let mut parts = vec![all];
        while let Some(mut part) = parts.pop() {
            if self.persist(transport, &part, asked, until).await {
                continue;
            }
            if part.len() > 1 {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            } else {
                self.shared
                    .settle(points(&part), Fate::Rejected(RejectReason::TooLarge));
            }
        }
    }

    /// Sends a part until it is settled; false when it is too large. It is given up when its time is over, and when
    /// somebody asks for a newer one.
    async fn persist(&self, transport: &Transport, part: &[(Metric, u64)], asked: u64, until: Instant) -> bool {
        let message = self.message(part);
        let all = points(part);
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            let began = Instant::now();
            let answer = transport.send(message.clone(), Some(until)).await;
            self.took.observe_duration(began.elapsed());
            let after = match answer {
                Answer::Taken { rejected, .. } => {
                    let rejected = rejected.min(all);
                    self.shared.settle(rejected, Fate::Rejected(RejectReason::Partial));
                    self.shared.settle(all - rejected, Fate::Delivered);
                    return true;
                }
                Answer::Refused { reason, .. } => {
                    self.shared.settle(all, Fate::Rejected(reason));
                    return true;
                }
                Answer::TooLarge => return false,
                Answer::Later { after, .. } => after,
            };
            let again = Instant::now() + backoff.next(after, fastrand::f64());
            while Instant::now() < again.min(until) && self.shared.lock().asked == asked {
                let _ = tokio::time::timeout_at(again.min(until), self.shared.asked.notified()).await;
            }
            if Instant::now() >= until || self.shared.lock().asked != asked {
                self.shared.settle(all, Fate::Dropped(DropReason::Unreachable));
                return true;
            }
        }
    }

    /// Every metric that has series, with the number of its points.
    fn read(&self) -> Vec<(Metric, u64)> {
        self.metrics.read_hooks();
        let span = wire::Span {
            start: self.start,
            now: crate::wall_nanos(),
        };
        let exemplars = self.metrics.has_exemplars();
        let families = self.metrics.families().iter();
        families
            .filter_map(|family| wire::metric(family, span, exemplars))
            .collect()
    }

    fn message(&self, part: &[(Metric, u64)]) -> Bytes {
        let of_scope = ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: "telemetry".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics: part.iter().map(|(metric, _)| metric.clone()).collect(),
            ..ScopeMetrics::default()
        };
        let of_resource = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![of_scope],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![of_resource],
        };
        request.encode_to_vec().into()
    }
}

fn points(part: &[(Metric, u64)]) -> u64 {
    part.iter().map(|(_, points)| points).sum()
}

#[cfg(test)]
mod tests;
