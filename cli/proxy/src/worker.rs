//! The threads that carry the traffic. Each has a runtime of its own, so that a request never changes cores; the
//! listeners hand connections to the thread that has fewest. Not what is done with a connection.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Limits;
use crate::client::{self, Protocol, Service};
use crate::route::LiveRoute;
use crate::upstream::Pools;

/// How often pools are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A client's connection that nobody serves yet.
pub(crate) struct Accepted {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) route: Arc<LiveRoute>,
    pub(crate) protocol: Protocol,
    /// Cancelled when the listener that it came from closes.
    pub(crate) close: CancellationToken,
}

/// All workers.
pub(crate) struct Workers {
    threads: Vec<Worker>,
    /// The connections that all workers may have together.
    max_connections: usize,
    stop: CancellationToken,
}

struct Worker {
    connections: Arc<AtomicUsize>,
    handoff: mpsc::UnboundedSender<Accepted>,
    pools: Arc<Pools>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What every worker knows.
#[derive(Clone)]
pub(crate) struct Knowledge {
    pub(crate) secret: Arc<[u8]>,
    pub(crate) limits: Limits,
    /// How long requests under way may go on after the stop.
    pub(crate) drain: Duration,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(count: usize, knowledge: &Knowledge) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let threads = (0..count)
            .map(|index| Worker::start(index, knowledge.clone(), stop.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            threads,
            max_connections: knowledge.limits.connections,
            stop,
        })
    }

    /// Gives a connection to the worker with the fewest. Above the limit it is closed.
    pub(crate) fn take(&self, accepted: Accepted) {
        let load = |worker: &Worker| worker.connections.load(Relaxed);
        if self.threads.iter().map(load).sum::<usize>() >= self.max_connections {
            tracing::warn!(service = accepted.route.service, "too many connections; one was closed");
            return;
        }
        if let Some(worker) = self.threads.iter().min_by_key(|worker| load(worker)) {
            worker.connections.fetch_add(1, Relaxed);
            // It fails only after the stop, when the connection may go.
            let _ = worker.handoff.send(accepted);
        }
    }

    /// Closes idle connections to an instance that gets no more requests.
    pub(crate) fn retire(&self, addr: std::net::SocketAddr) {
        for worker in &self.threads {
            worker.pools.retire(addr);
        }
    }

    /// Ends all connections after the requests that they have, at the latest when the drain time is over.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        for worker in &self.threads {
            let ended = worker.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ended) = ended {
                // An error means that the thread has panicked, and so has ended too.
                let _ = ended.await;
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Worker {
    fn start(index: usize, knowledge: Knowledge, stop: CancellationToken) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handoff, accepted) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let pools = Arc::new(Pools::default());
        let work = work(accepted, Arc::clone(&pools), Arc::clone(&connections), knowledge, stop);
        std::thread::Builder::new()
            .name(format!("opsctl-proxy-{index}"))
            .spawn(move || {
                runtime.block_on(work);
                drop(runtime);
                let _ = end.send(());
            })?;
        Ok(Self {
            connections,
            handoff,
            pools,
            ended: Mutex::new(Some(ended)),
        })
    }
}

async fn work(
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    pools: Arc<Pools>,
    connections: Arc<AtomicUsize>,
    knowledge: Knowledge,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = stop.cancelled(), if !stopping => {
                // What was handed over is still served.
                stopping = true;
                accepted.close();
                continue;
            }
            _ = sweep.tick() => {
                pools.sweep(Instant::now());
                continue;
            }
        };
        let Some(Accepted {
            socket,
            route,
            protocol,
            close,
        }) = next
        else {
            break;
        };
        let counted = Counted(Arc::clone(&connections));
        let service = Service {
            route,
            protocol,
            pools: Arc::clone(&pools),
            secret: Arc::clone(&knowledge.secret),
            limits: knowledge.limits,
            close,
        };
        tasks.spawn(async move {
            let _counted = counted;
            match tokio::net::TcpStream::from_std(socket) {
                Ok(socket) => client::serve(socket, service).await,
                Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
            }
        });
    }
    tasks.close();
    // Those that are late end with the runtime.
    let _ = tokio::time::timeout(knowledge.drain, tasks.wait()).await;
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
