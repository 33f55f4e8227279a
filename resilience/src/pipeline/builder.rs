//! Describes a policy, and refuses what makes no sense alone or together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::stage::{Part, Stage, TimeLimit};
use super::{Inner, Pipeline};
use crate::breaker::{Breaker, BreakerBuilder};
use crate::bulkhead::{Bulkhead, BulkheadSettings};
use crate::error::BuildError;
use crate::event::Listener;
use crate::hedge::{HedgeSettings, Hedger};
use crate::retry::{Retrier, Retry};

/// Describes a policy; see [`Pipeline::standard`] and [`Pipeline::builder`].
#[derive(Clone)]
#[must_use]
pub struct PipelineBuilder {
    name: Arc<str>,
    total: Option<Duration>,
    attempt: Option<Duration>,
    gate: bool,
    bulkhead: Option<BulkheadSettings>,
    retry: Option<Retry>,
    hedge: Option<HedgeSettings>,
    breaker: Option<BreakerBuilder>,
    order: Option<Vec<Part>>,
    around: Vec<Pipeline>,
    listener: Option<Arc<dyn Listener>>,
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl PipelineBuilder {
    pub(super) fn empty(name: Arc<str>) -> Self {
        Self {
            name,
            total: None,
            attempt: None,
            gate: false,
            bulkhead: None,
            retry: None,
            hedge: None,
            breaker: None,
            order: None,
            around: Vec::new(),
            listener: None,
        }
    }

    pub(super) fn standard(name: Arc<str>) -> Self {
        let breaker = Breaker::builder(Arc::clone(&name));
        Self::empty(name)
            .total_timeout(Duration::from_secs(30))
            .attempt_timeout(Duration::from_secs(10))
            .retry(Retry::default())
            .breaker(breaker)
            .bulkhead(100, 100)
    }

    /// Time for the call with all its attempts and waits.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Time for one attempt.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt = Some(limit);
        self
    }

    /// Retries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// No retries.
    pub fn without_retry(mut self) -> Self {
        self.retry = None;
        self
    }

    /// Another attempt beside a slow one.
    pub fn hedge(mut self, hedge: HedgeSettings) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// A breaker of its own.
    pub fn breaker(mut self, breaker: BreakerBuilder) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// No breaker.
    pub fn without_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// Looks at the breaker also before anything else is done for a call: a call that is going to be refused takes no place
    /// in the bulkhead and counts in no budget.
    pub fn gate(mut self) -> Self {
        self.gate = true;
        self
    }

    /// `limit` calls at one time and `queue` more waiting.
    pub fn bulkhead(self, limit: usize, queue: usize) -> Self {
        self.bulkhead_with(BulkheadSettings {
            limit,
            queue,
            max_wait: None,
        })
    }

    /// As [`PipelineBuilder::bulkhead`], with a longest wait.
    pub fn bulkhead_with(mut self, settings: BulkheadSettings) -> Self {
        self.bulkhead = Some(settings);
        self
    }

    /// No bulkhead.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = None;
        self
    }

    /// Another order than [`Part::STANDARD`]: every part that the policy has, the outermost first.
    pub fn order(mut self, order: impl IntoIterator<Item = Part>) -> Self {
        self.order = Some(order.into_iter().collect());
        self
    }

    /// Says that what is called under this policy calls under another one, so that the two can be checked together.
    pub fn around(mut self, inner: &Pipeline) -> Self {
        self.around.push(inner.clone());
        self
    }

    /// Is told of everything that happens.
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The policy. What is allowed but doubtful becomes a warning: see [`Pipeline::warnings`].
    ///
    /// # Errors
    /// Settings that make no sense alone or together, with the name of the key: an attempt longer than the total, a
    /// breaker's window shorter than two attempts, a ratio outside (0, 1], no probes, no places, an order that names a
    /// part twice or leaves one out.
    pub fn build(self) -> Result<Pipeline, BuildError> {
        self.check()?;
        let warnings = self.warnings();
        for warning in &warnings {
            tracing::warn!(name = &*self.name, "{warning}");
        }
        let order = self.ordered()?;
        let mut breaker = match self.breaker {
            Some(breaker) => Some(
                breaker
                    .shared_listener(self.listener.clone())
                    .attempt_limit(self.attempt)
                    .build()?,
            ),
            None => None,
        };
        let (mut retry, mut hedge) = (self.retry, self.hedge);
        let mut stages = Vec::with_capacity(order.len());
        for part in &order {
            stages.extend(match part {
                Part::Deadline => Some(Stage::Deadline(TimeLimit::new(self.total))),
                Part::Gate => breaker.clone().map(Stage::Gate),
                Part::Bulkhead => match &self.bulkhead {
                    Some(settings) => Some(Stage::Bulkhead(Bulkhead::from_settings(
                        Arc::clone(&self.name),
                        settings,
                    )?)),
                    None => None,
                },
                Part::Retry => retry.take().map(|retry| Stage::Retry(Retrier::new(retry))),
                Part::Hedge => hedge.take().map(|hedge| Stage::Hedge(Hedger::new(hedge))),
                Part::Breaker => breaker.take().map(Stage::Breaker),
                Part::AttemptTimeout => Some(Stage::AttemptTimeout(TimeLimit::new(self.attempt))),
            });
        }
        Ok(Pipeline {
            inner: Arc::new(Inner {
                name: self.name,
                hedge: order.iter().position(|part| *part == Part::Hedge),
                stages: stages.into_boxed_slice(),
                listener: self.listener,
                timeouts: std::array::from_fn(|_| AtomicU64::new(0)),
                fallbacks: AtomicU64::new(0),
                warnings,
                nested: AtomicBool::new(false),
            }),
        })
    }

    /// The parts that there are. The caller's deadline always counts, so its part is always there.
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Deadline => true,
            Part::Gate => self.gate && self.breaker.is_some(),
            Part::Bulkhead => self.bulkhead.is_some(),
            Part::Retry => self.retry.is_some(),
            Part::Hedge => self.hedge.is_some(),
            Part::Breaker => self.breaker.is_some(),
            Part::AttemptTimeout => self.attempt.is_some(),
        }
    }

    fn ordered(&self) -> Result<Vec<Part>, BuildError> {
        let standard: Vec<Part> = Part::STANDARD.into_iter().filter(|part| self.has(*part)).collect();
        let Some(order) = &self.order else {
            return Ok(standard);
        };
        let refuse = |problem: String| Err(BuildError::new(&self.name, "order", problem));
        for (at, part) in order.iter().enumerate() {
            if order[..at].contains(part) {
                return refuse(format!("names {} twice", part.as_str()));
            }
            if !self.has(*part) {
                return refuse(format!("names {}, which the policy does not have", part.as_str()));
            }
        }
        if let Some(missing) = standard.iter().find(|part| !order.contains(part)) {
            return refuse(format!("leaves out {}", missing.as_str()));
        }
        let place = |wanted| order.iter().position(|part| *part == wanted);
        if place(Part::Gate).is_some() && place(Part::Gate) > place(Part::Breaker) {
            return refuse("has gate behind breaker, where it sees nothing new".to_owned());
        }
        Ok(order.clone())
    }

    fn check(&self) -> Result<(), BuildError> {
        let refuse = |key: &str, problem: &str| Err(BuildError::new(&self.name, key, problem));
        for (key, limit) in [("timeout.total", self.total), ("timeout.attempt", self.attempt)] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                return refuse(key, "must be above zero");
            }
        }
        if let (Some(attempt), Some(total)) = (self.attempt, self.total) {
            if attempt > total {
                return refuse("timeout.attempt", "must not be longer than timeout.total");
            }
        }
        if let Some(retry) = &self.retry {
            retry.check(&self.name)?;
        }
        if let Some(hedge) = &self.hedge {
            hedge.check(&self.name)?;
            if self.total.is_some_and(|total| hedge.delay >= total) {
                return refuse("hedge.delay", "must be shorter than timeout.total");
            }
        }
        let window = self.breaker.as_ref().and_then(BreakerBuilder::window_length);
        if let (Some(attempt), Some(window)) = (self.attempt, window) {
            if window < attempt.saturating_mul(2) {
                return refuse("breaker.window", "must be at least twice timeout.attempt");
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let place = |wanted| {
            let order = self.order.as_deref().unwrap_or(&Part::STANDARD);
            order.iter().position(|part| *part == wanted)
        };
        if self.breaker.is_some() {
            if self.attempt.is_none() {
                warnings.push("breaker without timeout.attempt: it never learns of calls that hang".to_owned());
            } else if place(Part::AttemptTimeout) < place(Part::Breaker) {
                warnings.push("attempt_timeout outside of breaker: it never learns of calls that hang".to_owned());
            }
        }
        if let Some(retry) = &self.retry {
            match (self.total, self.attempt) {
                (None, _) => warnings.push("retry without timeout.total: nothing bounds a call as a whole".to_owned()),
                (Some(total), Some(attempt)) => {
                    let longest = retry.longest(attempt);
                    if longest > total {
                        warnings.push(format!(
                            "retry may take {longest:?}, timeout.total is {total:?}: the last attempts are cut short"
                        ));
                    }
                }
                (Some(_), None) => {}
            }
            for inner in &self.around {
                if inner.inner.retrier().is_some_and(Retrier::repeats) {
                    let inner = inner.name();
                    warnings.push(format!(
                        "retry around the policy {inner}, which retries too: the attempts multiply"
                    ));
                }
            }
        }
        warnings
    }
}
