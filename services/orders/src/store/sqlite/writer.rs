//! The one writer of a process: a thread that takes all that waits, up to [`BATCH`], into one transaction, so that many
//! requests share one disk sync. What fails within a batch is run again alone, so that nobody pays for a neighbour.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Hands work to the writer thread. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Arc<Mutex<Option<mpsc::Sender<Box<dyn Job>>>>>,
}

/// Jobs that may wait before requests are turned away.
const QUEUE: usize = 4096;
/// Jobs in one transaction: bounds how long other processes wait for the write lock.
const BATCH: usize = 256;

impl Writer {
    pub(super) fn start(mut connection: Connection) -> Result<Self, StoreError> {
        let (sender, mut queue) = mpsc::channel::<Box<dyn Job>>(QUEUE);
        std::thread::Builder::new()
            .name("orders-writer".into())
            .spawn(move || {
                let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH);
                while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
                    run(&mut connection, &mut batch);
                }
                // The last connection to close folds the log back into the file; losing that race is harmless.
                drop(connection);
            })
            .map_err(|_| StoreError::Closed)?;
        Ok(Self { queue: Arc::new(Mutex::new(Some(sender))) })
    }

    /// Runs `work` in a transaction, waiting for a place in the queue: for the service's own work.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = Typed::new(work);
        self.sender()?.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` in a transaction, or says at once that too much waits: for requests.
    pub(super) async fn try_run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = Typed::new(work);
        self.sender()?.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Takes no more work and waits until the queue is empty.
    pub(super) async fn close(&self) {
        let sender = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let closing = sender.clone();
            drop(sender);
            // A last job, answered after all others.
            let (job, answer) = Typed::new(|_: &Connection| Ok(()));
            if closing.send(job).await.is_ok() {
                drop(answer.await);
            }
        }
    }

    fn sender(&self) -> Result<mpsc::Sender<Box<dyn Job>>, StoreError> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }
}

trait Job: Send {
    /// May be called again after a rollback.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Called once, after the commit or the last failure.
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Typed<T, F> {
    work: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Typed<T, F>
where
    T: Send + 'static,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    fn new(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { work, value: None, reply }), answer)
    }
}

impl<T, F> Job for Typed<T, F>
where
    T: Send + 'static,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.value = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { value, reply, .. } = *self;
        // Where nobody waits any more, the caller was cancelled; the work is done all the same.
        drop(reply.send(result.and_then(|()| value.ok_or(StoreError::Closed))));
    }
}

fn run(connection: &mut Connection, batch: &mut Vec<Box<dyn Job>>) {
    if batch.len() > 1 && together(connection, batch).is_ok() {
        for job in batch.drain(..) {
            job.answer(Ok(()));
        }
        return;
    }
    for mut job in batch.drain(..) {
        let result = alone(connection, job.as_mut());
        job.answer(result);
    }
}

fn together(connection: &mut Connection, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in batch {
        job.run(&transaction)?;
    }
    Ok(transaction.commit()?)
}

fn alone(connection: &mut Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    job.run(&transaction)?;
    Ok(transaction.commit()?)
}
