//! What telemetry is told of a file: a span and a duration a call, and how readers and writer stand. It changes nothing
//! about how the file is used.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use telemetry::{DatabaseCalls, Histogram, PoolFigures, Telemetry, catalogue};

use super::{READERS, Shared};
use crate::database::class_of;

/// Where calls are counted.
#[derive(Debug)]
pub(super) struct Observed {
    calls: DatabaseCalls,
    read_waits: Histogram,
}

impl Observed {
    pub(super) fn watch(shared: &Arc<Shared>, telemetry: &Telemetry, name: &str) {
        let (readers, writer) = (format!("{name}/readers"), format!("{name}/writer"));
        let waits = |pool: &str| telemetry.metrics().histogram(catalogue::DB_POOL_WAIT_SECONDS, [pool]);
        let observed = Self {
            calls: telemetry.database("sqlite", name),
            read_waits: waits(&readers),
        };
        if shared.observed.set(observed).is_err() {
            return;
        }
        shared.writer.tell_waits(waits(&writer));
        let watched = Arc::downgrade(shared);
        telemetry.watch_pool(&readers, move || {
            watched
                .upgrade()
                .map_or_else(PoolFigures::default, |shared| shared.readers_now())
        });
        let watched = Arc::downgrade(shared);
        telemetry.watch_pool(&writer, move || {
            watched
                .upgrade()
                .map_or_else(PoolFigures::default, |shared| shared.writer.figures())
        });
    }

    pub(super) async fn call<T, E: Error + 'static>(
        &self,
        summary: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.calls.run(summary, call, |error| class_of(error)).await
    }

    pub(super) fn read_waited(&self, time: Duration) {
        self.read_waits.observe_duration(time);
    }
}

impl Shared {
    fn readers_now(&self) -> PoolFigures {
        PoolFigures {
            used: READERS.saturating_sub(self.readers.available_permits()) as u64,
            idle: self.idle.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
            max: READERS as u64,
            waiters: self.waiting.load(Ordering::Relaxed),
            timeouts: 0,
        }
    }
}
