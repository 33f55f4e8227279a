//! The local traffic proxy: owns the stable ports of services and gives each request to an instance of the right
//! version. Not a general reverse proxy: no TLS, no caching, no configuration file, instances on this machine.
//!
//! [`run`] is the whole program; it is steered over a Unix socket in the protocol of `opsctl-proxy-control`. What it
//! promises:
//!
//! * The version is chosen for each request, not for each connection: a signed canary mark, then rules, then the
//!   weight. A change of weight drops no connection. A weight is a lease, and 0 % once it ran out.
//! * A request is repeated only when no byte of it was sent.
//! * An instance that does not begin to answer in time is answered for; what has begun is never cut.
//! * Faults end by themselves, reach requests that are under way, and never delay their own removal.
//! * Every request is counted once, exactly, in the version and the instance that had it.
//! * Started again, it comes back on the same ports with the same routes, and with canaries at 0 %.

mod answer;
mod body;
mod choice;
mod client;
mod control;
mod counters;
mod fault;
mod forward;
mod headers;
pub mod hop;
mod listener;
mod metrics;
mod patience;
mod route;
mod state;
mod stream;
mod table;
mod upstream;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opsctl_proxy_control::{Status, socket};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::state::State;
use crate::table::Table;
use crate::worker::{Knowledge, Workers};

/// How a proxy runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The control socket. Made with mode 0600; the path may be longer than `sockaddr_un` holds.
    pub socket: PathBuf,
    /// Where routes are kept.
    pub state_file: PathBuf,
    /// Where the secret of canary tokens is kept; made at first. See `opsctl_proxy_control::token`.
    pub secret_file: PathBuf,
    /// Held locked while the proxy runs.
    pub lock_file: PathBuf,
    /// What [`Status::version`] says.
    pub version: String,
    /// Threads that carry traffic, at least 1. Default: half of the cores, at least 1 and at most 4.
    pub workers: usize,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// How long requests under way may go on after `shutdown`. Default 10 s.
    pub drain: Duration,
    /// Ends the proxy: it stops accepting, finishes what it has, and [`run`] returns.
    pub shutdown: CancellationToken,
}

impl Options {
    /// Everything in one folder that exists, with mode 0700: `proxy.sock`, `proxy.json`, `proxy.secret`,
    /// `proxy.lock`.
    pub fn new(folder: &Path, shutdown: CancellationToken) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            socket: folder.join("proxy.sock"),
            state_file: folder.join("proxy.json"),
            secret_file: folder.join("proxy.secret"),
            lock_file: folder.join("proxy.lock"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: (cores / 2).clamp(1, 4),
            limits: Limits::default(),
            drain: Duration::from_secs(10),
            shutdown,
        }
    }
}

/// Bounds on what clients may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the connection, or the end of the last response, to the end of the next request's headers. Default 60 s.
    pub header_timeout: Duration,
    /// Bytes of one request's line and headers, at least 8192. Default 64 KiB.
    pub header_bytes: u32,
    /// Headers of one HTTP/1.1 request. Default 100.
    pub headers: usize,
    /// Requests at once on one HTTP/2 connection. Default 1024.
    pub streams: u32,
    /// Client connections at once, over all services; more are closed at once. Default 10,000.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_mins(1),
            header_bytes: 64 * 1024,
            headers: 100,
            streams: 1024,
            connections: 10_000,
        }
    }
}

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Another proxy runs on the same state.
    #[error("another proxy holds {}", lock.display())]
    AlreadyRunning {
        /// The lock file.
        lock: PathBuf,
    },
    /// A port that the saved routes need is taken.
    #[error("{addr} is taken by another process")]
    PortTaken {
        /// The address.
        addr: SocketAddr,
    },
    /// A port that the saved routes need cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what the proxy wrote.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system gave no thread.
    #[error("the proxy's threads could not be started")]
    Start(#[source] io::Error),
}

/// Runs a proxy until [`Options::shutdown`] is cancelled. Raises the process's soft limit of open files to the hard
/// one. The control socket answers as soon as the saved routes are served.
///
/// # Errors
/// [`ProxyError`] when it cannot start; once it runs, it ends without error.
pub async fn run(options: Options) -> Result<(), ProxyError> {
    let _lock = state::lock(&options.lock_file)?;
    let secret: Arc<[u8]> = state::secret(&options.secret_file)?.into();
    let state = State::load(&options.state_file)?;
    raise_file_limit();
    let knowledge = Knowledge {
        secret,
        limits: options.limits,
        drain: options.drain,
    };
    let workers = Workers::start(options.workers.max(1), &knowledge).map_err(ProxyError::Start)?;
    let workers = Arc::new(workers);
    let status = Status {
        pid: std::process::id(),
        version: options.version,
        started_at: jiff::Timestamp::now(),
        boot_id: uuid::Uuid::new_v4().to_string(),
        revision: state.revision,
    };
    let boot_id = status.boot_id.clone();
    let table = Table::restore(state, options.state_file, boot_id, Arc::clone(&workers)).await?;
    let listener = socket::bind(&options.socket).await.map_err(|source| ProxyError::File {
        path: options.socket.clone(),
        source,
    })?;
    let control = Arc::new(Control {
        table: Mutex::new(table),
        status,
    });
    tokio::select! {
        never = control::serve(listener, Arc::clone(&control)) => match never {},
        () = options.shutdown.cancelled() => {}
    }
    // The next proxy binds the name afresh; while this one drains, nobody can steer it.
    let _ = std::fs::remove_file(&options.socket);
    control.table.lock().await.close();
    workers.stop().await;
    Ok(())
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Two descriptors a request: with a soft limit of 1024 that would be five hundred at once.
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
