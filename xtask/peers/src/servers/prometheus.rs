//! Prometheus: scrapes every second, keeps exemplars, takes OTLP metrics too.

use std::{io, path::PathBuf};

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Prometheus. Port: `http`.
#[derive(Debug, Clone, Default)]
pub struct Prometheus {
    targets: Vec<(String, String)>,
    rules: Vec<PathBuf>,
    alertmanager: Option<String>,
    configuration: Option<PathBuf>,
    user: Option<(String, String)>,
}

impl Prometheus {
    /// Scrapes `/metrics` of `address` (`127.0.0.1:9000`) as the job `job`.
    #[must_use]
    pub fn scrape(mut self, job: &str, address: impl ToString) -> Self {
        self.targets.push((job.to_owned(), address.to_string()));
        self
    }

    /// Evaluates the rules in a file.
    #[must_use]
    pub fn rules(mut self, file: impl Into<PathBuf>) -> Self {
        self.rules.push(file.into());
        self
    }

    /// Sends alerts to the Alertmanager at `address`.
    #[must_use]
    pub fn alertmanager(mut self, address: impl ToString) -> Self {
        self.alertmanager = Some(address.to_string());
        self
    }

    /// Takes a configuration file as it is, instead of what the other settings say.
    #[must_use]
    pub fn configuration(mut self, file: impl Into<PathBuf>) -> Self {
        self.configuration = Some(file.into());
        self
    }

    /// Lets nobody in but `name`, whose password has the bcrypt hash `hash`.
    #[must_use]
    pub fn user(mut self, name: &str, hash: &str) -> Self {
        self.user = Some((name.to_owned(), hash.to_owned()));
        self
    }

    fn text(&self) -> String {
        let mut lines = vec!["global: {scrape_interval: 1s, evaluation_interval: 1s}".to_owned()];
        lines.push("scrape_configs:".to_owned());
        lines.extend(
            self.targets.iter().map(|(job, address)| {
                format!("  - {{job_name: {job}, static_configs: [{{targets: [\"{address}\"]}}]}}")
            }),
        );
        lines.push("rule_files:".to_owned());
        lines.extend(self.rules.iter().map(|file| format!("  - {}", file.display())));
        lines.extend(self.alertmanager.iter().map(|address| {
            format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"{address}\"]}}]}}]}}")
        }));
        lines.join("\n")
    }
}

impl Recipe for Prometheus {
    fn peer(&self) -> &'static str {
        "prometheus"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("http")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let config = match &self.configuration {
            Some(file) => file.clone(),
            None => place.write("prometheus.yaml", &self.text())?,
        };
        let users = self.user.as_ref().map(|(name, hash)| {
            let file = place.write("web.yaml", &format!("basic_auth_users: {{ {name}: \"{hash}\" }}\n"))?;
            io::Result::Ok(format!("--web.config.file={}", file.display()))
        });
        let program = Program::new(program("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", place.folder().join("data").display()))
            .arg(format!("--web.listen-address={}", place.address("http")))
            .args([
                "--web.enable-lifecycle",
                "--web.enable-otlp-receiver",
                "--log.level=warn",
            ])
            .arg("--enable-feature=exemplar-storage")
            .args(users.transpose()?);
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        if self.user.is_some() {
            // Whoever has no password is not even told this.
            return Ready::Talk {
                port: "http",
                say: b"GET /-/ready HTTP/1.0\r\n\r\n",
                skip: 0,
                hear: b"HTTP/1.0 401",
            };
        }
        Ready::Http {
            port: "http",
            path: "/-/ready",
        }
    }
}
