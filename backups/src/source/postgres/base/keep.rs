//! Keeps the log of a base backup in the archive: a receiver that runs elsewhere brings it and is waited for, or it is
//! streamed here, over a second connection with a slot that ends with it. What counts is what the archive lists at the
//! end, whoever brought it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use replication::{Address, Connection, Event, Lsn, Segment, SlotLifetime, SlotName, WalStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::{BaseError, KeepLog, LogOf, LogSpan};
use crate::Error;
use crate::pitr::postgres::archive::{Archive, ArchiveError};
use crate::pitr::postgres::contents::Contents;
use crate::threads::ended;

/// How often the archive is listed while somebody else's log is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A server that hears nothing for a minute ends the connection.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The archive that the log of a backup comes to lie in.
pub struct InArchive {
    archive: Archive,
    /// How long the last of the log is waited for once the files have come.
    patience: Duration,
    /// The server to stream from, where nobody else does.
    from: Option<Address>,
    own: Mutex<Option<Own>>,
}

/// A stream of our own.
struct Own {
    /// Up to where log is wanted, once that is known.
    until: watch::Sender<Option<Lsn>>,
    task: AbortOnDropHandle<Result<(), Error>>,
}

impl InArchive {
    /// A receiver runs elsewhere and brings the log into this archive.
    pub fn received(archive: Archive, patience: Duration) -> Self {
        Self {
            archive,
            patience,
            from: None,
            own: Mutex::default(),
        }
    }

    /// Nobody else brings it: it is streamed from this server while the backup is taken.
    pub fn streamed(archive: Archive, patience: Duration, from: Address) -> Self {
        let from = Some(from);
        Self {
            from,
            ..Self::received(archive, patience)
        }
    }
}

#[async_trait]
impl KeepLog for InArchive {
    async fn begin(&self, log: &LogOf) -> Result<(), Error> {
        let Some(address) = &self.from else { return Ok(()) };
        let mut connection = Connection::open(address, "opsctl backup log").await?;
        let identity = connection.identify().await?;
        if (identity.system, identity.timeline) != (log.system, log.timeline) {
            return Err(no_log("the server that streams it is another one"));
        }
        let slot = SlotName::new(&format!("opsctl_backup_{:08x}", rand::random::<u32>()));
        let slot = slot.map_err(|_| Error::Internal("digits are a name"))?;
        connection.create_slot(&slot, SlotLifetime::Temporary).await?;
        // On a standby the backup begins at its last restart point, which lies behind, and so does the slot.
        let kept = connection
            .slot(&slot)
            .await?
            .and_then(|slot| slot.restart)
            .unwrap_or(log.written);
        let first = Segment::containing(log.timeline, kept.min(log.written), log.segment_size);
        let stream = connection
            .stream(Some(&slot), log.timeline, first.start(log.segment_size))
            .await?;
        let (until, wanted) = watch::channel(None);
        let streaming = Streaming {
            archive: self.archive.clone(),
            log: *log,
            stream,
            segment: first,
            held: BytesMut::new(),
            kept: first.start(log.segment_size),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(streaming.run(wanted)));
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(Own { until, task });
        Ok(())
    }

    async fn held(&self, span: &LogSpan) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(own) = own {
            let _ = own.until.send(Some(span.end));
            let streamed = timeout_at(deadline, own.task).await;
            streamed
                .map_err(|_| no_log("it was waited for too long"))?
                .map_err(ended)??;
        }
        loop {
            let contents = self.archive.list().await.map_err(archived)?;
            let Some(missing) = missing(&contents, span) else {
                return Ok(());
            };
            if self.from.is_some() || Instant::now() + LOOK_EVERY > deadline {
                return Err(no_log(&format!("{missing} is missing")));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The first segment of which the archive lacks something.
fn missing(contents: &Contents, span: &LogSpan) -> Option<String> {
    let size = span.segment_size;
    let held = contents.systems.get(&span.system);
    let mut segment = Segment::containing(span.timeline, span.start, size);
    while segment.start(size) < span.end {
        let wanted = segment.end(size).min(span.end);
        let is_held = held.is_some_and(|held| {
            let partial = held.partials.get(&segment);
            held.segments.contains(&segment) || partial.is_some_and(|until| *until >= wanted)
        });
        if !is_held {
            return Some(segment.file_name(size));
        }
        segment = segment.next();
    }
    None
}

/// Log on its way from the server into the archive.
struct Streaming {
    archive: Archive,
    log: LogOf,
    stream: WalStream,
    /// The segment that is being filled.
    segment: Segment,
    /// What came of it.
    held: BytesMut,
    /// Up to where the archive has it.
    kept: Lsn,
}

impl Streaming {
    /// Streams until all that is wanted is in the archive.
    async fn run(mut self, mut wanted: watch::Receiver<Option<Lsn>>) -> Result<(), Error> {
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            let until = *wanted.borrow_and_update();
            if until.is_some_and(|until| self.position() >= until) {
                self.keep().await?;
                return Ok(());
            }
            let event = tokio::select! {
                event = self.stream.next() => Some(event?),
                _ = tell.tick() => None,
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    // The backup was given up.
                    Err(_) => return Ok(()),
                },
            };
            match event {
                Some(Event::Wal { data, .. }) => self.take(data).await?,
                Some(Event::KeepAlive { asks: false, .. }) => {}
                Some(Event::KeepAlive { asks: true, .. }) | None => self.confirm().await?,
                Some(Event::TimelineEnds { at, .. }) => {
                    return Err(no_log(&format!(
                        "the timeline was left at {at} while the backup was taken"
                    )));
                }
            }
        }
    }

    /// Up to where log has come.
    fn position(&self) -> Lsn {
        self.segment.start(self.log.segment_size).plus(self.held.len() as u64)
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), Error> {
        let size = usize::try_from(self.log.segment_size.bytes()).unwrap_or(usize::MAX);
        while !data.is_empty() {
            let count = data.len().min(size - self.held.len());
            self.held.extend_from_slice(&data.split_to(count));
            if self.held.len() == size {
                self.keep().await?;
                self.confirm().await?;
            }
        }
        Ok(())
    }

    /// Puts what came of the segment into the archive.
    async fn keep(&mut self) -> Result<(), Error> {
        let (system, segment, size) = (self.log.system, self.segment, self.log.segment_size);
        let whole = self.held.len() as u64 == size.bytes();
        let put = if whole {
            let content = std::mem::take(&mut self.held).freeze();
            self.segment = segment.next();
            self.archive.put_segment(system, segment, size, content).await
        } else if self.held.is_empty() {
            return Ok(());
        } else {
            self.archive
                .put_partial(system, segment, size, Bytes::copy_from_slice(&self.held))
                .await
        };
        put.map_err(archived)?;
        self.kept = self.position();
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), Error> {
        let received = self.position();
        Ok(self.stream.confirm(received, self.kept, self.kept).await?)
    }
}

/// A full store is one, whoever it was that filled it.
fn archived(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Repository(error) => error,
        error => BaseError::LogArchive(Box::new(error)).into(),
    }
}

fn no_log(why: &str) -> Error {
    BaseError::NoLog(why.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use replication::{SegmentSize, SystemId, Timeline};

    use super::*;
    use crate::pitr::postgres::contents::Held;

    #[test]
    fn log_is_held_once_nothing_of_it_is_missing() {
        let (system, timeline, segment_size) = (SystemId(7), Timeline(1), SegmentSize::DEFAULT);
        let at = |segment: u64, offset: u64| Lsn((segment << 24) + offset);
        let span = LogSpan {
            system,
            timeline,
            segment_size,
            start: at(2, 40),
            end: at(4, 300),
        };
        let segment = |number| Segment { timeline, number };
        let with = |segments: &[u64], partials: &[(u64, u64)]| {
            let held = Held {
                segment_size,
                segments: segments.iter().map(|number| segment(*number)).collect(),
                partials: partials
                    .iter()
                    .map(|(number, offset)| (segment(*number), at(*number, *offset)))
                    .collect(),
                ..Held::default()
            };
            let mut contents = Contents::default();
            contents.systems.insert(system, held);
            missing(&contents, &span)
        };
        let name = |number| Some(segment(number).file_name(segment_size));
        assert_eq!(missing(&Contents::default(), &span), name(2));
        assert_eq!(with(&[2, 3], &[]), name(4));
        assert_eq!(with(&[2, 4], &[]), name(3));
        assert_eq!(with(&[2, 3], &[(4, 299)]), name(4));
        assert_eq!(with(&[2, 3], &[(4, 300)]), None);
        assert_eq!(with(&[2, 3, 4], &[]), None);
        assert_eq!(with(&[2, 4], &[(3, 1 << 20)]), name(3), "a beginning is no whole");
        let ends_with_a_segment = LogSpan { end: at(3, 0), ..span };
        let mut contents = Contents::default();
        let segments = [segment(2)].into();
        contents.systems.insert(
            system,
            Held {
                segment_size,
                segments,
                ..Held::default()
            },
        );
        assert_eq!(missing(&contents, &ends_with_a_segment), None);
    }
}
