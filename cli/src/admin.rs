//! The admin listeners of running instances: a Unix socket each, or loopback with a token file beside it. How to reach
//! one and what its refusals mean; what is asked for is the commands' business.

use std::fs;
use std::path::Path;
use std::time::Duration;

use opsctl_platform::Instance;
use opsctl_platform::local::StateDir;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use crate::output::printable;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How long an instance may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// One instance's admin listener.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    client: Client,
    base: Url,
    token: Option<String>,
}

/// Why an instance was not asked, or what it said instead of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// No process runs.
    #[error("it does not run")]
    NotRunning,
    /// The service opens none: not every program does.
    #[error("it has no admin listener")]
    NoListener,
    /// The token file beside the state is missing or cannot be read.
    #[error("the token of its admin listener cannot be read")]
    Token(#[source] std::io::Error),
    /// Nobody answers in time.
    #[error("its admin listener does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It refuses every change.
    #[error("its admin listener takes no changes")]
    ReadOnly,
    /// It does not know what was asked for.
    #[error("its admin listener does not know policies")]
    Unknown,
    /// It refuses this change, and says why.
    #[error("it refused: {0}")]
    Refused(String),
    /// What it answers cannot be understood.
    #[error("its answer cannot be understood")]
    Answer(#[source] serde_json::Error),
    /// It answers more than anybody wants to read.
    #[error("its answer is too long")]
    TooLong,
}

impl Admin {
    /// The listener of an instance, by what the platform says of it. Does not connect yet.
    pub(crate) fn of(state: &StateDir, instance: &Instance) -> Result<Self, AdminError> {
        if instance.pid.is_none() {
            return Err(AdminError::NotRunning);
        }
        let address = instance.addresses.admin.as_deref().ok_or(AdminError::NoListener)?;
        // The client insists on a provider, though nothing here leaves this machine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().timeout(TIMEOUT).no_proxy();
        let (builder, base, token) = if let Some(socket) = address.strip_prefix("unix:") {
            if !Path::new(socket).exists() {
                return Err(AdminError::NoListener);
            }
            (builder.unix_socket(socket), "http://instance/".to_owned(), None)
        } else {
            let file = state.path("admin").join(format!("{}.token", instance.id));
            let token = fs::read_to_string(file).map_err(AdminError::Token)?;
            (builder, format!("http://{address}/"), Some(token.trim().to_owned()))
        };
        let base = Url::parse(&base).map_err(|_| AdminError::NoListener)?;
        let client = builder.build().map_err(AdminError::Unreachable)?;
        Ok(Self { client, base, token })
    }

    /// `GET /policies`: every policy with its figures.
    pub(crate) async fn policies(&self) -> Result<Vec<Value>, AdminError> {
        let answer = self.send(Method::GET, &["policies"], None).await?;
        serde_json::from_slice(&answer).map_err(AdminError::Answer)
    }

    /// `POST /policies/NAME/ACTION`; the policy as it is afterwards.
    pub(crate) async fn change(&self, policy: &str, action: &str, body: &Value) -> Result<Value, AdminError> {
        let answer = self
            .send(Method::POST, &["policies", policy, action], Some(body))
            .await?;
        serde_json::from_slice(&answer).map_err(AdminError::Answer)
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Vec<u8>, AdminError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let reads = method == Method::GET;
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| {
            // A port on which nobody listens, where a socket would not be there at all.
            if error.is_connect() && self.token.is_some() {
                AdminError::NoListener
            } else {
                AdminError::Unreachable(error)
            }
        })?;
        let status = response.status();
        let answer = read(response).await?;
        match status {
            status if status.is_success() => Ok(answer),
            StatusCode::FORBIDDEN if !reads => Err(AdminError::ReadOnly),
            StatusCode::NOT_FOUND if reads => Err(AdminError::Unknown),
            status => {
                let text = String::from_utf8_lossy(&answer);
                let text = printable(text.trim());
                Err(AdminError::Refused(if text.is_empty() {
                    status.to_string()
                } else {
                    text
                }))
            }
        }
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, AdminError> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(AdminError::Unreachable)? {
        if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(AdminError::TooLong);
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}
