//! What an archive of write-ahead log holds, as its listing tells: names, never contents. Whoever lists makes it, and
//! [`super::reach`] says what can be restored from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use replication::{History, Lsn, Segment, SegmentSize, SystemId, Timeline};
use serde::{Deserialize, Serialize};

/// All that an archive holds for one datastore. More than one cluster where the datastore was made anew under its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// By cluster.
    pub systems: BTreeMap<SystemId, Held>,
}

/// What is held of one cluster's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// How long each whole segment is.
    pub segment_size: SegmentSize,
    /// Whole segments.
    pub segments: BTreeSet<Segment>,
    /// The beginnings of segments: up to which position, of several the furthest. One whose whole segment is held as
    /// well may still be here; it tells nothing then.
    pub partials: BTreeMap<Segment, Lsn>,
    /// Where each timeline came from. The first one has no history.
    pub histories: BTreeMap<Timeline, History>,
    /// How far the log was received, and when that was so.
    pub standing: Option<Standing>,
}

/// That at `moment`, by the server's clock, the server had flushed its log up to `lsn` and all of that was received:
/// every transaction that was acknowledged to a client before `moment` lies before `lsn`.
///
/// Not quite "has a commit time before `moment`": a server stamps a commit before it writes it, and acknowledges it after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whose log it was.
    pub timeline: Timeline,
    /// Up to where.
    pub lsn: Lsn,
    /// When, by the server's clock.
    pub moment: Timestamp,
}

impl Held {
    /// The newest timeline that anything tells of, whether or not its history is held.
    pub fn newest_timeline(&self) -> Option<Timeline> {
        let files = self.segments.iter().chain(self.partials.keys());
        let files = files.map(|segment| segment.timeline);
        let standing = self.standing.iter().map(|standing| standing.timeline);
        files.chain(self.histories.keys().copied()).chain(standing).max()
    }

    /// Whether anything tells that there is such a timeline.
    pub fn has(&self, timeline: Timeline) -> bool {
        let mut files = self.files();
        let standing = self.standing.is_some_and(|standing| standing.timeline == timeline);
        standing || self.histories.contains_key(&timeline) || files.any(|(segment, _)| segment.timeline == timeline)
    }

    /// Every file that holds log, with the position it ends at.
    pub fn files(&self) -> impl Iterator<Item = (Segment, Option<Lsn>)> {
        let whole = self.segments.iter().map(|segment| (*segment, None));
        whole.chain(self.partials.iter().map(|(segment, upto)| (*segment, Some(*upto))))
    }
}
