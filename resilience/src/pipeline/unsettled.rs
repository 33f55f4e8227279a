//! What a call still holds when its answer has begun: the stages that want to know how it ends.

use super::stage::{Held, Stage};
use crate::adaptive::{self, AdaptiveLimit};
use crate::breaker::{self, Breaker};
use crate::bulkhead::Bulkhead;
use crate::throttle::{self, Throttle};
use crate::verdict::Verdict;

/// Permits of a call whose answer has begun. Dropped, they say that it was cancelled.
#[derive(Debug, Default)]
#[must_use = "dropping it says that the call was cancelled"]
pub struct Unsettled {
    open: Vec<Open>,
}

#[derive(Debug)]
enum Open {
    Breaker(Breaker, breaker::Token),
    Throttle(Throttle, throttle::Token),
    Measured(AdaptiveLimit, adaptive::Token),
    Place(Bulkhead),
}

impl Unsettled {
    /// Says how the answer ended.
    pub fn settle(mut self, verdict: Verdict) {
        self.end(Some(verdict));
    }

    /// Whether nobody waits for the end.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes over what is held of a stage; false when the stage does not wait for the end.
    pub(super) fn take(&mut self, stage: &Stage, held: Held) -> bool {
        self.open.push(match (stage, held) {
            (Stage::Breaker(breaker), Held::Breaker(token)) => Open::Breaker(breaker.clone(), token),
            (Stage::Throttle(throttle), Held::Throttle(token)) => Open::Throttle(throttle.clone(), token),
            (Stage::ConcurrencyLimit(limit), Held::Measured(token)) => Open::Measured(limit.clone(), token),
            (Stage::Bulkhead(bulkhead), Held::Place) => Open::Place(bulkhead.clone()),
            _ => return false,
        });
        true
    }

    fn end(&mut self, verdict: Option<Verdict>) {
        for open in self.open.drain(..) {
            match open {
                Open::Breaker(breaker, token) => breaker.settle(token, verdict),
                Open::Throttle(throttle, token) => throttle.settle(token, verdict),
                Open::Measured(limit, token) => limit.settle(token, verdict),
                Open::Place(bulkhead) => bulkhead.leave(),
            }
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.end(None);
    }
}
