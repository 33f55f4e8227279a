//! Asks Prometheus and Alertmanager, again and again, what the [`Judge`] concludes from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::Platform;
use opsctl_platform::prometheus::{Alertmanager, Prometheus};
use tokio::task::JoinHandle;

use super::{Expected, Judge, Look};

/// The servers that are asked.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Evaluates the rules.
    pub prometheus: Prometheus,
    /// Is told of what fires.
    pub alertmanager: Alertmanager,
}

/// How long both may take to answer one look.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks: half an evaluation, and not outside of these.
const PACE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A look at both, at a time of the platform's clock.
async fn look(servers: &Servers, platform: &dyn Platform) -> Look {
    let alerts = tokio::time::timeout(LIMIT, servers.prometheus.alerts());
    let received = tokio::time::timeout(LIMIT, servers.alertmanager.alerts());
    let (alerts, received) = tokio::join!(alerts, received);
    Look {
        at: platform.now(),
        alerts: alerts.ok().and_then(Result::ok),
        received: received.ok().and_then(Result::ok),
    }
}

/// Looks in the background; ends when dropped.
pub struct Watch {
    servers: Servers,
    platform: Arc<dyn Platform>,
    judge: Arc<Mutex<Judge>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Begins to look.
    pub fn start(servers: Servers, platform: &Arc<dyn Platform>, expected: &[Expected]) -> Self {
        let evaluations = expected.iter().map(|expected| expected.predicted.evaluation_seconds);
        let shortest = evaluations.fold(f64::MAX, f64::min).min(PACE.1.as_secs_f64());
        let pace = Duration::try_from_secs_f64(shortest / 2.0).unwrap_or(PACE.1);
        let pace = pace.clamp(PACE.0, PACE.1).max(platform.pace());
        let judge = Arc::new(Mutex::new(Judge::new(expected.to_vec())));
        let task = tokio::spawn({
            let (servers, platform, judge) = (servers.clone(), Arc::clone(platform), Arc::clone(&judge));
            async move {
                loop {
                    let look = look(&servers, platform.as_ref()).await;
                    judge.lock().unwrap_or_else(PoisonError::into_inner).see(&look);
                    tokio::time::sleep(pace).await;
                }
            }
        });
        Self {
            servers,
            platform: Arc::clone(platform),
            judge,
            task,
        }
    }

    /// What was seen so far.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks now, and says why the fault must not be made.
    pub async fn trouble(&self) -> Option<String> {
        let look = look(&self.servers, self.platform.as_ref()).await;
        let mut judge = self.judge();
        judge.see(&look);
        judge.trouble()
    }

    /// As [`Judge::waits`], now.
    pub fn waits(&self, effect: Timestamp) -> bool {
        self.judge().waits(effect, self.platform.now())
    }

    /// As [`Judge::lasts`], now.
    pub fn lasts(&self, since: Timestamp) -> bool {
        self.judge().lasts(since, self.platform.now())
    }
}
