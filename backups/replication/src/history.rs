//! Files of history: which timelines one came from, and where each was left. The format is that of PostgreSQL's
//! `timeline.c`: a line for each ancestor, `1<tab>0/3000148<tab>why`, oldest first.

use crate::lsn::{Lsn, Malformed, Timeline, decimal};

/// The end of one timeline and the beginning of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The timeline that was left.
    pub parent: Timeline,
    /// Where: what lies before this position is its, what lies after it the next one's.
    pub at: Lsn,
    /// Why, in the server's words.
    pub reason: String,
}

/// A part of the way to a timeline: what of the log lies on which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The timeline.
    pub timeline: Timeline,
    /// Its first position on this way.
    pub from: Lsn,
    /// Where it was left; `None` for the last one, which goes on.
    pub until: Option<Lsn>,
}

/// The ancestors of a timeline, oldest first. That of timeline 1 is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History(Vec<Switch>);

/// What is no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is none.
    #[error("line {line} of a timeline's history is wrong")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        #[source]
        source: Malformed,
    },
    /// Timelines only ever grow, and so do the positions where they are left.
    #[error("line {line} of a timeline's history goes back")]
    Order {
        /// Its number, from 1.
        line: usize,
    },
}

impl History {
    /// Reads a file's content. Empty lines and those that begin with `#` say nothing; a reason that is no UTF-8 is shown
    /// as well as it can be.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn parse(content: &[u8]) -> Result<Self, HistoryError> {
        let mut switches: Vec<Switch> = Vec::new();
        for (index, bytes) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = index + 1;
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let switch = Switch::parse(text).map_err(|source| HistoryError::Line { line, source })?;
            let back = |last: &Switch| last.parent >= switch.parent || last.at > switch.at;
            if switches.last().is_some_and(back) {
                return Err(HistoryError::Order { line });
            }
            switches.push(switch);
        }
        Ok(Self(switches))
    }

    /// The ancestors, oldest first.
    pub fn switches(&self) -> &[Switch] {
        &self.0
    }

    /// Where `timeline` was left on the way; `None` if the way does not go over it.
    pub fn left(&self, timeline: Timeline) -> Option<Lsn> {
        let switch = self.0.iter().find(|switch| switch.parent == timeline);
        switch.map(|switch| switch.at)
    }

    /// The way to `own`, whose history this is, from the first position to where `own` goes on. Parts may be empty: a
    /// server that was promoted twice without a record between.
    pub fn way(&self, own: Timeline) -> Vec<Span> {
        let mut from = Lsn::ZERO;
        let mut spans = Vec::with_capacity(self.0.len() + 1);
        for switch in &self.0 {
            let (timeline, until) = (switch.parent, Some(switch.at));
            spans.push(Span { timeline, from, until });
            from = switch.at;
        }
        spans.push(Span {
            timeline: own,
            from,
            until: None,
        });
        spans
    }

    /// The timeline that the byte at `lsn` is read from on the way to `own`, whose history this is.
    pub fn timeline_at(&self, own: Timeline, lsn: Lsn) -> Timeline {
        let switch = self.0.iter().find(|switch| lsn < switch.at);
        switch.map_or(own, |switch| switch.parent)
    }
}

impl Switch {
    fn parse(text: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed::new("a line such as `1<tab>0/3000148<tab>reason`", text);
        // A server writes tabs, and reads any white space between the first two.
        let (parent, rest) = text.split_once([' ', '\t']).ok_or_else(wrong)?;
        let rest = rest.trim_start();
        let (at, reason) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let parent = decimal(parent).and_then(|number| u32::try_from(number).ok());
        let parent = parent.filter(|parent| *parent != 0).ok_or_else(wrong)?;
        Ok(Self {
            parent: Timeline(parent),
            at: at.parse().map_err(|_| wrong())?,
            reason: reason.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &[u8] =
        b"1\t0/3000148\tno recovery target specified\n\n# by hand\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n";

    #[test]
    fn a_history_names_the_way() {
        let history = History::parse(TWO).unwrap();
        assert_eq!(history.switches()[0].reason, "no recovery target specified");
        assert_eq!(history.left(Timeline(2)), Some(Lsn(0x500_0000)));
        assert_eq!(history.left(Timeline(3)), None);
        let span = |timeline, from, until: Option<u64>| Span {
            timeline: Timeline(timeline),
            from: Lsn(from),
            until: until.map(Lsn),
        };
        let way = [
            span(1, 0, Some(0x300_0148)),
            span(2, 0x300_0148, Some(0x500_0000)),
            span(3, 0x500_0000, None),
        ];
        assert_eq!(history.way(Timeline(3)), way);
        assert_eq!(history.timeline_at(Timeline(3), Lsn(0x300_0147)), Timeline(1));
        assert_eq!(history.timeline_at(Timeline(3), Lsn(0x300_0148)), Timeline(2));
        assert_eq!(history.timeline_at(Timeline(3), Lsn(u64::MAX)), Timeline(3));
        assert_eq!(History::default().way(Timeline(1)), [span(1, 0, None)]);
    }

    #[test]
    fn what_is_no_history_is_named_by_its_line() {
        let line = |content: &[u8]| match History::parse(content) {
            Err(HistoryError::Line { line, .. } | HistoryError::Order { line }) => line,
            Ok(history) => panic!("{history:?}"),
        };
        assert_eq!(line(b"1\t0/1\tx\nnonsense\n"), 2);
        assert_eq!(line(b"0\t0/1\tx\n"), 1);
        assert_eq!(line(b"1\t0-1\tx\n"), 1);
        assert_eq!(line(b"1\n"), 1);
        assert_eq!(line(b"2\t0/1\tx\n\n1\t0/2\tx\n"), 3);
        assert_eq!(line(b"1\t0/2\tx\n2\t0/1\tx\n"), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(content: Vec<u8>) {
            let _ = History::parse(&content);
        }

        #[test]
        fn what_is_read_is_in_order(content in "([1-9]\t0/[1-9]{1,3}\t[a-z ]{0,5}\n){0,6}") {
            if let Ok(history) = History::parse(content.as_bytes()) {
                let way = history.way(Timeline(10));
                prop_assert!(way.windows(2).all(|two| two[0].timeline < two[1].timeline));
                prop_assert!(way.windows(2).all(|two| two[0].until == Some(two[1].from)));
            }
        }
    }
}
