//! The servers of these tests, which do as they are told, and a client under a pipeline. No tests are here.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use resilience::grpc::{GrpcLayer, GrpcService, deadline_in};
use resilience::{BreakerCounts, Deadline, Jitter, Pipeline, PipelineBuilder, Retry};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceBuilder;

pub(super) const CHECK: &str = "grpc.health.v1.Health/Check";
pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// What the server does with one call.
#[derive(Clone)]
pub(super) enum Reply {
    Answer,
    Fail(Status),
    Hang,
    /// Of a stream: headers, this many messages, and this status as trailers.
    Messages(usize, Code),
    /// Of a stream: headers, one message, and nothing more.
    Stop,
    /// Of a stream: headers, one message, after this time another one and this status.
    Slow(Duration, Code),
}

pub(super) fn fail(code: Code) -> Reply {
    Reply::Fail(Status::new(code, "as told"))
}

pub(super) fn pushback(code: Code, values: &[&str]) -> Reply {
    let mut status = Status::new(code, "as told");
    for value in values {
        status
            .metadata_mut()
            .append("grpc-retry-pushback-ms", value.parse().unwrap());
    }
    Reply::Fail(status)
}

pub(super) fn retry_info(code: Code, delay: Duration) -> Reply {
    let details = ErrorDetails::with_retry_info(Some(delay));
    Reply::Fail(Status::with_error_details(code, "as told", details))
}

/// Replies in turn, the last one for ever; keeps the time that each call announced.
#[derive(Clone)]
pub(super) struct Script {
    replies: Arc<[Reply]>,
    calls: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Script {
    pub(super) fn next(&self, headers: &HeaderMap) -> Reply {
        let mut calls = self.calls.lock().unwrap();
        calls.push(deadline_in(headers).map(Deadline::remaining));
        self.replies[(calls.len() - 1).min(self.replies.len() - 1)].clone()
    }
}

#[tonic::async_trait]
impl Health for Script {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.next(request.metadata().as_ref()) {
            Reply::Answer => Ok(Response::new(HealthCheckResponse { status: 1 })),
            Reply::Fail(status) => Err(status),
            _ => std::future::pending().await,
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        use futures::StreamExt as _;
        let messages = |count| futures::stream::iter(vec![Ok(HealthCheckResponse { status: 1 }); count]);
        match self.next(request.metadata().as_ref()) {
            Reply::Fail(status) => Err(status),
            Reply::Messages(count, Code::Ok) => Ok(Response::new(Box::pin(messages(count)))),
            Reply::Messages(count, code) => {
                let end = futures::stream::iter([Err(Status::new(code, "in the trailers"))]);
                Ok(Response::new(Box::pin(messages(count).chain(end))))
            }
            Reply::Slow(time, code) => {
                let later = messages(1).chain(futures::stream::once(async move {
                    tokio::time::sleep(time).await;
                    Ok(HealthCheckResponse { status: 1 })
                }));
                let end = (code != Code::Ok).then(|| Err(Status::new(code, "in the trailers")));
                Ok(Response::new(Box::pin(later.chain(futures::stream::iter(end)))))
            }
            _ => Ok(Response::new(Box::pin(messages(1).chain(futures::stream::pending())))),
        }
    }
}

/// A channel whose connections arrive at the other end.
pub(super) fn channel(endpoint: &Endpoint) -> (Channel, UnboundedReceiver<std::io::Result<DuplexStream>>) {
    let (sender, receiver) = unbounded_channel();
    let connect = tower::service_fn(move |_: http::Uri| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let sent = sender.send(Ok(theirs));
        async move {
            sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    });
    (endpoint.connect_with_connector_lazy(connect), receiver)
}

pub(super) struct Fixture {
    pub(super) client: HealthClient<GrpcService<Channel>>,
    pub(super) policy: Pipeline,
    pub(super) calls: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Fixture {
    pub(super) fn start(replies: &[Reply], policy: PipelineBuilder) -> Self {
        Self::with(
            replies,
            policy,
            |layer| layer.idempotent_methods([CHECK, WATCH]),
            |endpoint| endpoint,
        )
    }

    pub(super) fn with(
        replies: &[Reply],
        policy: PipelineBuilder,
        layer: impl FnOnce(GrpcLayer) -> GrpcLayer,
        endpoint: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Self {
        let (channel, incoming) = channel(&endpoint(Endpoint::from_static("http://server")));
        let script = Script {
            replies: replies.into(),
            calls: Arc::default(),
        };
        let calls = Arc::clone(&script.calls);
        let server = Server::builder().add_service(HealthServer::new(script));
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let policy = policy.build().unwrap();
        let layer = layer(GrpcLayer::new(policy.clone()));
        let client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel));
        Self { client, policy, calls }
    }

    pub(super) async fn check(&self) -> Code {
        let mut client = self.client.clone();
        let call = async move { client.check(HealthCheckRequest::default()).await };
        // Calls go to other threads, though nothing in them is boxed.
        let result = tokio::spawn(call).await.unwrap();
        result.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// Messages that a stream brought, and how it ended.
    pub(super) async fn watch(&self) -> (usize, Code) {
        let mut stream = match self.client.clone().watch(HealthCheckRequest::default()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (0, status.code()),
        };
        let mut count = 0;
        loop {
            match stream.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, Code::Ok),
                Err(status) => return (count, status.code()),
            }
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// Successes and failures that the breaker counted.
    pub(super) fn counted(&self) -> (u64, u64) {
        let calls = self.policy.breaker().unwrap().snapshot().calls;
        (calls.success, calls.failure)
    }

    pub(super) fn outcomes(&self) -> BreakerCounts {
        self.policy.breaker().unwrap().snapshot().calls
    }

    pub(super) fn retries(&self, reason: &str) -> u64 {
        let retries = self.policy.snapshot().retry.unwrap().retries;
        retries.iter().find(|(name, _)| *name == reason).unwrap().1
    }
}

/// Nothing but what `set` sets.
pub(super) fn only(set: impl FnOnce(&mut BreakerCounts)) -> BreakerCounts {
    let mut counts = BreakerCounts::default();
    set(&mut counts);
    counts
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn retry() -> Retry {
    Retry::default()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .jitter(Jitter::None)
        .without_budget()
}

pub(super) fn quick() -> PipelineBuilder {
    Pipeline::standard("test").retry(retry())
}

/// What a server of bare HTTP/2 does with one stream.
#[derive(Clone)]
pub(super) enum Frames {
    Refuse,
    /// Headers, and only when everybody has seen them the end.
    HeadersAndReset(h2::Reason),
    /// Headers alone with these.
    Headers(u16, Vec<(&'static str, &'static str)>),
    Answer,
}

pub(super) async fn bare(replies: Vec<Frames>, policy: PipelineBuilder) -> (Code, usize, Pipeline) {
    let (channel, mut incoming) = channel(&Endpoint::from_static("http://server"));
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        let socket = incoming.recv().await.unwrap().unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let number = *count.lock().unwrap();
            *count.lock().unwrap() += 1;
            let mut response = http::Response::new(());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            match replies[number.min(replies.len() - 1)].clone() {
                Frames::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
                Frames::HeadersAndReset(reason) => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        stream.send_reset(reason);
                    });
                }
                Frames::Headers(status, more) => {
                    headers.extend(more.into_iter().map(|(name, value)| {
                        (
                            name.parse::<http::HeaderName>().unwrap(),
                            HeaderValue::from_static(value),
                        )
                    }));
                    *response.status_mut() = status.try_into().unwrap();
                    respond.send_response(response, true).unwrap();
                }
                Frames::Answer => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream
                        .send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false)
                        .unwrap();
                    let trailers = [("grpc-status", "0")];
                    let trailers =
                        trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
                    stream.send_trailers(trailers.into_iter().collect()).unwrap();
                }
            }
        }
    });
    let policy = policy.build().unwrap();
    let layer = ServiceBuilder::new().layer(GrpcLayer::new(policy.clone()));
    let mut client = HealthClient::new(layer.service(channel));
    let result = client.check(HealthCheckRequest::default()).await;
    let calls = *calls.lock().unwrap();
    (result.map_or_else(|status| status.code(), |_| Code::Ok), calls, policy)
}
