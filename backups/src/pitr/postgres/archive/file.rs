//! The names of what lies in an archive of write-ahead log, below `wal/<datastore>/<system identifier>/`:
//!
//! | name | what |
//! |---|---|
//! | `0000000100000016000000B3` | a whole segment |
//! | `0000000100000016000000B3.partial-00000016B374D848` | the beginning of one, up to a position |
//! | `00000002.history` | where a timeline came from |
//! | `standing-00000001-00000016B374D848-1773453600000` | how far the log was held on a timeline, and when (milliseconds since 1970) |
//! | `gap-00000001-00000016B374D848-0000001700000000` | what the server had no more when it was asked for |
//!
//! Names are not sealed: they choose what is read, and what is read must agree with them.

use std::fmt;

use jiff::Timestamp;
use replication::{Lsn, Segment, SegmentSize, Timeline};

use super::super::contents::Standing;

const PARTIAL: &str = ".partial-";
const STANDING: &str = "standing-";
const GAP: &str = "gap-";

/// Log that is missing, since the server had it no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// The timeline that was asked for.
    pub timeline: Timeline,
    /// Up to here the log was held.
    pub from: Lsn,
    /// From here on it goes on: the start of a segment.
    pub until: Lsn,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} of timeline {}", self.from, self.until, self.timeline)
    }
}

/// One object of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// A whole segment.
    Segment(Segment),
    /// The beginning of a segment.
    Partial {
        /// The segment.
        segment: Segment,
        /// The position after its last byte.
        until: Lsn,
    },
    /// A timeline's file of history.
    History(Timeline),
    /// How far the log is held.
    Standing(Standing),
    /// What is missing.
    Gap(Lost),
}

impl File {
    /// Its name, where segments have this size.
    pub fn name(&self, size: SegmentSize) -> String {
        match self {
            Self::Segment(segment) => segment.file_name(size),
            Self::Partial { segment, until } => format!("{}{PARTIAL}{:016X}", segment.file_name(size), until.0),
            Self::History(timeline) => timeline.history_file(),
            Self::Standing(Standing { timeline, lsn, moment }) => {
                let moment = moment.as_millisecond().max(0);
                format!("{STANDING}{:08X}-{:016X}-{moment:013}", timeline.0, lsn.0)
            }
            Self::Gap(Lost { timeline, from, until }) => {
                format!("{GAP}{:08X}-{:016X}-{:016X}", timeline.0, from.0, until.0)
            }
        }
    }

    /// What a name stands for, where segments have this size; `None` for what is none of ours.
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let file = Self::read(name, size)?;
        // One name each: neither small digits nor signs nor leading zeros make another one.
        (file.name(size) == name).then_some(file)
    }

    fn read(name: &str, size: SegmentSize) -> Option<Self> {
        if let Some(rest) = name.strip_prefix(STANDING) {
            let (timeline, lsn, moment) = three(rest)?;
            let moment = Timestamp::from_millisecond(moment.parse().ok()?).ok()?;
            return Some(Self::Standing(Standing { timeline, lsn, moment }));
        }
        if let Some(rest) = name.strip_prefix(GAP) {
            let (timeline, from, until) = three(rest)?;
            let until = Lsn(u64::from_str_radix(until, 16).ok()?);
            return (from < until).then_some(Self::Gap(Lost { timeline, from, until }));
        }
        if let Some((segment, until)) = name.split_once(PARTIAL) {
            let segment = Segment::parse(segment, size).ok()?;
            let until = Lsn(u64::from_str_radix(until, 16).ok()?);
            let inside = segment.start(size) < until && until < segment.end(size);
            return inside.then_some(Self::Partial { segment, until });
        }
        if let Ok(timeline) = Timeline::of_history_file(name) {
            return Some(Self::History(timeline));
        }
        Segment::parse(name, size).ok().map(Self::Segment)
    }

    /// How many bytes its content has, where that is known.
    pub(super) fn length(&self, size: SegmentSize) -> Option<u64> {
        match self {
            Self::Segment(_) => Some(size.bytes()),
            Self::Partial { segment, until } => Some(until.since(segment.start(size))),
            Self::History(_) => None,
            Self::Standing(_) | Self::Gap(_) => Some(0),
        }
    }
}

fn three(rest: &str) -> Option<(Timeline, Lsn, &str)> {
    let mut parts = rest.splitn(3, '-');
    let timeline = u32::from_str_radix(parts.next()?, 16)
        .ok()
        .filter(|number| *number != 0)?;
    let lsn = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some((Timeline(timeline), Lsn(lsn), parts.next()?))
}

impl Standing {
    /// As names say it: the moment in whole milliseconds, never later than it is.
    pub(in super::super) fn rounded(self) -> Self {
        let round = jiff::TimestampRound::new()
            .smallest(jiff::Unit::Millisecond)
            .mode(jiff::RoundMode::Floor);
        let moment = self.moment.round(round).unwrap_or(self.moment);
        Self { moment, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_file() -> impl Strategy<Value = File> {
        let standing = |timeline, lsn, moment: u32| {
            let moment = Timestamp::from_millisecond(i64::from(moment) * 1000).unwrap();
            File::Standing(Standing { timeline, lsn, moment })
        };
        (0..5, 1..=u32::MAX, 0..u64::MAX / 2, 1..(16_u64 << 20), any::<u32>()).prop_map(
            move |(kind, timeline, lsn, part, moment)| {
                let timeline = Timeline(timeline);
                let segment = Segment::containing(timeline, Lsn(lsn), SegmentSize::DEFAULT);
                let until = segment.start(SegmentSize::DEFAULT).plus(part);
                match kind {
                    0 => File::Segment(segment),
                    1 => File::Partial { segment, until },
                    2 => File::History(timeline),
                    3 => standing(timeline, Lsn(lsn), moment),
                    _ => File::Gap(Lost {
                        timeline,
                        from: Lsn(lsn),
                        until: Lsn(lsn + part),
                    }),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_named_is_read_again(file in any_file()) {
            let name = file.name(SegmentSize::DEFAULT);
            prop_assert_eq!(File::parse(&name, SegmentSize::DEFAULT), Some(file));
            prop_assert!(crate::store::StoreKey::new(name).is_ok());
        }

        #[test]
        fn no_name_is_misread(name in "(standing-|gap-|)[0-9A-Fa-f+-]{0,24}(.partial-|.history|)[0-9A-Fa-f+-]{0,30}") {
            if let Some(file) = File::parse(&name, SegmentSize::DEFAULT) {
                prop_assert_eq!(file.name(SegmentSize::DEFAULT), name);
            }
        }
    }

    #[test]
    fn a_partial_of_nothing_or_of_all_is_none() {
        let size = SegmentSize::DEFAULT;
        for until in [
            "00000016B3000000",
            "00000016B4000000",
            "00000016B4000001",
            "0000000000000000",
        ] {
            let name = format!("0000000100000016000000B3.partial-{until}");
            assert_eq!(File::parse(&name, size), None, "{name}");
        }
        assert!(File::parse("0000000100000016000000B3.partial-00000016B3000001", size).is_some());
    }
}
