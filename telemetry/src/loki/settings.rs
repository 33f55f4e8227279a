//! [`LokiSettings`]: the keys of `telemetry.loki`, their defaults and variables, and the parts that are made from them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::client::{Client, LokiAuth, Target};
use super::labels::{self, Streams};
use super::spool::Spool;
use super::wire::{Encoder, LokiCompression};
use super::worker::Waits;
use crate::InitError;
use crate::builder::env::Env;
use crate::builder::units;
use crate::sink::queue::{OnFull, QueueLimits};

/// The path of Loki's push API.
const PUSH: &str = "/loki/api/v1/push";

/// How lines get to Loki: the table `telemetry.loki`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LokiSettings {
    /// Where Loki is, as `http://loki:3100`. Without it nothing is sent.
    pub url: Option<String>,
    /// Who sends.
    pub client: LokiClient,
    /// `X-Scope-OrgID`, for a Loki with several tenants.
    pub tenant: Option<String>,
    /// Labels of every stream beside `service`, `env` and `level`. They name the instance or the place, never what
    /// changes from line to line.
    pub labels: BTreeMap<String, String>,
    /// How long a push may take, answer included. Default 10 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Lines that may wait in memory. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub queue_bytes: usize,
    /// Lines in one push, before compression. Default 1 MiB.
    #[serde(with = "units::bytes")]
    pub batch_bytes: usize,
    /// How long the first line of a push waits for others. Default 1 s.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// How a push is made smaller.
    pub compression: LokiCompression,
    /// Sends `trace_id` and `span_id` also as structured metadata, which Loki has from version 3 on. Default off.
    pub structured_metadata: bool,
    /// Who we are.
    pub auth: Option<LokiAuth>,
    /// Further headers of each push. Values of secrets belong into [`LokiSettings::auth`].
    pub headers: BTreeMap<String, String>,
    /// A file of certificates (PEM) to trust beside those of the system.
    pub certificate: Option<PathBuf>,
    /// Waits between attempts.
    pub retry: RetrySettings,
    /// Lines on disk.
    pub spool: SpoolSettings,
}

/// Who sends lines to Loki: the variable `LOKI_CLIENT`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LokiClient {
    /// This crate.
    #[default]
    Own,
    /// The crate `tracing-loki`, unmodified; needs the feature `tracing-loki`. It counts nothing: the report says
    /// `unknown` for its lines.
    TracingLoki,
}

/// Waits between attempts: the table `telemetry.loki.retry`. Each is a random part of what is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// After the first failure; doubled after each further one. Default 200 ms.
    #[serde(with = "units::duration")]
    pub first: Duration,
    /// The longest. `Retry-After` is added to it. Default 10 s.
    #[serde(with = "units::duration")]
    pub longest: Duration,
    /// While Loki answers 401, 403, 404 or otherwise as it never would if it were set up well. Default 30 s.
    #[serde(with = "units::duration")]
    pub closed: Duration,
}

/// Lines on disk until Loki has them: the table `telemetry.loki.spool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSettings {
    /// The folder, which one process has for itself. Without it lines wait in memory alone.
    pub dir: Option<PathBuf>,
    /// Most that lies there. Default 512 MiB. When it is full, the oldest lines below WARN go first.
    #[serde(with = "units::bytes")]
    pub max_bytes: usize,
    /// How long a line may be on its way to the disk itself, where it survives a loss of power. It survives the process
    /// from the moment on that it is written, which is at once. Default 100 ms.
    #[serde(with = "units::duration")]
    pub fsync: Duration,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            dir: None,
            max_bytes: 512 << 20,
            fsync: Duration::from_millis(100),
        }
    }
}

impl Default for LokiSettings {
    fn default() -> Self {
        Self {
            url: None,
            client: LokiClient::Own,
            tenant: None,
            labels: BTreeMap::new(),
            timeout: Duration::from_secs(10),
            queue_bytes: 16 << 20,
            batch_bytes: 1 << 20,
            linger: Duration::from_secs(1),
            compression: LokiCompression::Snappy,
            structured_metadata: false,
            auth: None,
            headers: BTreeMap::new(),
            certificate: None,
            retry: RetrySettings::default(),
            spool: SpoolSettings::default(),
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
            closed: Duration::from_secs(30),
        }
    }
}

impl RetrySettings {
    pub(crate) const fn waits(self) -> Waits {
        Waits {
            first: self.first,
            longest: self.longest,
            closed: self.closed,
        }
    }
}

impl LokiSettings {
    /// `LOKI_URL`, `LOKI_TENANT_ID`, `LOKI_CLIENT`, `LOKI_SPOOL_DIR`.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        if let Some(url) = env.get("LOKI_URL")? {
            address("LOKI_URL", &url)?;
            self.url = Some(url);
        }
        if let Some(tenant) = env.get("LOKI_TENANT_ID")? {
            self.tenant = Some(tenant);
        }
        if let Some(folder) = env.get("LOKI_SPOOL_DIR")? {
            self.spool.dir = Some(folder.into());
        }
        let client = |text: &str| match text {
            "own" => Some(LokiClient::Own),
            "tracing-loki" => Some(LokiClient::TracingLoki),
            _ => None,
        };
        if let Some(client) = env.read("LOKI_CLIENT", "own or tracing-loki", client)? {
            self.client = client;
        }
        Ok(())
    }

    /// The queue before it. What comes never waits: stdout has it too.
    pub(crate) fn queue(&self) -> QueueLimits {
        QueueLimits {
            bytes: self.queue_bytes,
            items: usize::MAX,
            on_full: OnFull::DropLowest,
            block: Duration::ZERO,
        }
    }

    /// The folder for lines, locked.
    pub(super) fn spool(&self) -> Result<Option<Spool>, InitError> {
        let Some(path) = &self.spool.dir else { return Ok(None) };
        Spool::open(path, self.spool.max_bytes).map(Some).map_err(refused)
    }

    /// The address of the push.
    pub(super) fn address(&self) -> Result<Url, InitError> {
        address("telemetry.loki.url", self.url.as_deref().unwrap_or_default())
    }

    /// The client.
    pub(super) fn client(&self) -> Result<Client, InitError> {
        let mut headers = HeaderMap::new();
        let tenant = self.tenant.iter().map(|tenant| ("X-Scope-OrgID", tenant));
        for (name, value) in self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .chain(tenant)
        {
            let name = reqwest::header::HeaderName::try_from(name).map_err(refused)?;
            headers.insert(name, HeaderValue::try_from(value).map_err(refused)?);
        }
        let certificates = match &self.certificate {
            None => Vec::new(),
            Some(file) => {
                let text = std::fs::read(file).map_err(refused)?;
                reqwest::Certificate::from_pem_bundle(&text).map_err(refused)?
            }
        };
        Client::new(Target {
            url: self.address()?,
            timeout: self.timeout,
            headers,
            auth: self.auth.clone(),
            compression: self.compression,
            certificates,
        })
        .map_err(refused)
    }

    /// The encoder, with the labels of this service.
    pub(super) fn encoder(&self, service: &str, environment: &str) -> Result<Encoder, InitError> {
        let mut all = BTreeMap::new();
        let own = [("service", service), ("env", environment)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let more = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(more) {
            labels::add(&mut all, name, value).map_err(refused)?;
        }
        let streams = Streams::new(&all).map_err(refused)?;
        Ok(Encoder::new(streams, self.compression, self.structured_metadata))
    }
}

pub(super) fn refused(source: impl std::error::Error + Send + Sync + 'static) -> InitError {
    let source = Box::new(source);
    InitError::Loki { source }
}

/// The address of the push, from that of Loki or from the whole of it.
fn address(key: &str, text: &str) -> Result<Url, InitError> {
    const EXPECTED: &str = "an address such as http://loki:3100, without user and password";
    let mut url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .ok_or_else(|| InitError::setting(key, text, EXPECTED))?;
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(PUSH) {
        url.set_path(&format!("{path}{PUSH}"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    //! Addresses, variables and the file's form.

    use super::*;

    #[test]
    fn an_address_leads_to_the_push() {
        for (text, wanted) in [
            ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
            ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
            ("https://gate/team", "https://gate/team/loki/api/v1/push"),
            ("http://loki/loki/api/v1/push", "http://loki/loki/api/v1/push"),
        ] {
            assert_eq!(address("LOKI_URL", text).unwrap().as_str(), wanted);
        }
        for bad in ["", "loki:3100", "file:///x", "http://me:secret@loki", "http://"] {
            let error = address("LOKI_URL", bad).unwrap_err().to_string();
            assert!(error.starts_with("LOKI_URL is") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn variables_are_read_and_wrong_ones_named() {
        let lookup = |name: &str| match name {
            "LOKI_URL" => Some("http://loki:3100".into()),
            "LOKI_TENANT_ID" => Some("shop".into()),
            "LOKI_CLIENT" => Some("tracing-loki".into()),
            _ => None,
        };
        let mut settings = LokiSettings::default();
        settings.read_env(&Env::new(&lookup)).unwrap();
        assert_eq!(settings.url.as_deref(), Some("http://loki:3100"));
        assert_eq!(settings.tenant.as_deref(), Some("shop"));
        assert_eq!(settings.client, LokiClient::TracingLoki);
        let wrong = |name: &str| (name == "LOKI_CLIENT").then(|| "promtail".into());
        let error = settings.read_env(&Env::new(&wrong)).unwrap_err();
        assert!(error.to_string().contains("LOKI_CLIENT"), "{error}");
    }

    #[test]
    fn the_table_has_the_defaults_of_the_guide_and_refuses_unknown_keys() {
        let read = |json: &str| serde_json::from_str::<LokiSettings>(json);
        assert_eq!(read("{}").unwrap(), LokiSettings::default());
        let settings =
            read(r#"{"timeout": "3s", "queue_bytes": "1MiB", "auth": {"bearer": {"token_file": "/t"}}}"#).unwrap();
        assert_eq!((settings.timeout.as_secs(), settings.queue_bytes), (3, 1 << 20));
        assert!(read(r#"{"lingr": "1s"}"#).is_err());
    }
}
