//! Receives the write-ahead log of a running server, as a standby would, and keeps it in the archive.
//!
//! The server is told that it need not keep what is durable in the repository, never what is only received. So whatever
//! happens to this process, the network or the store, the server's slot still has what is missing, and the next
//! connection goes on at the last whole segment of the archive. Every byte is read as log while it comes: what is
//! damaged, or does not follow on what the archive holds, ends the receiver and is not confirmed.
//!
//! Whole segments are kept as they fill up, the beginning of the last one at least every half of the RPO that is asked
//! for. Then a standing record says up to which moment of the server's clock everything is held. That moment is taken in
//! this order, so that it never claims too much: the server says its time, then it is asked how far its log is flushed,
//! and when all of that is durable, everything that was acknowledged before that time is.
//!
//! What cannot be had any more, since the server removed it, is a [`Ended::Gap`]: it is recorded, the slot is ready for
//! what comes behind it, and whoever runs the receiver takes a new base backup and runs it again.

mod health;
mod open;
mod resume;
mod session;
mod status;
mod tail;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use replication::{Address, Lsn, Malformed, Position, SegmentSize, SlotName, SystemId, Timeline};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use health::look as look_at_slot;
pub use status::{Phase, SlotStanding, Status, Warning};

use super::archive::{Archive, ArchiveError, Lost};
use super::contents::Standing;
use super::wal::Fault;
use crate::error::chain;
use crate::pitr::Datastore;
use crate::repo::Id;
use open::Opened;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause while something fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After this time a server knows that a client of its was cut off: `wal_sender_timeout` is a minute.
const CUT_OFF: Duration = Duration::from_secs(90);

/// How to receive.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// The server, or several of which one is the primary.
    pub address: Address,
    /// The cluster that it must be. `None`: that of the archive, or any while the archive is empty.
    pub system: Option<SystemId>,
    /// The slot, which is made if it is not there.
    pub slot: SlotName,
    /// How much may be lost: at least twice in this time all that there is becomes durable.
    pub rpo: Duration,
    /// How many files may be on their way at one time. Each is in memory, up to three times over; more than 256 MiB of
    /// large segments are not.
    pub in_flight: usize,
    /// What the server calls us.
    pub application: String,
    /// How long to wait for a slot that somebody uses: the server may not have noticed that we were cut off.
    pub slot_patience: Duration,
    /// How long the end may take, and what was received before a connection broke.
    pub drain: Duration,
}

impl ReceiverOptions {
    /// For a datastore, with the slot that is named after it.
    pub fn new(address: Address, datastore: &Datastore) -> Self {
        Self {
            address,
            system: None,
            slot: slot_name(datastore),
            rpo: Duration::from_mins(1),
            in_flight: 4,
            application: "opsctl receiver".to_owned(),
            slot_patience: Duration::from_secs(5),
            drain: Duration::from_secs(30),
        }
    }

    fn files_at_once(&self, size: SegmentSize) -> usize {
        let fit = (256 << 20) / size.bytes();
        self.in_flight.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
    }
}

/// The slot of a datastore: `opsctl_` and its name. What no slot may be called so is replaced, and then eight digits of a
/// hash keep two names apart.
pub fn slot_name(datastore: &Datastore) -> SlotName {
    const PREFIX: &str = "opsctl_";
    const LONGEST: usize = 63;
    let name = datastore.as_str();
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let plain = name.bytes().all(allowed) && PREFIX.len() + name.len() <= LONGEST;
    let slot = if plain {
        format!("{PREFIX}{name}")
    } else {
        let hash = Id::of(name.as_bytes()).to_string();
        let lower = name.to_ascii_lowercase();
        let letters = lower
            .bytes()
            .map(|byte| if allowed(byte) { char::from(byte) } else { '_' });
        let letters: String = letters.take(LONGEST - PREFIX.len() - 9).collect();
        format!("{PREFIX}{letters}_{}", &hash[..8])
    };
    SlotName::new(&slot).unwrap_or_else(|_| unreachable!("{slot} has allowed letters only"))
}

/// How a receiver ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As it was told.
    Cancelled,
    /// The server has no more what comes next. That is recorded, the slot keeps what comes behind it, and the next run
    /// goes on there. No base backup of before leads beyond it.
    Gap(Lost),
}

/// Why a receiver does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The server, in a way that does not pass by itself.
    #[error("the server's log cannot be received")]
    Server(#[from] replication::Error),
    /// The archive, in a way that does not pass by itself.
    #[error("the log cannot be archived")]
    Archive(#[from] ArchiveError),
    /// Another cluster: what it writes does not follow on what is held.
    #[error("the server is the cluster {server}, and the archive has the log of {archive}")]
    Foreign {
        /// The cluster of the archive, or the one that is asked for.
        archive: SystemId,
        /// The server's.
        server: SystemId,
    },
    /// The archive has what the server has not: it was put back to an older state, or an old primary came back. What it
    /// writes from now on is another log under the same names.
    #[error(
        "the archive reaches {} of timeline {}, and the server only {} of timeline {}: it was put back to an older state",
        .archive.lsn, .archive.timeline, .server.lsn, .server.timeline
    )]
    Ahead {
        /// Up to where the archive has the log.
        archive: Position,
        /// Up to where the server has it.
        server: Position,
    },
    /// The segments of the server are not those of the archive.
    #[error("the server has segments of {server}, and the archive of {archive}")]
    SegmentSize {
        /// The archive's.
        archive: SegmentSize,
        /// The server's.
        server: SegmentSize,
    },
    /// Somebody else receives by this slot.
    #[error("the replication slot {slot} is in use by somebody else: {said}")]
    SlotInUse {
        /// The slot.
        slot: SlotName,
        /// The server's words, which name the process there.
        said: String,
    },
    /// The server left something out, or sent it twice.
    #[error("the server went on at {found}, and {expected} was to come")]
    OutOfOrder {
        /// What was to come.
        expected: Lsn,
        /// What came.
        found: Lsn,
    },
    /// What came is not the log that it should be. Nothing of it was confirmed, so the server still has it.
    #[error("what the server sends is damaged, or does not follow on what the archive holds")]
    Fault(#[from] Fault),
    /// A setting of the server, or one of its files, cannot be understood.
    #[error("the server's {what} cannot be understood")]
    Malformed {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Malformed,
    },
    /// The history of its timeline cannot be understood.
    #[error("the server's history of timeline {timeline} cannot be understood")]
    History {
        /// The timeline.
        timeline: Timeline,
        /// Why.
        #[source]
        source: replication::HistoryError,
    },
}

impl ReceiverError {
    /// Whether another try may succeed without anybody doing anything.
    fn is_passing(&self) -> bool {
        match self {
            Self::Server(error) => passes(error),
            Self::Archive(error) => error.is_passing(),
            _ => false,
        }
    }
}

/// Also while one server hands over to another, and when a slot was taken away under us, which is then made again.
fn passes(error: &replication::Error) -> bool {
    match error {
        replication::Error::OtherRole { .. } => true,
        replication::Error::NoServer { last, .. } => passes(last),
        error => error.is_unreachable() || error.is_missing(),
    }
}

/// Receives the log of one cluster.
pub struct Receiver {
    archive: Archive,
    options: ReceiverOptions,
    status: Arc<watch::Sender<Status>>,
    flush: mpsc::Sender<oneshot::Sender<Standing>>,
    wanted: Mutex<mpsc::Receiver<oneshot::Sender<Standing>>>,
}

/// Asks a receiver that runs to make all durable now.
#[derive(Debug, Clone)]
pub struct Flusher {
    flush: mpsc::Sender<oneshot::Sender<Standing>>,
}

impl Flusher {
    /// Waits until all that the server has now is durable, and says so with its moment; `None` if the receiver ended, or
    /// if the server could not be asked how far it is. While it tries to connect, that takes as long.
    pub async fn flush(&self) -> Option<Standing> {
        let (told, standing) = oneshot::channel();
        self.flush.send(told).await.ok()?;
        standing.await.ok()
    }
}

impl Receiver {
    /// A receiver into an archive, which does nothing before it is run.
    pub fn new(archive: Archive, options: ReceiverOptions) -> Self {
        let (flush, wanted) = mpsc::channel(16);
        Self {
            archive,
            options,
            status: Arc::new(watch::Sender::new(Status::default())),
            flush,
            wanted: Mutex::new(wanted),
        }
    }

    /// What it tells of itself, now and whenever something changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Who can ask it to make all durable now.
    pub fn flusher(&self) -> Flusher {
        Flusher {
            flush: self.flush.clone(),
        }
    }

    /// Receives until it is cancelled, and then makes durable what it has. Connections that break are made again; a store
    /// that fails is tried again. The future may be dropped: nothing that was confirmed is lost by it.
    ///
    /// # Errors
    /// [`ReceiverError`], for what does not pass by itself.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<Ended, ReceiverError> {
        let ended = self.receive(cancel).await;
        self.status.send_modify(|status| {
            status.phase = Phase::Ended;
            status.last_error = ended.as_ref().err().map(|error| chain(error));
        });
        ended
    }

    async fn receive(&self, cancel: &CancellationToken) -> Result<Ended, ReceiverError> {
        let mut wanted = self.wanted.lock().await;
        let mut backoff = Backoff::new();
        // Since when the slot is somebody else's, and how long that may be.
        let (mut in_use, mut patience) = (None, self.options.slot_patience);
        loop {
            self.status.send_modify(|status| status.phase = Phase::Connecting);
            let received = self.status.borrow().received;
            let session = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(Ended::Cancelled),
                session = open::open(&self.archive, &self.options, &self.status) => session,
            };
            let ended = match session {
                Ok(Opened::Streaming(session)) => {
                    // From here on it may be ourselves, until the server finds out that we were cut off.
                    (in_use, patience) = (None, self.options.slot_patience.max(CUT_OFF));
                    session.run(&mut wanted, cancel).await
                }
                Ok(Opened::Gap(gap)) => Ok(Ended::Gap(gap)),
                Err(error) => Err(error),
            };
            let error = match ended {
                Ok(ended) => return Ok(ended),
                Err(error) => error,
            };
            if self.status.borrow().received != received {
                backoff = Backoff::new();
            }
            let goes_on = if let ReceiverError::SlotInUse { .. } = &error {
                in_use.get_or_insert_with(Instant::now).elapsed() < patience
            } else {
                in_use = None;
                error.is_passing()
            };
            if !goes_on {
                return Err(error);
            }
            failing(&self.status, &error);
            tracing::warn!(error = %chain(&error), "receiving the log is tried again");
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(Ended::Cancelled),
                () = backoff.pause() => {}
            }
        }
    }
}

/// Pauses between tries: each twice as long as the one before, and not all receivers at one time.
struct Backoff {
    pause: Duration,
    failures: u32,
}

impl Backoff {
    const fn new() -> Self {
        Self {
            pause: FIRST_PAUSE,
            failures: 0,
        }
    }

    const fn failures(&self) -> u32 {
        self.failures
    }

    async fn pause(&mut self) {
        let jittered = self.pause.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(jittered).await;
    }
}

fn failing(status: &watch::Sender<Status>, error: &(dyn std::error::Error + 'static)) {
    let said = chain(error);
    status.send_modify(|status| {
        status.phase = if status.phase == Phase::Streaming {
            Phase::Streaming
        } else {
            Phase::Waiting
        };
        status.last_error = Some(said);
        status.failures = status.failures.saturating_add(1);
    });
}

fn recovered(status: &watch::Sender<Status>) {
    status.send_modify(|status| (status.last_error, status.failures) = (None, 0));
}

/// The server's clock, as it says it.
fn server_time(time: std::time::SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_after_datastores_and_no_two_alike() {
        let slot = |name: &str| slot_name(&Datastore::new(name).unwrap()).to_string();
        assert_eq!(slot("pg_main"), "opsctl_pg_main");
        let names = [
            "local.pg-main",
            "local.pg.main",
            "Local.pg-main",
            "local_pg_main",
            &"a".repeat(200),
            &"a".repeat(199),
        ];
        let slots: std::collections::BTreeSet<_> = names.iter().map(|name| slot(name)).collect();
        assert_eq!(slots.len(), names.len());
        assert!(slot("local.pg-main").starts_with("opsctl_local_pg_main_"));
    }
}
