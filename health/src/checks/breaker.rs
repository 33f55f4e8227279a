//! A circuit breaker's state as a check. It looks and never calls, so that a check neither fills the breaker's window nor
//! takes a trial call from the traffic. It knows no breaker: a closure tells the state.

use std::fmt;
use std::future::ready;

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

/// State of a circuit breaker, in the words of most libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Calls go through.
    Closed,
    /// The next calls decide. It passes: without one of them nobody would ever know more.
    HalfOpen,
    /// Calls are refused.
    Open,
    /// A person holds it open.
    ForcedOpen,
    /// A person holds it closed, or switched it off: nothing protects the callee.
    ForcedClosed,
}

/// Warns while a breaker is open. An open breaker is a protection at work, not a fault of this service: taking the
/// service out for it is a choice, [`BreakerCheck::fail_when_open`].
pub struct BreakerCheck {
    circuit: Box<dyn Fn() -> Circuit + Send + Sync>,
    fail_when_open: bool,
}

impl fmt::Debug for BreakerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerCheck").finish_non_exhaustive()
    }
}

impl BreakerCheck {
    /// Of the breaker whose state `circuit` tells.
    pub fn new(circuit: impl Fn() -> Circuit + Send + Sync + 'static) -> Self {
        Self {
            circuit: Box::new(circuit),
            fail_when_open: false,
        }
    }

    /// An open breaker fails instead of warning.
    #[must_use]
    pub fn fail_when_open(mut self) -> Self {
        self.fail_when_open = true;
        self
    }
}

impl Check for BreakerCheck {
    fn run(&self) -> Asking<'_> {
        let outcome = match (self.circuit)() {
            Circuit::Closed | Circuit::HalfOpen => Outcome::Pass,
            Circuit::ForcedClosed => Outcome::Warn(Failure::new(Reason::Error, "the breaker is held closed")),
            open @ (Circuit::Open | Circuit::ForcedOpen) => {
                let by = if open == Circuit::Open { "open" } else { "held open" };
                let failure = Failure::new(Reason::Refused, format!("the breaker is {by}"));
                if self.fail_when_open {
                    Outcome::Fail(failure)
                } else {
                    Outcome::Warn(failure)
                }
            }
        };
        Box::pin(ready(outcome))
    }
}
