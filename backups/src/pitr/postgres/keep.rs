//! Keeps the log that a base backup needs: by a receiver that runs already, or by one of its own for as long as the
//! backup takes. The backup counts once the archive is seen to hold it, whoever brought it there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use replication::{Connection, SlotName};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::reach::{self, Branch, way};
use super::receiver::{Ended, Flusher, Phase, Receiver, ReceiverError, ReceiverOptions, Status};
use crate::error::Error;
use crate::error::chain;
use crate::source::postgres::base::{BaseError, KeepLog, LogOf, LogSpan};

/// How often the archive is looked at.
const POLL: Duration = Duration::from_millis(500);
/// What somebody else brings is waited for so long.
const PATIENCE: Duration = Duration::from_mins(10);
/// A server that cannot be reached for so long is gone, and its log with it.
const GONE: Duration = Duration::from_secs(20);

/// Who brings the log into the archive.
enum Bringer {
    /// A receiver of the caller's.
    Given(Flusher),
    /// One of ours, for the time of the backup.
    Own(Box<ReceiverOptions>),
}

/// The log of base backups.
pub struct Keeper {
    archive: Archive,
    bringer: Bringer,
    running: Mutex<Option<Running>>,
}

/// A receiver of our own.
struct Running {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), ReceiverError>>,
    flusher: Flusher,
    /// The slot was not there before.
    made_slot: bool,
}

impl Keeper {
    /// By a receiver that runs.
    pub fn given(archive: Archive, flusher: Flusher) -> Self {
        Self {
            archive,
            bringer: Bringer::Given(flusher),
            running: Mutex::default(),
        }
    }

    /// By a receiver with these options. One that holds the slot elsewhere will do as well.
    pub fn own(archive: Archive, options: ReceiverOptions) -> Self {
        Self {
            archive,
            bringer: Bringer::Own(Box::new(options)),
            running: Mutex::default(),
        }
    }

    /// Ends the receiver of our own. A slot that it made goes with it: nobody would read on, and the server would keep its
    /// log for ever.
    pub async fn finish(&self) {
        let Some(running) = self.running.lock().await.take() else {
            return;
        };
        running.cancel.cancel();
        let _ = running.task.await;
        if let (true, Bringer::Own(options)) = (running.made_slot, &self.bringer)
            && let Err(error) = drop_slot(options).await
        {
            tracing::warn!(slot = %options.slot, %error, "the replication slot of the backup could not be dropped");
        }
    }

    /// Whether there is still somebody whose log could come. A caller who receives for longer than this backup waits for its
    /// server by itself.
    async fn server_answers(&self) -> Result<(), replication::Error> {
        let Bringer::Own(options) = &self.bringer else {
            return Ok(());
        };
        let answer = async {
            Connection::open(&options.address, &options.application)
                .await?
                .identify()
                .await
        };
        answer.await.map(|_| ())
    }

    async fn start(&self, options: &ReceiverOptions) -> Result<(), Error> {
        let mut connection = Connection::open(&options.address, &options.application)
            .await
            .map_err(server)?;
        let made_slot = connection.slot(&options.slot).await.map_err(server)?.is_none();
        drop(connection);
        let receiver = Arc::new(Receiver::new(self.archive.clone(), options.clone()));
        let (mut status, flusher) = (receiver.status(), receiver.flusher());
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let mut task = tokio::spawn(async move {
            loop {
                match receiver.run(&token).await? {
                    Ended::Cancelled => return Ok(()),
                    // What was lost lies before this backup.
                    Ended::Gap(_) => {}
                }
            }
        });
        tokio::select! {
            ended = &mut task => match ended {
                // Whoever has the slot brings the log.
                Ok(Err(ReceiverError::SlotInUse { .. })) => return Ok(()),
                Ok(Err(error)) => return Err(no_log(&error)),
                Ok(Ok(())) | Err(_) => return Err(Error::Cancelled),
            },
            () = streams(&mut status) => {}
        }
        *self.running.lock().await = Some(Running {
            cancel,
            task,
            flusher,
            made_slot,
        });
        Ok(())
    }
}

async fn streams(status: &mut watch::Receiver<Status>) {
    if status
        .wait_for(|status| status.phase == Phase::Streaming)
        .await
        .is_err()
    {
        // The receiver is gone, which its task tells.
        std::future::pending::<()>().await;
    }
}

async fn drop_slot(options: &ReceiverOptions) -> Result<(), replication::Error> {
    let slot: &SlotName = &options.slot;
    Connection::open(&options.address, &options.application)
        .await?
        .drop_slot(slot)
        .await
}

fn server(error: replication::Error) -> Error {
    BaseError::Server(error).into()
}

fn no_log(error: &(dyn std::error::Error + 'static)) -> Error {
    BaseError::NoLog(chain(error)).into()
}

#[async_trait]
impl KeepLog for Keeper {
    async fn begin(&self, _log: &LogOf) -> Result<(), Error> {
        match &self.bringer {
            Bringer::Given(_) => Ok(()),
            Bringer::Own(options) => self.start(options).await,
        }
    }

    async fn held(&self, span: &LogSpan) -> Result<(), Error> {
        let base = reach::Base {
            start: span.start,
            timeline: span.timeline,
            end: span.end,
            end_timeline: span.timeline,
        };
        let until = Instant::now() + PATIENCE;
        let mut reached = Instant::now();
        loop {
            let flusher = match (&self.bringer, &*self.running.lock().await) {
                (Bringer::Given(flusher), _) => Some(flusher.clone()),
                (Bringer::Own(_), running) => running.as_ref().map(|running| running.flusher.clone()),
            };
            if let Some(flusher) = flusher {
                // While it cannot connect, it does not answer.
                let _ = tokio::time::timeout(GONE / 4, flusher.flush()).await;
            }
            let contents = self.archive.list().await?;
            let found = match contents.systems.get(&span.system) {
                Some(held) => match way(held, &base, Branch::Exactly(span.timeline)) {
                    Ok(way) => way.usable().map_err(|short| short.to_string()),
                    Err(no) => Err(no.to_string()),
                },
                None => Err("nothing of this cluster is there".to_owned()),
            };
            let Err(missing) = found else { return Ok(()) };
            let ended = self
                .running
                .lock()
                .await
                .as_ref()
                .is_some_and(|running| running.task.is_finished());
            if ended || Instant::now() >= until {
                return Err(BaseError::NoLog(missing).into());
            }
            match self.server_answers().await {
                Ok(()) => reached = Instant::now(),
                Err(error) if reached.elapsed() >= GONE => {
                    let why = format!("{missing}, and the server is gone: {}", chain(&error));
                    return Err(BaseError::NoLog(why).into());
                }
                Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
