//! A line on its way to Loki, and the rule that keeps lines apart: Loki takes two lines with one timestamp and one text
//! in one stream for one line, which is why a batch can be sent twice, and why two lines must not look like one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use bytes::Bytes;

use crate::log::waiting::Lines;
use crate::sink::queue::Severity;

/// A line, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) level: Severity,
    /// Nanoseconds since 1970.
    pub(crate) at: i64,
    pub(crate) line: Bytes,
    /// Loki has newer lines of its usual stream and does not take it there.
    pub(crate) late: bool,
}

impl Entry {
    /// Lines from the queue. They share their memory.
    pub(crate) fn all_of(lines: &mut Lines) -> Vec<Self> {
        let mut text = Vec::with_capacity(lines.bytes());
        let mut places = Vec::with_capacity(lines.len());
        lines.drain(|line, nanos, level| {
            let start = text.len();
            text.extend_from_slice(line.trim_ascii_end());
            places.push((start..text.len(), nanos, level));
        });
        let text = Bytes::from(text);
        let entry = |(place, nanos, level): (Range<usize>, u64, Severity)| Self {
            level,
            at: nanos.cast_signed(),
            line: text.slice(place),
            late: false,
        };
        places.into_iter().map(entry).collect()
    }

    /// What names its stream.
    pub(crate) const fn stream(&self) -> (bool, Severity) {
        (self.late, self.level)
    }

    /// Bytes in a request: the line, and about so much around it.
    pub(crate) fn bytes(&self) -> usize {
        self.line.len() + 24
    }
}

/// Keeps equal lines apart, by a nanosecond each.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    hasher: RandomState,
    /// By level: the latest instant, and how often each line was seen at it.
    last: [Run; 5],
}

#[derive(Debug, Default)]
struct Run {
    at: i64,
    seen: HashMap<u64, i64>,
    /// A line that was alone so far and has not been hashed: most instants have one line.
    first: Option<Bytes>,
}

impl Stamps {
    /// Sorts a batch by stream and time, and moves a line that was seen at its instant already by a nanosecond. Entries
    /// of one batch and of the one before are compared; what is further apart has another time.
    pub(crate) fn apply(&mut self, entries: &mut [Entry]) {
        entries.sort_by_key(|entry| (entry.stream(), entry.at));
        for entry in entries {
            let run = &mut self.last[entry.level as usize];
            if entry.at != run.at || (run.first.is_none() && run.seen.is_empty()) {
                run.at = entry.at;
                run.seen.clear();
                run.first = Some(entry.line.clone());
                continue;
            }
            if let Some(first) = run.first.take() {
                run.seen.insert(self.hasher.hash_one(&first), 0);
            }
            let times = run.seen.entry(self.hasher.hash_one(&entry.line));
            let times = times.and_modify(|times| *times += 1).or_insert(0);
            entry.at += *times;
        }
        // A batch shares its memory, which one line must not hold until the next of its level comes.
        let firsts = self.last.iter_mut().filter_map(|run| run.first.as_mut());
        for shared in firsts.filter(|first| !first.is_unique()) {
            *shared = Bytes::copy_from_slice(shared);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Lines stay apart whatever the clock does.

    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn entry(at: i64, line: u8) -> Entry {
        Entry {
            level: Severity::Info,
            at,
            line: Bytes::copy_from_slice(&[line]),
            late: false,
        }
    }

    proptest! {
        #[test]
        fn no_two_lines_look_like_one(batches in prop::collection::vec(prop::collection::vec((0i64..3, 0u8..3), 0..30), 1..4)) {
            let mut stamps = Stamps::default();
            let mut seen = HashSet::new();
            let mut clock = 0;
            for batch in batches {
                // A coarse clock: it stands still within a batch and across its end.
                let mut entries: Vec<Entry> = batch.iter().map(|(step, line)| entry((clock + step) * 1_000_000, *line)).collect();
                stamps.apply(&mut entries);
                prop_assert!(entries.is_sorted_by_key(|entry| entry.at / 1_000_000));
                clock += batch.iter().map(|(step, _)| *step).max().unwrap_or(0);
                for entry in entries {
                    prop_assert!(seen.insert((entry.at, entry.line.clone())), "{entry:?} is there already");
                }
            }
        }
    }

    #[test]
    fn what_is_different_keeps_its_time() {
        let mut entries = vec![entry(9, 1), entry(5, 1), entry(5, 2), entry(5, 1), entry(5, 1)];
        Stamps::default().apply(&mut entries);
        let times: Vec<_> = entries.iter().map(|entry| (entry.at, entry.line[0])).collect();
        assert_eq!(times, [(5, 1), (5, 2), (6, 1), (7, 1), (9, 1)]);
    }
}
