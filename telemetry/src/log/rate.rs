//! A limit on the lines that one place in the code writes in a second. What is left out is counted and told: with the
//! next line of that place, or at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::Metadata;
use tracing::callsite::Identifier;

/// Limits lines. Clones share. Without a limit it costs one load.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateLimit {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Lines for each second and place; 0 is no limit.
    limit: AtomicU32,
    places: RwLock<HashMap<Identifier, Arc<Place>>>,
    /// All lines that were left out so far.
    suppressed: AtomicU64,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    second: u64,
    written: u32,
    suppressed: u64,
}

/// Lines of one place that were left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suppressed {
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) lines: u64,
}

/// Whether a line is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Write,
    /// And before it, what was left out is told.
    Tell(Suppressed),
    LeaveOut,
}

impl RateLimit {
    /// Sets lines a second and place; `None` is no limit.
    pub(crate) fn set(&self, limit: Option<u32>) {
        self.inner.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    /// All lines that were left out so far.
    pub(crate) fn suppressed(&self) -> u64 {
        self.inner.suppressed.load(Ordering::Relaxed)
    }

    /// Decides on a line of this place in this second.
    pub(crate) fn admit(&self, metadata: &'static Metadata<'static>, second: u64) -> Verdict {
        let limit = self.inner.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return Verdict::Write;
        }
        let place = self.place(metadata);
        let mut window = place.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.second != second {
            // Also when the clock was set back.
            window.second = second;
            window.written = 0;
        }
        if window.written >= limit {
            window.suppressed += 1;
            self.inner.suppressed.fetch_add(1, Ordering::Relaxed);
            return Verdict::LeaveOut;
        }
        window.written += 1;
        match std::mem::take(&mut window.suppressed) {
            0 => Verdict::Write,
            lines => Verdict::Tell(Suppressed { metadata, lines }),
        }
    }

    /// What was left out and not told, which counts as told then.
    pub(crate) fn untold(&self) -> Vec<Suppressed> {
        let places = self.inner.places.read().unwrap_or_else(PoisonError::into_inner);
        let untold = places.values().map(|place| Suppressed {
            metadata: place.metadata,
            lines: std::mem::take(&mut place.window.lock().unwrap_or_else(PoisonError::into_inner).suppressed),
        });
        untold.filter(|suppressed| suppressed.lines > 0).collect()
    }

    fn place(&self, metadata: &'static Metadata<'static>) -> Arc<Place> {
        let key = metadata.callsite();
        let known = self.inner.places.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(&key) {
            return Arc::clone(place);
        }
        drop(known);
        let mut places = self.inner.places.write().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(key).or_insert_with(|| {
            Arc::new(Place {
                metadata,
                window: Mutex::default(),
            })
        });
        Arc::clone(place)
    }
}
