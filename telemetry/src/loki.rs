//! Lines to Grafana Loki, over its own push protocol: a bounded queue, a thread that delivers, and an account of every
//! line. [`LokiSettings`] is what [`Telemetry`](crate::Telemetry) takes; [`builder`] makes the layer alone, for those who
//! come from the crate `tracing-loki`. What lines look like is `log`'s matter.
//!
//! A line counts as delivered when Loki has answered a push of it with success. Loki drops a line that it has already
//! (same stream, time and text), so a push without an answer is sent again. `docs/guides/loki.md` tells what is kept and
//! lost when Loki is slow, away or refuses.

mod cause;
mod client;
mod entry;
mod labels;
mod layer;
mod parcel;
mod settings;
mod spool;
mod spooler;
#[cfg(feature = "tracing-loki")]
mod unmodified;
mod wire;
mod worker;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use client::LokiAuth;
pub use labels::LabelError;
pub use layer::{BackgroundTask, BackgroundTaskController, Builder, Error, Layer, builder};
pub use reqwest::Url;
pub use settings::{LokiClient, LokiSettings, RetrySettings, SpoolSettings};
pub use spool::SpoolError;
pub use wire::LokiCompression;

use crate::InitError;
use crate::log::waiting::LineLane;
use crate::metrics::Histogram;
use crate::report::SinkCounts;
use crate::sink::Sink;
use crate::sink::queue::{BatchLimits, Queue};
use crate::sink::retry::Backoff;
use crate::sink::thread::{self, Ended};
#[cfg(feature = "tracing-loki")]
pub(crate) use unmodified::{CountedLayer, Unmodified};
pub(crate) use worker::Alarm;
use worker::Courier;

/// How long a sink that nobody ended may still deliver.
const DROPPED: Duration = Duration::from_millis(200);

/// Those who look at a sink from outside.
pub(crate) struct Watchers {
    /// Tells a person what Loki cannot be told.
    pub(crate) alarm: Alarm,
    /// Gets the time of each push.
    pub(crate) took: Option<Histogram>,
    /// Is dropped when the sink has ended.
    pub(crate) running: Option<oneshot::Sender<Infallible>>,
}

/// The sink.
#[derive(Debug)]
pub(crate) struct Loki {
    queue: Arc<Queue<LineLane>>,
    end: watch::Sender<Option<Instant>>,
    ended: Ended,
}

impl Loki {
    /// Starts the thread that delivers what comes into `queue`.
    ///
    /// # Errors
    /// When a setting cannot be used or the thread cannot be made. A Loki that is not there is no error.
    pub(crate) fn start(
        settings: &LokiSettings,
        service: &str,
        environment: &str,
        queue: Arc<Queue<LineLane>>,
        watchers: Watchers,
    ) -> Result<Self, InitError> {
        let Watchers { alarm, took, running } = watchers;
        let (end, ending) = watch::channel(None);
        let waits = settings.retry.waits();
        let courier = Courier {
            client: settings.client()?,
            encoder: settings.encoder(service, environment)?,
            waits,
            alarm,
            took,
            end: ending,
            backoff: Backoff::new(waits.first, waits.longest),
            alarmed: false,
            longest: None,
            insists: settings.spool.dir.is_none(),
        };
        let spool = settings.spool()?;
        let fsync = settings.spool.fsync;
        let limits = BatchLimits {
            bytes: settings.batch_bytes,
            items: usize::MAX,
            linger: settings.linger,
        };
        let lines = Arc::clone(&queue);
        let ended = thread::spawn("telemetry-loki", move || async move {
            match spool {
                None => worker::run(lines, limits, courier).await,
                Some(spool) => spooler::run(lines, limits, courier, spool, fsync).await,
            }
            drop(running);
        })
        .map_err(|source| InitError::Thread { source })?;
        Ok(Self { queue, end, ended })
    }

    /// Says when the time is over, if nobody has said it.
    fn end_within(&self, limit: Duration) {
        // A little is left to count what could not be delivered.
        let limit = limit.saturating_sub((limit / 10).min(Duration::from_millis(50)));
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| Instant::now() + limit);
            first
        });
    }
}

impl Sink for Loki {
    fn name(&self) -> &'static str {
        "loki"
    }

    fn counts(&self) -> SinkCounts {
        self.queue.counts()
    }

    fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    fn flush(&self, limit: Duration) {
        self.queue.flush(limit);
    }

    fn close(&self, limit: Duration) -> SinkCounts {
        self.queue.take_no_more(limit);
        self.end_within(limit);
        self.ended.wait(limit);
        self.queue.seal()
    }
}

impl Drop for Loki {
    fn drop(&mut self) {
        self.queue.take_no_more(DROPPED);
        self.end_within(DROPPED);
    }
}

#[cfg(test)]
mod tests;
