//! The filter of log lines and spans, changeable while the process runs and back by itself after a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Handle of the running filter. Clones share.
#[derive(Debug, Clone)]
pub struct LogLevel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: reload::Handle<EnvFilter, Registry>,
    base: String,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    filter: String,
    until: Option<Instant>,
    generation: u64,
}

/// What the filter is now.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LevelStatus {
    /// `opsctl.loglevel/v1`.
    pub schema: &'static str,
    /// The filter in force.
    pub filter: String,
    /// The filter that it returns to.
    pub base: String,
    /// Seconds until it returns, when it was changed.
    pub ttl_seconds: Option<f64>,
}

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the filter {filter} cannot be used: {reason}")]
pub struct FilterError {
    /// What was given.
    pub filter: String,
    /// Why not.
    pub reason: String,
}

pub(crate) fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::builder().parse(filter).map_err(|error| FilterError {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}

impl LogLevel {
    pub(crate) fn new(handle: reload::Handle<EnvFilter, Registry>, base: String) -> Self {
        let now = Mutex::new(Now {
            filter: base.clone(),
            until: None,
            generation: 0,
        });
        Self {
            inner: Arc::new(Inner { handle, base, now }),
        }
    }

    /// What is in force.
    pub fn status(&self) -> LevelStatus {
        let now = self.lock();
        LevelStatus {
            schema: "opsctl.loglevel/v1",
            filter: now.filter.clone(),
            base: self.inner.base.clone(),
            ttl_seconds: now
                .until
                .map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64()),
        }
    }

    /// Puts `filter` (`info,orders=debug`) in force for `ttl`. Needs a runtime.
    ///
    /// # Errors
    /// A filter that does not parse; nothing is changed then.
    pub fn set(&self, filter: &str, ttl: Duration) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        let mut now = self.lock();
        self.reload(parsed, filter)?;
        filter.clone_into(&mut now.filter);
        now.until = Some(Instant::now() + ttl);
        now.generation += 1;
        let generation = now.generation;
        drop(now);
        let level = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            level.revert(generation);
        });
        Ok(())
    }

    fn revert(&self, generation: u64) {
        let mut now = self.lock();
        if now.generation != generation {
            return;
        }
        if let Ok(base) = parse(&self.inner.base)
            && self.reload(base, &self.inner.base).is_ok()
        {
            now.filter.clone_from(&self.inner.base);
            now.until = None;
        }
        drop(now);
        tracing::warn!(target: "audit", filter = self.inner.base, "log level returned");
    }

    fn reload(&self, filter: EnvFilter, text: &str) -> Result<(), FilterError> {
        self.inner.handle.reload(filter).map_err(|error| FilterError {
            filter: text.to_owned(),
            reason: error.to_string(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.inner.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
