//! A worker's heartbeat: renews its leases, listens to the record, and sees to it that a watchdog lives. It tells the
//! worker when it may not go on; it changes nothing itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use super::undo::message_of;
use super::{Control, Journal, RunRecord};
use crate::{Fence, LeaseHolder, Platform, PlatformError};

/// Starts a watchdog's process, and does not wait for it.
pub(super) type StartWatchdog = Box<dyn Fn() -> Result<(), PlatformError> + Send + Sync>;

/// How long a new watchdog may take before yet another one is started; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_mins(1);

/// Renews the leases and listens to the record.
pub(super) struct Heartbeat {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) journal: Journal,
    pub(super) start_watchdog: Arc<OnceLock<StartWatchdog>>,
    pub(super) fence: Fence,
    pub(super) locks: Vec<String>,
    pub(super) holder: LeaseHolder,
    pub(super) ttl: Duration,
    pub(super) tell: watch::Sender<Control>,
}

impl Heartbeat {
    pub(super) async fn run(self) {
        let longest = Duration::from_millis(250).max(self.platform.pace());
        let listen = (self.ttl / 10).clamp(Duration::from_millis(20), longest);
        let mut renewed = self.platform.now();
        let mut next_renewal = renewed + self.ttl / 3;
        let mut restart = Restart {
            not_before: renewed,
            pause: FIRST_PAUSE,
        };
        loop {
            tokio::time::sleep(listen).await;
            let now = self.platform.now();
            // A platform that says nothing must not keep the worker from stopping in time.
            let record = tokio::time::timeout(self.left(renewed), self.platform.record(&self.fence.run)).await;
            match record {
                Ok(Ok(Some(record))) if record.admits(&self.fence) => {
                    self.keep_watched(&record, &mut restart);
                    if let Some(cancel) = record.cancel {
                        self.tell.send_if_modified(|control| {
                            let news = *control == Control::Run;
                            *control = Control::Cancelled(cancel);
                            news
                        });
                    }
                }
                Ok(Ok(_)) => break,
                // Unknown: the leases decide.
                Ok(Err(_)) | Err(_) => {}
            }
            if now < next_renewal {
                continue;
            }
            match tokio::time::timeout(self.left(renewed), self.renew()).await {
                Ok(Ok(())) => {
                    renewed = now;
                    next_renewal = now + self.ttl / 3;
                }
                Ok(Err(PlatformError::LeaseLost { .. })) => break,
                // Stop before others may believe that we have.
                Ok(Err(_)) | Err(_) if self.platform.now() >= renewed + self.ttl * 2 / 3 => break,
                Ok(Err(error)) => {
                    tracing::warn!(run = %self.fence.run, error = %message_of(&error), "could not renew a lease");
                }
                Err(_) => tracing::warn!(run = %self.fence.run, "renewing a lease takes too long"),
            }
        }
        self.tell.send_replace(Control::Fenced);
    }

    /// How long one question may take: until two thirds of the lease are over, and a tenth of it when they are.
    fn left(&self, renewed: Timestamp) -> Duration {
        let over = renewed + self.ttl * 2 / 3;
        let left = Duration::try_from(over.duration_since(self.platform.now())).unwrap_or_default();
        left.clamp(self.ttl / 10, self.ttl / 3)
    }

    /// Starts another watchdog when the one in the record has died.
    fn keep_watched(&self, record: &RunRecord, restart: &mut Restart) {
        let (Some(start), Some(watchdog)) = (self.start_watchdog.get(), &record.watchdog) else {
            return;
        };
        if self.platform.holder_alive(watchdog) != Some(false) {
            restart.pause = FIRST_PAUSE;
            return;
        }
        let now = self.platform.now();
        if now < restart.not_before {
            return;
        }
        restart.not_before = now + restart.pause;
        restart.pause = (restart.pause * 2).min(LAST_PAUSE);
        // A journal that cannot be written must not keep the watchdog from being started.
        let _ = self
            .journal
            .append(now, "watchdog_lost", json!({ "pid": watchdog.pid }));
        if let Err(error) = start() {
            tracing::warn!(run = %self.fence.run, error = %message_of(&error), "could not start another watchdog");
        }
    }

    async fn renew(&self) -> Result<(), PlatformError> {
        for name in &self.locks {
            self.platform.renew_lease(name, &self.holder, self.ttl).await?;
        }
        Ok(())
    }
}

/// When a dead watchdog may be replaced.
struct Restart {
    not_before: Timestamp,
    pause: Duration,
}
