//! The admin listener: details, snapshots and the log level, for those who may touch the process. A Unix socket of mode
//! 0600, or a loopback port with a token file; writes are off unless enabled, and each write leaves an audit line.
//! Probes and scrapes are not here: they are on the service's public port.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::level::LogLevel;
use crate::timed::{DEFAULT_TTL, Timed};

/// Largest body of a write in bytes.
const LARGEST_BODY: usize = 64 * 1024;

/// Where the admin listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddr {
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
    /// A loopback address; callers show the token that the file holds (`Authorization: Bearer …`).
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// File with the token, at least 16 characters, not readable by others.
        token_file: PathBuf,
    },
}

impl AdminAddr {
    /// `unix:/path` or `127.0.0.1:port`, the latter with its token file.
    ///
    /// # Errors
    /// Anything else, an address that is not loopback, or no token file for one.
    pub fn parse(text: &str, token_file: Option<&Path>) -> Result<Self, AdminError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let addr: SocketAddr = text
            .parse()
            .map_err(|_| AdminError::Address { text: text.to_owned() })?;
        if !addr.ip().is_loopback() {
            return Err(AdminError::NotLoopback { addr });
        }
        let token_file = token_file.ok_or(AdminError::NoToken { addr })?.to_owned();
        Ok(Self::Tcp { addr, token_file })
    }
}

/// What the admin listener serves; made by `Telemetry::admin`.
#[derive(Debug)]
pub struct Admin {
    router: Router,
    writes: bool,
}

impl Admin {
    pub(crate) fn new(level: LogLevel, lines_per_second: Timed<Option<u32>>) -> Self {
        let level = Router::new()
            .route("/loglevel", get(show_level).put(set_level))
            .with_state(level);
        let rate = Router::new()
            .route("/lograte", get(show_rate).put(set_rate))
            .with_state(lines_per_second);
        let router = level.merge(rate);
        Self { router, writes: false }
    }

    /// Adds routes, such as `health.details_router()`. GET and HEAD read; every other method counts as a write.
    #[must_use]
    pub fn merge(mut self, router: Router) -> Self {
        self.router = self.router.merge(router);
        self
    }

    /// Allows writes. Default: they are answered with 403.
    #[must_use]
    pub fn writes(mut self, allowed: bool) -> Self {
        self.writes = allowed;
        self
    }

    /// Listens where `ADMIN_ADDR` (with `ADMIN_TOKEN_FILE`) says, with writes if `ADMIN_WRITES` is `1` or `true`;
    /// `None` when `ADMIN_ADDR` is not set.
    ///
    /// # Errors
    /// As [`AdminAddr::parse`] and [`Admin::serve`].
    pub fn serve_from_env(mut self) -> Result<Option<AdminServer>, AdminError> {
        let Ok(text) = std::env::var("ADMIN_ADDR") else {
            return Ok(None);
        };
        let token_file = std::env::var_os("ADMIN_TOKEN_FILE").map(PathBuf::from);
        if let Ok(writes) = std::env::var("ADMIN_WRITES") {
            self.writes = matches!(writes.as_str(), "1" | "true");
        }
        self.serve(&AdminAddr::parse(&text, token_file.as_deref())?).map(Some)
    }

    /// Starts to listen. Needs a runtime.
    ///
    /// # Errors
    /// When the socket or port cannot be opened, or the token file is missing, short or readable by others.
    pub fn serve(self, addr: &AdminAddr) -> Result<AdminServer, AdminError> {
        match addr {
            AdminAddr::Unix(path) => {
                let listener = bind_private(path).map_err(|source| AdminError::Listen {
                    addr: path.display().to_string(),
                    source,
                })?;
                let inode = std::fs::symlink_metadata(path).map(|meta| meta.ino()).ok();
                let app = self.guarded(None).into_make_service_with_connect_info::<Peer>();
                let task = tokio::spawn(async move {
                    if let Err(error) = axum::serve(listener, app).await {
                        tracing::error!(error = &error as &dyn std::error::Error, "admin listener ended");
                    }
                });
                Ok(AdminServer {
                    task,
                    socket: Some((path.clone(), inode)),
                    addr: None,
                })
            }
            AdminAddr::Tcp { addr, token_file } => {
                let token = read_token(token_file)?;
                let listen = |source| AdminError::Listen {
                    addr: addr.to_string(),
                    source,
                };
                let listener = std::net::TcpListener::bind(addr).map_err(listen)?;
                listener.set_nonblocking(true).map_err(listen)?;
                let local = listener.local_addr().map_err(listen)?;
                let listener = TcpListener::from_std(listener).map_err(listen)?;
                let app = self.guarded(Some(token.into()));
                let task = tokio::spawn(async move {
                    if let Err(error) = axum::serve(listener, app).await {
                        tracing::error!(error = &error as &dyn std::error::Error, "admin listener ended");
                    }
                });
                Ok(AdminServer {
                    task,
                    socket: None,
                    addr: Some(local),
                })
            }
        }
    }

    fn guarded(self, token: Option<Arc<str>>) -> Router {
        let guard = Guard {
            token,
            writes: self.writes,
        };
        self.router
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .layer(middleware::from_fn_with_state(guard, guard_request))
    }
}

/// A running admin listener; dropping it stops it and removes its socket.
#[derive(Debug)]
pub struct AdminServer {
    task: JoinHandle<()>,
    socket: Option<(PathBuf, Option<u64>)>,
    addr: Option<SocketAddr>,
}

impl AdminServer {
    /// The port that it got, when it is no Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addr
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
        if let Some((path, inode)) = &self.socket {
            // A successor may have put its own socket there.
            if std::fs::symlink_metadata(path).map(|meta| meta.ino()).ok() == *inode {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Why the admin listener could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Neither `unix:/path` nor `127.0.0.1:port`.
    #[error("{text} is neither unix:/path nor a loopback address with a port")]
    Address {
        /// What was given.
        text: String,
    },
    /// Others could reach it.
    #[error("the admin listener must not listen on {addr}, which is not loopback")]
    NotLoopback {
        /// What was given.
        addr: SocketAddr,
    },
    /// A port without a token.
    #[error("the admin listener on {addr} needs a token file")]
    NoToken {
        /// What was given.
        addr: SocketAddr,
    },
    /// The token file is missing, too short, or readable by others.
    #[error("the admin token in {} cannot be used: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The socket or port cannot be opened.
    #[error("the admin listener cannot listen on {addr}")]
    Listen {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Binds a Unix socket that never has a wider mode than 0600: it is made in a folder of mode 0700 and then moved, which
/// also replaces the socket of a dead predecessor.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !parent.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let scratch = parent.join(format!(".{}", &id[..8]));
    std::fs::DirBuilder::new().mode(0o700).create(&scratch)?;
    let inside = scratch.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_file(&inside);
    let _ = std::fs::remove_dir(&scratch);
    bound
}

fn read_token(path: &Path) -> Result<String, AdminError> {
    let refuse = |reason| AdminError::Token {
        path: path.to_owned(),
        reason,
    };
    let meta = std::fs::metadata(path).map_err(|_| refuse("it cannot be read"))?;
    if !only_ours(&meta) {
        return Err(refuse("others may read it"));
    }
    let token = std::fs::read_to_string(path).map_err(|_| refuse("it cannot be read"))?;
    let token = token.trim();
    if token.len() < 16 {
        return Err(refuse("it is shorter than 16 characters"));
    }
    Ok(token.to_owned())
}

/// Whether nobody but us (and root) may do anything with a file. A Secret that Kubernetes mounts belongs to root, and the
/// pod's own group may read it: no process outside of the pod is in that.
fn only_ours(meta: &std::fs::Metadata) -> bool {
    let mode = meta.permissions().mode();
    let denies = |bits: u32| mode & bits == 0;
    let in_group = || {
        rustix::process::getegid().as_raw() == meta.gid()
            || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == meta.gid()))
    };
    denies(0o077) || (denies(0o037) && meta.uid() == 0 && meta.gid() != 0 && in_group())
}

/// Who is at the other end of a Unix socket, as the kernel says; what a request says of itself is only a claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The user; `None` when the kernel does not tell.
    pub(crate) uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream.io().peer_cred().ok().map(|peer| peer.uid()),
        }
    }
}

#[derive(Clone)]
struct Guard {
    token: Option<Arc<str>>,
    writes: bool,
}

async fn guard_request(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(token) = &guard.token {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        if !same(shown.as_bytes(), token.as_bytes()) {
            let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
            return (StatusCode::UNAUTHORIZED, challenge, "a token is needed\n").into_response();
        }
    }
    let method = request.method().clone();
    let reads = matches!(method.as_str(), "GET" | "HEAD");
    if reads {
        return no_store(next.run(request).await);
    }
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let uid = peer.and_then(|peer| peer.0.uid);
    if !guard.writes {
        tracing::warn!(target: "audit", %method, path, uid, status = 403, "admin write refused");
        return (StatusCode::FORBIDDEN, "writes are off\n").into_response();
    }
    let response = next.run(request).await;
    tracing::warn!(target: "audit", %method, path, uid, status = response.status().as_u16(), "admin write");
    no_store(response)
}

fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn show_level(State(level): State<LogLevel>) -> Response {
    axum::Json(level.status()).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevel {
    filter: String,
    ttl: Option<String>,
}

async fn set_level(State(level): State<LogLevel>, body: Bytes) -> Response {
    let wanted: SetLevel = match read(&body) {
        Ok(wanted) => wanted,
        Err(error) => return bad_request(&error),
    };
    match ttl(wanted.ttl.as_deref()).and_then(|ttl| level.set(&wanted.filter, ttl).map_err(|error| error.to_string())) {
        Ok(()) => axum::Json(level.status()).into_response(),
        Err(error) => bad_request(&error),
    }
}

#[derive(serde::Serialize)]
struct Rate {
    schema: &'static str,
    lines_per_second: Option<u32>,
    base: Option<u32>,
    ttl_seconds: Option<f64>,
}

async fn show_rate(State(rate): State<Timed<Option<u32>>>) -> Response {
    let status = rate.status();
    let shown = Rate {
        schema: "opsctl.lograte/v1",
        lines_per_second: status.value,
        base: status.base,
        ttl_seconds: status.left.map(|left| left.as_secs_f64()),
    };
    axum::Json(shown).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRate {
    /// 0 is no limit.
    lines_per_second: u32,
    ttl: Option<String>,
}

async fn set_rate(State(rate): State<Timed<Option<u32>>>, body: Bytes) -> Response {
    let wanted: SetRate = match read(&body) {
        Ok(wanted) => wanted,
        Err(error) => return bad_request(&error),
    };
    let limit = Some(wanted.lines_per_second).filter(|limit| *limit > 0);
    match ttl(wanted.ttl.as_deref()).and_then(|ttl| rate.set(limit, ttl)) {
        Ok(()) => show_rate(State(rate)).await,
        Err(error) => bad_request(&error),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn ttl(text: Option<&str>) -> Result<Duration, String> {
    let ttl = text.map(humantime::parse_duration).transpose();
    Ok(ttl.map_err(|error| format!("ttl: {error}"))?.unwrap_or(DEFAULT_TTL))
}

fn bad_request(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
}
