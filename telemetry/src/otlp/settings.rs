//! Where OTLP goes and how: settings for all signals, and for one that differs. Source of the variables and of which wins:
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::InitError;
use crate::builder::env::Env;
use crate::builder::units;

/// `telemetry.otlp`: what holds for all signals, and what differs for one.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// Who speaks with the collector. Default our own client.
    pub client: Client,
    /// For all signals. The endpoint is a base: `/v1/traces` and so on are added to it over HTTP.
    pub all: OtlpSignal,
    /// For traces. The endpoint is used as it stands.
    pub traces: OtlpSignal,
    /// For metrics. The endpoint is used as it stands.
    pub metrics: OtlpSignal,
}

/// What can be said of one signal; what is not said is as for all.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSignal {
    /// `http://host:4318`, or `http://host:4317` for gRPC. `https` for TLS. Nothing is sent without one.
    pub endpoint: Option<String>,
    /// Default `http/protobuf`.
    pub protocol: Option<Protocol>,
    /// How long one request may take. Default 10 s.
    #[serde(deserialize_with = "optional_duration")]
    pub timeout: Option<Duration>,
    /// Headers of each request, as a collector behind a gateway wants.
    pub headers: BTreeMap<String, String>,
    /// Default `none`.
    pub compression: Option<Compression>,
    /// PEM file of the certificates that the collector's is checked with, besides the usual ones.
    pub certificate: Option<PathBuf>,
    /// PEM file of our certificate, for a collector that wants one.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
}

/// Who speaks OTLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Client {
    /// Ours, whose account is exact.
    #[default]
    #[serde(rename = "own")]
    Own,
    /// The exporter of the crate of that name, unmodified, for traces; behind the feature of that name. Its account has
    /// `unknown` where its answers hide what became of a span.
    #[serde(rename = "opentelemetry-otlp")]
    OpentelemetryOtlp,
}

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Protocol {
    /// Over HTTP, binary protobuf.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// Over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The method of gRPC.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Traces => "telemetry.otlp.traces",
            Self::Metrics => "telemetry.otlp.metrics",
        }
    }
}

/// Everything that is known of where one signal goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) signal: Signal,
    pub(crate) client: Client,
    /// Over HTTP with the path.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    pub(crate) timeout: Duration,
    pub(crate) headers: HeaderMap,
    pub(crate) compression: Compression,
    certificate: Option<PathBuf>,
    identity: Option<[PathBuf; 2]>,
}

impl OtlpSettings {
    /// Reads `OTLP_CLIENT`, `OTEL_EXPORTER_OTLP_…`, `OTEL_EXPORTER_OTLP_TRACES_…` and `OTEL_EXPORTER_OTLP_METRICS_…`, and
    /// `OTEL_BSP_EXPORT_TIMEOUT` where nothing else says how long an export of spans may take.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        let client = |text: &str| match text {
            "own" => Some(Client::Own),
            "opentelemetry-otlp" => Some(Client::OpentelemetryOtlp),
            _ => None,
        };
        if let Some(client) = env.read("OTLP_CLIENT", "own or opentelemetry-otlp", client)? {
            self.client = client;
        }
        self.all.read_env(env, "OTEL_EXPORTER_OTLP_")?;
        self.traces.read_env(env, "OTEL_EXPORTER_OTLP_TRACES_")?;
        self.metrics.read_env(env, "OTEL_EXPORTER_OTLP_METRICS_")?;
        let export = env.duration_ms("OTEL_BSP_EXPORT_TIMEOUT")?;
        if self.all.timeout.is_none() {
            self.traces.timeout = self.traces.timeout.or(export);
        }
        Ok(())
    }

    /// Where a signal goes; `None` when no endpoint is known.
    pub(crate) fn target(&self, signal: Signal) -> Result<Option<Target>, InitError> {
        let own = match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
        };
        let all = &self.all;
        let protocol = own.protocol.or(all.protocol).unwrap_or_default();
        let endpoint = match (&own.endpoint, &all.endpoint) {
            (None, Some(base)) if protocol == Protocol::HttpProtobuf => {
                format!("{}{}", base.trim_end_matches('/'), signal.path())
            }
            (Some(endpoint), _) | (None, Some(endpoint)) => endpoint.clone(),
            (None, None) => return Ok(None),
        };
        let uri = endpoint.parse::<http::Uri>().ok();
        let usable = uri.is_some_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
        let key = signal.key();
        let identity = |of: &OtlpSignal| of.client_certificate.clone().zip(of.client_key.clone());
        let target = Target {
            signal,
            client: self.client,
            protocol,
            timeout: own.timeout.or(all.timeout).unwrap_or(Duration::from_secs(10)),
            headers: headers(
                key,
                if own.headers.is_empty() {
                    &all.headers
                } else {
                    &own.headers
                },
            )?,
            compression: own.compression.or(all.compression).unwrap_or_default(),
            certificate: own.certificate.clone().or_else(|| all.certificate.clone()),
            identity: identity(own).or_else(|| identity(all)).map(<[PathBuf; 2]>::from),
            endpoint,
        };
        if usable {
            Ok(Some(target))
        } else {
            Err(target.bad_endpoint())
        }
    }
}

impl Target {
    pub(crate) fn bad_endpoint(&self) -> InitError {
        let key = format!("{}.endpoint", self.signal.key());
        InitError::setting(key, &self.endpoint, "a URL such as http://collector:4318")
    }

    /// The certificates to check the collector's with, as PEM.
    pub(crate) fn certificates(&self) -> Result<Option<Vec<u8>>, InitError> {
        self.certificate
            .as_ref()
            .map(|path| self.file("certificate", path))
            .transpose()
    }

    /// Our certificate and key, as PEM.
    pub(crate) fn identity(&self) -> Result<Option<[Vec<u8>; 2]>, InitError> {
        let Some([certificate, key]) = &self.identity else {
            return Ok(None);
        };
        Ok(Some([
            self.file("client_certificate", certificate)?,
            self.file("client_key", key)?,
        ]))
    }

    fn file(&self, key: &str, path: &PathBuf) -> Result<Vec<u8>, InitError> {
        std::fs::read(path).map_err(|_| {
            let key = format!("{}.{key}", self.signal.key());
            InitError::setting(key, &path.display().to_string(), "a PEM file that can be read")
        })
    }
}

impl OtlpSignal {
    fn read_env(&mut self, env: &Env<'_>, prefix: &str) -> Result<(), InitError> {
        let name = |rest: &str| format!("{prefix}{rest}");
        if let Some(endpoint) = env.get(&name("ENDPOINT"))? {
            self.endpoint = Some(endpoint.trim().to_owned());
        }
        let protocol = |text: &str| match text {
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            "grpc" => Some(Protocol::Grpc),
            _ => None,
        };
        if let Some(protocol) = env.read(&name("PROTOCOL"), "http/protobuf or grpc", protocol)? {
            self.protocol = Some(protocol);
        }
        if let Some(timeout) = env.duration_ms(&name("TIMEOUT"))? {
            self.timeout = Some(timeout);
        }
        if let Some(headers) = env.read(&name("HEADERS"), "pairs such as name=value,other=value", header_list)? {
            self.headers = headers;
        }
        let compression = |text: &str| match text {
            "gzip" => Some(Compression::Gzip),
            "none" => Some(Compression::None),
            _ => None,
        };
        if let Some(compression) = env.read(&name("COMPRESSION"), "gzip or none", compression)? {
            self.compression = Some(compression);
        }
        for (rest, path) in [
            ("CERTIFICATE", &mut self.certificate),
            ("CLIENT_CERTIFICATE", &mut self.client_certificate),
            ("CLIENT_KEY", &mut self.client_key),
        ] {
            if let Some(value) = env.get(&name(rest))? {
                *path = Some(PathBuf::from(value));
            }
        }
        Ok(())
    }
}

/// `name=value,other=value`, values with percent escapes.
fn header_list(text: &str) -> Option<BTreeMap<String, String>> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((
            name.trim().to_owned(),
            crate::propagation::percent_decoded(value.trim()),
        ))
    });
    pairs.collect()
}

fn headers(key: &str, pairs: &BTreeMap<String, String>) -> Result<HeaderMap, InitError> {
    let pair = |(name, value): (&String, &String)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        // They hold credentials, as a rule.
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    let all: Option<HeaderMap> = pairs.iter().map(pair).collect();
    all.ok_or_else(|| InitError::setting(format!("{key}.headers"), "", "names and values of HTTP headers"))
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration::deserialize(deserializer).map(Some)
}
