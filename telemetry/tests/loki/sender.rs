//! The program that logs: ours, and the crate `tracing-loki` unmodified, behind one face.

use std::time::Duration;

use telemetry::SinkCounts;
use telemetry::loki::{self, BackgroundTaskController, LokiSettings, RetrySettings};
use tokio::time::Instant;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::gate::Gate;
use crate::real::Tenant;

/// Something that takes lines and is ended.
pub struct Sender {
    dispatch: Dispatch,
    inner: Inner,
    pub emitted: u64,
}

enum Inner {
    Own(BackgroundTaskController),
    Other(tracing_loki::BackgroundTaskController, tokio::task::JoinHandle<()>),
}

/// Time-outs and waits of a tenth of the real ones or less.
pub fn quick() -> LokiSettings {
    let milliseconds = Duration::from_millis;
    LokiSettings {
        timeout: milliseconds(700),
        linger: milliseconds(50),
        retry: RetrySettings {
            first: milliseconds(50),
            longest: milliseconds(400),
            closed: milliseconds(300),
        },
        ..LokiSettings::default()
    }
}

impl Sender {
    /// Ours.
    pub fn own(gate: &Gate, tenant: &Tenant, settings: LokiSettings) -> Self {
        Self::own_at(&gate.url(), &tenant.name, settings)
    }

    /// Ours, for an address.
    pub fn own_at(url: &str, tenant: &str, mut settings: LokiSettings) -> Self {
        settings.tenant = Some(tenant.to_owned());
        let (layer, controller, _) = loki::builder()
            .label("test", tenant)
            .unwrap()
            .settings(settings)
            .build_controller_url(loki::Url::parse(url).unwrap())
            .unwrap();
        Self {
            dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)),
            inner: Inner::Own(controller),
            emitted: 0,
        }
    }

    /// The other.
    pub fn other(gate: &Gate, tenant: &Tenant) -> Self {
        let (layer, controller, task) = tracing_loki::builder()
            .label("test", &tenant.name)
            .unwrap()
            .http_header("X-Scope-OrgID", &tenant.name)
            .unwrap()
            .build_controller_url(tracing_loki::url::Url::parse(&gate.url()).unwrap())
            .unwrap();
        Self {
            dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)),
            inner: Inner::Other(controller, tokio::spawn(task)),
            emitted: 0,
        }
    }

    /// Runs `log`, which logs `count` lines.
    pub fn log(&mut self, count: u64, log: impl FnOnce()) {
        tracing::dispatcher::with_default(&self.dispatch, log);
        self.emitted += count;
    }

    /// Logs numbered lines at once, of every level but mostly INFO. The program is not held up.
    pub fn burst(&mut self, count: u64) {
        let began = Instant::now();
        let first = self.emitted;
        self.log(count, || {
            for number in first..first + count {
                match number % 16 {
                    0 => tracing::error!(number, "line"),
                    1 => tracing::warn!(number, "line"),
                    2 => tracing::debug!(number, "line"),
                    3 => tracing::trace!(number, "line"),
                    _ => tracing::info!(number, "line"),
                }
            }
        });
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{count} lines took {took:?}");
    }

    /// Logs lines for some time, a few every few milliseconds.
    pub async fn pace(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.burst(5);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until everything is settled, for those who can tell.
    pub async fn flush(&self, limit: Duration) {
        if let Inner::Own(controller) = &self.inner {
            controller.flush(limit).await;
        }
    }

    /// What became of the lines so far, for those who can tell.
    pub fn counts(&self) -> Option<SinkCounts> {
        match &self.inner {
            Inner::Own(controller) => Some(controller.counts()),
            Inner::Other(..) => None,
        }
    }

    /// The end, within `limit` and a little more. The account, for those who have one, is exact.
    pub async fn end(self, limit: Duration) -> Option<SinkCounts> {
        let began = Instant::now();
        let counts = match self.inner {
            Inner::Own(controller) => {
                let counts = controller.shutdown_within(limit).await;
                assert_eq!(
                    counts,
                    controller.shutdown_within(limit).await,
                    "later calls tell the same"
                );
                assert!(counts.is_exact(), "{counts:?}");
                let told = counts.emitted - counts.recovered - self.emitted;
                assert!(
                    told == 0 || counts.dropped > 0,
                    "lines of its own tell of lost ones alone: {counts:?}"
                );
                Some(counts)
            }
            Inner::Other(controller, mut task) => {
                controller.shutdown().await;
                // It may never end.
                if tokio::time::timeout(limit, &mut task).await.is_err() {
                    task.abort();
                }
                None
            }
        };
        let took = began.elapsed();
        assert!(
            took < limit + Duration::from_secs(2),
            "the end took {took:?} of {limit:?}"
        );
        counts
    }
}

/// Whether the numbered line is a warning or an error.
pub fn is_urgent(number: u64) -> bool {
    number % 16 < 2
}
