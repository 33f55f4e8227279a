//! What can be set of metrics, and what is started for them: a listener of their own, and a push by OTLP. Both are off
//! unless asked for: `/metrics` is on the service's own port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Metrics;
use super::push::Push;
use crate::InitError;
use crate::builder::env::Env;
use crate::builder::units;
use crate::otlp::{OtlpSettings, Signal};
use crate::scrape::MetricsServer;
use crate::server::RpcNames;
use crate::sink::Sink;

/// Port of a listener of which only the host is said, as OpenTelemetry has it.
const PORT: u16 = 9464;

/// `telemetry.metrics`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// An address that serves `/metrics` alone. Default: none, since the service's port has it. `OTEL_EXPORTER_PROMETHEUS_HOST`
    /// (an IP address or `localhost`) and `OTEL_EXPORTER_PROMETHEUS_PORT`.
    pub listen: Option<SocketAddr>,
    /// Whether everything is also pushed to the OTLP endpoint. Default no. `OTEL_METRICS_EXPORTER`: `otlp`,
    /// `prometheus` (a listener), `none`, several between commas.
    pub otlp: bool,
    /// Time from one push to the next. Default 60 s. `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// Whether histograms show traces. Default yes. `OTEL_METRICS_EXEMPLAR_FILTER`: `always_off` is no; `trace_based`
    /// and `always_on` are yes, for sampled traces alone.
    pub exemplars: bool,
    /// Names of gRPC calls besides `grpc_server_*`. `OTEL_SEMCONV_STABILITY_OPT_IN` with `rpc` or `rpc/dup`.
    pub rpc_names: RpcNames,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: None,
            otlp: false,
            interval: Duration::from_secs(60),
            exemplars: true,
            rpc_names: RpcNames::default(),
        }
    }
}

/// What is running for metrics.
pub(crate) struct Started {
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) server: Option<MetricsServer>,
}

impl MetricsSettings {
    /// Takes over every variable that is set.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        let exporters = env.read(
            "OTEL_METRICS_EXPORTER",
            "otlp, prometheus, none, or several of them between commas",
            |text| {
                let names: Vec<&str> = text.split(',').map(str::trim).collect();
                let known = names.iter().all(|name| matches!(*name, "otlp" | "prometheus" | "none"));
                known.then(|| (names.contains(&"otlp"), names.contains(&"prometheus")))
            },
        )?;
        let (host, port) = (
            env.read("OTEL_EXPORTER_PROMETHEUS_HOST", "an IP address or localhost", |text| {
                if text == "localhost" {
                    Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
                } else {
                    text.parse().ok()
                }
            })?,
            env.parse("OTEL_EXPORTER_PROMETHEUS_PORT", "a port")?,
        );
        let wants_listener = exporters.is_some_and(|(_, prometheus)| prometheus);
        if wants_listener || host.is_some() || port.is_some() {
            let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            self.listen = Some(SocketAddr::new(host, port.unwrap_or(PORT)));
        }
        if let Some((otlp, _)) = exporters {
            self.otlp = otlp;
        }
        if let Some(interval) = env.duration_ms("OTEL_METRIC_EXPORT_INTERVAL")? {
            self.interval = interval;
        }
        let exemplars = |text: &str| match text {
            "always_off" => Some(false),
            "trace_based" | "always_on" => Some(true),
            _ => None,
        };
        let expected = "always_on, always_off or trace_based";
        if let Some(exemplars) = env.read("OTEL_METRICS_EXEMPLAR_FILTER", expected, exemplars)? {
            self.exemplars = exemplars;
        }
        if let Some(text) = env.get("OTEL_SEMCONV_STABILITY_OPT_IN")? {
            // The variable speaks of other conventions too: what is not about RPC is somebody else's.
            for word in text.split(',').map(str::trim) {
                match word {
                    "rpc" => self.rpc_names.stable = true,
                    "rpc/dup" => {
                        self.rpc_names = RpcNames {
                            stable: true,
                            v1_37: true,
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Starts what is asked for, with whom the metrics are of in `resource`.
    pub(crate) fn start(
        &self,
        otlp: &OtlpSettings,
        resource: &[(&str, &str)],
        metrics: &Metrics,
    ) -> Result<Started, InitError> {
        metrics.set_exemplars(self.exemplars);
        metrics.set_rpc_names(self.rpc_names);
        let server = match self.listen {
            None => None,
            Some(addr) => {
                Some(MetricsServer::start(metrics, addr).map_err(|source| InitError::Listen { addr, source })?)
            }
        };
        let target = if self.otlp { otlp.target(Signal::Metrics)? } else { None };
        let sink = match target {
            None => None,
            Some(target) => {
                let push = Push::start(target, resource, self.interval, metrics)?;
                Some(Arc::new(push) as Arc<dyn Sink>)
            }
        };
        Ok(Started { sink, server })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<MetricsSettings, InitError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let mut settings = MetricsSettings::default();
        settings.read_env(&Env::new(&lookup))?;
        Ok(settings)
    }

    #[test]
    fn nothing_said_is_nothing_started() {
        assert_eq!(read(&[]).unwrap(), MetricsSettings::default());
        assert_eq!(
            read(&[("OTEL_METRICS_EXPORTER", "none")]).unwrap(),
            MetricsSettings::default()
        );
    }

    #[test]
    fn variables_are_opentelemetrys() {
        let settings = read(&[
            ("OTEL_METRICS_EXPORTER", "otlp, prometheus"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http,rpc/dup"),
        ])
        .unwrap();
        assert_eq!(settings.listen, Some(([127, 0, 0, 1], 9464).into()));
        assert!(settings.otlp && !settings.exemplars && settings.rpc_names.stable && settings.rpc_names.v1_37);
        assert_eq!(settings.interval, Duration::from_millis(1500));
        let host = read(&[("OTEL_EXPORTER_PROMETHEUS_HOST", "::")]).unwrap();
        assert_eq!(host.listen, Some("[::]:9464".parse().unwrap()));
        let port = read(&[("OTEL_EXPORTER_PROMETHEUS_PORT", "0")]).unwrap();
        assert_eq!(port.listen, Some(([127, 0, 0, 1], 0).into()));
        assert!(
            !read(&[("OTEL_SEMCONV_STABILITY_OPT_IN", "rpc")])
                .unwrap()
                .rpc_names
                .v1_37
        );
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        for (name, value) in [
            ("OTEL_METRICS_EXPORTER", "otlp,console"),
            ("OTEL_EXPORTER_PROMETHEUS_HOST", "metrics.internal"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "99999"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1s"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
