//! One question and its answer: HTTP by status, gRPC by grpc.health.v1, else a connect. Redirects are not followed, and
//! no more of a body is read than a health page has.
//! Source of the gRPC part: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::State;
use super::connect::{self, Trouble, innermost};
use super::target::{Absent, Endpoint, Question, Target};

/// The most of a body that is read: a health page is a few hundred bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// The most of a text from elsewhere that is told.
const TOLD: usize = 200;

/// How a target is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answer {
    /// In one word.
    pub(super) state: State,
    /// Why it is not healthy, as a word for scripts.
    pub(super) reason: Option<&'static str>,
    /// What it said: `200 pass`, `SERVING`, or why there is no answer.
    pub(super) detail: String,
    /// From the first packet to the last; `None` when nobody was asked.
    #[serde(rename = "latency_seconds", serialize_with = "as_seconds")]
    pub(super) latency: Option<Duration>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn as_seconds<S: serde::Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    latency.map(|latency| latency.as_secs_f64()).serialize(serializer)
}

impl Answer {
    pub(super) fn new(state: State, reason: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self {
            state,
            reason,
            detail: detail.into(),
            latency: None,
        }
    }

    fn no(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(State::Unhealthy, Some(reason), detail)
    }

    pub(super) fn none(trouble: &Trouble) -> Self {
        Self::new(State::Unreachable, Some(trouble.reason), trouble.detail.as_str())
    }

    pub(super) fn absent(absent: &Absent) -> Self {
        Self::new(State::Unreachable, Some(absent.reason), absent.detail.as_str())
    }
}

/// Asks once; never longer than `timeout`.
pub(super) async fn ask(target: &Target, timeout: Duration) -> Answer {
    let endpoint = match &target.endpoint {
        Ok(endpoint) => endpoint,
        Err(absent) => return Answer::absent(absent),
    };
    let asked = Instant::now();
    let answer = async {
        match &endpoint.question {
            Question::Http { path } => http(endpoint, path).await,
            Question::Grpc { service } => grpc(endpoint, service).await,
            Question::Connect => {
                let taken = match &endpoint.through {
                    Some(forward) => forward.accepts(endpoint.port).await,
                    None => connect::tcp(endpoint).await.map(drop),
                };
                taken.map(|()| Answer::new(State::Healthy, None, "takes connections"))
            }
        }
    };
    let answer = match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(trouble)) => Answer::none(&trouble),
        Err(_) => Answer::none(&Trouble::new(
            "timeout",
            format!("no answer within {}", crate::output::latency(timeout.as_secs_f64())),
        )),
    };
    Answer {
        latency: Some(asked.elapsed()),
        ..answer
    }
}

async fn http(endpoint: &Endpoint, path: &str) -> Result<Answer, Trouble> {
    let not_http = |error: &hyper::Error| Trouble::new("protocol", format!("no HTTP answer: {}", innermost(error)));
    let stream = connect::connect(endpoint, b"http/1.1").await?;
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| not_http(&error))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(header::HOST, endpoint.authority())
        .header(header::USER_AGENT, concat!("opsctl/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::new("protocol", error.to_string()))?;
    let answer = async {
        let mut response = sender.send_request(request).await.map_err(|error| not_http(&error))?;
        let body = body(&mut response).await.map_err(|error| not_http(&error))?;
        Ok(judge(&response, body.as_deref()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// The body; `None` when it is longer than anybody wants to read.
async fn body(response: &mut http::Response<Incoming>) -> Result<Option<Vec<u8>>, hyper::Error> {
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        if let Ok(data) = frame?.into_data() {
            if body.len() + data.len() > BODY_LIMIT {
                return Ok(None);
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(Some(body))
}

/// What an HTTP answer means: the status decides, as it does for a kubelet; a body in the shape of
/// draft-inadarei-api-health-check-06 adds the word.
fn judge(response: &http::Response<Incoming>, body: Option<&[u8]>) -> Answer {
    let status = response.status();
    let word = body.and_then(word);
    let said = match (&word, body) {
        (Some(word), _) => format!(" {word}"),
        (None, Some(_)) => String::new(),
        (None, None) => format!(
            " (a body of more than {}, not read)",
            crate::output::bytes(BODY_LIMIT as u64)
        ),
    };
    if status.is_success() {
        let warns = word.is_some_and(|word| word == "warn");
        let state = if warns { State::Degraded } else { State::Healthy };
        return Answer::new(state, None, format!("{}{said}", status.as_u16()));
    }
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        let to = told(to.unwrap_or("nowhere"));
        return Answer::no("redirect", format!("{} to {to}, not followed", status.as_u16()));
    }
    let hint = match status {
        StatusCode::NOT_FOUND => ": nothing at this path",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": not for everybody",
        _ => "",
    };
    Answer::no("status", format!("{}{said}{hint}", status.as_u16()))
}

/// `pass`, `warn`, `fail` or what else a JSON body has as `status`.
fn word(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(told(body.get("status")?.as_str()?))
}

fn told(text: &str) -> String {
    text.chars().take(TOLD).collect()
}

async fn grpc(endpoint: &Endpoint, service: &str) -> Result<Answer, Trouble> {
    let mut client = client(endpoint, None).await?;
    match client.check(request(service)).await {
        Ok(answer) => Ok(serving(answer.into_inner().status, service)),
        Err(status) => refused(&status, service),
    }
}

/// The request for a service name.
pub(super) fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// A client of grpc.health.v1 over a connection of its own. With `alive` the peer is pinged that often, and the connection
/// ends when it does not answer within the same time: a stream on which nothing comes would not tell that nobody is there.
pub(super) async fn client(endpoint: &Endpoint, alive: Option<Duration>) -> Result<HealthClient<Channel>, Trouble> {
    let stream = connect::connect(endpoint, b"h2").await?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if let Some(alive) = alive {
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(alive)
            .keep_alive_timeout(alive);
    }
    let (sender, connection) = builder
        .handshake(stream)
        .await
        .map_err(|error| not_grpc(&innermost(&error)))?;
    tokio::spawn(connection);
    let scheme = if endpoint.tls { "https" } else { "http" };
    let origin = format!("{scheme}://{}", endpoint.authority());
    let origin = origin
        .parse()
        .map_err(|_| not_grpc("its name cannot be an authority"))?;
    Ok(HealthClient::with_origin(Channel(sender), origin))
}

fn not_grpc(why: &str) -> Trouble {
    Trouble::new("protocol", format!("no gRPC answer: {why}"))
}

/// What a serving status means.
pub(super) fn serving(status: i32, service: &str) -> Answer {
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => Answer::new(State::Healthy, None, "SERVING"),
        Ok(ServingStatus::NotServing) => Answer::no("not_serving", "NOT_SERVING"),
        Ok(ServingStatus::ServiceUnknown) => unknown(service),
        Ok(ServingStatus::Unknown) => Answer::no("unknown", "UNKNOWN: it does not say"),
        Err(_) => Answer::no(
            "unknown",
            format!("the status {status}, which the protocol does not have"),
        ),
    }
}

fn unknown(service: &str) -> Answer {
    Answer::no("service_unknown", format!("it knows no service `{service}`"))
}

/// What an error means: what the server said, or that there is no answer at all.
pub(super) fn refused(status: &Status, service: &str) -> Result<Answer, Trouble> {
    if let Some(cause) = std::error::Error::source(status) {
        return Err(not_grpc(&innermost(cause)));
    }
    Ok(match status.code() {
        Code::NotFound => unknown(service),
        Code::Unimplemented => Answer::no("unimplemented", "it does not offer grpc.health.v1.Health"),
        Code::DeadlineExceeded => return Err(Trouble::new("timeout", "DEADLINE_EXCEEDED")),
        code => {
            let said = told(status.message());
            let said = if said.is_empty() { said } else { format!(" ({said})") };
            Answer::no("status", format!("{}{said}", code.description()))
        }
    })
}

/// One HTTP/2 connection as tonic's clients want it.
#[derive(Debug, Clone)]
pub(super) struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
