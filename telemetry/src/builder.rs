//! [`TelemetryBuilder`]: what can be set, from code, a file and the environment, and how the parts are put together.

pub(crate) mod env;
mod error;
pub(crate) mod settings;
pub(crate) mod units;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use self::env::Env;
pub use self::error::InitError;
use self::settings::Settings;
use crate::filter::Filter;
use crate::guard::Guard;
use crate::log::maker::LineMaker;
use crate::log::pretty::Pretty;
use crate::log::rate::RateLimit;
use crate::log::settings::LogFormat;
use crate::log::stdout::{self, Out};
use crate::log::waiting::{LineLane, Lines};
use crate::log::{LogLayer, Notices, Outputs};
use crate::loki::{Loki, LokiClient, Watchers};
use crate::metrics::Metrics;
use crate::otlp::Protocol;
use crate::redact::Redact;
use crate::scrape::MetricsServer;
use crate::sink::queue::{Queue, QueueLimits};
use crate::sink::{self, Alarm, Sink};
use crate::timed::Timed;
use crate::trace::{self, Traces};
use crate::{Inner, LogLevel, Telemetry, level};

/// Describes a service's telemetry; see [`Telemetry::builder`].
#[must_use]
pub struct TelemetryBuilder {
    settings: Settings,
    writer: Option<Box<dyn Write + Send>>,
    /// The first thing that could not be read.
    error: Option<InitError>,
}

impl std::fmt::Debug for TelemetryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelemetryBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl TelemetryBuilder {
    pub(crate) fn new(service: String) -> Self {
        let mut settings = Settings::default();
        settings.service.name = service;
        Self {
            settings,
            writer: None,
            error: None,
        }
    }

    /// Takes over settings, as they come from a file. Call it first: it replaces what was set before, but keeps the
    /// service's name when the settings have none.
    pub fn settings(mut self, settings: Settings) -> Self {
        let before = std::mem::replace(&mut self.settings, settings);
        if self.settings.service.name.is_empty() {
            self.settings.service.name = before.service.name;
        }
        self
    }

    /// Version of the service, in `build_info` and the spans' resource.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.settings.service.version = version.into();
        self
    }

    /// Name of the environment. Default `dev`.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.settings.environment = environment.into();
        self
    }

    /// Id of this instance, in the spans' resource.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.settings.service.instance = instance.into();
        self
    }

    /// Which lines and spans exist, as `info,orders=debug`. Default `info`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.settings.log.filter = filter.into();
        self
    }

    /// Share of the traces that begin here and are exported, 0 to 1. Default 0.1 in `production`, else 1, both lowered
    /// above 10,000 new traces a second.
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.settings.traces.ratio = Some(ratio);
        self
    }

    /// Whether a caller's decision to sample is followed. Public edges should say `false`. Default `true`.
    pub fn trust_remote_sampling(mut self, trust: bool) -> Self {
        self.settings.traces.trust_remote = trust;
        self
    }

    /// Replaces the values of fields whose name contains `part` (without regard to case), besides the usual ones.
    pub fn redact(mut self, part: impl Into<String>) -> Self {
        self.settings.log.redact_keys.push(part.into());
        self
    }

    /// Bytes of log lines that may wait for stdout. Default 16 MiB.
    pub fn log_queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.log.stdout.queue_bytes = bytes;
        self
    }

    /// Writes lines to `writer` instead of stdout, on a thread of its own. The sink is still called `stdout`.
    pub fn log_writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.writer = Some(Box::new(writer));
        self
    }

    /// Exports spans to a collector over OTLP, HTTP with protobuf (`http://host:4318`).
    pub fn otlp_http(mut self, endpoint: impl Into<String>) -> Self {
        self.settings.otlp.all.endpoint = Some(endpoint.into());
        self.settings.otlp.all.protocol = Some(Protocol::HttpProtobuf);
        self
    }

    /// Exports spans to a collector over OTLP, gRPC (`http://host:4317`).
    pub fn otlp_grpc(mut self, endpoint: impl Into<String>) -> Self {
        self.settings.otlp.all.endpoint = Some(endpoint.into());
        self.settings.otlp.all.protocol = Some(Protocol::Grpc);
        self
    }

    /// Writes spans to a file as lines of OTLP/JSON.
    pub fn traces_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.settings.traces.file.path = Some(path.into());
        self
    }

    /// Serves `/metrics` on an address of its own, besides [`Telemetry::metrics_router`].
    pub fn metrics_listen(mut self, addr: std::net::SocketAddr) -> Self {
        self.settings.metrics.listen = Some(addr);
        self
    }

    /// Pushes metrics to the OTLP endpoint too, so often.
    pub fn metrics_otlp(mut self, interval: Duration) -> Self {
        self.settings.metrics.otlp = true;
        self.settings.metrics.interval = interval;
        self
    }

    /// Sends lines to Loki (`http://loki:3100`).
    pub fn loki(mut self, url: impl Into<String>) -> Self {
        self.settings.loki.url = Some(url.into());
        self
    }

    /// Takes over the variables that [`Settings`] and its parts name. What is unset changes nothing; what cannot be
    /// understood is the error of [`TelemetryBuilder::init`].
    pub fn from_env(self) -> Self {
        self.read_env(|name| std::env::var_os(name))
    }

    /// The same with other variables than the process's.
    pub fn read_env(mut self, lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let env = Env::new(&lookup);
        let read = self.settings.read_env(&env);
        if let Err(error) = read {
            self.error.get_or_insert(error);
        }
        self
    }

    /// Sets everything up for the whole process: subscriber, panic hook, and the bridge from the crate `log` unless
    /// there is one. Works inside and outside a runtime; receivers that are not there change nothing.
    ///
    /// # Errors
    /// See [`InitError`]; a second call is [`InitError::AlreadyInitialised`].
    pub fn init(mut self) -> Result<Telemetry, InitError> {
        self.check()?;
        if tracing::dispatcher::has_been_set() {
            return Err(InitError::AlreadyInitialised);
        }
        let parts = self.start()?;
        let (layer, telemetry) = parts.into_layer(false)?;
        let subscriber = tracing_subscriber::registry().with(layer);
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            let _ = sink::close_all(&telemetry.inner.sinks, Duration::ZERO);
            return Err(InitError::AlreadyInitialised);
        }
        // Another logger is the application's own choice.
        let _ = tracing_log::LogTracer::init();
        telemetry.install_panic_hook();
        Ok(telemetry)
    }

    /// The layers alone, for an application that has a subscriber of its own:
    /// `registry().with(layers).with(mine).init()`. Our filter comes with them and holds for the whole subscriber; layers
    /// with filters of their own beside them lose nothing. The panic hook ([`Telemetry::install_panic_hook`]) and the
    /// bridge from the crate `log` are the application's choice.
    ///
    /// # Errors
    /// See [`InitError`].
    pub fn layers<S>(self) -> Result<(impl Layer<S> + Send + Sync + use<S>, Telemetry), InitError>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        self.start()?.into_layer(true)
    }

    /// Whether the settings make sense.
    fn check(&mut self) -> Result<(), InitError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.settings.check()?;
        let filter = level::parse(&self.settings.log.filter);
        filter.map(drop).map_err(|source| InitError::Filter { source })
    }

    /// Checks the settings and starts the sinks.
    fn start(mut self) -> Result<Parts, InitError> {
        self.check()?;
        let metrics = Metrics::new();
        let took = |name| metrics.histogram(catalogue::TELEMETRY_EXPORT_DURATION_SECONDS, [name]);
        let maker = self.maker();
        let own_writer = self.writer.is_some();
        let out = match self.writer.take() {
            Some(writer) => Out::Writer(writer),
            None => Out::stdout().map_err(|source| InitError::Thread { source })?,
        };
        let queue = line_queue(&maker, stdout::NAME, self.settings.log.stdout.limits());
        let outputs = Outputs {
            stdout: Some(Arc::clone(&queue)),
            pretty: self.pretty(own_writer),
            ..Outputs::default()
        };
        stdout::start(Arc::clone(&queue), Arc::clone(&maker), out, took(stdout::NAME))
            .map_err(|source| InitError::Thread { source })?;
        let mut parts = Parts {
            traces: Traces::none(),
            sinks: vec![queue],
            server: None,
            #[cfg(feature = "tracing-loki")]
            unmodified: crate::loki::CountedLayer::default(),
            builder: self,
            metrics,
            maker,
            outputs,
        };
        if let Err(error) = parts.start_remote() {
            let _ = sink::close_all(&parts.sinks, Duration::ZERO);
            return Err(error);
        }
        Ok(parts)
    }

    /// Nothing but what a test looks at: lines in memory, and spans that were made for it.
    pub(crate) fn captured(self, lines: Arc<Mutex<Vec<String>>>, traces: Traces) -> Parts {
        Parts {
            metrics: Metrics::new(),
            maker: self.maker(),
            outputs: Outputs {
                capture: Some(lines),
                ..Outputs::default()
            },
            sinks: Vec::new(),
            server: None,
            #[cfg(feature = "tracing-loki")]
            unmodified: crate::loki::CountedLayer::default(),
            traces,
            builder: self,
        }
    }

    fn maker(&self) -> Arc<LineMaker> {
        let Settings {
            service,
            environment,
            log,
            ..
        } = &self.settings;
        let redact = Redact::new(&log.redact_keys);
        Arc::new(LineMaker::new(&service.name, environment, redact))
    }

    fn pretty(&self, own_writer: bool) -> Option<Pretty> {
        let terminal = !own_writer && std::io::stdout().is_terminal();
        let development = matches!(self.settings.environment.as_str(), "dev" | "development");
        let pretty = match self.settings.log.format {
            LogFormat::Auto => terminal && development,
            LogFormat::Json => false,
            LogFormat::Pretty => true,
        };
        pretty.then_some(Pretty { colours: terminal })
    }
}

/// What was started, before it is put together.
pub(crate) struct Parts {
    builder: TelemetryBuilder,
    metrics: Metrics,
    maker: Arc<LineMaker>,
    outputs: Outputs,
    traces: Traces,
    sinks: Vec<Arc<dyn Sink>>,
    /// Serves `/metrics` alone, if it is asked for.
    server: Option<MetricsServer>,
    #[cfg(feature = "tracing-loki")]
    unmodified: crate::loki::CountedLayer,
}

impl Parts {
    /// What a sink says to a person.
    fn alarm(&self, sink: &'static str) -> Alarm {
        let notices = Notices::new(Arc::clone(&self.maker), self.outputs.clone());
        Arc::new(move |severity, message: &str| notices.tell(severity, message, &[("sink", &sink)]))
    }

    /// Starts the sinks that send to others.
    fn start_remote(&mut self) -> Result<(), InitError> {
        let Settings {
            service,
            environment,
            disabled,
            otlp,
            loki,
            ..
        } = &self.builder.settings;
        let resource = service.resource(environment);
        let redact = self.maker.redact.clone();
        let mut traces = self.builder.settings.traces.clone();
        traces.export &= !disabled;
        let alarm = self.alarm("otlp_traces");
        self.traces = trace::start(&traces, otlp, environment, &resource, redact, alarm)?;
        self.sinks.append(&mut self.traces.sinks);
        let mut metrics = self.builder.settings.metrics.clone();
        metrics.otlp &= !disabled;
        let started = metrics.start(otlp, &resource, &self.metrics)?;
        self.sinks.extend(started.sink);
        self.server = started.server;
        match (&loki.url, loki.client) {
            (None, _) => {}
            (Some(_), LokiClient::Own) => {
                let queue = line_queue(&self.maker, "loki", loki.queue());
                let took = self
                    .metrics
                    .histogram(catalogue::TELEMETRY_EXPORT_DURATION_SECONDS, ["loki"]);
                let watchers = Watchers {
                    alarm: self.alarm("loki"),
                    took: Some(took),
                    running: None,
                };
                let sink = Loki::start(loki, &service.name, environment, Arc::clone(&queue), watchers)?;
                self.sinks.push(Arc::new(sink));
                self.outputs.loki = Some(queue);
            }
            #[cfg(feature = "tracing-loki")]
            (Some(_), LokiClient::TracingLoki) => {
                let (layer, sink) = crate::loki::Unmodified::start(loki, &service.name, environment)?;
                self.sinks.push(Arc::new(sink));
                self.unmodified = layer;
            }
            #[cfg(not(feature = "tracing-loki"))]
            (Some(_), LokiClient::TracingLoki) => {
                let expected = "own, since this program was built without the feature tracing-loki";
                return Err(InitError::setting("telemetry.loki.client", "tracing-loki", expected));
            }
        }
        Ok(())
    }

    /// Puts the layers together: one filter over all, then the log, then spans. Filters inside would lose data;
    /// `guarded` keeps those of others from it.
    pub(crate) fn into_layer<S>(
        self,
        guarded: bool,
    ) -> Result<(impl Layer<S> + Send + Sync + use<S>, Telemetry), InitError>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let settings = &self.builder.settings;
        let filter = level::parse(&settings.log.filter).map_err(|source| InitError::Filter { source })?;
        let filter = Filter::new(filter);
        let rate = RateLimit::default();
        let base = settings.log.lines_per_second;
        rate.set(base);
        let limit = rate.clone();
        let lines_per_second = Timed::new("lines per second", base, move |value: &Option<u32>| {
            limit.set(*value);
            Ok(())
        });
        let log = LogLayer::new(Arc::clone(&self.maker), self.outputs.clone(), rate.clone());
        let metrics = self.metrics;
        metrics
            .gauge(
                catalogue::BUILD_INFO,
                [&settings.service.name, &settings.service.version],
            )
            .set(1.0);
        metrics.counter(catalogue::PANICS_TOTAL, []);
        crate::process::watch(&metrics);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            crate::runtime::watch(&metrics, "main", &runtime);
        }
        crate::scrape::watch_sinks(&metrics, log.volume(), rate.clone(), self.sinks.clone());
        let telemetry = Telemetry {
            inner: Arc::new(Inner {
                metrics,
                level: LogLevel::new(filter.handle(), settings.log.filter.clone()),
                rate,
                lines_per_second,
                notices: Notices::new(self.maker, self.outputs),
                sampling: self.traces.sampling,
                server: self.server,
                sinks: self.sinks,
                shutdown_timeout: settings.shutdown.timeout,
                report: OnceLock::new(),
                #[cfg(feature = "resilience")]
                policies: crate::policies::Policies::default(),
            }),
        };
        let guard = guarded.then_some(Guard);
        let layer = filter.and_then(guard).and_then(log).and_then(self.traces.layer);
        #[cfg(feature = "tracing-loki")]
        let layer = layer.and_then(self.unmodified);
        Ok((layer, telemetry))
    }
}

/// A queue of lines that tells of its own losses.
fn line_queue(maker: &Arc<LineMaker>, sink: &'static str, limits: QueueLimits) -> Arc<Queue<LineLane>> {
    let maker = Arc::clone(maker);
    let notice = move |lost, lines: &mut Lines| maker.lost(sink, lost, |line| lines.push(line));
    Queue::new(sink, limits, Some(Box::new(notice)))
}
