//! A batch on its way: what an answer of Loki means for each line in it. Loki may store a part of a push and refuse it as
//! a whole, so that only the answer to a push in which nothing was bad tells that lines are stored; pushing a line twice
//! is harmless, see [`entry`](super::entry). Pure: it neither sends nor waits.

use super::cause::Causes;
use super::entry::Entry;
use crate::report::{DropReason, RejectReason};
use crate::sink::account::Fate;
use crate::sink::retry::Verdict;

/// The lines of a batch that are not settled, in the parts in which they are sent.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The last is the next to be sent.
    parts: Vec<Part>,
    longest: Option<usize>,
}

#[derive(Debug)]
struct Part {
    entries: Vec<Entry>,
    /// It was sent and nobody said what became of it.
    unanswered: bool,
}

/// Lines that an answer settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settled {
    pub(crate) delivered: u64,
    pub(crate) rejected: Vec<(u64, RejectReason)>,
}

/// Lines that nothing settled, at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Unsettled {
    /// Sent, and there was no answer: they may have arrived.
    unanswered: u64,
    /// Never sent, or not taken.
    refused: u64,
}

impl Parcel {
    /// A batch. Lines longer than `longest`, which Loki has said to be its limit, are sent apart from the others: it
    /// stores a part of a push that it refuses, and what is sent again then may be stored twice where it spreads a
    /// stream over several.
    pub(crate) fn new(mut entries: Vec<Entry>, longest: Option<usize>) -> Self {
        entries.sort_by_key(|entry| (entry.stream(), entry.at));
        let mut parcel = Self {
            parts: Vec::new(),
            longest,
        };
        if let Some(longest) = longest {
            let long = entries.extract_if(.., |entry| entry.line.len() > longest).collect();
            parcel.put(long);
        }
        parcel.put(entries);
        parcel
    }

    /// The limit that Loki has said, if it still has it.
    pub(crate) const fn longest(&self) -> Option<usize> {
        self.longest
    }

    /// What is to be sent now; `None` when everything is settled.
    pub(crate) fn next(&self) -> Option<&[Entry]> {
        self.parts.last().map(|part| &part.entries[..])
    }

    /// There was no answer for what was sent. It stays the next.
    pub(crate) fn not_answered(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.unanswered = true;
        }
    }

    /// Loki has answered for what was sent, with this text. What is bad is found by what the text says, else by sending
    /// halves until it is alone.
    pub(crate) fn answered(&mut self, verdict: Verdict, text: &str) -> Settled {
        let mut settled = Settled::default();
        if matches!(verdict, Verdict::Later { .. } | Verdict::Closed) {
            return settled;
        }
        let Some(Part { mut entries, .. }) = self.parts.pop() else {
            return settled;
        };
        match verdict {
            Verdict::Delivered => {
                settled.delivered = entries.len() as u64;
                if let Some(longest) = self.longest
                    && entries.iter().any(|entry| entry.line.len() > longest)
                {
                    self.longest = None;
                }
            }
            Verdict::TooLarge if entries.len() == 1 => settled.rejected.push((1, RejectReason::TooLarge)),
            Verdict::TooLarge => self.halve(entries),
            _ => {
                let causes = Causes::read(text);
                let before = entries.len();
                self.longest = causes.longest_line.or(self.longest);
                settled.rejected = causes.take_refused(&mut entries);
                let late = causes.take_late(&mut entries);
                if before > entries.len() {
                    self.put(entries);
                    // Older than the others: they go first.
                    self.put(late);
                } else if before > 1 {
                    self.halve(entries);
                } else {
                    settled.rejected.push((1, causes.reason()));
                }
            }
        }
        settled
    }

    /// Settles what is left when no more can be sent.
    pub(crate) fn give_up(&self, settle: &dyn Fn(u64, Fate)) {
        let left = self.unsettled();
        settle(left.unanswered, Fate::Dropped(DropReason::Unanswered));
        settle(left.refused, Fate::Dropped(DropReason::Unreachable));
    }

    fn unsettled(&self) -> Unsettled {
        let mut unsettled = Unsettled::default();
        for part in &self.parts {
            let count = part.entries.len() as u64;
            if part.unanswered {
                unsettled.unanswered += count;
            } else {
                unsettled.refused += count;
            }
        }
        unsettled
    }

    fn halve(&mut self, mut entries: Vec<Entry>) {
        let second = entries.split_off(entries.len() / 2);
        self.put(second);
        self.put(entries);
    }

    fn put(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.parts.push(Part {
                entries,
                unanswered: false,
            });
        }
    }
}

impl Causes {
    /// Takes out the lines that Loki is known to refuse, however often they are sent.
    fn take_refused(&self, entries: &mut Vec<Entry>) -> Vec<(u64, RejectReason)> {
        let mut rejected = Vec::new();
        let mut take = |reason, refused: &dyn Fn(&Entry) -> bool| {
            let before = entries.len();
            entries.retain(|entry| !refused(entry));
            if entries.len() < before {
                rejected.push(((before - entries.len()) as u64, reason));
            }
        };
        if let Some(longest) = self.longest_line {
            take(RejectReason::TooLarge, &|entry| entry.line.len() > longest);
        }
        if let Some(oldest) = self.oldest {
            take(RejectReason::TooOld, &|entry| entry.at < oldest);
        }
        rejected
    }

    /// Takes out the lines for which their usual stream is too far ahead, to be sent in the stream of late ones.
    fn take_late(&self, entries: &mut Vec<Entry>) -> Vec<Entry> {
        let Some((level, oldest)) = self.too_far_behind else {
            return Vec::new();
        };
        let is_late = |entry: &mut Entry| !entry.late && entry.level == level && entry.at < oldest;
        let mut late: Vec<Entry> = entries.extract_if(.., is_late).collect();
        for entry in &mut late {
            entry.late = true;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    //! Against a model of Loki that takes, refuses, keeps and forgets as the real one does: the account must agree with
    //! what it has stored.

    use std::collections::HashSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sink::queue::Severity;

    /// Takes what it takes and stores it, also when it refuses the push for the rest of it.
    #[derive(Default)]
    struct Model {
        stored: HashSet<(i64, Bytes, bool)>,
        longest: usize,
        largest_push: usize,
        oldest: i64,
        behind: i64,
        /// Lines that begin so are refused without a reason that can be understood.
        silent: bool,
        pushes: usize,
        /// Lines that were stored more than once.
        again: usize,
    }

    impl Model {
        fn push(&mut self, entries: &[Entry]) -> (Verdict, String) {
            self.pushes += 1;
            if entries.len() > self.largest_push {
                return (Verdict::TooLarge, String::new());
            }
            let mut text = String::new();
            for entry in entries {
                if entry.line.len() > self.longest {
                    text = format!(
                        "max entry size '{}' bytes exceeded for stream '{{}}' while adding",
                        self.longest
                    );
                } else if entry.at < self.oldest {
                    let oldest = jiff::Timestamp::from_nanosecond(self.oldest.into()).unwrap();
                    text = format!(
                        "entry for stream '{{}}' has timestamp too old: x, oldest acceptable timestamp is: {oldest:.0}"
                    );
                } else if entry.line.starts_with(b"!") {
                    text = "no".to_owned();
                } else if !entry.late && entry.at < self.behind {
                    let behind = jiff::Timestamp::from_nanosecond(self.behind.into()).unwrap();
                    text = format!(
                        "entry with timestamp x ignored, reason: 'entry too far behind, entry timestamp is: y, oldest acceptable timestamp is: {behind:.0}',\nuser 'u', total ignored: 1 out of 2 for stream: {{level=\"info\"}}"
                    );
                } else {
                    let new = self.stored.insert((entry.at, entry.line.clone(), entry.late));
                    self.again += usize::from(!new);
                    continue;
                }
                if self.silent {
                    text = "no".to_owned();
                }
            }
            let verdict = if text.is_empty() {
                Verdict::Delivered
            } else {
                Verdict::Bad
            };
            (verdict, text)
        }
    }

    const SECOND: i64 = 1_000_000_000;

    fn entry(at: i64, line: String) -> Entry {
        Entry {
            level: Severity::Info,
            at,
            line: line.into(),
            late: false,
        }
    }

    fn deliver(model: &mut Model, entries: Vec<Entry>, lost_answers: &mut impl Iterator<Item = bool>) -> Settled {
        let mut parcel = Parcel::new(entries, None);
        let mut all = Settled::default();
        while let Some(part) = parcel.next() {
            let (verdict, text) = model.push(part);
            if lost_answers.next() == Some(true) {
                parcel.not_answered();
                continue;
            }
            let settled = parcel.answered(verdict, &text);
            all.delivered += settled.delivered;
            all.rejected.extend(settled.rejected);
        }
        assert_eq!(parcel.unsettled(), Unsettled::default());
        all
    }

    proptest! {
        #[test]
        fn the_account_is_what_is_stored(
            lines in prop::collection::vec((0i64..20, 0usize..12, prop::bool::weighted(0.1)), 0..120),
            longest in 4usize..14,
            largest_push in 1usize..150,
            oldest in 0i64..6,
            behind in 0i64..12,
            silent in any::<bool>(),
            lost in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let mut model = Model { longest, largest_push, oldest: oldest * SECOND, behind: behind * SECOND, silent, ..Model::default() };
            let entries: Vec<Entry> = lines
                .iter()
                .enumerate()
                .map(|(number, (at, length, bad))| {
                    let bad = if *bad { "!" } else { "" };
                    entry(at * SECOND / 2 + number.cast_signed() as i64, format!("{bad}{}", "x".repeat(*length)))
                })
                .collect();
            let count = entries.len() as u64;
            let settled = deliver(&mut model, entries, &mut lost.into_iter());
            let rejected: u64 = settled.rejected.iter().map(|(count, _)| count).sum();
            prop_assert_eq!(settled.delivered, model.stored.len() as u64);
            prop_assert_eq!(settled.delivered + rejected, count);
        }
    }

    #[test]
    fn a_bad_line_is_found_in_few_pushes_and_costs_nothing_else() {
        let mut model = Model {
            longest: 100,
            largest_push: usize::MAX,
            ..Model::default()
        };
        let mut entries: Vec<_> = (0..4096).map(|number| entry(number, number.to_string())).collect();
        entries[1234].line = Bytes::from_static(b"!");
        let settled = deliver(&mut model, entries, &mut std::iter::empty());
        assert_eq!(
            (settled.delivered, settled.rejected),
            (4095, vec![(1, RejectReason::BadRequest)])
        );
        assert!(model.pushes <= 25, "{}", model.pushes);
    }

    #[test]
    fn what_the_text_explains_costs_one_push_more() {
        let mut model = Model {
            longest: 3,
            largest_push: usize::MAX,
            ..Model::default()
        };
        let entries = (0..4096).map(|number| entry(number, number.to_string())).collect();
        let settled = deliver(&mut model, entries, &mut std::iter::empty());
        assert_eq!(
            (settled.delivered, settled.rejected),
            (1000, vec![(3096, RejectReason::TooLarge)])
        );
        assert_eq!(model.pushes, 2);
    }

    #[test]
    fn a_limit_that_is_known_separates_lines_before_they_are_sent() {
        let mut model = Model {
            longest: 3,
            largest_push: usize::MAX,
            ..Model::default()
        };
        let mut longest = None;
        for batch in 0..3 {
            let lines = (0..2000)
                .map(|number| entry(batch * 10_000 + number, number.to_string()))
                .collect();
            let mut parcel = Parcel::new(lines, longest);
            while let Some(part) = parcel.next() {
                let (verdict, text) = model.push(part);
                parcel.answered(verdict, &text);
            }
            longest = parcel.longest();
        }
        assert_eq!(
            (longest, model.stored.len(), model.again),
            (Some(3), 3000, 1000),
            "only the first was sent again"
        );
        model.longest = 4;
        let mut parcel = Parcel::new(vec![entry(0, "long".to_owned())], longest);
        let (verdict, text) = model.push(parcel.next().unwrap_or_default());
        assert_eq!(parcel.answered(verdict, &text).delivered, 1);
        assert_eq!(parcel.longest(), None, "Loki has another limit now");
    }

    #[test]
    fn the_end_tells_what_may_have_arrived() {
        let mut parcel = Parcel::new((0..10).map(|number| entry(number, number.to_string())).collect(), None);
        assert_eq!(
            parcel.unsettled(),
            Unsettled {
                unanswered: 0,
                refused: 10
            }
        );
        parcel.answered(Verdict::Later { after: None }, "");
        parcel.answered(Verdict::Closed, "");
        parcel.answered(Verdict::TooLarge, "");
        parcel.not_answered();
        assert_eq!(
            parcel.unsettled(),
            Unsettled {
                unanswered: 5,
                refused: 5
            }
        );
    }
}
