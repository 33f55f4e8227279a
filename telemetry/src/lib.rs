//! One-call set-up of logs, traces and metrics for a service.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use telemetry::Telemetry;
//!
//! let telemetry = Telemetry::builder("orders").version("1.4.0").from_env().init()?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/orders", axum::routing::get(|| async { "[]" }))
//!     .layer(telemetry.http_layer())
//!     .merge(telemetry.metrics_router());
//! telemetry.metrics().counter(catalogue::ORDERS_CREATED_TOTAL, []).inc();
//! # drop(app);
//! let report = telemetry.shutdown(Duration::from_secs(4)).await;
//! assert!(report.sinks.iter().all(|(_, counts)| counts.is_exact()));
//! # Ok(()) }
//! ```
//!
//! Logs are JSON lines on stdout, one per event, with trace and span ids; spans go to a collector when
//! `OTEL_EXPORTER_OTLP_ENDPOINT` is set; metrics are scraped from `/metrics`. It serves nothing by itself but the
//! [`Admin`] listener, and judges nothing: rules and boards are made elsewhere from `catalogue`.

mod admin;
#[cfg(any(feature = "health", feature = "resilience"))]
mod bridge;
mod builder;
mod capture;
pub mod client;
pub mod database;
mod filter;
mod guard;
mod level;
mod log;
pub mod loki;
pub mod metrics;
mod otlp;
mod panics;
#[cfg(feature = "resilience")]
mod policies;
#[cfg(feature = "resilience")]
mod policy_events;
mod process;
pub mod propagation;
mod red;
mod redact;
mod report;
mod runtime;
mod scrape;
pub mod server;
mod sink;
mod timed;
pub mod trace;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::log::Notices;
use crate::log::rate::RateLimit;
use crate::sink::Sink;
use crate::sink::queue::Severity;
use crate::timed::Timed;
pub use admin::{Admin, AdminAddr, AdminError, AdminServer};
#[cfg(feature = "resilience")]
pub use bridge::Figures;
pub use builder::settings::{ServiceSettings, Settings, ShutdownSettings};
pub use builder::{InitError, TelemetryBuilder};
pub use capture::{CapturedSpan, TestTelemetry};
pub use catalogue;
pub use client::{GrpcClientLayer, HttpClient, HttpClientLayer};
pub use database::{DatabaseCalls, Pool, PoolFigures};
pub use level::{FilterError, LevelStatus, LogLevel};
pub use log::settings::{LogFormat, LogSettings, StdoutSettings};
pub use metrics::{Counter, Exemplar, Gauge, Histogram, Metrics, MetricsSettings};
pub use otlp::{Client as OtlpClient, Compression, OtlpSettings, OtlpSignal, Protocol};
#[cfg(feature = "resilience")]
pub use policy_events::PolicyEvents;
pub use propagation::{CorrelationId, inject, inject_metadata, interceptor};
pub use report::{DropReason, RejectReason, Report, SinkCounts};
pub use scrape::MetricsServer;
pub use server::{GrpcLayer, GrpcType, HttpLayer, RpcNames};
pub use sink::queue::OnFull;
pub use trace::{SPAN_TARGET, Sampling, SpanExt, SpanIds, TracesSettings};

/// What [`TelemetryBuilder::init`] set up. Clones share. Call [`Telemetry::shutdown`] at the end: the last handle that
/// is dropped without it waits at most 200 ms for the log.
#[derive(Clone)]
#[must_use]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Metrics,
    level: LogLevel,
    rate: RateLimit,
    lines_per_second: Timed<Option<u32>>,
    notices: Notices,
    sampling: Sampling,
    server: Option<MetricsServer>,
    sinks: Vec<Arc<dyn Sink>>,
    shutdown_timeout: Duration,
    report: OnceLock<Report>,
    #[cfg(feature = "resilience")]
    policies: policies::Policies,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("level", &self.inner.level)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Starts the description of a service's telemetry.
    pub fn builder(service: impl Into<String>) -> TelemetryBuilder {
        TelemetryBuilder::new(service.into())
    }

    /// Telemetry that keeps lines and spans in memory, for the current thread and as long as the result lives.
    pub fn test() -> TestTelemetry {
        capture::start()
    }

    /// The registry.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// `GET /metrics`, for the service's HTTP port.
    pub fn metrics_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        scrape::router(self.inner.metrics.clone())
    }

    /// Where `/metrics` is served on an address of its own, if it is.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.inner.server.as_ref().map(MetricsServer::local_addr)
    }

    /// Span, trace context, correlation id and RED metrics for an axum router; put it on with `Router::layer` after the
    /// routes.
    pub fn http_layer(&self) -> HttpLayer {
        HttpLayer::on(&self.inner.metrics)
    }

    /// The same for a tonic server: `Server::builder().layer(telemetry.grpc_layer())`.
    pub fn grpc_layer(&self) -> GrpcLayer {
        GrpcLayer::on(&self.inner.metrics)
    }

    /// The filter of lines and spans.
    pub fn log_level(&self) -> &LogLevel {
        &self.inner.level
    }

    /// What is sampled, and its change for a time.
    pub fn sampling(&self) -> &Sampling {
        &self.inner.sampling
    }

    /// The admin listener with `/loglevel`, `/telemetry` (counts of the sinks) and `/policies` (the figures of every
    /// watched policy; `/policies/{name}/force` and `/policies/{name}/reset` change its breaker for a limited time); add
    /// the routes of others to it.
    pub fn admin(&self) -> Admin {
        let counts = self.clone();
        let router = axum::Router::new().route(
            "/telemetry",
            axum::routing::get(move || async move { axum::Json(counts.counts()) }),
        );
        let router = router.merge(trace::sampling::routes::router(self.inner.sampling.clone()));
        #[cfg(feature = "resilience")]
        let router = router.merge(self.inner.policies.router());
        Admin::new(self.inner.level.clone(), self.inner.lines_per_second.clone()).merge(router)
    }

    /// Exports a service's health as `health_*`.
    #[cfg(feature = "health")]
    pub fn watch_health(&self, health: &health::Health) {
        bridge::health(&self.inner.metrics, health);
    }

    /// Exports a policy as `circuit_breaker_*`, `retry_*`, `timeouts_total` and so on, and shows it on the admin
    /// listener's `/policies`.
    #[cfg(feature = "resilience")]
    pub fn watch_policy(&self, policy: &resilience::Pipeline) {
        let watched = policy.clone();
        self.watch(policy.name(), move || watched.snapshot());
        self.inner.policies.watch(policy);
    }

    /// Exports a policy that stands alone, by whatever reads its snapshot at each scrape:
    /// `telemetry.watch("passwords", move || bulkhead.snapshot())`. `name` is the series' label: take it from the program
    /// or its configuration, never from a request, and give no two policies of one kind the same.
    #[cfg(feature = "resilience")]
    pub fn watch<F: Figures>(&self, name: &str, read: impl Fn() -> F + Send + Sync + 'static) {
        bridge::watch(&self.inner.metrics, name, read);
    }

    /// A listener that tells what happens inside of policies in lines of the log and on the span of the call: see
    /// [`PolicyEvents`]. Give each policy a clone.
    #[cfg(feature = "resilience")]
    pub fn policy_events(&self) -> PolicyEvents {
        self.inner.policies.events()
    }

    /// What became of everything emitted so far, by sink. While a sink works, the difference is what waits or is on its
    /// way.
    pub fn counts(&self) -> Report {
        let sinks = self.inner.sinks.iter();
        Report {
            sinks: sinks.map(|sink| (sink.name(), sink.counts())).collect(),
        }
    }

    /// Sends and writes what waits, the log last, for at most `limit`; what is left then is counted as dropped, and
    /// so are lines and spans that come later. Works on any runtime. Later calls return the same report.
    pub async fn shutdown(&self, limit: Duration) -> Report {
        let (sender, report) = tokio::sync::oneshot::channel();
        let telemetry = self.clone();
        let thread = std::thread::Builder::new().name("telemetry-shutdown".to_owned());
        let closes = thread.spawn(move || {
            let _ = sender.send(telemetry.shutdown_blocking(limit));
        });
        match closes {
            Ok(_) => report.await.unwrap_or_else(|_| self.counts()),
            Err(_) => self.shutdown_blocking(limit),
        }
    }

    /// [`Telemetry::shutdown`] for code that does not run on a runtime.
    pub fn shutdown_blocking(&self, limit: Duration) -> Report {
        let report = self.inner.report.get_or_init(|| {
            self.inner.tell_suppressed();
            sink::close_all(&self.inner.sinks, limit)
        });
        report.clone()
    }

    /// [`Telemetry::shutdown`] with the limit of the settings (`shutdown.timeout`, 4 s by default).
    pub async fn close(&self) -> Report {
        self.shutdown(self.inner.shutdown_timeout).await
    }

    /// Counts panics as `panics_total` and writes each as an ERROR line, before what the hook so far does. Part of
    /// [`TelemetryBuilder::init`].
    pub fn install_panic_hook(&self) {
        panics::install(&self.inner.metrics, self.inner.sinks.clone());
    }
}

impl Inner {
    /// Writes what a rate limit left out and no line tells yet.
    fn tell_suppressed(&self) {
        for suppressed in self.rate.untold() {
            self.notices.tell_suppressed(suppressed);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.report.get().is_none() && !self.sinks.is_empty() {
            self.tell_suppressed();
            let message = "telemetry was dropped without a shutdown: what is not written within 200 ms may be lost";
            self.notices.tell(Severity::Warn, message, &[]);
            sink::flush_all(&self.sinks, Duration::from_millis(200));
        }
    }
}

/// Chooses ring as the process's TLS provider, if none is chosen yet. Needed before any reqwest client is made.
pub fn init_tls() {
    // An error says that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The crate's one wall clock: log lines carry the time of day.
fn wall_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The same in nanoseconds since the Unix epoch, for what needs it at every line; 0 before it, which no clock of a service
/// says.
fn wall_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).map_or(0, |seconds| seconds * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}
