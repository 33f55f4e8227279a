//! The write-ahead log as the server writes it.

use std::time::SystemTime;

use bytes::{BufMut, Bytes};

use crate::clock;
use crate::connection::{Connection, within};
use crate::error::Error;
use crate::frame::{self, Row, Streamed};
use crate::lsn::{Lsn, Timeline};
use crate::slot::SlotName;

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of the log. Pieces follow each other without a gap.
    Wal {
        /// Where it begins.
        start: Lsn,
        /// Its bytes.
        data: Bytes,
        /// Up to where the server has the log.
        end_of_log: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: SystemTime,
    },
    /// There is nothing new.
    KeepAlive {
        /// Up to where the server has the log.
        end_of_log: Lsn,
        /// When it was sent, by the server's clock.
        sent_at: SystemTime,
        /// Whether the server wants [`WalStream::confirm`] now: it ends the connection otherwise.
        asks: bool,
    },
    /// The timeline is over; all of its log was sent.
    TimelineEnds {
        /// The one after it.
        next: Timeline,
        /// Where it was left.
        at: Lsn,
    },
}

/// The log on its way. Whoever reads it must [`confirm`](Self::confirm) now and then: a server ends connections that
/// say nothing for `wal_sender_timeout` (60 s), and keeps the log for those that confirm nothing. A server that says
/// nothing for half of that time is gone; how long that is waited for is the caller's matter.
#[derive(Debug)]
pub struct WalStream {
    connection: Connection,
    timeline: Timeline,
    /// Where the next piece must begin.
    position: Lsn,
    state: State,
}

/// How far the stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Pieces come.
    Streaming,
    /// The server says that the timeline is over; we have not said yet that we know.
    Ending,
    /// Both said so; which timeline is next comes now.
    Ended(Vec<Row>),
    /// All is said.
    Over { next: Timeline, at: Lsn },
}

impl WalStream {
    pub(crate) async fn begin(
        mut connection: Connection,
        slot: Option<&SlotName>,
        timeline: Timeline,
        start: Lsn,
    ) -> Result<Self, Error> {
        let slot = slot.map(|slot| format!("SLOT \"{slot}\" ")).unwrap_or_default();
        let question = format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}");
        let at = connection.wire.at.clone();
        let state = within(at, async {
            connection.wire.ask("START_REPLICATION", &question).await?;
            let message = connection.wire.answered().await?;
            match message.kind {
                b'W' => Ok(State::Streaming),
                // The timeline ends just where it was asked for: there is nothing to stream.
                b'T' => {
                    let rows = connection.wire.rows(Some(message)).await?;
                    connection.wire.ready().await?;
                    over(&connection, &rows)
                }
                _ => Err(connection.wire.unexpected(&message, "the begin of the log")),
            }
        })
        .await?;
        Ok(Self {
            connection,
            timeline,
            position: start,
            state,
        })
    }

    /// The timeline that is streamed.
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Where the next piece begins.
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// What comes next. May be dropped while it waits: nothing is lost. Pieces are at most 128 kB, and slices of what was
    /// read: who keeps a few bytes of one for long copies them.
    ///
    /// # Errors
    /// [`Error`]. A piece that does not begin where the last one ended is [`Error::Protocol`]; a server that shuts down
    /// is [`Error::Stopped`], after it sent all of its log.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            match &self.state {
                State::Streaming => {
                    if let Some(event) = self.streamed().await? {
                        return Ok(event);
                    }
                }
                State::Ending => {
                    self.connection.wire.flush().await?;
                    if self.ends().await? {
                        self.state = State::Ended(Vec::new());
                    }
                }
                State::Ended(_) => self.next_timeline().await?,
                State::Over { next, at } => {
                    let (next, at) = (*next, *at);
                    if at != self.position {
                        let what = "a timeline that ends elsewhere than its log";
                        return Err(self.connection.wire.protocol(what));
                    }
                    return Ok(Event::TimelineEnds { next, at });
                }
            }
        }
    }

    async fn streamed(&mut self) -> Result<Option<Event>, Error> {
        let wire = &mut self.connection.wire;
        wire.flush().await?;
        let message = wire.answered().await?;
        match message.kind {
            b'd' => {}
            b'c' => {
                wire.put(Some(b'c'), |_| {});
                self.state = State::Ending;
                return Ok(None);
            }
            // It does not end the copy: it is a shutdown, and all that there was to send was sent and confirmed.
            b'C' => return Err(Error::Stopped { at: wire.at.clone() }),
            _ => return Err(wire.unexpected(&message, "a piece of the log")),
        }
        match frame::streamed(message.body).map_err(|wrong| wire.wrong(wrong))? {
            Streamed::Wal {
                start,
                end_of_log,
                sent_at,
                data,
            } => {
                if Lsn(start) != self.position {
                    let what = format!("the log goes on at {} where {} comes next", Lsn(start), self.position);
                    return Err(wire.protocol(&what));
                }
                let end = start.checked_add(data.len() as u64);
                self.position = Lsn(end.ok_or_else(|| wire.protocol("a log beyond its last position"))?);
                Ok(Some(Event::Wal {
                    start: Lsn(start),
                    data,
                    end_of_log: Lsn(end_of_log),
                    sent_at: clock::moment(sent_at),
                }))
            }
            Streamed::KeepAlive {
                end_of_log,
                sent_at,
                asks,
            } => Ok(Some(Event::KeepAlive {
                end_of_log: Lsn(end_of_log),
                sent_at: clock::moment(sent_at),
                asks,
            })),
        }
    }

    /// Whether the result that names the next timeline begins.
    async fn ends(&mut self) -> Result<bool, Error> {
        let wire = &mut self.connection.wire;
        let message = wire.answered().await?;
        match message.kind {
            b'T' => Ok(true),
            // What it was asked before it knew, it answers even now.
            b'd' => Ok(false),
            _ => Err(wire.unexpected(&message, "the next timeline")),
        }
    }

    /// Reads one message of what follows, so that dropping it in between loses none.
    async fn next_timeline(&mut self) -> Result<(), Error> {
        let message = self.connection.wire.answered().await?;
        let State::Ended(rows) = &mut self.state else {
            return Ok(());
        };
        match message.kind {
            b'D' if rows.is_empty() => {
                rows.push(frame::row(message.body).map_err(|wrong| self.connection.wire.wrong(wrong))?);
            }
            b'C' => {}
            b'Z' => {
                self.connection.wire.done();
                let rows = std::mem::take(rows);
                self.state = over(&self.connection, &rows)?;
            }
            _ => return Err(self.connection.wire.unexpected(&message, "the next timeline")),
        }
        Ok(())
    }

    /// Tells the server up to where the log is held: written, flushed, applied. It keeps what is not flushed. What is left
    /// of it if this is dropped while it waits goes with the next call. After [`Event::TimelineEnds`] it does nothing.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub async fn confirm(&mut self, written: Lsn, flushed: Lsn, applied: Lsn) -> Result<(), Error> {
        self.reply(written, flushed, applied, false).await
    }

    /// The same, and wants an answer: an [`Event::KeepAlive`] with the server's time.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub async fn ask(&mut self, written: Lsn, flushed: Lsn, applied: Lsn) -> Result<(), Error> {
        self.reply(written, flushed, applied, true).await
    }

    async fn reply(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, asks: bool) -> Result<(), Error> {
        if self.state != State::Streaming {
            return Ok(());
        }
        self.connection.wire.put(Some(b'd'), |body| {
            body.put_u8(b'r');
            for position in [written, flushed, applied] {
                body.put_u64(position.0);
            }
            body.put_i64(clock::now());
            body.put_u8(asks.into());
        });
        self.connection.wire.flush().await
    }

    /// Ends the stream, after [`Event::TimelineEnds`] or at any time before, and returns the connection for the next
    /// question. Pieces that are on their way are forgotten.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn leave(mut self) -> Result<Connection, Error> {
        let at = self.connection.wire.at.clone();
        within(at, async {
            if self.state == State::Streaming {
                self.connection.wire.put(Some(b'c'), |_| {});
                self.connection.wire.flush().await?;
                loop {
                    let message = self.connection.wire.answered().await?;
                    match message.kind {
                        b'd' => {}
                        b'c' => break,
                        _ => return Err(self.connection.wire.unexpected(&message, "the end of the log")),
                    }
                }
                // Where the timeline ended at the same time, the next one is named as well.
                loop {
                    let message = self.connection.wire.answered().await?;
                    match message.kind {
                        b'T' | b'D' | b'C' => {}
                        b'Z' => break,
                        _ => return Err(self.connection.wire.unexpected(&message, "the end of the log")),
                    }
                }
                self.connection.wire.done();
            } else {
                while !matches!(self.state, State::Over { .. }) {
                    self.next().await?;
                }
            }
            Ok(())
        })
        .await?;
        Ok(self.connection)
    }
}

/// What the row after a timeline says.
fn over(connection: &Connection, rows: &[Row]) -> Result<State, Error> {
    let [row] = rows else {
        return Err(connection.wire.protocol("a timeline that ends without a next one"));
    };
    let (next, at) = (connection.wire.value(row, 0)?, connection.wire.value(row, 1)?);
    Ok(State::Over { next, at })
}
