//! For tests of services that use these policies; behind the feature `testing`, which no production build turns on:
//!
//! ```toml
//! [dev-dependencies]
//! resilience = { version = "0.1", features = ["testing"] }
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! - [`Script`] stands in for a dependency: it answers as it was told to, and remembers what it was asked.
//! - [`trip`], [`half_open`], [`close`], [`spend_budget`] and [`fill`] put a policy into a state without any calls.
//! - [`assert()`] looks at a policy and fails with its figures; [`Events`] is a listener that remembers.
//! - With the feature on, all policies read tokio's clock. `#[tokio::test(start_paused = true)]` pauses it: waits,
//!   backoffs and timeouts then take no time at all, since a clock that is paused jumps to the next moment at which
//!   something is due as soon as nothing else can be done. [`advance`] lets time pass where a test has nothing to wait for.
//!
//! A whole test: a service's payments fail twice, then the third attempt brings the answer; later the breaker is open.
//!
//! ```
//! use std::time::Duration;
//!
//! use resilience::testing::{self, Events, Script};
//! use resilience::{By, Jitter, Pipeline, Retry, State};
//!
//! # #[derive(Debug, Clone, PartialEq)]
//! # struct Down;
//! # /*
//! #[tokio::test(start_paused = true)]
//! async fn a_payment_outlasts_a_bad_moment() {
//! # */
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//!     let events = Events::new();
//!     let policy = Pipeline::standard("payments")
//!         .retry(Retry::default().jitter(Jitter::None))
//!         .listener(events.clone())
//!         .build()
//!         .unwrap();
//!
//!     // It fails, hangs until the policy cuts it off, and then takes 20 ms for its answer.
//!     let payments = Script::new().err(Down).hang().after(Duration::from_millis(20)).ok(42);
//!     assert_eq!(policy.call(payments.op()).await.unwrap(), 42);
//!
//!     let asked = payments.asked();
//!     assert_eq!(asked[1].waited, Duration::from_millis(50), "the first backoff");
//!     assert_eq!(asked[1].timeout, Some(Duration::from_secs(10)), "an attempt's time limit");
//!     events.assert_exactly(&["retry 1: transient", "timeout: attempt", "retry 2: timeout"]);
//!     testing::assert(&policy).state(State::Closed).retries(2).failures(2).successes(1).nothing_in_flight();
//!
//!     testing::trip(&policy);
//!     let refused = policy.call(payments.op()).await;
//!     assert!(refused.is_err_and(|error| error.is_rejected()));
//!     testing::assert(&policy).state(State::Open).rejected_by(By::Breaker, 1);
//!
//!     // Its break is 5 s at first.
//!     testing::advance(Duration::from_secs(5)).await;
//!     testing::assert(&policy).state(State::HalfOpen);
//! }
//! ```
//!
//! What is here panics when a test asks for what cannot be: a breaker of a policy without one, an answer after the last.

mod assert;
mod events;
mod script;

use std::time::Duration;

pub use self::assert::{Assert, assert};
pub use self::events::{Events, Told, What};
pub use self::script::{Asked, Ended, Script, ScriptFuture, ScriptService};
use crate::breaker::Breaker;
use crate::bulkhead::{Bulkhead, Waiting};
use crate::pipeline::Pipeline;
use crate::verdict::{Kind, Verdict};

/// What a breaker is found in: itself, or a policy that has one.
pub trait HasBreaker {
    /// The breaker.
    fn breaker(&self) -> &Breaker;
}

impl HasBreaker for Breaker {
    fn breaker(&self) -> &Breaker {
        self
    }
}

impl HasBreaker for Pipeline {
    fn breaker(&self) -> &Breaker {
        let breaker = Pipeline::breaker(self);
        breaker.unwrap_or_else(|| panic!("the policy {} has no breaker", self.name()))
    }
}

/// Opens a breaker as if too many calls had failed, for its first break, without any spread. Nothing is counted but the
/// transition. A state that only a person ends is [`Breaker::force`]'s.
pub fn trip(breaker: &impl HasBreaker) {
    breaker.breaker().trip();
}

/// Makes a breaker half-open with no probe out yet: the next calls are probes, and decide.
pub fn half_open(breaker: &impl HasBreaker) {
    breaker.breaker().half_open();
}

/// Closes a breaker, with nothing remembered of what led to its state.
pub fn close(breaker: &impl HasBreaker) {
    breaker.breaker().release();
}

/// Uses up the budget of a policy's retries, so that the next failure is not repeated; how many retries were left. A
/// budget of a share has more again in ten seconds, and one of tokens after successes.
pub fn spend_budget(policy: &Pipeline) -> u64 {
    let Some(budget) = policy.budget() else {
        panic!("the policy {} has no retry budget", policy.name());
    };
    let mut spent = 0;
    while budget.try_withdraw() {
        // Tokens are taken by what fails, not by what is tried.
        budget.record(Verdict::Failure(Kind::Transient));
        spent += 1;
    }
    spent
}

/// Takes all free places of a policy's bulkhead until the result is dropped: calls that come wait in the queue.
pub fn fill(policy: &Pipeline) -> Full {
    let Some(bulkhead) = policy.bulkhead() else {
        panic!("the policy {} has no bulkhead", policy.name());
    };
    let mut places = 0;
    while bulkhead.try_enter() {
        places += 1;
    }
    let queue = policy.settings().bulkhead.map_or(0, |settings| settings.queue);
    Full {
        queued: Vec::new(),
        queue,
        places,
        bulkhead: bulkhead.clone(),
    }
}

/// Places taken by [`fill`]; they are free again when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it frees the places"]
pub struct Full {
    queued: Vec<Waiting>,
    queue: usize,
    places: usize,
    bulkhead: Bulkhead,
}

impl Full {
    /// Takes all places of the queue too: calls that come are refused.
    pub fn and_queue(mut self) -> Self {
        let free = self.queue.saturating_sub(self.bulkhead.snapshot().queued);
        for _ in 0..free {
            self.queued.extend(self.bulkhead.wait());
        }
        self
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for _ in 0..self.places {
            self.bulkhead.leave();
        }
    }
}

/// Lets time pass on a paused clock: everything that is due until then happens, each at its moment and in its order.
/// `tokio::time::advance` jumps to the end instead, where all of it is due at once.
///
/// Panics where the clock is not paused: a test must not wait for real.
pub async fn advance(time: Duration) {
    tokio::time::advance(Duration::ZERO).await;
    tokio::time::sleep(time).await;
    // What was due at this very moment has its turn as well.
    tokio::task::yield_now().await;
}

/// Lets this process read the system's clock, as a build without the feature `testing` does. Without this call the
/// feature makes all policies read tokio's clock, which a test can pause and advance.
///
/// For benchmarks and for tests that count allocations.
pub fn production_clock() {
    crate::clock::use_production();
}
