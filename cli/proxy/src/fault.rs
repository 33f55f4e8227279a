//! The faults of one service: which are active, which request they hit, when they end. Not what a hit does to bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use opsctl_proxy_control::{Fault, FaultKind};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often each kind hit, in the order of [`KINDS`].
pub(crate) const KINDS: [&str; 4] = ["latency", "error", "reset", "blackhole"];

/// A fault that was put and has not ended.
pub(crate) struct ActiveFault {
    fault: Fault,
    /// Which one this is of all that were put on the service; grows.
    serial: u64,
    began: Instant,
    /// How long after that it ends, in milliseconds; grows when the same fault is put again.
    lasts_ms: AtomicU64,
    /// Cancelled when the fault ends, however that comes.
    pub(crate) ended: CancellationToken,
}

/// What happens to one request.
#[derive(Clone, Default)]
pub(crate) struct Hit {
    /// Extra time on the way back: milliseconds and jitter.
    pub(crate) delay: Option<Delay>,
    /// Cancelled when the fault behind `delay` ends; a request does not live long enough to care.
    pub(crate) delay_ended: Option<CancellationToken>,
    /// What ends or holds the request.
    pub(crate) terminal: Option<Terminal>,
}

#[derive(Clone, Copy)]
pub(crate) struct Delay {
    ms: u64,
    jitter_ms: u64,
}

impl Delay {
    /// A delay drawn anew for each part.
    pub(crate) fn draw(self) -> Duration {
        let jitter = if self.jitter_ms == 0 {
            0
        } else {
            rand::random_range(0..=2 * self.jitter_ms * 1000)
        };
        Duration::from_micros((self.ms * 1000 + jitter).saturating_sub(self.jitter_ms * 1000))
    }
}

#[derive(Clone)]
pub(crate) enum Terminal {
    Error(http::StatusCode),
    Reset,
    /// Holds until the token is cancelled.
    Blackhole(CancellationToken),
}

/// The faults of one service.
pub(crate) struct FaultSet {
    active: ArcSwap<BTreeMap<String, Arc<ActiveFault>>>,
    /// The serial of the newest fault; requests under way compare it with what they have seen.
    newest: AtomicU64,
    /// Told when a fault was put, for requests under way.
    changed: Arc<Notify>,
    /// Serialises changes.
    changing: Mutex<()>,
    hits: [AtomicU64; KINDS.len()],
}

impl FaultSet {
    pub(crate) fn new() -> Self {
        Self {
            active: ArcSwap::from_pointee(BTreeMap::new()),
            newest: AtomicU64::new(0),
            changed: Arc::new(Notify::new()),
            changing: Mutex::new(()),
            hits: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Puts or replaces a fault. The caller ends it with [`FaultSet::expire`] at [`ActiveFault::ends_at`]; should that be
    /// late, the fault hits nothing any more all the same.
    ///
    /// None when the very same fault is active: then its time begins anew, and requests that it has met or spared already
    /// do not meet it again.
    pub(crate) fn put(&self, fault: Fault, now: Instant) -> Option<Arc<ActiveFault>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = BTreeMap::clone(&self.active.load());
        if let Some(active) = faults.get(&fault.id)
            && active.ends_at() > now
            && (Fault {
                ttl_seconds: active.fault.ttl_seconds,
                ..fault.clone()
            }) == active.fault
        {
            let until = now + Duration::from_secs(fault.ttl_seconds);
            let lasts = until.duration_since(active.began).as_millis() as u64;
            active.lasts_ms.store(lasts, Ordering::Relaxed);
            return None;
        }
        let serial = self.newest.load(Ordering::Relaxed) + 1;
        let active = Arc::new(ActiveFault {
            began: now,
            lasts_ms: AtomicU64::new(fault.ttl_seconds * 1000),
            ended: CancellationToken::new(),
            serial,
            fault,
        });
        let before = faults.insert(active.fault.id.clone(), Arc::clone(&active));
        self.active.store(Arc::new(faults));
        self.newest.store(serial, Ordering::Release);
        if let Some(before) = before {
            before.ended.cancel();
        }
        self.changed.notify_waiters();
        Some(active)
    }

    /// Ends the fault of that id, whichever it is. Whether there was one.
    pub(crate) fn remove(&self, id: &str) -> bool {
        self.take(|active| active.fault.id == id)
    }

    /// Ends this fault, unless it was replaced meanwhile.
    pub(crate) fn expire(&self, fault: &ActiveFault) {
        self.take(|active| active.serial == fault.serial);
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        self.take(|_| true);
    }

    fn take(&self, which: impl Fn(&ActiveFault) -> bool) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = BTreeMap::clone(&self.active.load());
        let gone: Vec<_> = faults.extract_if(.., |_, active| which(active)).collect();
        if gone.is_empty() {
            return false;
        }
        self.active.store(Arc::new(faults));
        for (_, fault) in gone {
            fault.ended.cancel();
        }
        true
    }

    /// The active faults, with the time that each has left.
    pub(crate) fn list(&self, now: Instant) -> Vec<Fault> {
        let active = self.active.load();
        active
            .values()
            .filter(|active| active.ends_at() > now)
            .map(|active| Fault {
                ttl_seconds: active.ends_at().saturating_duration_since(now).as_secs_f64().ceil() as u64,
                ..active.fault.clone()
            })
            .collect()
    }

    /// The serial of the newest fault.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Told whenever a fault is put.
    pub(crate) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Draws what happens to a request of `version`, among the faults that are newer than `seen`.
    pub(crate) fn draw(&self, version: &str, seen: u64, now: Instant) -> Hit {
        let mut hit = Hit::default();
        let active = self.active.load();
        if active.is_empty() {
            return hit;
        }
        for active in active.values() {
            let fault = &active.fault;
            let concerns = active.serial > seen
                && active.ends_at() > now
                && fault.version.as_deref().is_none_or(|only| only == version);
            if !concerns || rand::random::<f64>() * 100.0 >= fault.percent {
                continue;
            }
            let kind = match fault.kind {
                FaultKind::Latency { ms, jitter_ms } => {
                    hit.delay = Some(Delay { ms, jitter_ms });
                    hit.delay_ended = Some(active.ended.clone());
                    0
                }
                FaultKind::Error { status } => {
                    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
                    hit.terminal = Some(Terminal::Error(status));
                    1
                }
                FaultKind::Reset => {
                    hit.terminal = Some(Terminal::Reset);
                    2
                }
                FaultKind::Blackhole => {
                    hit.terminal = Some(Terminal::Blackhole(active.ended.clone()));
                    3
                }
            };
            self.hits[kind].fetch_add(1, Ordering::Relaxed);
        }
        hit
    }

    /// How many requests each kind has hit.
    pub(crate) fn hits(&self) -> [u64; KINDS.len()] {
        std::array::from_fn(|kind| self.hits[kind].load(Ordering::Relaxed))
    }
}

impl ActiveFault {
    /// When it ends, unless it is prolonged.
    fn ends_at(&self) -> Instant {
        self.began + Duration::from_millis(self.lasts_ms.load(Ordering::Relaxed))
    }

    /// Resolves when its time is over, or it was ended before.
    pub(crate) async fn over(&self) {
        let over = async {
            while Instant::now() < self.ends_at() {
                tokio::time::sleep_until(self.ends_at()).await;
            }
        };
        tokio::select! {
            () = over => {}
            () = self.ended.cancelled() => {}
        }
    }
}
