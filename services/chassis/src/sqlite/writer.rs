//! The thread that owns the one writing connection and commits the work of many callers together (group commit: D. DeWitt
//! et al., "Implementation Techniques for Main Memory Database Systems", 1984, section 5). It decides nothing about what
//! is written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use resilience::Deadline;
use rusqlite::Connection;
use telemetry::{Histogram, PoolFigures};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::SqliteError;

/// Calls that may wait; at some thousands of small writes a second that is well under a second of waiting.
const QUEUE: usize = 1024;
/// Calls in one transaction: keeps the time that another instance waits for the lock short.
const BATCH: usize = 128;

/// The queue to the thread. Dropping it lets the thread finish what is queued, then close the connection.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    /// Calls of the transaction that is being made.
    busy: Arc<AtomicUsize>,
    waits: Arc<OnceLock<Histogram>>,
}

/// Work on its way through the thread.
trait Job: Send {
    /// True when the caller is still there and has time left.
    fn is_wanted(&self) -> bool;
    /// When it came.
    fn queued_at(&self) -> Instant;
    /// Does the work; false when its writes are to be undone.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers the caller, with the commit's outcome.
    fn finish(self: Box<Self>, commit: Result<(), SqliteError>);
}

struct Task<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    deadline: Option<Deadline>,
    queued_at: Instant,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Task<T, E, F>
where
    T: Send,
    E: From<SqliteError> + Send,
    F: FnOnce(&Connection) -> Result<T, E> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && self.deadline.is_none_or(|deadline| !deadline.is_over())
    }

    fn queued_at(&self) -> Instant {
        self.queued_at
    }

    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        // The savepoint undoes whatever a panic left half done.
        let result =
            catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| Err(SqliteError::Gone.into()));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, commit: Result<(), SqliteError>) {
        let answer = match (self.result, commit) {
            // Work that failed by itself says why, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(SqliteError::Gone.into()),
        };
        // A caller that has gone meanwhile wants no answer.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Box<dyn Job>>(QUEUE);
        let (busy, waits) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::<Histogram>::new()));
        let (counted, told) = (Arc::clone(&busy), Arc::clone(&waits));
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                let mut batch = Vec::with_capacity(BATCH);
                while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
                    counted.store(batch.len(), Ordering::Relaxed);
                    if let Some(waits) = told.get() {
                        for job in &batch {
                            waits.observe_duration(job.queued_at().elapsed());
                        }
                    }
                    commit(&mut connection, &mut batch);
                    counted.store(0, Ordering::Relaxed);
                }
            })
            .expect("a process that can start can start a thread");
        Self { queue, busy, waits }
    }

    /// Says from now on how long calls wait for the thread.
    pub(super) fn tell_waits(&self, waits: Histogram) {
        // The first one stays.
        let _ = self.waits.set(waits);
    }

    /// The one connection, and who waits for it.
    pub(super) fn figures(&self) -> PoolFigures {
        let is_busy = self.busy.load(Ordering::Relaxed) > 0;
        PoolFigures {
            used: u64::from(is_busy),
            idle: u64::from(!is_busy),
            max: 1,
            waiters: (self.queue.max_capacity() - self.queue.capacity()) as u64,
            timeouts: 0,
        }
    }

    pub(super) async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task {
            work: Some(work),
            result: None,
            deadline: Deadline::current(),
            queued_at: Instant::now(),
            reply,
        });
        self.queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SqliteError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => SqliteError::Gone,
        })?;
        answer.await.unwrap_or_else(|_| Err(SqliteError::Gone.into()))
    }
}

/// Runs all of `batch` in one transaction and answers everybody.
fn commit(connection: &mut Connection, batch: &mut Vec<Box<dyn Job>>) {
    for job in batch.extract_if(.., |job| !job.is_wanted()) {
        job.finish(Err(SqliteError::Expired));
    }
    if batch.is_empty() {
        return;
    }
    let outcome = transact(connection, batch).map_err(Arc::new);
    if outcome.is_err() && !connection.is_autocommit() {
        // Nothing can be done about a rollback that fails; the next BEGIN reports it.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for job in batch.drain(..) {
        job.finish(outcome.clone().map_err(SqliteError::Commit));
    }
}

fn transact(connection: &Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in batch {
        connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        if !job.run(connection) {
            // Fails when SQLite has rolled back everything by itself (full disk, I/O error): then nobody's work is kept.
            connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}
