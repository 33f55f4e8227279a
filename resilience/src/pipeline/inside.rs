//! The parts of a policy that only tests may reach.

use super::{Pipeline, Retrier, Stage};
use crate::budget::Budget;
use crate::bulkhead::Bulkhead;

impl Pipeline {
    /// The budget of its retries.
    pub(crate) fn budget(&self) -> Option<&Budget> {
        self.inner.retrier().and_then(Retrier::budget)
    }

    /// Its bulkhead.
    pub(crate) fn bulkhead(&self) -> Option<&Bulkhead> {
        self.inner.stages.iter().find_map(|stage| match stage {
            Stage::Bulkhead(bulkhead) => Some(bulkhead),
            _ => None,
        })
    }
}
