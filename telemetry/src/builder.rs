//! [`TelemetryBuilder`]: what can be set, from code and from the environment, and how the parts are put together.

pub(crate) mod env;
mod error;

pub(crate) mod units;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanProcessor};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use self::error::InitError;
use crate::log::{LogLayer, Output, Queue};
use crate::metrics::Metrics;
use crate::otlp::{Otlp, OtlpConfig};
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
    pub(crate) ratio: f64,
    pub(crate) trust_remote: bool,
    pub(crate) redact: Vec<String>,
    pub(crate) queue_bytes: usize,
    pub(crate) otlp: Option<OtlpConfig>,
}

impl TelemetryBuilder {
    pub(crate) fn new(service: String) -> Self {
        Self {
            service,
            version: String::new(),
            environment: "dev".to_owned(),
            instance: None,
            filter: "info".to_owned(),
            ratio: 1.0,
            trust_remote: true,
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
            otlp: None,
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

    /// Share of traces to export when the caller has not decided, 0 to 1. Default 1 in `dev`, else what
    /// [`TelemetryBuilder::from_env`] says.
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio.clamp(0.0, 1.0);
        self
    }

    /// Whether a caller's decision to sample is followed. Public edges should say `false`. Default `true`.
    pub fn trust_remote_sampling(mut self, trust: bool) -> Self {
        self.trust_remote = trust;
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
        self.otlp = Some(OtlpConfig {
            endpoint: endpoint.into(),
            grpc: false,
            timeout: Duration::from_secs(10),
        });
        self
    }

    /// Exports spans to a collector over OTLP, gRPC (`http://host:4317`).
    pub fn otlp_grpc(mut self, endpoint: impl Into<String>) -> Self {
        self.otlp = Some(OtlpConfig {
            endpoint: endpoint.into(),
            grpc: true,
            timeout: Duration::from_secs(10),
        });
        self
    }

    /// Reads `OTEL_SERVICE_NAME`, `SERVICE_VERSION`, `INSTANCE_ID`, `APP_ENV`, `RUST_LOG`, `OTEL_SDK_DISABLED`,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_TIMEOUT`, `OTEL_TRACES_SAMPLER_ARG`. What is unset or cannot be
    /// read changes nothing. Without a ratio, `staging` samples 25 % and `production` 5 %.
    pub fn from_env(self) -> Self {
        self.read_lookup(|name| std::env::var(name).ok())
    }

    fn read_lookup(mut self, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
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
            self.ratio = match environment.as_str() {
                "staging" => 0.25,
                "production" => 0.05,
                _ => self.ratio,
            };
            self.environment = environment;
        }
        if let Some(filter) = lookup("RUST_LOG") {
            self.filter = filter;
        }
        if let Some(ratio) = lookup("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.parse::<f64>().ok()) {
            self.ratio = ratio.clamp(0.0, 1.0);
        }
        let disabled = lookup("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if let Some(endpoint) = lookup("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|_| !disabled) {
            let grpc = lookup("OTEL_EXPORTER_OTLP_PROTOCOL").is_some_and(|protocol| protocol == "grpc");
            let timeout = lookup("OTEL_EXPORTER_OTLP_TIMEOUT")
                .and_then(|text| text.parse().ok())
                .map_or(Duration::from_secs(10), Duration::from_millis);
            self.otlp = Some(OtlpConfig {
                endpoint,
                grpc,
                timeout,
            });
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
        let otlp = self
            .otlp
            .clone()
            .map(|config| Otlp::start(config, self.resource()))
            .transpose()?;
        let (subscriber, telemetry) =
            self.assemble(Output::Queue(Arc::clone(&queue)), Some(Arc::clone(&queue)), otlp, None)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadyInitialised)?;
        queue
            .start(std::io::stdout())
            .map_err(|source| InitError::Thread { source })?;
        crate::panics::install(telemetry.metrics(), &queue);
        Ok(telemetry)
    }

    fn resource(&self) -> Resource {
        let mut attributes = vec![KeyValue::new("deployment.environment.name", self.environment.clone())];
        if !self.version.is_empty() {
            attributes.push(KeyValue::new("service.version", self.version.clone()));
        }
        if let Some(instance) = &self.instance {
            attributes.push(KeyValue::new("service.instance.id", instance.clone()));
        }
        Resource::builder()
            .with_service_name(self.service.clone())
            .with_attributes(attributes)
            .build()
    }

    /// Puts the layers together: one filter over all, then the log, then spans. Filters inside would lose data.
    pub(crate) fn assemble(
        self,
        output: Output,
        queue: Option<Arc<Queue>>,
        otlp: Option<Otlp>,
        captured: Option<
            Box<
                dyn FnOnce(
                    opentelemetry_sdk::trace::TracerProviderBuilder,
                ) -> opentelemetry_sdk::trace::TracerProviderBuilder,
            >,
        >,
    ) -> Result<(impl tracing::Subscriber + Send + Sync + use<>, Telemetry), InitError> {
        let filter = level::parse(&self.filter).map_err(|source| InitError::Filter { source })?;
        let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
        let mut provider =
            SdkTracerProvider::builder().with_sampler(self.sampler(otlp.is_some() || captured.is_some()));
        if let Some(otlp) = otlp.clone() {
            provider = provider.with_span_processor(otlp);
        }
        if let Some(capture) = captured {
            provider = capture(provider);
        }
        let tracer = provider.with_resource(self.resource()).build().tracer("telemetry");
        let spans = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        let log = LogLayer::new(output, &self.service, &self.environment, self.redact);
        let metrics = Metrics::new();
        metrics
            .gauge(catalogue::BUILD_INFO, [&self.service, &self.version])
            .set(1.0);
        metrics.counter(catalogue::PANICS_TOTAL, []);
        crate::process::watch(&metrics);
        let levels = log.levels();
        crate::scrape::watch_sinks(&metrics, levels, queue.clone(), otlp.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(log).with(spans);
        let level = LogLevel::new(handle, self.filter);
        let telemetry = Telemetry {
            inner: Arc::new(Inner {
                metrics,
                level,
                queue,
                otlp,
                report: Mutex::new(None),
                #[cfg(feature = "resilience")]
                policies: crate::policies::Policies::default(),
            }),
        };
        Ok((subscriber, telemetry))
    }

    fn sampler(&self, exported: bool) -> Sampler {
        // Without anybody to send to, spans exist for their ids alone.
        let root = if exported {
            Sampler::TraceIdRatioBased(self.ratio)
        } else {
            Sampler::AlwaysOff
        };
        let mut sampler = Sampler::parent_based(root.clone());
        if !self.trust_remote {
            sampler = sampler.with_remote_parent_sampled(root);
        }
        Sampler::ParentBased(Box::new(sampler))
    }
}

/// A processor that is given to the provider in tests.
pub(crate) fn with_processor(
    processor: impl SpanProcessor + 'static,
) -> Box<dyn FnOnce(opentelemetry_sdk::trace::TracerProviderBuilder) -> opentelemetry_sdk::trace::TracerProviderBuilder>
{
    Box::new(move |builder| builder.with_span_processor(processor))
}
