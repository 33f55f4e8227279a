//! The queue before a sink: many producers, one consumer, bounded in bytes and, where that is wanted, in items, and the
//! sink's account in the same lock, so that no item is ever uncounted or counted twice. Producers never wait unless
//! `block` is chosen. How a batch is delivered is the sink's matter.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Sink;
use super::account::{Account, Fate};
use super::lane::{Lane, Room, Size};
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
pub(crate) trait Item {
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
    /// Bytes that may wait,
    pub(crate) bytes: usize,
    /// and items; `usize::MAX` is no bound of theirs.
    pub(crate) items: usize,
    /// What happens when they do.
    pub(crate) on_full: OnFull,
    /// Longest wait of a caller under [`OnFull::Block`].
    pub(crate) block: Duration,
}

impl QueueLimits {
    fn most(&self) -> Size {
        let Self { items, bytes, .. } = *self;
        Size { items, bytes }
    }

    fn half(&self) -> Size {
        let Size { items, bytes } = self.most();
        Size {
            items: items / 2,
            bytes: bytes / 2,
        }
    }
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

/// Puts one item that tells of a loss into a batch.
type Notice<L> = Box<dyn Fn(Lost, &mut <L as Lane>::Batch) + Send + Sync>;

/// The queue.
pub(crate) struct Queue<L: Lane> {
    /// As in the report.
    name: &'static str,
    state: Mutex<State<L>>,
    limits: QueueLimits,
    /// Tells of a loss once room has returned.
    notice: Option<Notice<L>>,
    /// A consumer that is a thread waits here,
    filled: Condvar,
    /// and one that is a task here.
    filled_task: Notify,
    /// Producers that wait for room.
    room: Condvar,
    /// Those who wait for everything to be settled.
    settled: Condvar,
}

struct State<L> {
    /// One lane for each severity. Numbers tell the order in which items of all of them came.
    lanes: [Counted<L>; Severity::ALL.len()],
    next: u64,
    /// Of all that waits.
    size: Size,
    account: Account,
    lost: Option<Lost>,
    /// How much wakes the consumer; it does not wait when this is [`NEVER`].
    wake_at: Size,
    blocked: usize,
    /// Nobody lingers: somebody waits for the end of what is queued.
    hurry: bool,
    closed: Option<Instant>,
}

/// A lane, and how much waits in it.
#[derive(Default)]
struct Counted<L> {
    waiting: L,
    size: Size,
}

/// More than ever waits.
const NEVER: Size = Size {
    items: usize::MAX,
    bytes: usize::MAX,
};
/// The first item.
const ANY: Size = Size { items: 1, bytes: 1 };

impl<L: Lane> Queue<L> {
    /// An empty queue before the sink of this name. `notice` tells of a loss.
    pub(crate) fn new(name: &'static str, limits: QueueLimits, notice: Option<Notice<L>>) -> Arc<Self> {
        let state = State {
            lanes: Default::default(),
            next: 0,
            size: Size::default(),
            account: Account::default(),
            lost: None,
            wake_at: NEVER,
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
    pub(crate) fn push(&self, item: L::Item<'_>) {
        let bytes = item.bytes();
        let mut state = self.lock();
        if state.closed.is_some() || !state.size.and_one(bytes).fits(self.limits.most()) {
            match self.make_room(state, bytes, item.severity()) {
                Some(roomy) => state = roomy,
                None => return,
            }
        }
        state.account.emit(1);
        state.put(item, bytes);
        let wake = state.size.reaches(state.wake_at);
        if wake {
            state.wake_at = NEVER;
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
        mut state: MutexGuard<'a, State<L>>,
        bytes: usize,
        severity: Severity,
    ) -> Option<MutexGuard<'a, State<L>>> {
        let most = self.limits.most();
        let too_large = !Size::default().and_one(bytes).fits(most);
        if state.closed.is_none() && !too_large {
            match self.limits.on_full {
                OnFull::DropNewest => {}
                OnFull::DropLowest => {
                    // Only what is not above the newcomer may go for it.
                    let lanes = &state.lanes[..=severity as usize];
                    let stays = lanes.iter().fold(state.size, |all, lane| all.without(lane.size));
                    if stays.and_one(bytes).fits(most) {
                        while !state.size.and_one(bytes).fits(most) && state.drop_lowest() {}
                        return Some(state);
                    }
                }
                OnFull::Block => {
                    state.blocked += 1;
                    let full = |state: &mut State<L>| state.closed.is_none() && !state.size.and_one(bytes).fits(most);
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
    pub(crate) fn take_blocking(&self, limits: BatchLimits, batch: &mut L::Batch) -> bool {
        let mut state = self.lock();
        while state.size.items == 0 {
            if state.closed.is_some() {
                return false;
            }
            state.wake_at = ANY;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !limits.linger.is_zero() {
            let enough = self.enough(limits);
            state.wake_at = enough;
            let more = |state: &mut State<L>| {
                let hurry = state.hurry || state.closed.is_some();
                !state.size.reaches(enough) && !hurry
            };
            let waited = self.filled.wait_timeout_while(state, limits.linger, more);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.account.is_sealed() {
                return false;
            }
        }
        self.take(state, limits, batch);
        true
    }

    /// The same for a consumer that is a task. Nothing is taken when the future is dropped.
    pub(crate) async fn take_async(&self, limits: BatchLimits, batch: &mut L::Batch) -> bool {
        let mut until = None;
        let enough = self.enough(limits);
        loop {
            {
                let mut state = self.lock();
                let queued = state.size.items > 0;
                let hurry = state.hurry || state.closed.is_some() || limits.linger.is_zero();
                let over = until.is_some_and(|until| Instant::now() >= until);
                if queued && (state.size.reaches(enough) || hurry || over) {
                    self.take(state, limits, batch);
                    return true;
                }
                if !queued && state.closed.is_some() {
                    return false;
                }
                if queued && until.is_none() {
                    until = Some(Instant::now() + limits.linger);
                }
                state.wake_at = if queued { enough } else { ANY };
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

    /// At how much a consumer waits for no more: the bytes of a batch, and less than would fill the queue.
    fn enough(&self, limits: BatchLimits) -> Size {
        let Size { items, bytes } = self.limits.half();
        Size {
            items,
            bytes: limits.bytes.min(bytes),
        }
    }

    fn take(&self, mut state: MutexGuard<'_, State<L>>, limits: BatchLimits, batch: &mut L::Batch) {
        state.wake_at = NEVER;
        let mut room = Room::new(limits);
        while let Some((lane, others)) = state.oldest() {
            let lane = &mut state.lanes[lane];
            let before = room.taken;
            lane.waiting.take(others, &mut room, batch);
            lane.size = lane.size.without(room.taken.without(before));
            if lane.waiting.first().is_some_and(|(number, _)| number < others) {
                break;
            }
        }
        state.size = state.size.without(room.taken);
        if state.size.items == 0 {
            state.hurry = false;
        }
        if state.size.fits(self.limits.half())
            && let Some(notice) = &self.notice
            && let Some(lost) = state.lost.take()
        {
            state.account.emit(1);
            notice(lost, batch);
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
        state.hurry = state.size.items > 0;
        state.wake_at = NEVER;
        drop(state);
        self.wake_consumer();
        let busy = |state: &mut State<L>| state.account.pending() > 0;
        let waited = self.settled.wait_timeout_while(self.lock(), limit, busy);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.account.pending() == 0
    }

    /// Takes no more. The consumer still gets what waits, and has until [`Queue::deadline`] to settle it.
    pub(crate) fn take_no_more(&self, limit: Duration) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| Instant::now() + limit);
        state.wake_at = NEVER;
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
        let waiting = std::mem::take(&mut state.lanes);
        let queued = std::mem::take(&mut state.size);
        state.account.seal(queued.items as u64);
        let counts = state.account.counts();
        drop(state);
        drop(waiting);
        self.wake_consumer();
        self.room.notify_all();
        self.settled.notify_all();
        counts
    }

    fn wake_consumer(&self) {
        self.filled.notify_one();
        self.filled_task.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue is all of a sink that others see, when its consumer has nothing else to do at the end than to settle what it
/// took.
impl<L: Lane> Sink for Queue<L> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn counts(&self) -> SinkCounts {
        self.lock().account.counts()
    }

    fn queued_bytes(&self) -> usize {
        self.lock().size.bytes
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

impl<L: Lane> State<L> {
    fn put(&mut self, item: L::Item<'_>, bytes: usize) {
        let lane = &mut self.lanes[item.severity() as usize];
        lane.waiting.push(self.next, item);
        lane.size = lane.size.and_one(bytes);
        self.next += 1;
        self.size = self.size.and_one(bytes);
    }

    /// The lane whose first item came before all others, and the number of the first item in the others.
    fn oldest(&self) -> Option<(usize, u64)> {
        let mut oldest = None;
        let mut others = u64::MAX;
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some((number, _)) = lane.waiting.first() else {
                continue;
            };
            match oldest {
                Some((_, known)) if known < number => others = others.min(number),
                _ => {
                    others = oldest.map_or(others, |(_, known)| known);
                    oldest = Some((index, number));
                }
            }
        }
        oldest.map(|(index, _)| (index, others))
    }

    fn drop_lowest(&mut self) -> bool {
        let first = |lane: &Counted<L>| lane.waiting.first().map(|(_, bytes)| bytes);
        let mut lanes = self.lanes.iter_mut();
        let Some((lane, bytes)) = lanes.find_map(|lane| first(lane).map(|bytes| (lane, bytes))) else {
            return false;
        };
        lane.waiting.drop_first();
        let gone = Size { items: 1, bytes };
        lane.size = lane.size.without(gone);
        self.size = self.size.without(gone);
        self.account.settle(1, Fate::Dropped(DropReason::QueueFull));
        self.note_loss();
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

impl<L: Lane> std::fmt::Debug for Queue<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
