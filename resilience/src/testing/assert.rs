//! [`assert()`]: what a test says of a policy's figures. A statement that does not hold fails with all of them.

use std::fmt::{self, Debug, Write as _};

use crate::breaker::{BreakerSnapshot, State};
use crate::error::{By, Scope};
use crate::pipeline::{Pipeline, PipelineSnapshot};

/// Takes a policy's figures, for statements about them; all of those are about this one moment.
///
/// ```
/// # use resilience::{Pipeline, State, testing};
/// # let policy = Pipeline::standard("payments").build().unwrap();
/// testing::assert(&policy).state(State::Closed).retries(0).nothing_in_flight();
/// ```
pub fn assert(policy: &Pipeline) -> Assert {
    Assert {
        figures: policy.snapshot(),
    }
}

/// Statements about a policy; made by [`assert()`]. Each panics if it does not hold, also when the policy has no such part.
#[derive(Debug, Clone)]
pub struct Assert {
    figures: PipelineSnapshot,
}

impl Assert {
    /// The breaker's state.
    #[track_caller]
    pub fn state(&self, expected: State) -> &Self {
        let found = self.breaker().state;
        self.expect("state of the breaker", expected, found)
    }

    /// Retries since the start.
    #[track_caller]
    pub fn retries(&self, expected: u64) -> &Self {
        let retry = self.part("retries", self.figures.retry.as_ref());
        let found = retry.retries.iter().map(|(_, made)| made).sum();
        self.expect("retries", expected, found)
    }

    /// Retries that were not made, or hedges, because the budget was spent.
    #[track_caller]
    pub fn budget_exhausted(&self, expected: u64) -> &Self {
        let retry = self.part("retries", self.figures.retry.as_ref());
        let found = self.part("retry budget", retry.budget.as_ref()).exhausted;
        self.expect("retries without budget", expected, found)
    }

    /// Extra attempts beside slow ones since the start.
    #[track_caller]
    pub fn hedges(&self, expected: u64) -> &Self {
        let found = self.part("hedge", self.figures.hedge.as_ref()).hedges;
        self.expect("hedges", expected, found)
    }

    /// Attempts that the breaker counted as answered in time.
    #[track_caller]
    pub fn successes(&self, expected: u64) -> &Self {
        let found = self.breaker().calls.success;
        self.expect("successes", expected, found)
    }

    /// Attempts that the breaker counted as failed, timeouts included.
    #[track_caller]
    pub fn failures(&self, expected: u64) -> &Self {
        let found = self.breaker().calls.failure;
        self.expect("failures", expected, found)
    }

    /// Attempts that were dropped before an answer.
    #[track_caller]
    pub fn cancelled(&self, expected: u64) -> &Self {
        let found = self.breaker().calls.cancelled;
        self.expect("cancelled attempts", expected, found)
    }

    /// Attempts or calls that a time limit ended.
    #[track_caller]
    pub fn timeouts(&self, scope: Scope, expected: u64) -> &Self {
        let (what, found) = match scope {
            Scope::Attempt => ("timeouts of attempts", self.figures.attempt_timeouts),
            Scope::Total => ("timeouts of calls", self.figures.total_timeouts),
        };
        self.expect(what, expected, found)
    }

    /// Calls that a fallback answered, whatever the reason.
    #[track_caller]
    pub fn fallbacks(&self, expected: u64) -> &Self {
        let found = self.figures.fallbacks.iter().map(|(_, answered)| answered).sum();
        self.expect("fallbacks", expected, found)
    }

    /// Refusals of one part. Those of deadlines and faults are in no figure: count them with [`Events`](super::Events).
    #[track_caller]
    pub fn rejected_by(&self, by: By, expected: u64) -> &Self {
        let figures = &self.figures;
        let found = match by {
            By::Breaker => self.breaker().calls.rejected,
            By::Bulkhead => self.part("bulkhead", figures.bulkhead.as_ref()).rejected,
            By::RateLimit => self.part("rate limit", figures.rate_limit.as_ref()).rejected,
            By::Throttle => self.part("throttle", figures.throttle.as_ref()).rejected,
            By::ConcurrencyLimit => {
                let limit = figures.concurrency_limit.as_ref();
                self.part("concurrency limit", limit).rejected
            }
            By::Deadline | By::Shed | By::Fault => panic!("refusals by {by} are in no figure: count them with Events"),
        };
        self.expect(&format!("refusals by {by}"), expected, found)
    }

    /// Nobody is inside, and nobody waits for a place.
    #[track_caller]
    pub fn nothing_in_flight(&self) -> &Self {
        let figures = &self.figures;
        let bulkhead = figures.bulkhead.as_ref();
        let found = [
            bulkhead.map_or(0, |bulkhead| bulkhead.in_flight),
            bulkhead.map_or(0, |bulkhead| bulkhead.queued),
            figures.concurrency_limit.as_ref().map_or(0, |limit| limit.in_flight),
        ];
        if figures.bulkhead.is_none() && figures.concurrency_limit.is_none() {
            self.fail("calls in flight are counted by a bulkhead or a concurrency limit, and there is none");
        }
        self.expect(
            "calls in the bulkhead, in its queue, in the concurrency limit",
            [0; 3],
            found,
        )
    }

    #[track_caller]
    fn breaker(&self) -> &BreakerSnapshot {
        self.part("breaker", self.figures.breaker.as_ref())
    }

    #[track_caller]
    fn part<'a, P>(&self, name: &str, part: Option<&'a P>) -> &'a P {
        part.unwrap_or_else(|| self.fail(&format!("there is no {name}")))
    }

    #[track_caller]
    fn expect<V: PartialEq + Debug>(&self, what: &str, expected: V, found: V) -> &Self {
        if found != expected {
            self.fail(&format!("{what}: expected {expected:?}, found {found:?}"));
        }
        self
    }

    #[track_caller]
    fn fail(&self, problem: &str) -> ! {
        panic!("policy {}: {problem}\n{self}", self.figures.name);
    }
}

/// The figures, a line for each part that there is.
impl fmt::Display for Assert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let mut text = String::new();
        let mut line = |name: &str, part: Option<&dyn Debug>| match part {
            Some(part) => writeln!(text, "  {name}: {part:?}"),
            None => Ok(()),
        };
        let limits = (figures.attempt_timeouts, figures.total_timeouts);
        line("timeouts of attempts and calls", Some(&limits))?;
        line("fallbacks", Some(&figures.fallbacks))?;
        line("breaker", figures.breaker.as_ref().map(|part| part as _))?;
        line("bulkhead", figures.bulkhead.as_ref().map(|part| part as _))?;
        line("retry", figures.retry.as_ref().map(|part| part as _))?;
        line("hedge", figures.hedge.as_ref().map(|part| part as _))?;
        line("throttle", figures.throttle.as_ref().map(|part| part as _))?;
        line("rate limit", figures.rate_limit.as_ref().map(|part| part as _))?;
        let limit = figures.concurrency_limit.as_ref();
        line("concurrency limit", limit.map(|part| part as _))?;
        f.write_str(text.trim_end())
    }
}
