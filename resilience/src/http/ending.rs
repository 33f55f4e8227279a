//! [`Ending`]: what an answer's body owes to the policies of its call until it has ended.

use crate::pipeline::Unsettled;
use crate::verdict::Verdict;

/// Permits of a call whose answer has begun. Dropped early, they say that it was cancelled.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// In a hedged call those of the attempt and those of the call.
    open: Vec<Unsettled>,
}

impl Ending {
    pub(crate) fn add(&mut self, unsettled: Unsettled) {
        if !unsettled.is_empty() {
            self.open.push(unsettled);
        }
    }

    /// Tells how the answer ended; what is told first holds.
    pub(crate) fn settle(&mut self, verdict: Verdict) {
        for unsettled in self.open.drain(..) {
            unsettled.settle(verdict);
        }
    }
}
