//! The end of a service: SIGTERM -> not ready -> keep accepting for `delay` -> stop accepting -> `timeout` -> abort.
//! It owns the deadline, since neither axum nor tonic has one. It does not serve; it tells servers when to stop.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::schedule::Health;

/// Times of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long the service keeps accepting while it says that it is not ready, so that balancers notice. Default 5 s.
    pub delay: Duration,
    /// How long requests in flight may take after that. Default 18 s.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(18),
        }
    }
}

impl Drain {
    /// The defaults, changed by `DRAIN_DELAY` and `DRAIN_TIMEOUT`: seconds (`0.2`) or with a unit (`200ms`, `5s`, `1m`).
    ///
    /// # Errors
    /// A value that is no duration.
    pub fn from_env() -> Result<Self, DrainError> {
        let mut drain = Self::default();
        for (name, field) in [("DRAIN_DELAY", &mut drain.delay), ("DRAIN_TIMEOUT", &mut drain.timeout)] {
            if let Ok(text) = std::env::var(name) {
                *field = parse(&text).ok_or(DrainError { name, text })?;
            }
        }
        Ok(drain)
    }
}

/// A time of the drain that is no duration.
#[derive(Debug, thiserror::Error)]
#[error("{name}={text} is no duration such as 5s or 200ms")]
pub struct DrainError {
    /// Name of the variable.
    pub name: &'static str,
    /// Its value.
    pub text: String,
}

fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, scale) = match text {
        _ if text.ends_with("ms") => (text.strip_suffix("ms")?, 1e-3),
        _ if text.ends_with('s') => (text.strip_suffix('s')?, 1.0),
        _ if text.ends_with('m') => (text.strip_suffix('m')?, 60.0),
        _ => (text, 1.0),
    };
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * scale).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Running,
    Draining,
    StopAccepting,
    Abort,
}

/// How [`Lifecycle::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ended<T> {
    /// The servers ended: by themselves, or because the drain let them.
    Finished(T),
    /// Work was left when the drain's timeout was over, or a second signal came.
    Aborted,
}

/// The life of one service. Clones share.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    health: Health,
    phase: watch::Sender<Phase>,
    times: Drain,
}

impl Lifecycle {
    /// Installs the signal handlers (SIGTERM drains; SIGINT drains without the delay; a second signal aborts) and
    /// watches for them. Call it before anything slow, so that an early SIGTERM is not lost.
    ///
    /// # Errors
    /// When a handler cannot be installed. Needs a runtime.
    pub fn install(health: &Health, times: Drain) -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let life = Self::without_signals(health, times);
        let watcher = life.clone();
        tokio::spawn(async move {
            let delay = tokio::select! {
                _ = terminate.recv() => times.delay,
                _ = interrupt.recv() => Duration::ZERO,
                () = watcher.reached(Phase::Draining) => times.delay,
            };
            watcher.start(delay);
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            watcher.advance(Phase::Abort);
        });
        Ok(life)
    }

    /// A life that only [`Lifecycle::drain`] ends: for tests, and for programs with their own signal handling.
    pub fn without_signals(health: &Health, times: Drain) -> Self {
        Self {
            health: health.clone(),
            phase: watch::Sender::new(Phase::Running),
            times,
        }
    }

    /// Starts the drain as SIGTERM does. Needs a runtime. Later calls change nothing.
    pub fn drain(&self) {
        self.start(self.times.delay);
    }

    /// Ends when servers should stop accepting: give it to `with_graceful_shutdown` and `serve_with_shutdown`.
    pub fn stop_accepting(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let life = self.clone();
        async move { life.reached(Phase::StopAccepting).await }
    }

    /// Ends when the drain begins: for loops that should not take new work.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let life = self.clone();
        async move { life.reached(Phase::Draining).await }
    }

    /// Runs the servers until they end or the drain's timeout is over, then stops the health checks.
    pub fn run<T>(&self, servers: impl Future<Output = T>) -> impl Future<Output = Ended<T>> {
        // Servers' futures are large; boxed, they do not make the caller's so.
        let servers = Box::pin(servers);
        async move {
            let ended = tokio::select! {
                result = servers => Ended::Finished(result),
                () = self.reached(Phase::Abort) => {
                    tracing::warn!("the drain's time is over, aborting what is left");
                    Ended::Aborted
                }
            };
            self.health.stop();
            ended
        }
    }

    fn start(&self, delay: Duration) {
        if !self.advance(Phase::Draining) {
            return;
        }
        tracing::info!(delay_seconds = delay.as_secs_f64(), "draining");
        self.health.drain();
        let life = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            life.advance(Phase::StopAccepting);
            life.health.inner().close_streams();
            tokio::time::sleep(life.times.timeout).await;
            life.advance(Phase::Abort);
        });
    }

    /// Goes on to `phase`; false when it is there already.
    fn advance(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let later = *now < phase;
            if later {
                *now = phase;
            }
            later
        })
    }

    async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.subscribe();
        // Cannot fail while `self` holds the sender.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}
