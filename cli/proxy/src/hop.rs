//! A hop: passes TCP connections on to one place and plays faults on them, for what speaks no HTTP and for clients whose
//! address leads here for a while. It reads nothing of what it passes on.
//!
//! Without a fault, and once the time to live of the last one is over, it passes everything on. A fault meets connections
//! under way and new ones; its share is a share of connections. Its removal waits for nothing.

mod carry;
mod control;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use opsctl_proxy_control::{Fault, HopCounters, Status};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::FaultSet;

/// How long to wait when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come in and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// `host:port`, resolved anew for each connection.
    pub to: String,
}

/// Ends the open sessions of a role at the database behind the hop; how many there were, or why not.
pub type EndSessions = Arc<dyn Fn() -> BoxFuture<'static, Result<u64, String>> + Send + Sync>;

/// How a hop runs.
#[non_exhaustive]
pub struct Options {
    /// One or more.
    pub forwards: Vec<Forward>,
    /// Where it is steered.
    pub control: SocketAddr,
    /// What whoever steers it must show.
    pub token: String,
    /// How long connections under way may go on after `shutdown`. Default 10 s.
    pub drain: Duration,
    /// Ends sessions that were open before, if it can.
    pub end_sessions: Option<EndSessions>,
    /// Ends it: it accepts nothing more, passes on what it has, and [`Hop::run`] returns.
    pub shutdown: CancellationToken,
}

impl Options {
    /// With the default drain.
    pub fn new(forwards: Vec<Forward>, control: SocketAddr, token: String, shutdown: CancellationToken) -> Self {
        Self {
            forwards,
            control,
            token,
            drain: Duration::from_secs(10),
            end_sessions: None,
            shutdown,
        }
    }
}

/// A hop cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct HopError {
    /// The address.
    pub addr: SocketAddr,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

/// A hop that listens and does not accept yet.
pub struct Hop {
    forwards: Vec<(TcpListener, String)>,
    control: TcpListener,
    shared: Arc<Shared>,
    options: Options,
}

/// What connections and control share.
struct Shared {
    faults: FaultSet,
    counted: Counted,
    status: Status,
    token: String,
    end_sessions: Option<EndSessions>,
}

#[derive(Default)]
struct Counted {
    accepted: AtomicU64,
    open: AtomicU64,
    reset: AtomicU64,
    swallowed: AtomicU64,
    delayed: AtomicU64,
    unreached: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Hop {
    /// Listens on all addresses.
    ///
    /// # Errors
    /// [`HopError`] for the first that cannot be listened on.
    pub async fn bind(options: Options) -> Result<Self, HopError> {
        let mut forwards = Vec::new();
        for forward in &options.forwards {
            forwards.push((bind(forward.listen).await?, forward.to.clone()));
        }
        Ok(Self {
            forwards,
            control: bind(options.control).await?,
            shared: Arc::new(Shared {
                faults: FaultSet::new(),
                counted: Counted::default(),
                status: Status {
                    pid: std::process::id(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    started_at: jiff::Timestamp::now(),
                    boot_id: uuid::Uuid::new_v4().to_string(),
                    revision: 0,
                },
                token: options.token.clone(),
                end_sessions: options.end_sessions.clone(),
            }),
            options,
        })
    }

    /// Where connections come in, in the order of the options.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        let listeners = self.forwards.iter();
        listeners
            .filter_map(|(listener, _)| listener.local_addr().ok())
            .collect()
    }

    /// Where it is steered.
    pub fn control(&self) -> Option<SocketAddr> {
        self.control.local_addr().ok()
    }

    /// Passes connections on until [`Options::shutdown`].
    pub async fn run(self) {
        let Self {
            forwards,
            control,
            shared,
            options,
        } = self;
        let links = TaskTracker::new();
        let accepting = TaskTracker::new();
        for (listener, to) in forwards {
            let (links, shared) = (links.clone(), Arc::clone(&shared));
            let accept = accept(listener, to.into(), links, shared);
            let stopped = options.shutdown.clone().cancelled_owned();
            accepting.spawn(async move {
                tokio::select! {
                    never = accept => match never {},
                    () = stopped => {}
                }
            });
        }
        tokio::select! {
            never = control::serve(control, Arc::clone(&shared)) => match never {},
            () = options.shutdown.cancelled() => {}
        }
        accepting.close();
        accepting.wait().await;
        // Nobody can steer it any more: what a fault holds is let go.
        shared.faults.clear();
        links.close();
        let _ = tokio::time::timeout(options.drain, links.wait()).await;
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, HopError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| HopError { addr, source })
}

async fn accept(
    listener: TcpListener,
    to: Arc<str>,
    links: TaskTracker,
    shared: Arc<Shared>,
) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (to, shared) = (Arc::clone(&to), Arc::clone(&shared));
                links.spawn(async move { carry::carry(client, &to, &shared).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

impl Shared {
    /// Puts a fault, and sees to its end.
    fn put(self: &Arc<Self>, fault: Fault) {
        let Some(active) = self.faults.put(fault, Instant::now()) else {
            return;
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            active.over().await;
            shared.faults.expire(&active);
        });
    }

    fn counters(&self) -> HopCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counted = &self.counted;
        HopCounters {
            at: jiff::Timestamp::now(),
            boot_id: self.status.boot_id.clone(),
            accepted: read(&counted.accepted),
            open: read(&counted.open),
            reset: read(&counted.reset),
            swallowed: read(&counted.swallowed),
            delayed: read(&counted.delayed),
            unreached: read(&counted.unreached),
            bytes_in: read(&counted.bytes_in),
            bytes_out: read(&counted.bytes_out),
        }
    }
}
