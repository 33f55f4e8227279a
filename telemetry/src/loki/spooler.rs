//! Delivery by way of the disk: one task stores lines as they come, another sends what is stored, oldest first. When the
//! disk does not take them, lines wait in memory as they do without a spool.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::{Entry, Stamps};
use super::parcel::Parcel;
use super::spool::{Batch, Spool};
use super::worker::{Alarm, Courier, time_is_over};
use crate::log::waiting::{LineLane, Lines};
use crate::report::DropReason;
use crate::sink::Sink as _;
use crate::sink::account::Fate;
use crate::sink::queue::{BatchLimits, Queue, Severity};

/// That the spool is full is told so often.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// A disk that did not take lines is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes that are written at one time.
const WRITE: usize = 256 * 1024;

/// Lines that the spool had no room for, and of which nobody was told.
#[derive(Default)]
struct Lost {
    lines: u64,
    since: jiff::Timestamp,
    told: Option<Instant>,
}

impl Lost {
    fn add(&mut self, lines: u64) {
        if lines > 0 && self.lines == 0 {
            self.since = crate::wall_clock();
        }
        self.lines += lines;
    }

    /// Tells of them, if it is time or `now`.
    fn tell(&mut self, now: bool, alarm: &Alarm) {
        if self.lines > 0 && (now || self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN)) {
            let Self { lines, since, .. } = self;
            alarm(
                Severity::Warn,
                &format!("lost {lines} lines since {since}: Loki's spool is full"),
            );
            self.lines = 0;
            self.told = Some(Instant::now());
        }
    }
}

/// What both tasks see. They share a thread.
struct Shared {
    queue: Arc<Queue<LineLane>>,
    spool: RefCell<Spool>,
    /// Lines that the disk did not take.
    spilt: RefCell<Vec<Entry>>,
    /// Something came: to the disk, to `spilt`, or the end.
    grown: Notify,
    /// The sender has taken `spilt`.
    taken: Notify,
    lost: RefCell<Lost>,
    all_stored: Cell<bool>,
    sender_gone: Cell<bool>,
}

/// Stores and sends until the queue is closed and empty, and then as long as there is time.
pub(crate) async fn run(
    queue: Arc<Queue<LineLane>>,
    limits: BatchLimits,
    mut courier: Courier,
    mut spool: Spool,
    fsync: Duration,
) {
    match spool.recover() {
        Ok(found) => {
            queue.recover(found.lines + found.torn);
            // How many lines were in what is torn is not known; a process that is killed tears one.
            lose(&queue, found.torn, DropReason::SpoolFailed);
            if found.torn > 0 {
                let line = format!("{} files of Loki's spool had an end that cannot be read", found.torn);
                (courier.alarm)(Severity::Warn, &line);
            }
        }
        Err(error) => (courier.alarm)(Severity::Error, &told("Loki's spool cannot be read", &error)),
    }
    let alarm = Arc::clone(&courier.alarm);
    let end = courier.end.clone();
    let shared = Shared {
        queue,
        spool: RefCell::new(spool),
        spilt: RefCell::default(),
        grown: Notify::new(),
        taken: Notify::new(),
        lost: RefCell::default(),
        all_stored: Cell::new(false),
        sender_gone: Cell::new(false),
    };
    let storing = async {
        shared.keep(fsync, &alarm, end).await;
        shared.lost.borrow_mut().tell(true, &alarm);
        shared.all_stored.set(true);
        shared.grown.notify_one();
    };
    let sending = async {
        shared.send(limits, &mut courier).await;
        shared.sender_gone.set(true);
        shared.taken.notify_one();
    };
    tokio::join!(storing, sending);
    let mut spool = shared.spool.into_inner();
    if shared.queue.counts().spooled == 0 {
        spool.clear();
    }
}

/// Lines that were on disk and are lost.
fn lose(queue: &Queue<LineLane>, count: u64, reason: DropReason) {
    if count > 0 && queue.unspool(count) {
        queue.settle(count, Fate::Dropped(reason));
    }
}

fn told(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

impl Shared {
    /// Stores lines as they come.
    async fn keep(&self, fsync: Duration, alarm: &Alarm, end: tokio::sync::watch::Receiver<Option<Instant>>) {
        let limits = BatchLimits {
            bytes: WRITE,
            items: usize::MAX,
            linger: Duration::ZERO,
        };
        let mut stamps = Stamps::default();
        let mut lines = Lines::default();
        let mut due: Option<Instant> = None;
        let mut failing = false;
        loop {
            let more = tokio::select! {
                more = self.queue.take_async(limits, &mut lines) => more,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.sync().await;
                    due = None;
                    continue;
                }
            };
            if !more {
                break;
            }
            let mut entries = Entry::all_of(&mut lines);
            stamps.apply(&mut entries);
            entries.sort_by_key(|entry| entry.at);
            loop {
                let error = match self.store(&mut entries) {
                    Err(error) => error,
                    Ok(stored) => {
                        self.lost.borrow_mut().tell(false, alarm);
                        if stored && std::mem::take(&mut failing) {
                            alarm(Severity::Info, "Loki's spool can be written again");
                        }
                        break;
                    }
                };
                if !std::mem::replace(&mut failing, true) {
                    alarm(
                        Severity::Error,
                        &told("Loki's spool cannot be written; lines wait in memory", &error),
                    );
                }
                if self.sender_gone.get() {
                    self.queue
                        .settle(entries.len() as u64, Fate::Dropped(DropReason::SpoolFailed));
                    entries.clear();
                    break;
                }
                self.spilt.borrow_mut().append(&mut entries);
                self.grown.notify_one();
                tokio::select! {
                    () = self.taken.notified() => {}
                    () = tokio::time::sleep(AGAIN) => {}
                    () = time_is_over(end.clone()) => {}
                }
                entries = self.spilt.take();
            }
            match due {
                None => due = Some(Instant::now() + fsync),
                Some(at) if at <= Instant::now() => {
                    self.sync().await;
                    due = None;
                }
                Some(_) => {}
            }
        }
        self.sync().await;
    }

    /// Stores lines; whether there were any. Those that the disk does not take stay.
    fn store(&self, entries: &mut Vec<Entry>) -> io::Result<bool> {
        if entries.is_empty() {
            return Ok(false);
        }
        let done = self.spool.borrow_mut().store(entries);
        lose(&self.queue, done.given_up, DropReason::SpoolFull);
        self.lost.borrow_mut().add(done.given_up + done.refused);
        self.queue.settle(done.refused, Fate::Dropped(DropReason::SpoolFull));
        if done.kept > 0 {
            self.queue.settle(done.kept, Fate::Spooled);
            self.grown.notify_one();
        }
        match done.error {
            Some(error) => Err(error),
            None => Ok(true),
        }
    }

    /// Brings what was written to the disk itself. It may take long, and another thread waits for it.
    async fn sync(&self) {
        let files = self.spool.borrow_mut().unsynced();
        // An error is one of the disk: lines are as safe as it lets them be.
        let _ = tokio::task::spawn_blocking(move || files.iter().try_for_each(|file| file.sync_data())).await;
    }

    fn take(&self, bytes: usize) -> Batch {
        let mut spool = self.spool.borrow_mut();
        let most = spool.most_at_once();
        spool.take(bytes.min(most))
    }

    /// Sends what is stored.
    async fn send(&self, limits: BatchLimits, courier: &mut Courier) {
        let from_memory = |count, fate| {
            self.queue.settle(count, fate);
        };
        let from_disk = |count, fate| {
            if self.queue.unspool(count) {
                self.queue.settle(count, fate);
            }
        };
        loop {
            let batch = self.take(limits.bytes);
            lose(&self.queue, batch.damaged, DropReason::SpoolFailed);
            if !batch.entries.is_empty() {
                if !courier
                    .deliver(&mut Parcel::new(batch.entries, courier.longest), &from_disk)
                    .await
                {
                    return;
                }
                self.spool.borrow_mut().settled(batch.mark);
                continue;
            }
            let spilt = self.spilt.take();
            if !spilt.is_empty() {
                self.taken.notify_one();
                let mut parcel = Parcel::new(spilt, courier.longest);
                if !courier.deliver(&mut parcel, &from_memory).await {
                    parcel.give_up(&from_memory);
                    return;
                }
                continue;
            }
            if self.all_stored.get() {
                return;
            }
            self.grown.notified().await;
            if !self.all_stored.get() && self.spilt.borrow().is_empty() {
                courier.linger(limits.linger).await;
            }
        }
    }
}
