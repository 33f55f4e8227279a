//! What happens inside policies, told to a listener as it happens. Counts are in the snapshots; this is for logs.

use std::time::Duration;

use crate::breaker::State;
use crate::error::{By, Scope};

/// One event; it borrows, so that nothing is copied when nobody listens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A breaker changed its state.
    Transition {
        /// Name of the breaker.
        name: &'a str,
        /// From.
        from: State,
        /// To.
        to: State,
    },
    /// Another attempt will be made.
    Retry {
        /// Name of the policy.
        name: &'a str,
        /// Number of the attempt that failed, from 1.
        attempt: u32,
        /// `not_sent`, `transient`, `timeout` or `overload`.
        reason: &'static str,
        /// Wait before the next one.
        delay: Duration,
    },
    /// A retry was not made because the budget is spent.
    BudgetExhausted {
        /// Name of the policy.
        name: &'a str,
    },
    /// A time limit ended an attempt or a call.
    Timeout {
        /// Name of the policy.
        name: &'a str,
        /// Which limit.
        scope: Scope,
    },
    /// A policy refused.
    Rejected {
        /// Name of the policy.
        name: &'a str,
        /// Which policy.
        by: By,
    },
    /// A fallback answered.
    Fallback {
        /// Name of the policy.
        name: &'a str,
        /// `rejected`, `timeout` or `failure`.
        reason: &'static str,
    },
}

/// Told of every event, on the task that caused it: it must be quick and must not block.
pub trait Listener: Send + Sync + 'static {
    /// Takes one event.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Listener for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Somebody who may have a listener: the event is made only when there is one.
pub(crate) trait Tell {
    /// Tells the event that `event` makes of the policy's name.
    fn tell<'a>(&'a self, event: impl FnOnce(&'a str) -> Event<'a>);
}
