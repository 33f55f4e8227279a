//! A proxy before Loki that has every fault on demand: down, slow, silent, and any answer instead of Loki's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What happens to a push.
#[derive(Clone)]
pub enum Fault {
    /// Nothing: Loki gets it and answers.
    Pass,
    /// Loki gets it, and its answer comes late.
    Late(Duration),
    /// Nobody gets it, and no answer comes.
    Silent,
    /// Loki gets it, and its answer is lost.
    LostAnswer,
    /// This is answered, and Loki gets nothing.
    Status(u16, Option<&'static str>, &'static str),
    /// The status, and a body without an end.
    Endless(u16),
    /// 400 without a word when a line holds this text, and Loki gets nothing.
    RefuseWhole(&'static str),
}

/// The proxy.
pub struct Gate {
    address: SocketAddr,
    state: Arc<Shared>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

struct Shared {
    loki: SocketAddr,
    fault: Mutex<Fault>,
    /// When each push came.
    pushes: Mutex<Vec<Instant>>,
    /// Bytes of the largest push, unpacked.
    largest: AtomicUsize,
    client: reqwest::Client,
}

/// As in Loki's `push.proto`, for those who look into a push.
#[derive(Clone, PartialEq, Message)]
pub struct Push {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<PushStream>,
}
#[derive(Clone, PartialEq, Message)]
pub struct PushStream {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<PushEntry>,
}
#[derive(Clone, PartialEq, Message)]
pub struct PushEntry {
    #[prost(string, tag = "2")]
    pub line: String,
}

impl Gate {
    /// A gate that is open.
    pub async fn open(loki: SocketAddr) -> Self {
        let mut gate = Self::down(loki).await;
        gate.start().await;
        gate
    }

    /// A gate at which nobody listens yet.
    pub async fn down(loki: SocketAddr) -> Self {
        telemetry::init_tls();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let state = Shared {
            loki,
            fault: Mutex::new(Fault::Pass),
            pushes: Mutex::default(),
            largest: AtomicUsize::new(0),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        Self {
            address,
            state: Arc::new(state),
            serving: None,
        }
    }

    /// Where it is, whether it is down or not.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to pushes from now on.
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// How many pushes came.
    pub fn pushes(&self) -> usize {
        self.state.pushes.lock().unwrap().len()
    }

    /// Waits until so many have come.
    pub async fn until_pushes(&self, count: usize, limit: Duration) {
        let until = Instant::now() + limit;
        while self.pushes() < count {
            assert!(Instant::now() < until, "{} pushes instead of {count}", self.pushes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// When they came.
    pub fn times(&self) -> Vec<Instant> {
        self.state.pushes.lock().unwrap().clone()
    }

    /// The largest, unpacked. Bytes.
    pub fn largest(&self) -> usize {
        self.state.largest.load(Ordering::Relaxed)
    }

    /// Ends all connections and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens, at the address that it has always had.
    pub async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let app = Router::new().fallback(push).with_state(Arc::clone(&self.state));
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(app.clone());
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn push(State(state): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    state.pushes.lock().unwrap().push(Instant::now());
    let fault = state.fault.lock().unwrap().clone();
    if headers
        .get("content-encoding")
        .is_none_or(|encoding| encoding == "snappy")
    {
        let length = snap::raw::decompress_len(&body).unwrap();
        state.largest.fetch_max(length, Ordering::Relaxed);
    }
    match fault {
        Fault::Pass => forward(&state, headers, body).await,
        Fault::Late(wait) => {
            // Also when the client has gone: Loki has it.
            let answer = tokio::spawn(async move { forward(&state, headers, body).await })
                .await
                .unwrap();
            tokio::time::sleep(wait).await;
            answer
        }
        Fault::Silent => std::future::pending().await,
        Fault::LostAnswer => {
            forward(&state, headers, body).await;
            std::future::pending().await
        }
        Fault::Status(status, retry_after, text) => {
            let mut answer = (StatusCode::from_u16(status).unwrap(), text).into_response();
            if let Some(after) = retry_after {
                answer.headers_mut().insert("retry-after", after.parse().unwrap());
            }
            if (300..400).contains(&status) {
                answer.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            }
            answer
        }
        Fault::Endless(status) => {
            let endless = futures::stream::repeat(Bytes::from_static(&[b'x'; 4096]));
            let body = Body::from_stream(endless.then(|part| async {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(part)
            }));
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        Fault::RefuseWhole(text) => {
            let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let push = Push::decode(&plain[..]).unwrap();
            let lines = push.streams.iter().flat_map(|stream| &stream.entries);
            if lines.into_iter().any(|entry| entry.line.contains(text)) {
                return (StatusCode::BAD_REQUEST, "no").into_response();
            }
            forward(&state, headers, body).await
        }
    }
}

async fn forward(state: &Shared, mut headers: HeaderMap, body: Bytes) -> Response {
    headers.remove("host");
    let url = format!("http://{}/loki/api/v1/push", state.loki);
    match state.client.post(url).headers(headers).body(body).send().await {
        Ok(answer) => {
            let status = answer.status();
            (status, answer.bytes().await.unwrap_or_default()).into_response()
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
