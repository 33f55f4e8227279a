//! The end of a service, in order: told to stop -> not ready, still accepting -> [`Drain::delay`] -> accept no more,
//! GOAWAY, `Connection: close` -> [`Drain::timeout`] -> cut what is left -> stop the checks -> flush telemetry, at most
//! [`Drain::flush`]. It owns the deadline, since neither axum nor tonic has one. It does not exit: it returns.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::health::Health;

mod drain;
mod serve;

pub use drain::Drain;
pub(crate) use serve::serve;

/// Time to flush after a second signal.
const AT_ONCE: Duration = Duration::from_millis(250);

/// The life of one service, from before its first slow step to its end. Clones share.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use health::{Drain, Health, Lifecycle};
/// # async fn flush(_: std::time::Duration) {}
/// let life = Lifecycle::install(Drain::from_env()?)?;
/// let listener = life.starting(tokio::net::TcpListener::bind("127.0.0.1:8080")).await??;
/// let health = Health::builder().build()?;
/// let app = health.http_router();
/// life.run(&health, life.serve(listener, app), |limit| flush(limit)).await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    times: Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Running,
    Draining,
    StopAccepting,
    Abort,
}

/// How [`Lifecycle::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended<T, R> {
    /// What the servers returned: by themselves, or because the drain let them. `None` when work was left at the end of
    /// the drain's timeout, or at a second signal.
    pub servers: Option<T>,
    /// What the flush returned; `None` when its time was over.
    pub flushed: Option<R>,
}

/// The service was told to stop before it had started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("told to stop while starting")]
pub struct Interrupted;

/// Why a life cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// The end would take longer than the service is given.
    #[error(
        "health.drain: delay {:?} + timeout {:?} + flush {:?} must be less than grace {:?}, when it would be killed",
        .times.delay, .times.timeout, .times.flush, .times.grace
    )]
    TooLong {
        /// The times.
        times: Drain,
    },
    /// A signal handler cannot be installed.
    #[error("cannot handle signals")]
    Signals {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Lifecycle {
    /// Installs the signal handlers: SIGTERM drains, SIGINT drains without the delay, a second signal ends the drain at
    /// once. Call it before anything slow: a container's first process ignores signals that it has no handler for. Needs
    /// a runtime.
    ///
    /// # Errors
    /// Times whose sum is not less than [`Drain::grace`]; a handler that cannot be installed.
    pub fn install(times: Drain) -> Result<Self, LifecycleError> {
        let life = Self::without_signals(times)?;
        let failed = |source| LifecycleError::Signals { source };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let watcher = life.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => watcher.advance(Phase::Draining),
                // A person waits: there is no balancer to be told.
                _ = interrupt.recv() => watcher.advance(Phase::StopAccepting),
                () = watcher.reached(Phase::Draining) => {}
            }
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            watcher.advance(Phase::Abort);
        });
        Ok(life)
    }

    /// A life that only [`Lifecycle::drain`] ends: for tests, and for programs with their own signal handling.
    ///
    /// # Errors
    /// Times whose sum is not less than [`Drain::grace`].
    pub fn without_signals(times: Drain) -> Result<Self, LifecycleError> {
        if times.total() >= times.grace {
            return Err(LifecycleError::TooLong { times });
        }
        let phase = watch::Sender::new(Phase::Running);
        Ok(Self { phase, times })
    }

    /// Starts the drain as SIGTERM does. Later calls change nothing.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends the drain as a second signal does.
    pub fn abort(&self) {
        self.advance(Phase::Abort);
    }

    /// Does a slow step of the start, unless the service is told to stop before it is done.
    ///
    /// # Errors
    /// When it was told to stop; the step is dropped where it stood.
    pub async fn starting<T>(&self, step: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            () = self.reached(Phase::Draining) => Err(Interrupted),
            done = step => Ok(done),
        }
    }

    /// Serves HTTP/1 and HTTP/2 (for gRPC: `Routes::into_axum_router`) without TLS on `listener` until the drain has let
    /// it: it ends when every request that it took is answered. Connections without a request in flight do not hold it
    /// up: idle ones are closed, those that say nothing for a second are cut, half a request included. While draining,
    /// every answer over HTTP/1 closes its connection. Handlers can ask for `ConnectInfo<L::Addr>`.
    ///
    /// Dropped, which [`Lifecycle::run`] does when time is over, it cuts all its connections.
    pub fn serve<L>(&self, listener: L, app: Router) -> impl Future<Output = ()> + Send + use<L>
    where
        L: Listener,
        L::Addr: Clone + Sync + 'static,
    {
        serve(listener, app, self.phase.subscribe())
    }

    /// Ends when servers should stop accepting: for servers other than [`Lifecycle::serve`]. Their idle connections are
    /// their own matter.
    pub fn stop_accepting(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let life = self.clone();
        async move { life.reached(Phase::StopAccepting).await }
    }

    /// Ends when the drain begins: for loops that should not take new work.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let life = self.clone();
        async move { life.reached(Phase::Draining).await }
    }

    /// Runs the servers, and what else must be given its time at the end, until they end or the drain is over. Then it
    /// stops the checks and calls `flush` with the time that it may take: telemetry's shutdown, which no service can
    /// forget because it is asked for here. A service that was never ready is told to stop without the delay, since no
    /// balancer knows of it.
    pub fn run<T, F: Future>(
        &self,
        health: &Health,
        servers: impl Future<Output = T>,
        flush: impl FnOnce(Duration) -> F,
    ) -> impl Future<Output = Ended<T, F::Output>> {
        // Servers' futures are large; boxed, they do not make the caller's so.
        let servers = Box::pin(servers);
        async move {
            let served = tokio::select! {
                result = servers => Some(result),
                () = self.ends(health) => None,
            };
            health.stop();
            let limit = if self.has_reached(Phase::Abort) {
                AT_ONCE
            } else {
                self.times.flush
            };
            let flushed = async {
                let flushed = tokio::time::timeout(limit, flush(limit)).await;
                if flushed.is_err() {
                    tracing::warn!("the time to flush is over");
                }
                flushed.ok()
            };
            Ended {
                servers: served,
                flushed: flushed.await,
            }
        }
    }

    /// The drain from its beginning to its last moment.
    async fn ends(&self, health: &Health) {
        self.reached(Phase::Draining).await;
        let delay = if health.board.has_started() {
            self.times.delay
        } else {
            Duration::ZERO
        };
        let times = self.times;
        tracing::info!(
            delay_seconds = delay.as_secs_f64(),
            timeout_seconds = times.timeout.as_secs_f64(),
            "draining"
        );
        health.drain();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.reached(Phase::StopAccepting) => {}
        }
        self.advance(Phase::StopAccepting);
        health.board.close_streams();
        tokio::select! {
            () = tokio::time::sleep(times.timeout) => tracing::warn!("the drain's time is over, cutting what is left"),
            () = self.reached(Phase::Abort) => tracing::warn!("told to stop at once, cutting what is left"),
        }
    }

    /// Goes on to `phase`, if it is not there already.
    fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = *now < phase;
            if later {
                *now = phase;
            }
            later
        });
    }

    fn has_reached(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    async fn reached(&self, phase: Phase) {
        reached(&mut self.phase.subscribe(), phase).await;
    }
}

/// Ends when the phase has come; never when its sender has gone before.
async fn reached(receiver: &mut watch::Receiver<Phase>, phase: Phase) {
    if receiver.wait_for(|now| *now >= phase).await.is_err() {
        std::future::pending::<()>().await;
    }
}
