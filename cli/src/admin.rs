//! The admin listeners of running instances: a Unix socket each, or loopback with a token, in a file beside it or in a
//! Secret. How to reach one and what its refusals mean; what is asked for is the commands' business.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use opsctl_platform::kube::KubePlatform;
use opsctl_platform::local::StateDir;
use opsctl_platform::{Instance, PlatformError};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use crate::output::printable;
use crate::platform::Opened;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How long an instance may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same for one that is reached through an API server.
const TIMEOUT_THERE: Duration = Duration::from_secs(10);

/// One instance's admin listener.
#[derive(Clone)]
pub(crate) enum Admin {
    /// Of a process here.
    Here {
        client: Client,
        base: Url,
        token: Option<String>,
    },
    /// Of a pod, through a port-forward.
    There {
        kube: Arc<KubePlatform>,
        instance: Box<Instance>,
    },
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
    /// The cluster does not lead there.
    #[error("the cluster does not lead to its admin listener")]
    Cluster(#[source] PlatformError),
    /// The connection through the cluster broke.
    #[error("its admin listener does not answer through the cluster")]
    Broken(#[source] hyper::Error),
    /// It took too long.
    #[error("its admin listener did not answer within {} s", TIMEOUT_THERE.as_secs())]
    TimedOut,
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
    pub(crate) fn of(opened: &Opened, instance: &Instance) -> Result<Self, AdminError> {
        match opened.there() {
            Some(there) => Ok(Self::There {
                kube: Arc::clone(&there.kube),
                instance: Box::new(instance.clone()),
            }),
            None => Self::here(&opened.state, instance),
        }
    }

    fn here(state: &StateDir, instance: &Instance) -> Result<Self, AdminError> {
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
        Ok(Self::Here { client, base, token })
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
        let reads = method == Method::GET;
        let (status, answer) = match self {
            Self::Here { client, base, token } => ask_here(client, base, token.as_deref(), method, path, body).await?,
            Self::There { kube, instance } => {
                let asked = ask_there(kube, instance, &method, path, body);
                let limit = tokio::time::timeout(TIMEOUT_THERE, asked).await;
                limit.map_err(|_| AdminError::TimedOut)??
            }
        };
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

/// A path of the listener under `base`.
fn url_of(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

async fn ask_here(
    client: &Client,
    base: &Url,
    token: Option<&str>,
    method: Method,
    path: &[&str],
    body: Option<&Value>,
) -> Result<(StatusCode, Vec<u8>), AdminError> {
    let mut request = client.request(method, url_of(base, path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let mut response = request.send().await.map_err(|error| {
        // A port on which nobody listens, where a socket would not be there at all.
        if error.is_connect() && token.is_some() {
            AdminError::NoListener
        } else {
            AdminError::Unreachable(error)
        }
    })?;
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(AdminError::Unreachable)? {
        take(&mut answer, &chunk)?;
    }
    Ok((response.status(), answer))
}

async fn ask_there(
    kube: &KubePlatform,
    instance: &Instance,
    method: &Method,
    path: &[&str],
    body: Option<&Value>,
) -> Result<(StatusCode, Vec<u8>), AdminError> {
    let door = kube.admin_door(instance).await.map_err(AdminError::Cluster)?;
    let door = door.ok_or(AdminError::NoListener)?;
    let stream = kube
        .connect_to(instance, door.port)
        .await
        .map_err(AdminError::Cluster)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AdminError::Broken)?;
    let connection = tokio::spawn(connection);
    let base = Url::parse("http://localhost/").map_err(|_| AdminError::NoListener)?;
    let text = body.map(Value::to_string).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(url_of(&base, path).path())
        .header(http::header::HOST, "localhost")
        .header(http::header::CONNECTION, "close")
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::AUTHORIZATION, format!("Bearer {}", door.token))
        .body(Full::new(Bytes::from(text)))
        .map_err(|_| AdminError::NoListener)?;
    let answer = async {
        let mut response = sender.send_request(request).await.map_err(AdminError::Broken)?;
        let mut answer = Vec::new();
        while let Some(frame) = response.frame().await {
            if let Ok(data) = frame.map_err(AdminError::Broken)?.into_data() {
                take(&mut answer, &data)?;
            }
        }
        Ok((response.status(), answer))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn take(answer: &mut Vec<u8>, more: &[u8]) -> Result<(), AdminError> {
    if answer.len() + more.len() > MAX_ANSWER_BYTES {
        return Err(AdminError::TooLong);
    }
    answer.extend_from_slice(more);
    Ok(())
}
