//! Liveness: synchronous questions about the process itself. It is no place for dependencies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Answer of a liveness check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The process does its work.
    Alive,
    /// Only a restart helps.
    Dead,
}

impl From<bool> for Beat {
    fn from(alive: bool) -> Self {
        if alive { Self::Alive } else { Self::Dead }
    }
}

/// A worker's sign of life: dead when nobody called [`Heartbeat::beat`] for longer than its limit. Clones share.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    born: Instant,
    last_ms: AtomicU64,
    limit: Duration,
}

impl Heartbeat {
    /// A heartbeat that has just beaten, dead after `limit` without another.
    pub fn new(limit: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                born: Instant::now(),
                last_ms: AtomicU64::new(0),
                limit,
            }),
        }
    }

    /// Says that the worker made progress.
    pub fn beat(&self) {
        self.shared
            .last_ms
            .store(self.shared.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long it may be silent.
    pub fn limit(&self) -> Duration {
        self.shared.limit
    }

    /// Whether the last beat is recent enough.
    pub fn check(&self) -> Beat {
        let last = Duration::from_millis(self.shared.last_ms.load(Ordering::Relaxed));
        Beat::from(self.shared.born.elapsed().saturating_sub(last) <= self.shared.limit)
    }
}
