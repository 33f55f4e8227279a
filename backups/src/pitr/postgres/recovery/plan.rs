//! Which base backup, which way, which position. Reads of the log what it takes to find the position, and writes nothing.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use replication::{Lsn, SystemId, Timeline};

use super::super::archive::{Archive, ArchivedLog};
use super::super::contents::Held;
use super::super::reach::{self, Branch, Short, Way, way};
use super::super::search::{AtTime, MARGIN, SearchError, Stop, position_of_end, position_of_name, position_of_time};
use super::RecoveryError;
use crate::error::Error;
use crate::repo::{Id, Repository};
use crate::snapshots::SnapshotRecord;
use crate::source::postgres::base::{Base, BaseError, read_base};

/// The longest header of a page.
const PAGE_HEADER: u64 = 40;

/// Where a recovery is to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The end of what is held.
    Latest,
    /// The state of a moment, by the server's clock: every transaction that ended by then, and none later.
    Time(Timestamp),
    /// PostgreSQL's `recovery_target_lsn`.
    Lsn {
        /// The position.
        at: Lsn,
        /// Whether the record that begins there, or else the next one, is replayed as well.
        inclusive: bool,
    },
    /// A restore point that `pg_create_restore_point` made.
    Name(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest state"),
            Self::Time(time) => time.fmt(f),
            Self::Lsn { at, .. } => write!(f, "position {at}"),
            Self::Name(name) => write!(f, "restore point {name:?}"),
        }
    }
}

/// A base backup that a recovery can begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBackup {
    /// The snapshot that holds it.
    pub snapshot: Id,
    /// What it says of itself.
    pub base: Base,
}

impl BaseBackup {
    /// What it asks of the log.
    pub fn needs(&self) -> reach::Base {
        let base = &self.base;
        reach::Base {
            start: base.start,
            timeline: base.timeline,
            end: base.end,
            end_timeline: base.timeline,
        }
    }
}

/// What a recovery will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub target: Target,
    /// What it begins with.
    pub backup: BaseBackup,
    /// The files of the log that it needs, none of which is missing, and no others.
    pub way: Way,
    /// The record that it ends with.
    pub stop: Stop,
    /// A moment, by the server's clock, up to which the state is known to be whole, where there is one: every
    /// transaction that was acknowledged by then is in it, unless the target lies before.
    pub until: Option<Timestamp>,
    /// The timelines whose histories are held, so that the new one gets a number of its own.
    pub histories: Vec<Timeline>,
}

impl Plan {
    /// The moment that the state is of: what was asked for, or the last that is known of.
    pub fn moment(&self) -> Option<Timestamp> {
        match &self.target {
            Target::Time(time) => Some(self.until.map_or(*time, |until| until.min(*time))),
            Target::Latest => self.until.max(self.stop.last_commit),
            Target::Lsn { .. } | Target::Name(_) => self.stop.last_commit,
        }
    }

    /// Up to where a recovery that did what it should has replayed the log: one of these positions. The end of one record
    /// is the beginning of the next but for the header of a page between them.
    pub fn ends(&self) -> RangeInclusive<Lsn> {
        let Stop {
            lsn, inclusive, end, ..
        } = self.stop;
        let before = Lsn(lsn.0.saturating_sub(PAGE_HEADER));
        let bare = matches!(self.target, Target::Lsn { .. }) && end == lsn;
        match (bare, inclusive) {
            (true, true) => lsn.plus(1)..=Lsn(u64::MAX),
            (true, false) => before..=Lsn(u64::MAX),
            (false, true) => end..=end,
            (false, false) => before..=lsn,
        }
    }

    /// Bytes of log that are replayed at most.
    pub fn log_bytes(&self) -> u64 {
        self.stop.end.since(self.backup.base.start)
    }
}

/// The base backups of a datastore, oldest first.
#[derive(Debug, Default)]
pub struct BaseBackups {
    /// Those whose record is there.
    pub known: Vec<BaseBackup>,
    /// Those of which nothing is known any more, since their record is damaged. They keep nobody from the others.
    pub damaged: Vec<DamagedBase>,
}

/// A base backup, or another snapshot of the datastore, whose record cannot be read.
#[derive(Debug)]
pub struct DamagedBase {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// What is damaged.
    pub error: Error,
}

/// The base backups among snapshots: those that a tag says to be of the datastore, and that are none are left out.
pub async fn backups_of(repository: &Repository, snapshots: &[SnapshotRecord]) -> Result<BaseBackups, Error> {
    let mut found = BaseBackups::default();
    for record in snapshots {
        match read_base(repository, &record.id).await {
            Ok(base) => found.known.push(BaseBackup {
                snapshot: record.id,
                base,
            }),
            // Dumps of the same server, which are no base.
            Err(Error::Cluster(BaseError::NoBase(_))) => {}
            Err(error @ Error::Damaged { .. }) => found.damaged.push(DamagedBase {
                record: record.clone(),
                error,
            }),
            Err(error) => return Err(error),
        }
    }
    found.known.sort_by_key(|backup| backup.base.finished_at);
    found.damaged.sort_by_key(|damaged| damaged.record.snapshot.time);
    Ok(found)
}

/// Finds the way to `target`: the newest of the base backups that leads there. `backups` are of one datastore, oldest
/// first. With `allow_older` the end of what is held will do where it does not reach as far as was asked.
///
/// # Errors
/// [`RecoveryError`] for whatever keeps the state from being just what was asked for, a gap by its name.
pub async fn plan(
    archive: &Archive,
    backups: &[BaseBackup],
    target: &Target,
    branch: Branch,
    allow_older: bool,
) -> Result<Plan, Error> {
    let datastore = archive.datastore().as_str();
    let newest = backups.last().ok_or_else(|| RecoveryError::NoBackup {
        datastore: datastore.to_owned(),
    })?;
    // A datastore that was made anew under its name is another cluster; what was before is not gone, and not meant.
    let system = newest.base.system;
    let contents = archive.list().await?;
    let held = contents.systems.get(&system).ok_or_else(|| RecoveryError::NoLog {
        datastore: datastore.to_owned(),
        system,
    })?;
    let log = archive.log(system, held.segment_size);
    let search = Search {
        held,
        log: &log,
        system,
        target,
        allow_older,
    };
    let (mut no, mut earliest) = (None, None);
    let ours = backups.iter().filter(|backup| backup.base.system == system);
    // What a backup already holds, its own log does not tell: whether that is later than a moment, only the log from an
    // older backup on does. So those come last that may be too new by their times, the oldest of them first, and when the
    // position is known, the newest backup before it is taken.
    let (sure, doubtful): (Vec<_>, Vec<_>) = ours.partition(|backup| search.is_surely_before(backup));
    for backup in sure.iter().rev().chain(&doubtful) {
        match search.from(backup, branch).await? {
            Found::Way(plan) => {
                let mut newer = doubtful
                    .iter()
                    .rev()
                    .take_while(|newer| newer.base.end > backup.base.end);
                let nearer = newer.find_map(|newer| search.nearer(newer, branch, &plan));
                return Ok(nearer.unwrap_or(*plan));
            }
            Found::No(error) => no = no.or(Some(error)),
            Found::TooLate => {
                let older = earliest.filter(|other: &&BaseBackup| other.base.end < backup.base.end);
                earliest = older.or(Some(backup));
            }
        }
    }
    let wanted = target.to_string();
    Err(match (no, earliest) {
        (_, Some(backup)) if !matches!(target, Target::Name(_)) => RecoveryError::BeforeFirst {
            wanted,
            earliest: format!("position {}, of {}", backup.base.end, backup.base.finished_at),
        },
        (_, Some(_)) => RecoveryError::NoSuchName {
            name: match target {
                Target::Name(name) => name.clone(),
                _ => wanted,
            },
        },
        (Some(no), None) => no,
        (None, None) => RecoveryError::NoBackup {
            datastore: datastore.to_owned(),
        },
    }
    .into())
}

/// Up to where the log must be held for a stop. A record that ends a segment before it is full ends with the segment, and
/// the rest of that is nothing.
fn held_to(stop: &Stop, way: &Way) -> Lsn {
    if stop.end.0.is_multiple_of(way.size.bytes()) {
        stop.lsn
    } else {
        stop.end
    }
}

enum Found {
    Way(Box<Plan>),
    /// The target lies before the end of this backup: an older one may do.
    TooLate,
    /// This backup leads nowhere; another one may.
    No(RecoveryError),
}

struct Search<'a> {
    held: &'a Held,
    log: &'a ArchivedLog,
    system: SystemId,
    target: &'a Target,
    allow_older: bool,
}

impl Search<'_> {
    /// Whether all that a backup holds was written before the target, so clearly that no clock is in doubt.
    fn is_surely_before(&self, backup: &BaseBackup) -> bool {
        match self.target {
            Target::Time(time) => time.duration_since(backup.base.finished_at) > MARGIN,
            // Positions tell by themselves.
            Target::Latest | Target::Lsn { .. } | Target::Name(_) => true,
        }
    }

    /// The same plan from a newer backup, if that ended before the position and leads there, too.
    fn nearer(&self, backup: &BaseBackup, branch: Branch, plan: &Plan) -> Option<Plan> {
        let until = if plan.stop.inclusive {
            plan.stop.end
        } else {
            plan.stop.lsn
        };
        let mut way = way(self.held, &backup.needs(), branch).ok()?;
        let leads = backup.base.end <= until && way.usable().is_ok() && way.reaches(held_to(&plan.stop, &way)).is_ok();
        way.pieces.retain(|piece| piece.start < plan.stop.end);
        way.gaps.clear();
        leads.then(|| Plan {
            backup: backup.clone(),
            way,
            ..plan.clone()
        })
    }

    async fn from(&self, backup: &BaseBackup, branch: Branch) -> Result<Found, Error> {
        let wanted = || self.target.to_string();
        // What it holds of before its start is not in its log, and may be as new as its start.
        if matches!(self.target, Target::Time(time) if *time < backup.base.started_at) {
            return Ok(Found::TooLate);
        }
        let way = match way(self.held, &backup.needs(), branch) {
            Ok(way) => way,
            Err(why) => {
                let timeline = match branch {
                    Branch::Exactly(timeline) => timeline,
                    Branch::Newest => self.held.newest_timeline().unwrap_or(backup.base.timeline),
                };
                return Ok(Found::No(RecoveryError::NoWay { timeline, why }));
            }
        };
        if let Err(why) = way.usable() {
            return Ok(Found::No(RecoveryError::Short { wanted: wanted(), why }));
        }
        let stop = match self.stop(&way).await {
            Ok(stop) => stop,
            Err(Missing::Name) => return Ok(Found::TooLate),
            Err(Missing::Error(error)) => return Err(error),
        };
        // Before its end a backup is not whole.
        let until = if stop.inclusive { stop.end } else { stop.lsn };
        if until < backup.base.end {
            return Ok(Found::TooLate);
        }
        way.reaches(held_to(&stop, &way))
            .map_err(|why| RecoveryError::Short { wanted: wanted(), why })?;
        let until = way.moment;
        let mut way = way;
        // Where the record of a bare position ends is not known.
        if !matches!(self.target, Target::Lsn { .. }) {
            way.pieces.retain(|piece| piece.start < stop.end);
        }
        way.gaps.clear();
        Ok(Found::Way(Box::new(Plan {
            target: self.target.clone(),
            backup: backup.clone(),
            way,
            stop,
            until,
            histories: self.held.histories.keys().copied().collect(),
        })))
    }

    async fn stop(&self, way: &Way) -> Result<Stop, Missing> {
        let failed = |source| match source {
            SearchError::Cancelled => Error::Cancelled,
            source => RecoveryError::Search {
                wanted: self.target.to_string(),
                source: Box::new(source),
            }
            .into(),
        };
        let stop = match self.target {
            Target::Latest => {
                let stop = position_of_end(self.log, way, self.system).await.map_err(failed)?;
                self.held_on(way)?;
                stop
            }
            Target::Time(time) => match position_of_time(self.log, way, self.system, *time, MARGIN).await {
                Ok(AtTime::Before(stop)) => stop,
                Ok(AtTime::NoneLater(stop)) => {
                    let known = way.moment.max(stop.last_commit);
                    if known.is_none_or(|known| known < *time) && !self.allow_older {
                        self.held_on(way)?;
                        return Err(self.beyond(way, known).into());
                    }
                    stop
                }
                Err(error) => return Err(failed(error).into()),
            },
            Target::Lsn { at, inclusive } => {
                let end = position_of_end(self.log, way, self.system).await.map_err(failed)?;
                match (*at, self.allow_older) {
                    // The record that begins there is held, or one behind it.
                    (at, _) if at <= end.lsn => Stop {
                        lsn: at,
                        inclusive: *inclusive,
                        end: at,
                        time: None,
                        last_commit: None,
                    },
                    // Just all of it.
                    (at, _) if at <= end.end => end,
                    (_, true) => end,
                    (at, false) => {
                        way.reaches(at).map_err(|why| RecoveryError::Short {
                            wanted: self.target.to_string(),
                            why,
                        })?;
                        return Err(self.beyond(way, way.moment.max(end.last_commit)).into());
                    }
                }
            }
            Target::Name(name) => match position_of_name(self.log, way, self.system, name).await {
                Ok(point) => point.stop,
                Err(SearchError::NoSuchName { .. }) => {
                    // It may lie behind a gap; or before this backup.
                    return Err(Missing::Name);
                }
                Err(error) => return Err(failed(error).into()),
            },
        };
        Ok(stop)
    }

    /// What is held must not end at a gap.
    fn held_on(&self, way: &Way) -> Result<(), Error> {
        match way.gaps.first() {
            Some(gap) if !self.allow_older => Err(RecoveryError::Short {
                wanted: self.target.to_string(),
                why: Short::Gap {
                    wanted: gap.until,
                    reached: way.reached,
                    gap: *gap,
                },
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn beyond(&self, way: &Way, until: Option<Timestamp>) -> Error {
        RecoveryError::Beyond {
            wanted: self.target.to_string(),
            until,
            lsn: way.reached,
            timeline: way.timeline_at(Lsn(way.reached.0.saturating_sub(1))),
        }
        .into()
    }
}

enum Missing {
    /// No restore point of this name behind this backup.
    Name,
    Error(Error),
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<RecoveryError> for Missing {
    fn from(error: RecoveryError) -> Self {
        Self::Error(error.into())
    }
}
