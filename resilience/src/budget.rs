//! The retry budget: retries may be at most a share of the requests of the last ten seconds, plus a few a second so
//! that a quiet client may retry too. One budget may be shared by several policies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::window::Window;

/// Window of the budget.
const LENGTH: Duration = Duration::from_secs(10);
const REQUESTS: usize = 0;
const RETRIES: usize = 1;

/// A shared retry budget. Clones share.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ratio: f64,
    min_per_second: f64,
    counts: Mutex<(Window<2>, u64)>,
}

impl Budget {
    /// At most `ratio` retries per request over ten seconds, and `min_per_second` besides.
    pub fn new(ratio: f64, min_per_second: f64) -> Self {
        Self {
            inner: Arc::new(Inner {
                ratio: ratio.max(0.0),
                min_per_second: min_per_second.max(0.0),
                counts: Mutex::new((Window::new(LENGTH), 0)),
            }),
        }
    }

    /// Counts a request (not its retries).
    pub fn deposit(&self) {
        self.lock().0.add(clock::now(), REQUESTS);
    }

    /// Takes one retry out of the budget; false when it is spent. Two callers never get the same one.
    pub fn try_withdraw(&self) -> bool {
        let now = clock::now();
        let mut counts = self.lock();
        let [requests, retries] = counts.0.sums(now);
        let allowed = self.inner.ratio * requests as f64 + self.inner.min_per_second * LENGTH.as_secs_f64();
        // The slack is for sums such as 0.6 * 5, which is a little under 3.
        let granted = (retries + 1) as f64 <= allowed + 1e-9;
        if granted {
            counts.0.add(now, RETRIES);
        } else {
            counts.1 += 1;
        }
        granted
    }

    /// What was counted.
    pub fn snapshot(&self) -> BudgetSnapshot {
        let counts = self.lock();
        let [requests, retries] = counts.0.sums(clock::now());
        let ratio = if requests == 0 {
            0.0
        } else {
            retries as f64 / requests as f64
        };
        BudgetSnapshot {
            limit_ratio: self.inner.ratio,
            ratio,
            exhausted: counts.1,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Window<2>, u64)> {
        self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures of a budget.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct BudgetSnapshot {
    /// Retries per request that are allowed.
    pub limit_ratio: f64,
    /// Retries per request in the last ten seconds.
    pub ratio: f64,
    /// Retries refused since the start.
    pub exhausted: u64,
}
