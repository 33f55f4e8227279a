//! The account of one sink: every item is emitted once and settled once. Pure; whoever shares it puts a lock around it,
//! so that what is read always adds up.

use crate::report::{DropReason, RejectReason, SinkCounts};

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Written, or acknowledged.
    Delivered,
    /// Refused for good by the receiver.
    Rejected(RejectReason),
    /// Lost here.
    Dropped(DropReason),
    /// Kept on disk.
    Spooled,
    /// Handed to something that does not tell.
    #[cfg(feature = "opentelemetry-otlp")]
    Unknown,
}

/// Counts of one sink, and whether it is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    counts: SinkCounts,
    sealed: bool,
}

impl Account {
    /// `n` items were handed to the sink and are pending now.
    pub(crate) fn emit(&mut self, n: u64) {
        self.counts.emitted += n;
    }

    /// `n` items came that the sink does not take: emitted and dropped at once. Also after the end.
    pub(crate) fn refuse(&mut self, n: u64, reason: DropReason) {
        self.counts.emitted += n;
        self.add(n, Fate::Dropped(reason));
    }

    /// `n` pending items are settled. After the end this changes nothing, since they were settled by it; `false` then.
    pub(crate) fn settle(&mut self, n: u64, fate: Fate) -> bool {
        if self.sealed {
            return false;
        }
        debug_assert!(n <= self.counts.pending(), "an item was settled twice");
        self.add(n.min(self.counts.pending()), fate);
        true
    }

    /// `n` items were found in the spool of an earlier process.
    pub(crate) fn recover(&mut self, n: u64) {
        self.counts.emitted += n;
        self.counts.recovered += n;
        self.add(n, Fate::Spooled);
    }

    /// `n` spooled items were read back and are pending again. After the end they stay spooled; `false` then.
    pub(crate) fn unspool(&mut self, n: u64) -> bool {
        if self.sealed {
            return false;
        }
        debug_assert!(n <= self.counts.spooled, "more was read back than was spooled");
        self.counts.spooled -= n.min(self.counts.spooled);
        true
    }

    /// The end: of what is pending, `queued` items never left the queue and the others have no answer.
    pub(crate) fn seal(&mut self, queued: u64) {
        if !self.sealed {
            self.settle(queued, Fate::Dropped(DropReason::Deadline));
            self.settle(self.counts.pending(), Fate::Dropped(DropReason::Unanswered));
            self.sealed = true;
        }
    }

    /// Whether the end is over.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The counts.
    pub(crate) fn counts(&self) -> SinkCounts {
        self.counts
    }

    /// Items that are not settled.
    pub(crate) fn pending(&self) -> u64 {
        self.counts.pending()
    }

    fn add(&mut self, n: u64, fate: Fate) {
        let counts = &mut self.counts;
        match fate {
            Fate::Delivered => counts.delivered += n,
            #[cfg(feature = "opentelemetry-otlp")]
            Fate::Unknown => counts.unknown += n,
            Fate::Spooled => {
                counts.spooled += n;
                counts.spooled_ever += n;
            }
            Fate::Rejected(reason) => {
                counts.rejected += n;
                counts.rejected_by[reason as usize] += n;
            }
            Fate::Dropped(reason) => {
                counts.dropped += n;
                counts.dropped_by[reason as usize] += n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against a model that follows every single item.

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Emit(u64),
        Refuse(u64),
        Settle(u64, usize),
        Recover(u64),
        Unspool(u64),
        Seal(u64),
    }

    const FATES: [Fate; 4] = [
        Fate::Delivered,
        Fate::Rejected(RejectReason::BadRequest),
        Fate::Dropped(DropReason::Unreachable),
        Fate::Spooled,
    ];

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..9_u64).prop_map(Step::Emit),
            2 => (0..3_u64).prop_map(Step::Refuse),
            6 => (0..9_u64, 0..FATES.len()).prop_map(|(n, fate)| Step::Settle(n, fate)),
            1 => (0..5_u64).prop_map(Step::Recover),
            1 => (0..5_u64).prop_map(Step::Unspool),
            1 => (0..5_u64).prop_map(Step::Seal),
        ]
    }

    proptest! {
        #[test]
        fn every_item_has_one_fate(steps in proptest::collection::vec(step(), 0..60)) {
            let mut account = Account::default();
            // `None` is pending.
            let mut items: Vec<Option<Fate>> = Vec::new();
            let mut sealed = false;
            for step in steps {
                let pending = items.iter().filter(|item| item.is_none()).count() as u64;
                let spooled = items.iter().filter(|item| **item == Some(Fate::Spooled)).count() as u64;
                match step {
                    // The queue in front emits nothing once it is closed.
                    Step::Emit(n) if !sealed => {
                        account.emit(n);
                        items.extend((0..n).map(|_| None));
                    }
                    Step::Emit(n) | Step::Refuse(n) => {
                        account.refuse(n, DropReason::Closed);
                        items.extend((0..n).map(|_| Some(Fate::Dropped(DropReason::Closed))));
                    }
                    Step::Settle(n, fate) => {
                        // After the end a sink still settles what it held then.
                        let n = if sealed { n } else { n.min(pending) };
                        prop_assert_eq!(account.settle(n, FATES[fate]), !sealed);
                        let open = items.iter_mut().filter(|item| item.is_none());
                        open.take(n as usize).for_each(|item| *item = Some(FATES[fate]));
                    }
                    Step::Recover(n) if !sealed => {
                        account.recover(n);
                        items.extend((0..n).map(|_| Some(Fate::Spooled)));
                    }
                    Step::Recover(_) => {}
                    Step::Unspool(n) => {
                        let n = n.min(spooled);
                        if account.unspool(n) {
                            let kept = items.iter_mut().filter(|item| **item == Some(Fate::Spooled));
                            kept.take(n as usize).for_each(|item| *item = None);
                        }
                    }
                    Step::Seal(queued) => {
                        let queued = queued.min(pending);
                        account.seal(queued);
                        sealed = true;
                        for (index, item) in items.iter_mut().filter(|item| item.is_none()).enumerate() {
                            *item = Some(Fate::Dropped(if (index as u64) < queued {
                                DropReason::Deadline
                            } else {
                                DropReason::Unanswered
                            }));
                        }
                    }
                }
                let counts = account.counts();
                let of = |wanted: &dyn Fn(&Option<Fate>) -> bool| items.iter().filter(|item| wanted(item)).count() as u64;
                prop_assert_eq!(counts.emitted, items.len() as u64);
                prop_assert_eq!(counts.pending(), of(&|item| item.is_none()));
                prop_assert_eq!(counts.delivered, of(&|item| *item == Some(Fate::Delivered)));
                prop_assert_eq!(counts.spooled, of(&|item| *item == Some(Fate::Spooled)));
                prop_assert_eq!(counts.rejected, of(&|item| matches!(item, Some(Fate::Rejected(_)))));
                for reason in DropReason::ALL {
                    let expected = of(&|item| *item == Some(Fate::Dropped(reason)));
                    prop_assert_eq!(counts.dropped_because(reason), expected, "{}", reason.name());
                }
                prop_assert_eq!(counts.dropped, of(&|item| matches!(item, Some(Fate::Dropped(_)))));
                prop_assert_eq!(counts.is_exact(), of(&|item| item.is_none()) == 0);
                prop_assert!(!sealed || counts.pending() == 0);
            }
        }
    }

    #[test]
    fn reasons_are_numbered_as_listed() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
        for (index, reason) in RejectReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }
}
