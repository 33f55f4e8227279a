//! An OpenTelemetry collector with tail sampling. What it does with what it receives the test says in its own words,
//! the collector's YAML; where it listens is chosen here.

use std::{io, path::PathBuf};

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A collector. Ports: `grpc` and `http` for OTLP, `metrics` for its own, `health`.
#[derive(Debug, Clone)]
pub struct Collector {
    configuration: Configuration,
    environment: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Configuration {
    Text(String),
    File(PathBuf),
}

impl Default for Collector {
    /// Says what it receives, a line each, in its log.
    fn default() -> Self {
        Self::new(
            "exporters: {debug: {}}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
    logs: {receivers: [otlp], exporters: [debug]}
",
        )
    }
}

impl Collector {
    /// With this configuration: exporters, processors and `service.pipelines`, whose receiver is `otlp`. The receiver
    /// itself, the collector's own metrics and its health check are set here, over what the text says of them.
    pub fn new(yaml: impl Into<String>) -> Self {
        Self {
            configuration: Configuration::Text(yaml.into()),
            environment: Vec::new(),
        }
    }

    /// With the configuration in a file, and the same set over it.
    pub fn from_file(file: impl Into<PathBuf>) -> Self {
        Self {
            configuration: Configuration::File(file.into()),
            environment: Vec::new(),
        }
    }

    /// With a variable that the configuration refers to as `${env:NAME}`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

impl Recipe for Collector {
    fn peer(&self) -> &'static str {
        "collector"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port::http("http"),
                Port::http("grpc"),
                Port::http("metrics"),
                Port::http("health"),
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let theirs = match &self.configuration {
            Configuration::Text(yaml) => place.write("collector.yaml", yaml)?,
            Configuration::File(file) => file.clone(),
        };
        let [http, grpc, health] = ["http", "grpc", "health"].map(|port| place.address(port));
        let metrics = place.port("metrics");
        let ours = place.write(
            "addresses.yaml",
            &format!(
                "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: \"{grpc}\"}}
      http: {{endpoint: \"{http}\"}}
extensions:
  health_check: {{endpoint: \"{health}\"}}
service:
  extensions: [health_check]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]
"
            ),
        )?;
        let configs = [theirs, ours].map(|file| format!("--config={}", file.display()));
        let program = Program::new(program("otelcol")?).args(configs);
        Ok(vec![
            self.environment
                .iter()
                .fold(program, |program, (name, value)| program.env(name, value)),
        ])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "health",
            path: "/",
        }
    }
}
