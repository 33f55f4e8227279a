//! A proxy in a folder of its own, upstreams that behave as told, and clients. No test here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opsctl_proxy::{Options, ProxyError};
use opsctl_proxy_control::{Backend, Client, Counters, RouteConfig, Weight};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `check` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A proxy in a folder of its own, with one instance of `orders` behind it: `v1`, of that version. And the HTTP port.
pub(crate) async fn one() -> (Proxy, Upstream, SocketAddr) {
    let (proxy, [v1], addr) = several([("v1", "v1")]).await;
    (proxy, v1, addr)
}

/// The same with several instances: what each answers, and its version; they are called `orders-1` and so on.
pub(crate) async fn several<const N: usize>(
    instances: [(&'static str, &'static str); N],
) -> (Proxy, [Upstream; N], SocketAddr) {
    let proxy = Proxy::fresh(|_| {}).await;
    let (upstreams, addr) = proxy.front(instances).await;
    (proxy, upstreams, addr)
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) client: Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) folder: PathBuf,
    task: JoinHandle<Result<(), ProxyError>>,
    /// The folder, where nobody else holds it.
    held: Option<TempDir>,
}

impl Proxy {
    /// In a folder of its own.
    pub(crate) async fn fresh(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut proxy = Self::start_with(folder.path(), change).await;
        proxy.held = Some(folder);
        proxy
    }

    pub(crate) async fn start_with(folder: &Path, change: impl FnOnce(&mut Options)) -> Self {
        let shutdown = CancellationToken::new();
        let mut options = Options::new(folder, shutdown.clone());
        options.workers = 2;
        change(&mut options);
        let client = Client::new(&options.socket);
        let task = tokio::spawn(opsctl_proxy::run(options));
        let proxy = Self {
            client,
            shutdown,
            folder: folder.to_owned(),
            task,
            held: None,
        };
        until("the proxy answers", || async {
            assert!(!proxy.task.is_finished(), "the proxy ended at once");
            proxy.client.status().await.ok()
        })
        .await;
        proxy
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let result = tokio::time::timeout(DEADLINE, self.task).await;
        result.expect("the proxy ends").expect("no panic").expect("no error");
    }

    /// Starts instances and routes `orders` to them; see [`several`].
    pub(crate) async fn front<const N: usize>(
        &self,
        instances: [(&'static str, &'static str); N],
    ) -> ([Upstream; N], SocketAddr) {
        let upstreams = instances.map(|(name, _)| Upstream::start(name));
        let backends = instances
            .iter()
            .zip(&upstreams)
            .enumerate()
            .map(|(index, ((_, version), upstream))| backend(&format!("orders-{}", index + 1), version, upstream.addr));
        let (http, _) = self.route(backends.collect()).await;
        (upstreams, http)
    }

    /// Routes `orders` to these instances; the ports it got for HTTP and for gRPC.
    pub(crate) async fn route(&self, backends: Vec<Backend>) -> (SocketAddr, SocketAddr) {
        let config = self.client.put_route(&config()).await.expect("route").config;
        self.client.set_backends("orders", backends).await.expect("backends");
        (config.http_listen.expect("a port"), config.grpc_listen.expect("a port"))
    }

    pub(crate) async fn counters(&self) -> Counters {
        self.client.counters("orders").await.expect("counters")
    }

    pub(crate) async fn weigh(&self, expect: Option<(&str, u8)>, percent: u8, ttl_seconds: u64) {
        self.client
            .compare_and_set_weight("orders", expect, Some(weight(percent, ttl_seconds)))
            .await
            .expect("weight");
    }
}

pub(crate) fn weight(percent: u8, ttl_seconds: u64) -> Weight {
    Weight {
        version: "v2".to_owned(),
        percent,
        ttl_seconds,
        holder: "run-1".to_owned(),
        lapsed_percent: None,
    }
}

pub(crate) fn config() -> RouteConfig {
    RouteConfig {
        service: "orders".to_owned(),
        http_listen: Some("127.0.0.1:0".parse().expect("address")),
        grpc_listen: Some("127.0.0.1:0".parse().expect("address")),
        stable_version: "v1".to_owned(),
        latency_objective_ms: 60_000,
        response_timeout_ms: opsctl_proxy_control::DEFAULT_RESPONSE_TIMEOUT_MS,
        rules: Vec::new(),
    }
}

pub(crate) fn backend(instance: &str, version: &str, addr: SocketAddr) -> Backend {
    Backend {
        instance: instance.to_owned(),
        version: version.to_owned(),
        http: Some(addr),
        grpc: Some(addr),
        ready: true,
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An instance that answers by path:
/// `/` its name; `/headers` the headers it saw; `/echo` the body as it comes; `/whole` the body when it has come; `/status/N` that status; `/gate` when opened;
/// `/drip` a byte every 20 ms for ever; `/break` half of a response; `/gone` nothing, it closes.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<AtomicU64>,
    /// Requests whose handling was dropped before it was done.
    pub(crate) cancelled: Arc<AtomicU64>,
    gate: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Upstream {
    /// Runs on threads of its own, so that it can be killed as a process would be.
    pub(crate) fn start(name: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let seen = Arc::new(AtomicU64::new(0));
        let cancelled = Arc::new(AtomicU64::new(0));
        let (gate, opened) = watch::channel(false);
        let (tell, told) = std::sync::mpsc::channel();
        let (counter, drops) = (Arc::clone(&seen), Arc::clone(&cancelled));
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            tell.send(listener.local_addr().expect("address")).expect("told");
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let (seen, drops, opened) = (Arc::clone(&counter), Arc::clone(&drops), opened.clone());
                let service = hyper::service::service_fn(move |request| {
                    seen.fetch_add(1, SeqCst);
                    let (drops, opened) = (Arc::clone(&drops), opened.clone());
                    async move {
                        let mut guard = CountDrop(Some(drops));
                        let response = answer(name, request, opened).await;
                        guard.0 = None;
                        response
                    }
                });
                tokio::spawn(async move {
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let addr = told.recv().expect("the upstream started");
        Self {
            addr,
            seen,
            cancelled,
            gate,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// Closes all its sockets at once.
    pub(crate) async fn kill(&mut self) {
        self.close();
        let addr = self.addr;
        until("it is dead", || async move { TcpStream::connect(addr).await.err() }).await;
    }

    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.close();
    }
}

struct CountDrop(Option<Arc<AtomicU64>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        if let Some(drops) = &self.0 {
            drops.fetch_add(1, SeqCst);
        }
    }
}

async fn answer(
    name: &str,
    request: Request<Incoming>,
    mut opened: watch::Receiver<bool>,
) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let text = |text: String| Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    Ok(match path.as_str() {
        "/headers" => {
            let lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            text(lines.join("\n"))
        }
        "/echo" => {
            let frames = http_body_util::BodyStream::new(request.into_body());
            let body = futures::StreamExt::filter_map(frames, |frame| async { frame.ok().map(Ok) });
            let mut response = Response::new(StreamBody::new(body).boxed_unsync());
            response
                .headers_mut()
                .insert("content-type", http::HeaderValue::from_static("application/grpc"));
            response
        }
        "/whole" => {
            let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
            text(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        }
        "/gate" => {
            opened.wait_for(|open| *open).await.expect("the gate lives");
            text(name.to_owned())
        }
        "/drip" => {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok(Frame::data(Bytes::from_static(b"."))), ()))
            });
            Response::new(StreamBody::new(drops).boxed_unsync())
        }
        "/break" => {
            // The headers are on their way before it breaks off.
            let half = futures::stream::unfold(false, |broken| async move {
                if broken {
                    tokio::task::yield_now().await;
                    return None;
                }
                Some((Ok(Frame::data(Bytes::from_static(b"half"))), true))
            });
            let mut response = Response::new(StreamBody::new(half).boxed_unsync());
            response.headers_mut().insert("content-length", 8.into());
            response
        }
        "/gone" => return Err(std::io::Error::other("closes without an answer")),
        _ => {
            let status = path.strip_prefix("/status/").and_then(|status| status.parse().ok());
            let mut response = text(name.to_owned());
            *response.status_mut() = StatusCode::from_u16(status.unwrap_or(200)).expect("status");
            response
        }
    })
}

/// A response as the client saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A keep-alive HTTP/1.1 connection.
pub(crate) struct Connection(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connect");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("handshake");
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn start(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header("host", "orders");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0
            .send_request(request.body(Full::default()).expect("request"))
            .await
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Seen, hyper::Error> {
        let (parts, body) = self.start(path, headers).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Seen {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// An HTTP/2 connection without TLS.
pub(crate) async fn http2<B>(addr: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(addr).await.expect("connect");
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// One GET on a connection of its own.
pub(crate) async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Seen, hyper::Error> {
    Connection::open(addr).await.get(path, headers).await
}
