//! [`TelemetryBuilder`]: what can be set, from code and from the environment, and how the parts are put together.

pub(crate) mod env;
mod error;

pub(crate) mod units;

use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use self::error::InitError;
use crate::log::{LogLayer, Output, Queue};
use crate::metrics::Metrics;
use crate::otlp::{OtlpSettings, Protocol};
use crate::redact::Redact;
use crate::trace::{self, Traces, TracesSettings};
use crate::{Inner, LogLevel, Telemetry, level};

/// Describes a service's telemetry; see [`Telemetry::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct TelemetryBuilder {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) environment: String,
    pub(crate) instance: Option<String>,
    pub(crate) filter: String,
    pub(crate) redact: Vec<String>,
    pub(crate) queue_bytes: usize,
    pub(crate) traces: TracesSettings,
    pub(crate) otlp: OtlpSettings,
}

impl TelemetryBuilder {
    pub(crate) fn new(service: String) -> Self {
        Self {
            service,
            version: String::new(),
            environment: "dev".to_owned(),
            instance: None,
            filter: "info".to_owned(),
            redact: [
                "authorization",
                "password",
                "passwd",
                "secret",
                "token",
                "cookie",
                "api_key",
                "apikey",
            ]
            .map(str::to_owned)
            .to_vec(),
            queue_bytes: 16 * 1024 * 1024,
            traces: TracesSettings::default(),
            otlp: OtlpSettings::default(),
        }
    }

    /// Version of the service, in `build_info` and the spans' resource.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Name of the environment. Default `dev`.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = environment.into();
        self
    }

    /// Id of this instance, in the spans' resource.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Which lines and spans exist, as `info,orders=debug`. Default `info`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = filter.into();
        self
    }

    /// Share of traces to export when the caller has not decided, 0 to 1. Default 0.1 in `production`, else 1, both
    /// lowered above 10,000 new traces per second.
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.traces.ratio = Some(ratio);
        self
    }

    /// Whether a caller's decision to sample is followed. Public edges should say `false`. Default `true`.
    pub fn trust_remote_sampling(mut self, trust: bool) -> Self {
        self.traces.trust_remote = trust;
        self
    }

    /// Replaces the values of fields whose name contains `part` (without regard to case), besides the usual ones.
    pub fn redact(mut self, part: impl AsRef<str>) -> Self {
        self.redact.push(part.as_ref().to_ascii_lowercase());
        self
    }

    /// Bytes of log lines that may wait for stdout. Default 16 MiB.
    pub fn log_queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Exports spans to a collector over OTLP, HTTP with protobuf (`http://host:4318`).
    pub fn otlp_http(mut self, endpoint: impl Into<String>) -> Self {
        self.otlp.all.endpoint = Some(endpoint.into());
        self.otlp.all.protocol = Some(Protocol::HttpProtobuf);
        self
    }

    /// Exports spans to a collector over OTLP, gRPC (`http://host:4317`).
    pub fn otlp_grpc(mut self, endpoint: impl Into<String>) -> Self {
        self.otlp.all.endpoint = Some(endpoint.into());
        self.otlp.all.protocol = Some(Protocol::Grpc);
        self
    }

    /// Writes spans to a file as lines of OTLP/JSON.
    pub fn traces_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.traces.file.path = Some(path.into());
        self
    }

    /// Reads `OTEL_SERVICE_NAME`, `SERVICE_VERSION`, `INSTANCE_ID`, `APP_ENV`, `RUST_LOG`, `OTEL_SDK_DISABLED`,
    /// `OTEL_EXPORTER_OTLP_…`, `OTEL_TRACES_…`, `TRACES_…`. What is unset or cannot be read changes nothing.
    pub fn from_env(mut self) -> Self {
        let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(name) = lookup("OTEL_SERVICE_NAME") {
            self.service = name;
        }
        if let Some(version) = lookup("SERVICE_VERSION") {
            self.version = version;
        }
        if let Some(instance) = lookup("INSTANCE_ID") {
            self.instance = Some(instance);
        }
        if let Some(environment) = lookup("APP_ENV") {
            self.environment = environment;
        }
        if let Some(filter) = lookup("RUST_LOG") {
            self.filter = filter;
        }
        let raw = |name: &str| std::env::var_os(name);
        let env = env::Env::new(&raw);
        let _ = self.traces.read_env(&env);
        let _ = self.otlp.read_env(&env);
        if lookup("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.traces.export = false;
        }
        self
    }

    /// Sets everything up for the whole process. Works inside and outside a runtime; a collector that is not there
    /// changes nothing.
    ///
    /// # Errors
    /// See [`InitError`]; a second call is [`InitError::AlreadyInitialised`].
    pub fn init(self) -> Result<Telemetry, InitError> {
        if tracing::dispatcher::has_been_set() {
            return Err(InitError::AlreadyInitialised);
        }
        let queue = Queue::new(self.queue_bytes);
        let mut resource = vec![
            ("service.name", self.service.as_str()),
            ("deployment.environment.name", self.environment.as_str()),
        ];
        if !self.version.is_empty() {
            resource.push(("service.version", &self.version));
        }
        if let Some(instance) = &self.instance {
            resource.push(("service.instance.id", instance));
        }
        let redact = Redact::new(&self.redact);
        let traces = trace::start(&self.traces, &self.otlp, &self.environment, &resource, redact)?;
        let (subscriber, telemetry) =
            self.assemble(Output::Queue(Arc::clone(&queue)), Some(Arc::clone(&queue)), traces)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadyInitialised)?;
        queue
            .start(std::io::stdout())
            .map_err(|source| InitError::Thread { source })?;
        crate::panics::install(telemetry.metrics(), &queue);
        Ok(telemetry)
    }

    /// Puts the layers together: one filter over all, then the log, then spans. Filters inside would lose data.
    pub(crate) fn assemble(
        self,
        output: Output,
        queue: Option<Arc<Queue>>,
        traces: Traces,
    ) -> Result<(impl tracing::Subscriber + Send + Sync + use<>, Telemetry), InitError> {
        let filter = level::parse(&self.filter).map_err(|source| InitError::Filter { source })?;
        let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
        let log = LogLayer::new(output, &self.service, &self.environment, self.redact);
        let metrics = Metrics::new();
        metrics
            .gauge(catalogue::BUILD_INFO, [&self.service, &self.version])
            .set(1.0);
        metrics.counter(catalogue::PANICS_TOTAL, []);
        crate::process::watch(&metrics);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            crate::runtime::watch(&metrics, "main", &runtime);
        }
        let levels = log.levels();
        crate::scrape::watch_sinks(&metrics, levels, queue.clone(), traces.sinks.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(log).with(traces.layer);
        let level = LogLevel::new(handle, self.filter);
        let telemetry = Telemetry {
            inner: Arc::new(Inner {
                metrics,
                level,
                queue,
                sinks: traces.sinks,
                sampling: traces.sampling,
                report: Mutex::new(None),
                #[cfg(feature = "resilience")]
                policies: crate::policies::Policies::default(),
            }),
        };
        Ok((subscriber, telemetry))
    }
}
