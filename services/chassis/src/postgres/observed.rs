//! What telemetry is told of a database: a span and a duration a call, and how the pool stands. It changes nothing about
//! how the database is used.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use telemetry::{DatabaseCalls, Histogram, PoolFigures, Telemetry, catalogue};

use super::Shared;
use crate::database::class_of;

/// Where calls are counted.
#[derive(Debug)]
pub(super) struct Observed {
    calls: DatabaseCalls,
    waits: Histogram,
}

impl Observed {
    pub(super) fn watch(shared: &Arc<Shared>, telemetry: &Telemetry, name: &str) {
        let observed = Self {
            calls: telemetry.database("postgresql", name),
            waits: telemetry.metrics().histogram(catalogue::DB_POOL_WAIT_SECONDS, [name]),
        };
        if shared.observed.set(observed).is_err() {
            return;
        }
        let watched = Arc::downgrade(shared);
        telemetry.watch_pool(name, move || {
            watched
                .upgrade()
                .map_or_else(PoolFigures::default, |shared| shared.figures())
        });
    }

    pub(super) async fn call<T, E: Error + 'static>(
        &self,
        summary: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.calls.run(summary, call, |error| class_of(error)).await
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waits.observe_duration(time);
    }
}

impl Shared {
    fn figures(&self) -> PoolFigures {
        let status = self.pool.status();
        PoolFigures {
            used: status.size.saturating_sub(status.available) as u64,
            idle: status.available as u64,
            max: status.max_size as u64,
            waiters: status.waiting as u64,
            timeouts: self.timeouts.load(Ordering::Relaxed),
        }
    }
}
