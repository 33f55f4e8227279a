//! One connection that streams: takes the log as it comes, keeps it, tells the server what is durable, and finds out up
//! to which moment that is everything.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use replication::{Address, Connection, Event, Identity, Lsn, Position, Timeline, WalStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::super::archive::{ArchiveError, File};
use super::super::contents::Standing;
use super::open::{gap, next_timeline, said};
use super::status::{Phase, Warning};
use super::tail::Tail;
use super::uploads::Uploads;
use super::{Ended, ReceiverError, ReceiverOptions, chain, health, passes, recovered, server_time};
use crate::threads::ended;

/// The longest time without a word to the server.
const REPLY: Duration = Duration::from_secs(10);
/// The shortest time between two standing records that nobody asked for.
const SHORTEST_PULSE: Duration = Duration::from_millis(200);
/// How long the server may take for a polite end.
const LEAVE: Duration = Duration::from_secs(5);

/// Who waits for everything to be durable.
type Waiter = oneshot::Sender<Standing>;

/// A connection that streams.
pub(super) struct Session {
    stream: WalStream,
    core: Core,
}

/// All of a session but the stream.
pub(super) struct Core {
    options: ReceiverOptions,
    address: Address,
    uploads: Uploads,
    tail: Tail,
    /// Up to here all is in the repository.
    durable: Lsn,
    pulse: Pulse,
    /// A second connection, to ask how far the server is.
    side: Option<Connection>,
    /// Another pulse is wanted when this one is over.
    again: bool,
    /// Who waits for the pulse that goes on, and who for the next one.
    waiting: (Vec<Waiter>, Vec<Waiter>),
    /// How often the server hears of us.
    reply: Duration,
    /// The server is a standby: how far its primary is, is not known.
    standby: bool,
    /// Files at one time.
    room: usize,
}

/// How a moment is found up to which everything is durable.
enum Pulse {
    Idle,
    /// The server's time is awaited.
    Asked,
    /// The server said its time, and then is asked how far it is.
    Looking {
        moment: Timestamp,
        task: AbortOnDropHandle<Looked>,
    },
    /// All that was acknowledged before the moment lies before `lsn`.
    Reaching {
        standing: Standing,
    },
    /// Nobody knows how far it is: what was received is made durable, and no moment told.
    Keeping {
        lsn: Lsn,
    },
    /// All of it is durable; that is being recorded.
    Telling {
        standing: Standing,
        task: AbortOnDropHandle<Result<(), ArchiveError>>,
    },
}

type Looked = Result<(Connection, Identity), replication::Error>;

/// What happened.
enum Step {
    Event(Result<Event, replication::Error>),
    Uploaded(Result<Lsn, ReceiverError>),
    Looked(Box<Result<Looked, tokio::task::JoinError>>),
    Told(Result<Result<(), ArchiveError>, tokio::task::JoinError>),
    Wanted(Waiter),
    Tick,
    Reply,
    Silent,
    Cancelled,
}

impl Session {
    pub(super) fn new(stream: WalStream, core: Core) -> Self {
        Self { stream, core }
    }

    /// Streams until the connection breaks, the end is wanted or nothing more can come.
    pub(super) async fn run(
        self,
        wanted: &mut mpsc::Receiver<Waiter>,
        cancel: &CancellationToken,
    ) -> Result<Ended, ReceiverError> {
        let Self { mut stream, mut core } = self;
        let status = Arc::clone(&core.uploads.keeper().status);
        recovered(&status);
        status.send_modify(|status| status.phase = Phase::Streaming);
        let _health = health::watch_slot(&core.address, &core.options.application, &core.options.slot, &status);
        let mut tick = tokio::time::interval((core.options.rpo / 2).max(SHORTEST_PULSE));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reply = tokio::time::interval(core.reply);
        reply.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = core.reply * 3 + REPLY;
        let mut heard = Instant::now();
        loop {
            let room = core.uploads.len() < core.room;
            let step = tokio::select! {
                biased;
                () = cancel.cancelled() => Step::Cancelled,
                Some(uploaded) = core.uploads.next(), if !core.uploads.is_empty() => Step::Uploaded(uploaded),
                step = core.pulse.next() => step,
                Some(waiter) = wanted.recv() => Step::Wanted(waiter),
                _ = tick.tick() => Step::Tick,
                _ = reply.tick() => Step::Reply,
                event = stream.next(), if room => Step::Event(event),
                () = tokio::time::sleep_until(heard + silence), if room => Step::Silent,
            };
            if !room || matches!(step, Step::Event(_)) {
                heard = Instant::now();
            }
            let done = match step {
                Step::Cancelled => return core.finish(stream).await,
                Step::Event(Ok(Event::TimelineEnds { next, at })) => match core.switch(stream, next, at).await {
                    Ok(begun) => {
                        stream = begun;
                        continue;
                    }
                    Err(error) => return core.salvage(error, cancel).await,
                },
                Step::Event(Ok(event)) => core.take(event, &mut stream).await,
                Step::Event(Err(error)) if error.is_removed() => return core.lost(error, cancel).await,
                Step::Event(Err(error)) => Err(said(error, &core.options)),
                Step::Uploaded(Ok(until)) => core.advance(until, &mut stream).await,
                Step::Uploaded(Err(error)) => Err(error),
                Step::Looked(looked) => {
                    core.looked(*looked);
                    Ok(())
                }
                Step::Told(told) => core.told(told),
                Step::Wanted(waiter) => {
                    core.waiting.1.push(waiter);
                    core.again = true;
                    Ok(())
                }
                Step::Tick => {
                    core.again = true;
                    Ok(())
                }
                Step::Reply => core.ask(&mut stream).await,
                Step::Silent => Err(silent(&core.address, silence)),
            };
            let done = match done {
                Ok(()) => core.beat(&mut stream).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                drop(stream);
                return core.salvage(error, cancel).await;
            }
        }
    }
}

fn silent(address: &Address, limit: Duration) -> ReceiverError {
    let at = address.hosts().first().map(ToString::to_string).unwrap_or_default();
    let what = "say a word";
    ReceiverError::Server(replication::Error::TimedOut { at, what, limit })
}

impl Pulse {
    /// The next step of a pulse that waits for something of its own. May be dropped.
    async fn next(&mut self) -> Step {
        match self {
            Self::Looking { task, .. } => Step::Looked(Box::new(task.await)),
            Self::Telling { task, .. } => Step::Told(task.await),
            Self::Idle | Self::Asked | Self::Reaching { .. } | Self::Keeping { .. } => std::future::pending().await,
        }
    }
}

impl Core {
    pub(super) fn new(
        options: ReceiverOptions,
        address: Address,
        uploads: Uploads,
        tail: Tail,
        durable: Lsn,
        sender_timeout: Duration,
        standby: bool,
    ) -> Self {
        let room = options.files_at_once(uploads.keeper().size);
        Self {
            options,
            address,
            uploads,
            tail,
            durable,
            pulse: Pulse::Idle,
            side: None,
            again: true,
            waiting: (Vec::new(), Vec::new()),
            reply: (sender_timeout / 3).clamp(Duration::from_millis(50), REPLY),
            standby,
            room,
        }
    }

    /// Takes a piece of the log, or hears that there is none.
    async fn take(&mut self, event: Event, stream: &mut WalStream) -> Result<(), ReceiverError> {
        let (end_of_log, sent_at) = match event {
            Event::Wal {
                start,
                data,
                end_of_log,
                sent_at,
            } => {
                for (segment, content) in self.tail.push(start, &data)? {
                    let until = segment.end(self.uploads.keeper().size);
                    self.uploads.send(File::Segment(segment), content, until);
                }
                (end_of_log, sent_at)
            }
            Event::KeepAlive {
                end_of_log,
                sent_at,
                asks,
            } => {
                if asks {
                    // A server that shuts down waits until all that it has is durable here.
                    self.again |= end_of_log <= self.tail.received() && self.durable < end_of_log;
                    self.confirm(stream).await?;
                }
                (end_of_log, sent_at)
            }
            Event::TimelineEnds { .. } => return Ok(()),
        };
        let said_at = server_time(sent_at);
        let (received, uploads) = (self.tail.received(), self.uploads.len());
        self.uploads.keeper().status.send_modify(|status| {
            (status.received, status.uploads) = (received, uploads);
            (status.end_of_log, status.said_at) = (end_of_log.max(received), said_at);
        });
        if let (Pulse::Asked, Some(moment)) = (&self.pulse, said_at) {
            self.look(moment);
        }
        Ok(())
    }

    /// Asks how far the server is, after it said its time.
    fn look(&mut self, moment: Timestamp) {
        let (side, address, application) = (self.side.take(), self.address.clone(), self.options.application.clone());
        let look = async move {
            let mut side = match side {
                Some(side) => side,
                None => Connection::open(&address, &application).await?,
            };
            let identity = side.identify().await?;
            Ok((side, identity))
        };
        self.pulse = Pulse::Looking {
            moment,
            task: AbortOnDropHandle::new(tokio::spawn(look)),
        };
    }

    fn looked(&mut self, looked: Result<Looked, tokio::task::JoinError>) {
        let Pulse::Looking { moment, .. } = std::mem::replace(&mut self.pulse, Pulse::Idle) else {
            return;
        };
        let keeper = self.uploads.keeper();
        self.pulse = match looked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Ok((side, server)) if server.system == keeper.system && server.timeline == self.tail.timeline => {
                self.side = Some(side);
                let (timeline, lsn) = (server.timeline, server.flushed);
                // What is told is what the record says, and no microsecond more.
                let standing = Standing { timeline, lsn, moment }.rounded();
                Pulse::Reaching { standing }
            }
            // Somebody was promoted: soon this stream says so as well.
            Ok(_) => Pulse::Keeping {
                lsn: self.tail.received(),
            },
            Err(error) => {
                self.unknown(chain(&error));
                Pulse::Keeping {
                    lsn: self.tail.received(),
                }
            }
        };
    }

    fn unknown(&self, why: String) {
        self.uploads.keeper().status.send_modify(|status| {
            status
                .warnings
                .retain(|warning| !matches!(warning, Warning::MomentUnknown(_)));
            status.warnings.push(Warning::MomentUnknown(why));
        });
    }

    /// The log is durable up to here.
    async fn advance(&mut self, until: Lsn, stream: &mut WalStream) -> Result<(), ReceiverError> {
        self.durable = self.durable.max(until);
        let (durable, uploads) = (self.durable, self.uploads.len());
        self.uploads
            .keeper()
            .status
            .send_modify(|status| (status.durable, status.uploads) = (durable, uploads));
        self.confirm(stream).await
    }

    /// Does what the pulse can do now.
    async fn beat(&mut self, stream: &mut WalStream) -> Result<(), ReceiverError> {
        if matches!(self.pulse, Pulse::Idle) && std::mem::take(&mut self.again) {
            let mut waiting = std::mem::take(&mut self.waiting.1);
            self.waiting.0.append(&mut waiting);
            if self.standby {
                self.unknown("the server is a standby".to_owned());
                self.pulse = Pulse::Keeping {
                    lsn: self.tail.received(),
                };
            } else {
                self.pulse = Pulse::Asked;
                self.ask(stream).await?;
            }
        }
        let lsn = match &self.pulse {
            Pulse::Reaching { standing } => standing.lsn,
            Pulse::Keeping { lsn } => *lsn,
            _ => return Ok(()),
        };
        if self.tail.received() >= lsn && self.uploads.queued() < lsn {
            self.send_partial();
        }
        if self.durable < lsn {
            return Ok(());
        }
        match std::mem::replace(&mut self.pulse, Pulse::Idle) {
            Pulse::Reaching { standing } => {
                let task = self
                    .uploads
                    .keeper()
                    .spawn(File::Standing(standing), bytes::Bytes::new());
                self.pulse = Pulse::Telling { standing, task };
            }
            // Whoever waits for a moment hears that none is known.
            _ => self.waiting.0.clear(),
        }
        Ok(())
    }

    fn send_partial(&mut self) {
        if let Some((file, content)) = self.tail.partial() {
            self.uploads.send(file, content, self.tail.received());
        }
    }

    fn told(&mut self, told: Result<Result<(), ArchiveError>, tokio::task::JoinError>) -> Result<(), ReceiverError> {
        told.map_err(ended)??;
        if let Pulse::Telling { standing, .. } = std::mem::replace(&mut self.pulse, Pulse::Idle) {
            self.uploads.keeper().status.send_modify(|status| {
                status.complete_until = status.complete_until.max(Some(standing.moment));
                status
                    .warnings
                    .retain(|warning| !matches!(warning, Warning::MomentUnknown(_)));
            });
            for waiter in self.waiting.0.drain(..) {
                // Who does not wait any more need not hear it.
                let _ = waiter.send(standing);
            }
        }
        Ok(())
    }

    /// Tells the server what it need not keep.
    async fn confirm(&mut self, stream: &mut WalStream) -> Result<(), ReceiverError> {
        Ok(stream.confirm(self.tail.received(), self.durable, Lsn::ZERO).await?)
    }

    /// The same, and wants to hear from it: whoever says nothing then is gone.
    async fn ask(&mut self, stream: &mut WalStream) -> Result<(), ReceiverError> {
        Ok(stream.ask(self.tail.received(), self.durable, Lsn::ZERO).await?)
    }

    /// Goes over to the next timeline.
    async fn switch(&mut self, stream: WalStream, next: Timeline, at: Lsn) -> Result<WalStream, ReceiverError> {
        let received = self.tail.received();
        if received != at {
            return Err(ReceiverError::OutOfOrder {
                expected: received,
                found: at,
            });
        }
        if self.uploads.queued() < at {
            self.send_partial();
        }
        let connection = stream.leave().await?;
        let keeper = self.uploads.keeper().clone();
        let from = Position {
            lsn: at,
            timeline: self.tail.timeline,
        };
        let (stream, tail, standby) = next_timeline(connection, &self.options, &keeper, from, next).await?;
        let next = tail.timeline;
        tracing::info!(timeline = %next, %at, "the log goes on with another timeline");
        (self.tail, self.standby, self.pulse, self.again) = (tail, standby, Pulse::Idle, true);
        keeper.status.send_modify(|status| status.timeline = Some(next));
        Ok(stream)
    }

    /// The connection is over: what was received is made durable, however long that takes, since nobody may have it but
    /// us.
    async fn salvage(mut self, error: ReceiverError, cancel: &CancellationToken) -> Result<Ended, ReceiverError> {
        if matches!(error, ReceiverError::Archive(_)) {
            return Err(error);
        }
        // What came before a fault may belong to the record that is damaged.
        let sound = matches!(&error, ReceiverError::Server(error) if passes(error));
        if sound && self.uploads.queued() < self.tail.received() {
            self.send_partial();
        }
        self.uploads.keeper().status.send_modify(|status| {
            status.last_error = Some(chain(&error));
            status.phase = Phase::Waiting;
        });
        let all = async {
            while let Some(uploaded) = self.uploads.next().await {
                self.durable = self.durable.max(uploaded?);
                let durable = self.durable;
                self.uploads
                    .keeper()
                    .status
                    .send_modify(|status| status.durable = durable);
            }
            Ok(())
        };
        let limit = async {
            cancel.cancelled().await;
            tokio::time::sleep(self.options.drain).await;
        };
        tokio::select! {
            all = all => all.and(Err(error)),
            () = limit => Err(error),
        }
    }

    /// The server removed what comes next.
    async fn lost(mut self, refused: replication::Error, cancel: &CancellationToken) -> Result<Ended, ReceiverError> {
        if self.uploads.queued() < self.tail.received() {
            self.send_partial();
        }
        let limit = self.options.drain;
        self.durable = tokio::select! {
            () = cancel.cancelled() => return Ok(Ended::Cancelled),
            durable = self.uploads.drain(limit, self.durable) => durable?,
        };
        let from = Position {
            lsn: self.durable,
            timeline: self.tail.timeline,
        };
        let lost = gap(&self.address, &self.options, self.uploads.keeper(), from, refused).await?;
        Ok(Ended::Gap(lost))
    }

    /// The end is wanted: all that was received becomes durable, and the server hears of it.
    async fn finish(mut self, mut stream: WalStream) -> Result<Ended, ReceiverError> {
        let end = Instant::now() + self.options.drain;
        if self.uploads.queued() < self.tail.received() {
            self.send_partial();
        }
        self.durable = self.uploads.drain(self.options.drain, self.durable).await?;
        let durable = self.durable;
        self.uploads
            .keeper()
            .status
            .send_modify(|status| (status.durable, status.uploads) = (durable, 0));
        // What is known of the moment is told, and nothing more asked.
        if let Pulse::Reaching { standing } = self.pulse
            && standing.lsn <= durable
        {
            let task = self
                .uploads
                .keeper()
                .spawn(File::Standing(standing), bytes::Bytes::new());
            self.pulse = Pulse::Telling { standing, task };
        }
        if let Pulse::Telling { task, .. } = &mut self.pulse
            && let Ok(told) = tokio::time::timeout_at(end, task).await
        {
            self.told(told)?;
        }
        let leave = async {
            self.confirm(&mut stream).await?;
            stream.leave().await?;
            Ok::<_, ReceiverError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(LEAVE, leave).await {
            tracing::debug!(error = %chain(&error), "the server did not hear of the end");
        }
        Ok(Ended::Cancelled)
    }
}
