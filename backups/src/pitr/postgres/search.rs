//! Which position of a log a moment or a name stands for: recovery is always given a position, and this is where it
//! comes from.
//!
//! PostgreSQL's own rule for a time: recovery stops before the first end of a transaction, commit or abort, whose time is
//! later. To find it, not all of a log is read. Times in a log nearly follow its order, so segments are halved by them;
//! nearly, because a server stamps a commit before it writes it. So from where that leads, the log is read from so far
//! back that all times are older by a margin. What that leaves out is a server whose clock was set back by more than the
//! margin. After a promotion another machine's clock counts: each timeline is searched by itself, the earliest first.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use replication::{Lsn, SystemId};

use super::reach::{Piece, Way};
use super::wal::mark::{Kind, Mark};
use super::wal::{Expected, Extent, Fault, Reader};
use crate::threads;

/// How far times are out of order at most: far more than a busy server leaves between a commit's time and its place.
pub const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// Where the files of a way are read.
#[async_trait]
pub trait Log: Send + Sync {
    /// Why one cannot be.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The content of a file of the way: at least up to [`Piece::until`].
    async fn read(&self, piece: &Piece) -> Result<Bytes, Self::Error>;
}

/// Where a recovery is to stop, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// `recovery_target_lsn`: the start of a record.
    pub lsn: Lsn,
    /// `recovery_target_inclusive`: whether that record is replayed.
    pub inclusive: bool,
    /// The end of that record, which recovery reads in either case: up to here the log must be held.
    pub end: Lsn,
    /// The time of that record, if it tells one.
    pub time: Option<Timestamp>,
    /// The time of the last commit that is replayed; `None` if there is none in the log that is held.
    pub last_commit: Option<Timestamp>,
}

/// What a time stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTime {
    /// Before the first transaction that ended later.
    Before(Stop),
    /// None that is held ended later: the end of the log. Whether the time was reached at all, only
    /// [`Way::moment`] tells, or [`Stop::last_commit`] if it is as late.
    NoneLater(Stop),
}

/// A restore point, and the stop right after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// Where it is; its `time` is when it was made.
    pub stop: Stop,
}

/// Why a position is not known.
#[derive(Debug, thiserror::Error)]
pub enum SearchError<E: std::error::Error + 'static> {
    /// A file could not be read.
    #[error("the log's file {file} cannot be read")]
    Read {
        /// Its name.
        file: String,
        /// Why.
        #[source]
        source: E,
    },
    /// A file is not what it should be.
    #[error("the log's file {file} is damaged")]
    Damaged {
        /// Its name.
        file: String,
        /// How.
        #[source]
        source: Fault,
    },
    /// There is not one whole record on the way.
    #[error("no record of the log is held behind the start of the base backup")]
    NoRecords,
    /// Nobody made it, or not while this log was written.
    #[error("there is no restore point {name:?} in the log from {from} to {until}")]
    NoSuchName {
        /// Its name.
        name: String,
        /// Where the search began.
        from: Lsn,
        /// Where it ended.
        until: Lsn,
    },
    /// The program is ending.
    #[error("the search was given up")]
    Cancelled,
}

/// Where a recovery along `way` to `time` stops. `margin`, see [`MARGIN`], is how far commits may lie from where their
/// times would have them.
///
/// # Errors
/// [`SearchError`], for damage only of what lies before the position.
pub async fn position_of_time<L: Log>(
    log: &L,
    way: &Way,
    system: SystemId,
    time: Timestamp,
    margin: SignedDuration,
) -> Result<AtTime, SearchError<L::Error>> {
    let search = Search { log, way, system };
    let mut from = 0;
    for timeline in way
        .pieces
        .chunk_by(|one, next| one.segment.timeline == next.segment.timeline)
    {
        let range = from..from + timeline.len();
        from = range.end;
        if let Some(stop) = search.first_later(range, time, margin).await? {
            return Ok(AtTime::Before(stop));
        }
    }
    search.end().await.map(AtTime::NoneLater)
}

/// The end of the log on a way: after the last record that is held whole.
///
/// # Errors
/// [`SearchError`].
pub async fn position_of_end<L: Log>(log: &L, way: &Way, system: SystemId) -> Result<Stop, SearchError<L::Error>> {
    Search { log, way, system }.end().await
}

/// The stop right after the first restore point of this name behind the base backup, which PostgreSQL takes as well.
///
/// # Errors
/// [`SearchError`].
pub async fn position_of_name<L: Log>(
    log: &L,
    way: &Way,
    system: SystemId,
    name: &str,
) -> Result<RestorePoint, SearchError<L::Error>> {
    let search = Search { log, way, system };
    let wanted = Some(name.to_owned());
    let found = search
        .names(Names {
            wanted,
            only_first: true,
            ..Names::default()
        })
        .await?;
    found.into_iter().next().ok_or_else(|| SearchError::NoSuchName {
        name: name.to_owned(),
        from: way.base.end,
        until: way.reached,
    })
}

/// All restore points behind the base backup, in the order of the log. Reads all of it.
///
/// # Errors
/// [`SearchError`].
pub async fn restore_points<L: Log>(
    log: &L,
    way: &Way,
    system: SystemId,
) -> Result<Vec<RestorePoint>, SearchError<L::Error>> {
    Search { log, way, system }.names(Names::default()).await
}

/// Reads the whole way: what keeps a recovery from coming to its end, where PostgreSQL says only that it does not.
///
/// # Errors
/// [`SearchError`], for the first file that is damaged or cannot be read.
pub async fn read_all<L: Log>(log: &L, way: &Way, system: SystemId) -> Result<(), SearchError<L::Error>> {
    let search = Search { log, way, system };
    search.look(0..way.pieces.len(), Nothing).await.map(drop)
}

/// What is looked for while the log is read. It goes from thread to thread.
trait Look: Send + 'static {
    fn see(&mut self, mark: &Mark);

    /// Whether the rest does not matter any more, damage included.
    fn is_done(&self) -> bool {
        false
    }
}

/// Nothing is looked for.
struct Nothing;

impl Look for Nothing {
    fn see(&mut self, _mark: &Mark) {}
}

/// The latest end of a transaction.
#[derive(Default)]
struct Latest(Option<Timestamp>);

impl Look for Latest {
    fn see(&mut self, mark: &Mark) {
        if mark.kind.ends_transaction() {
            self.0 = self.0.max(mark.time);
        }
    }
}

/// The first end of a transaction later than a time.
struct Later {
    time: Timestamp,
    found: Option<(Extent, Timestamp)>,
    last_commit: Option<Timestamp>,
}

impl Look for Later {
    fn see(&mut self, mark: &Mark) {
        let (None, Some(time)) = (self.found, mark.time) else {
            return;
        };
        if mark.kind.ends_transaction() && time > self.time {
            self.found = Some((mark.extent, time));
        } else if mark.kind == Kind::Commit {
            self.last_commit = Some(time);
        }
    }

    fn is_done(&self) -> bool {
        self.found.is_some()
    }
}

/// The last commit before a position.
struct LastCommit {
    before: Lsn,
    found: Option<Timestamp>,
    time_of_last: Option<(Extent, Timestamp)>,
    passed: bool,
}

impl LastCommit {
    fn before(before: Lsn) -> Self {
        Self {
            before,
            found: None,
            time_of_last: None,
            passed: false,
        }
    }
}

impl Look for LastCommit {
    fn see(&mut self, mark: &Mark) {
        if mark.extent.start >= self.before {
            self.passed = true;
            return;
        }
        self.time_of_last = mark.time.map(|time| (mark.extent, time));
        if mark.kind == Kind::Commit {
            self.found = mark.time.or(self.found);
        }
    }

    fn is_done(&self) -> bool {
        self.passed
    }
}

/// Restore points.
#[derive(Default)]
struct Names {
    wanted: Option<String>,
    only_first: bool,
    from: Lsn,
    last_commit: Option<Timestamp>,
    found: Vec<RestorePoint>,
}

impl Look for Names {
    fn see(&mut self, mark: &Mark) {
        match &mark.kind {
            Kind::Commit => self.last_commit = mark.time.or(self.last_commit),
            Kind::RestorePoint { name } if self.wants(name, mark.extent.start) => {
                let stop = Stop {
                    lsn: mark.extent.start,
                    inclusive: true,
                    end: mark.extent.end,
                    time: mark.time,
                    last_commit: self.last_commit,
                };
                let name = name.clone();
                self.found.push(RestorePoint { name, stop });
            }
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.only_first && !self.found.is_empty()
    }
}

impl Names {
    fn wants(&self, name: &str, at: Lsn) -> bool {
        at >= self.from && !self.is_done() && self.wanted.as_ref().is_none_or(|wanted| wanted == name)
    }
}

struct Search<'a, L> {
    log: &'a L,
    way: &'a Way,
    system: SystemId,
}

impl<L: Log> Search<'_, L> {
    /// Reads some of the files as one log, from the first record that begins there.
    async fn look<V: Look>(&self, pieces: Range<usize>, mut look: V) -> Result<(Reader, V), SearchError<L::Error>> {
        let pieces = self.way.pieces.get(pieces).unwrap_or_default();
        let expected = Expected {
            system: Some(self.system),
            segment_size: self.way.size,
            timeline: self.way.timeline,
            history: Some(self.way.history.clone()),
        };
        let start = pieces.first().map_or(Lsn::ZERO, |piece| piece.start);
        let mut reader = Reader::new(start, expected);
        // The next files come while one is read: some of the usual size, and never two of a gigabyte.
        let ahead = ((64 << 20) / self.way.size.bytes()).clamp(1, 4) as usize;
        let contents = stream::iter(pieces).map(async |piece| (piece, self.log.read(piece).await));
        let mut contents = std::pin::pin!(contents.buffered(ahead));
        while let Some((piece, content)) = contents.next().await {
            let file = || self.name(piece);
            let content = content.map_err(|source| SearchError::Read { file: file(), source })?;
            let (start, until) = (piece.start, piece.until);
            let read = threads::blocking(move || {
                let length = content.len().min(until.since(start) as usize);
                let read = reader.push(&content[..length], |record| {
                    if let Some(mark) = Mark::of(record) {
                        look.see(&mark);
                    }
                });
                let at = reader.at();
                let read = read.and(if at < until {
                    Err(Fault::Truncated { at, until })
                } else {
                    Ok(())
                });
                (reader, look, read)
            });
            let read = read.await.map_err(|_| SearchError::Cancelled)?;
            (reader, look) = (read.0, read.1);
            if look.is_done() {
                break;
            }
            read.2.map_err(|source| SearchError::Damaged { file: file(), source })?;
        }
        Ok((reader, look))
    }

    fn name(&self, piece: &Piece) -> String {
        piece.segment.file_name(self.way.size)
    }

    /// The time of the latest end of a transaction in one file. Where it cannot be read, later than everything: what
    /// is looked for lies before, or reading up to it will say why not.
    async fn latest(&self, piece: usize) -> Option<Timestamp> {
        match self.look(piece..piece + 1, Latest::default()).await {
            Ok((_, latest)) => latest.0,
            Err(_) => Some(Timestamp::MAX),
        }
    }

    /// The first end of a transaction later than `time` in files of one timeline.
    async fn first_later(
        &self,
        range: Range<usize>,
        time: Timestamp,
        margin: SignedDuration,
    ) -> Result<Option<Stop>, SearchError<L::Error>> {
        let later = |latest: Option<Timestamp>| latest.is_some_and(|latest| latest > time);
        // The first file may hold the end of another timeline, by another clock.
        let mut found = later(self.latest(range.start).await).then_some(range.start);
        let mut low = range.start + 1;
        let mut high = found.map_or(range.end, |_| low);
        while low < high {
            let middle = low + (high - low) / 2;
            // Where nothing ended, the next file in which something did.
            let mut probe = middle;
            let mut latest = self.latest(probe).await;
            while latest.is_none() && probe + 1 < high {
                probe += 1;
                latest = self.latest(probe).await;
            }
            if later(latest) {
                found = Some(probe);
                high = middle;
            } else if latest.is_none() {
                high = middle;
            } else {
                low = probe + 1;
            }
        }
        // Times out of order: back to where all are older by the margin.
        let old = time.saturating_sub(margin).unwrap_or(Timestamp::MIN);
        let mut begin = found.unwrap_or(range.end);
        for piece in (range.start..begin).rev() {
            begin = piece;
            match self.latest(piece).await {
                Some(latest) if latest > time => found = Some(piece),
                Some(latest) if latest <= old => break,
                _ => {}
            }
        }
        // A record may begin in the last file and end in the one after it.
        let end = found.map_or(range.end, |found| found + 1);
        let later = Later {
            time,
            found: None,
            last_commit: None,
        };
        let (_, later) = self.look(begin..self.way.pieces.len().min(end + 1), later).await?;
        let Some((extent, found)) = later.found else {
            return Ok(None);
        };
        let last_commit = match later.last_commit {
            None => self.last_commit(begin, extent.start).await?,
            known => known,
        };
        Ok(Some(Stop {
            lsn: extent.start,
            inclusive: false,
            end: extent.end,
            time: Some(found),
            last_commit,
        }))
    }

    /// The time of the last commit before a position, of which there is none in the files from `piece` on.
    async fn last_commit(&self, piece: usize, before: Lsn) -> Result<Option<Timestamp>, SearchError<L::Error>> {
        for piece in (0..piece).rev() {
            // With the file after it: a record may end there.
            let end = self.way.pieces.len().min(piece + 2);
            let (_, look) = self.look(piece..end, LastCommit::before(before)).await?;
            if look.found.is_some() {
                return Ok(look.found);
            }
        }
        Ok(None)
    }

    async fn end(&self) -> Result<Stop, SearchError<L::Error>> {
        let count = self.way.pieces.len();
        for piece in (0..count).rev() {
            let (reader, look) = self.look(piece..count, LastCommit::before(Lsn(u64::MAX))).await?;
            let Some(last) = reader.last() else {
                continue;
            };
            let last_commit = match look.found {
                None => self.last_commit(piece, last.start).await?,
                known => known,
            };
            let time = look.time_of_last.filter(|(extent, _)| *extent == last);
            return Ok(Stop {
                lsn: last.start,
                inclusive: true,
                end: last.end,
                time: time.map(|(_, time)| time),
                last_commit,
            });
        }
        Err(SearchError::NoRecords)
    }

    async fn names(&self, names: Names) -> Result<Vec<RestorePoint>, SearchError<L::Error>> {
        let (from, pieces) = (self.way.base.end, &self.way.pieces);
        let begin = pieces.partition_point(|piece| piece.until <= from);
        let names = Names { from, ..names };
        let (_, mut names) = self.look(begin..pieces.len(), names).await?;
        for point in &mut names.found {
            if point.stop.last_commit.is_none() {
                point.stop.last_commit = self.last_commit(begin, point.stop.lsn).await?;
            }
        }
        Ok(names.found)
    }
}

#[cfg(test)]
mod tests;
