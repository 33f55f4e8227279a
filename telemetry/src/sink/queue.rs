//! The queue before a sink: many producers, one consumer, bounded by bytes, and the sink's account in the same lock, so
//! that no item is ever uncounted or counted twice. Producers never wait unless `block` is chosen. How a batch is
//! delivered is the sink's matter.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Sink;
use super::account::{Account, Fate};
use crate::report::{DropReason, SinkCounts};

/// How much an item matters when not all can stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Severity {
    /// From the lowest on.
    pub(crate) const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// As in lines and labels.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl From<&tracing::Level> for Severity {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}

/// What waits in a queue.
pub(crate) trait Item: Send + 'static {
    /// Memory that it takes.
    fn bytes(&self) -> usize;
    /// How much it matters.
    fn severity(&self) -> Severity;
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The oldest of the lowest level goes, if that is not above the level of what comes: DEBUG and INFO go before WARN
    /// and ERROR.
    #[default]
    DropLowest,
    /// The caller waits a bounded time, then what comes goes.
    Block,
    /// What comes goes.
    DropNewest,
}

/// Size and manners of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Bytes that may wait.
    pub(crate) bytes: usize,
    /// What happens when they do.
    pub(crate) on_full: OnFull,
    /// Longest wait of a caller under [`OnFull::Block`].
    pub(crate) block: Duration,
}

/// How much a consumer takes at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// At most so many bytes, but always one item.
    pub(crate) bytes: usize,
    /// At most so many items.
    pub(crate) items: usize,
    /// How long the first item waits for others.
    pub(crate) linger: Duration,
}

/// What was lost since the last time that it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Items.
    pub(crate) items: u64,
    /// When the first of them was lost.
    pub(crate) since: jiff::Timestamp,
}

type Notice<T> = Box<dyn Fn(Lost) -> T + Send + Sync>;

/// The queue.
pub(crate) struct Queue<T> {
    /// As in the report.
    name: &'static str,
    state: Mutex<State<T>>,
    limits: QueueLimits,
    /// Makes the item that tells of a loss once room has returned.
    notice: Option<Notice<T>>,
    /// A consumer that is a thread waits here,
    filled: Condvar,
    /// and one that is a task here.
    filled_task: Notify,
    /// Producers that wait for room.
    room: Condvar,
    /// Those who wait for everything to be settled.
    settled: Condvar,
}

struct State<T> {
    /// One lane for each severity, with the items' numbers in the order in which they came.
    lanes: [Lane<T>; Severity::ALL.len()],
    next: u64,
    bytes: usize,
    account: Account,
    lost: Option<Lost>,
    /// Bytes at which the consumer wants to be woken; it does not wait when this is `usize::MAX`.
    wake_at: usize,
    blocked: usize,
    /// Nobody lingers: somebody waits for the end of what is queued.
    hurry: bool,
    closed: Option<Instant>,
}

struct Lane<T> {
    items: VecDeque<(u64, T)>,
    bytes: usize,
}

impl<T: Item> Queue<T> {
    /// An empty queue before the sink of this name. `notice` makes the item that tells of a loss.
    pub(crate) fn new(name: &'static str, limits: QueueLimits, notice: Option<Notice<T>>) -> Arc<Self> {
        let state = State {
            lanes: std::array::from_fn(|_| Lane {
                items: VecDeque::new(),
                bytes: 0,
            }),
            next: 0,
            bytes: 0,
            account: Account::default(),
            lost: None,
            wake_at: usize::MAX,
            blocked: 0,
            hurry: false,
            closed: None,
        };
        Arc::new(Self {
            name,
            state: Mutex::new(state),
            limits,
            notice,
            filled: Condvar::new(),
            filled_task: Notify::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
        })
    }

    /// Hands an item to the sink. Whatever happens, it is counted.
    pub(crate) fn push(&self, item: T) {
        let bytes = item.bytes();
        let mut state = self.lock();
        if state.closed.is_some() || state.bytes + bytes > self.limits.bytes {
            match self.make_room(state, bytes, item.severity()) {
                Some(roomy) => state = roomy,
                None => return,
            }
        }
        state.account.emit(1);
        state.put(item, bytes);
        let wake = state.bytes >= state.wake_at;
        if wake {
            state.wake_at = usize::MAX;
        }
        drop(state);
        if wake {
            self.wake_consumer();
        }
    }

    /// The lock with room for an item, or `None` when the item is lost and that is counted.
    #[cold]
    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        bytes: usize,
        severity: Severity,
    ) -> Option<MutexGuard<'a, State<T>>> {
        let limit = self.limits.bytes;
        if state.closed.is_none() && bytes <= limit {
            match self.limits.on_full {
                OnFull::DropNewest => {}
                OnFull::DropLowest => {
                    // Only what is not above the newcomer may go for it.
                    let lanes = &state.lanes[..=severity as usize];
                    let may_go: usize = lanes.iter().map(|lane| lane.bytes).sum();
                    if state.bytes - may_go + bytes <= limit {
                        while state.bytes + bytes > limit && state.drop_lowest() {}
                        return Some(state);
                    }
                }
                OnFull::Block => {
                    state.blocked += 1;
                    let full = |state: &mut State<T>| state.closed.is_none() && state.bytes + bytes > limit;
                    let waited = self.room.wait_timeout_while(state, self.limits.block, full);
                    let (roomy, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = roomy;
                    state.blocked -= 1;
                    if state.closed.is_none() && !waited.timed_out() {
                        return Some(state);
                    }
                }
            }
        }
        if state.closed.is_some() {
            state.account.refuse(1, DropReason::Closed);
        } else {
            let too_large = bytes > limit;
            state.account.refuse(
                1,
                if too_large {
                    DropReason::TooLarge
                } else {
                    DropReason::QueueFull
                },
            );
            state.note_loss();
        }
        None
    }

    /// Waits for items and moves them to `batch`, oldest first, with the notice of a loss behind them. `false` when the
    /// queue is closed and empty. For a consumer that is a thread. To linger a little spares the producers a wake-up for
    /// every item.
    pub(crate) fn take_blocking(&self, limits: BatchLimits, batch: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        while state.bytes == 0 {
            if state.closed.is_some() {
                return false;
            }
            state.wake_at = 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !limits.linger.is_zero() {
            state.wake_at = limits.bytes;
            let more = |state: &mut State<T>| {
                let hurry = state.hurry || state.closed.is_some();
                state.bytes < limits.bytes && !hurry
            };
            let waited = self.filled.wait_timeout_while(state, limits.linger, more);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        self.take(state, limits, batch);
        true
    }

    /// The same for a consumer that is a task. Nothing is taken when the future is dropped.
    pub(crate) async fn take_async(&self, limits: BatchLimits, batch: &mut Vec<T>) -> bool {
        let mut until = None;
        loop {
            {
                let mut state = self.lock();
                let queued = state.bytes;
                let hurry = state.hurry || state.closed.is_some() || limits.linger.is_zero();
                let over = until.is_some_and(|until| Instant::now() >= until);
                if queued > 0 && (queued >= limits.bytes || hurry || over) {
                    self.take(state, limits, batch);
                    return true;
                }
                if queued == 0 && state.closed.is_some() {
                    return false;
                }
                if queued > 0 && until.is_none() {
                    until = Some(Instant::now() + limits.linger);
                }
                state.wake_at = if queued == 0 { 1 } else { limits.bytes };
            }
            match until {
                None => self.filled_task.notified().await,
                Some(until) => {
                    // Either way the queue is looked at again.
                    let _ = tokio::time::timeout_at(until, self.filled_task.notified()).await;
                }
            }
        }
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>, limits: BatchLimits, batch: &mut Vec<T>) {
        state.wake_at = usize::MAX;
        let mut bytes = 0;
        while batch.len() < limits.items {
            let Some(lane) = state.oldest() else { break };
            let lane = &mut state.lanes[lane];
            let size = lane.items.front().map_or(0, |(_, item)| item.bytes());
            if bytes + size > limits.bytes && !batch.is_empty() {
                break;
            }
            if let Some((_, item)) = lane.items.pop_front() {
                lane.bytes -= size;
                state.bytes -= size;
                bytes += size;
                batch.push(item);
            }
        }
        if state.bytes == 0 {
            state.hurry = false;
        }
        if state.bytes <= self.limits.bytes / 2
            && let Some(notice) = &self.notice
            && let Some(lost) = state.lost.take()
        {
            state.account.emit(1);
            batch.push(notice(lost));
        }
        let blocked = state.blocked > 0;
        drop(state);
        if blocked {
            self.room.notify_all();
        }
    }

    /// What became of `n` items that were taken. Ignored after [`Queue::seal`], which settled them; `false` then.
    pub(crate) fn settle(&self, n: u64, fate: Fate) -> bool {
        let mut state = self.lock();
        let counted = state.account.settle(n, fate);
        let idle = state.account.pending() == 0;
        drop(state);
        if idle {
            self.settled.notify_all();
        }
        counted
    }

    /// `n` items that the sink made itself and that never were in the queue. Ignored after [`Queue::seal`].
    pub(crate) fn add_settled(&self, n: u64, fate: Fate) {
        let mut state = self.lock();
        if !state.account.is_sealed() {
            state.account.emit(n);
            state.account.settle(n, fate);
        }
    }

    /// Whether the end is over.
    pub(crate) fn is_sealed(&self) -> bool {
        self.lock().account.is_sealed()
    }

    /// `n` items were found in the spool of an earlier process: they count as emitted and spooled.
    pub(crate) fn recover(&self, n: u64) {
        self.lock().account.recover(n);
    }

    /// `n` spooled items were read back and wait to be settled again. `false` after [`Queue::seal`]: they stay spooled.
    pub(crate) fn unspool(&self, n: u64) -> bool {
        self.lock().account.unspool(n)
    }

    /// Waits at most `limit` until everything emitted is settled; whether it is.
    pub(crate) fn settle_all(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.hurry = state.bytes > 0;
        state.wake_at = usize::MAX;
        drop(state);
        self.wake_consumer();
        let busy = |state: &mut State<T>| state.account.pending() > 0;
        let waited = self.settled.wait_timeout_while(self.lock(), limit, busy);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.account.pending() == 0
    }

    /// Takes no more. The consumer still gets what waits, and has until [`Queue::deadline`] to settle it.
    pub(crate) fn take_no_more(&self, limit: Duration) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| Instant::now() + limit);
        state.wake_at = usize::MAX;
        drop(state);
        self.wake_consumer();
        self.room.notify_all();
    }

    /// When the queue will be sealed, once it is closed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().closed
    }

    /// The end: what still waits is dropped as `deadline`, and what was taken and not settled as `unanswered`. Whatever
    /// the consumer says later changes nothing.
    pub(crate) fn seal(&self) -> SinkCounts {
        let mut state = self.lock();
        state.closed.get_or_insert_with(Instant::now);
        let mut queued = 0;
        for lane in &mut state.lanes {
            queued += lane.items.len() as u64;
            lane.items = VecDeque::new();
            lane.bytes = 0;
        }
        state.bytes = 0;
        state.account.seal(queued);
        let counts = state.account.counts();
        drop(state);
        self.wake_consumer();
        self.room.notify_all();
        self.settled.notify_all();
        counts
    }

    fn wake_consumer(&self) {
        self.filled.notify_one();
        self.filled_task.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue is all of a sink that others see, when its consumer has nothing else to do at the end than to settle what it
/// took.
impl<T: Item> Sink for Queue<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn counts(&self) -> SinkCounts {
        self.lock().account.counts()
    }

    fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn flush(&self, limit: Duration) {
        self.settle_all(limit);
    }

    fn close(&self, limit: Duration) -> SinkCounts {
        self.take_no_more(limit);
        self.settle_all(limit);
        self.seal()
    }
}

impl<T: Item> State<T> {
    fn put(&mut self, item: T, bytes: usize) {
        let lane = &mut self.lanes[item.severity() as usize];
        lane.items.push_back((self.next, item));
        lane.bytes += bytes;
        self.next += 1;
        self.bytes += bytes;
    }

    /// The lane whose first item came before all others.
    fn oldest(&self) -> Option<usize> {
        let fronts = self.lanes.iter().enumerate();
        fronts
            .filter_map(|(index, lane)| lane.items.front().map(|(number, _)| (*number, index)))
            .min()
            .map(|(_, index)| index)
    }

    fn drop_lowest(&mut self) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| !lane.items.is_empty()) else {
            return false;
        };
        if let Some((_, gone)) = lane.items.pop_front() {
            let bytes = gone.bytes();
            lane.bytes -= bytes;
            self.bytes -= bytes;
            self.account.settle(1, Fate::Dropped(DropReason::QueueFull));
            self.note_loss();
        }
        true
    }

    fn note_loss(&mut self) {
        let lost = self.lost.get_or_insert_with(|| Lost {
            items: 0,
            since: crate::wall_clock(),
        });
        lost.items += 1;
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
