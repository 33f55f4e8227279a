//! A setting that is changed for a limited time and goes back by itself: the log level, the rate limit of lines. Changes
//! and returns leave audit lines; who may change it is `admin`'s matter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Longest time for which a setting may be changed.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long it is changed when nothing is said.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(600);

/// The setting. Clones share.
pub(crate) struct Timed<T> {
    inner: Arc<Inner<T>>,
}

/// Puts a value into use, or says why it cannot be.
type Apply<T> = Box<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

struct Inner<T> {
    what: &'static str,
    base: T,
    apply: Apply<T>,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    value: T,
    until: Option<Instant>,
    generation: u64,
}

/// What a setting is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status<T> {
    pub(crate) value: T,
    pub(crate) base: T,
    pub(crate) left: Option<Duration>,
}

impl<T> Clone for Timed<T> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Timed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Timed").field(&self.lock().value).finish()
    }
}

impl<T> Timed<T> {
    fn lock(&self) -> MutexGuard<'_, Now<T>> {
        self.inner.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + PartialEq + Serialize + Send + Sync + 'static> Timed<T> {
    /// A setting that is `base` and is put in force by `apply`, which says why it cannot.
    pub(crate) fn new(
        what: &'static str,
        base: T,
        apply: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let now = Mutex::new(Now {
            value: base.clone(),
            until: None,
            generation: 0,
        });
        let apply = Box::new(apply);
        Self {
            inner: Arc::new(Inner { what, base, apply, now }),
        }
    }

    /// What is in force.
    pub(crate) fn status(&self) -> Status<T> {
        let now = self.lock();
        Status {
            value: now.value.clone(),
            base: self.inner.base.clone(),
            left: now.until.map(|until| until.saturating_duration_since(Instant::now())),
        }
    }

    /// Puts `value` in force for `ttl`.
    ///
    /// # Errors
    /// Why it cannot be; nothing is changed then.
    pub(crate) fn set(&self, value: T, ttl: Duration) -> Result<(), String> {
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err("the ttl must be more than 0 and at most 24h".to_owned());
        }
        let mut now = self.lock();
        (self.inner.apply)(&value)?;
        let text = shown(&value);
        now.value = value;
        now.until = Some(Instant::now() + ttl);
        now.generation += 1;
        let generation = now.generation;
        drop(now);
        tracing::warn!(
            target: "audit", setting = self.inner.what, value = text, ttl_seconds = ttl.as_secs_f64(), "setting changed"
        );
        self.return_after(ttl, generation);
        Ok(())
    }

    fn return_after(&self, ttl: Duration, generation: u64) {
        let timed = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(ttl).await;
                timed.revert(generation);
            });
            return;
        }
        let until = Instant::now() + ttl;
        let thread = std::thread::Builder::new().name("telemetry-timed".to_owned());
        let waits = thread.spawn(move || {
            while Instant::now() < until {
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            timed.revert(generation);
        });
        if waits.is_err() {
            // Nothing would take it back.
            self.revert(generation);
        }
    }

    fn revert(&self, generation: u64) {
        let mut now = self.lock();
        if now.generation != generation {
            return;
        }
        let base = &self.inner.base;
        let result = (self.inner.apply)(base);
        if result.is_ok() {
            now.value = base.clone();
            now.until = None;
        }
        drop(now);
        let (setting, value) = (self.inner.what, shown(base));
        match result {
            Ok(()) => tracing::warn!(target: "audit", setting, value, "setting returned"),
            Err(error) => tracing::error!(target: "audit", setting, value, error, "setting did not return"),
        }
    }
}

fn shown<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
