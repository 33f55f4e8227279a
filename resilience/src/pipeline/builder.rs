//! Describes a policy in code: settings, and what cannot stand in a text, such as a shared budget or a listener.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::settings::PipelineSettings;
use super::stage::{Part, Stage, TimeLimit};
use super::{Inner, Pipeline};
use crate::adaptive::{AdaptiveLimit, AdaptiveSettings};
use crate::breaker::BreakerBuilder;
use crate::budget::Budget;
use crate::bulkhead::{Bulkhead, BulkheadSettings};
use crate::error::BuildError;
use crate::event::Listener;
use crate::hedge::{HedgeSettings, Hedger};
use crate::rate::{RateLimit, RateLimitSettings};
use crate::retry::{Retrier, Retry};
use crate::throttle::{Throttle, ThrottleSettings};

/// Describes a policy; see [`Pipeline::standard`] and [`Pipeline::builder`].
#[derive(Clone)]
#[must_use]
pub struct PipelineBuilder {
    name: Arc<str>,
    settings: PipelineSettings,
    /// A budget that other policies use too.
    budget: Option<Budget>,
    breaker: Option<BreakerBuilder>,
    around: Vec<Pipeline>,
    listener: Option<Arc<dyn Listener>>,
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl PipelineBuilder {
    pub(super) fn new(name: Arc<str>, settings: PipelineSettings) -> Self {
        Self {
            name,
            settings,
            budget: None,
            breaker: None,
            around: Vec::new(),
            listener: None,
        }
    }

    /// Time for the call with all its attempts and waits.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout.total = Some(limit);
        self
    }

    /// Time for one attempt.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout.attempt = Some(limit);
        self
    }

    /// Retries.
    pub fn retry(mut self, retry: Retry) -> Self {
        let (settings, budget) = retry.into_parts();
        self.settings.retry = Some(settings);
        self.budget = budget;
        self
    }

    /// No retries.
    pub fn without_retry(mut self) -> Self {
        self.settings.retry = None;
        self
    }

    /// Another attempt beside a slow one.
    pub fn hedge(mut self, hedge: HedgeSettings) -> Self {
        self.settings.hedge = Some(hedge);
        self
    }

    /// Asks a dependency less that refuses much.
    pub fn throttle(mut self, throttle: ThrottleSettings) -> Self {
        self.settings.throttle = Some(throttle);
        self
    }

    /// A breaker of its own.
    pub fn breaker(mut self, breaker: BreakerBuilder) -> Self {
        self.settings.breaker = Some(breaker.plain().clone());
        self.breaker = Some(breaker);
        self
    }

    /// No breaker.
    pub fn without_breaker(mut self) -> Self {
        self.settings.breaker = None;
        self.breaker = None;
        self
    }

    /// Looks at the breaker also before anything else is done for a call: a call that is going to be refused takes no place
    /// in the bulkhead and counts in no budget.
    pub fn gate(mut self) -> Self {
        self.settings.gate = true;
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
        self.settings.bulkhead = Some(settings);
        self
    }

    /// No bulkhead.
    pub fn without_bulkhead(mut self) -> Self {
        self.settings.bulkhead = None;
        self
    }

    /// So many calls in a time.
    pub fn rate_limit(mut self, settings: RateLimitSettings) -> Self {
        self.settings.rate_limit = Some(settings);
        self
    }

    /// A limit of calls at one time that finds itself.
    pub fn concurrency_limit(mut self, settings: AdaptiveSettings) -> Self {
        self.settings.concurrency_limit = Some(settings);
        self
    }

    /// Another order than [`Part::STANDARD`]: every part that the policy has, the outermost first.
    pub fn order(mut self, order: impl IntoIterator<Item = Part>) -> Self {
        self.settings.order = Some(order.into_iter().collect());
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
    /// Those of [`PipelineSettings::check`].
    pub fn build(self) -> Result<Pipeline, BuildError> {
        self.settings.check(&self.name)?;
        let warnings = self.warnings();
        for warning in &warnings {
            tracing::warn!(name = &*self.name, "{warning}");
        }
        let parts = self.settings.parts(&self.name)?;
        let stages = self.stages(&parts)?;
        Ok(Pipeline {
            inner: Arc::new(Inner {
                name: self.name,
                hedge: stages.iter().position(|stage| stage.part() == Part::Hedge),
                retry: stages.iter().position(|stage| stage.part() == Part::Retry),
                exact: AtomicBool::new(self.settings.timeout.need_exact_clock()),
                stages: stages.into_boxed_slice(),
                settings: Mutex::new(self.settings),
                listener: self.listener,
                timeouts: std::array::from_fn(|_| AtomicU64::new(0)),
                fallbacks: Default::default(),
                warnings,
                nested: AtomicBool::new(false),
            }),
        })
    }

    fn stages(&self, parts: &[Part]) -> Result<Vec<Stage>, BuildError> {
        let settings = &self.settings;
        let name = || Arc::clone(&self.name);
        // The gate and the breaker are one object.
        let breaker = match (&self.breaker, &settings.breaker) {
            (Some(builder), _) => Some(builder.clone()),
            (None, Some(settings)) => Some(crate::Breaker::builder(name()).settings(settings.clone())),
            (None, None) => None,
        };
        let breaker = breaker
            .map(|breaker| {
                breaker
                    .shared_listener(self.listener.clone())
                    .attempt_limit(settings.timeout.attempt)
                    .build()
            })
            .transpose()?;
        let mut stages = Vec::with_capacity(parts.len());
        for part in parts {
            let stage = match part {
                Part::Deadline => Some(Stage::Deadline(TimeLimit::new(settings.timeout.total))),
                Part::AttemptTimeout => Some(Stage::AttemptTimeout(TimeLimit::new(settings.timeout.attempt))),
                Part::Gate => breaker.clone().map(Stage::Gate),
                Part::Breaker => breaker.clone().map(Stage::Breaker),
                Part::Bulkhead => match &settings.bulkhead {
                    Some(settings) => Some(Stage::Bulkhead(Bulkhead::from_settings(name(), settings)?)),
                    None => None,
                },
                Part::Retry => match &settings.retry {
                    Some(settings) => Some(Stage::Retry(Retrier::new(
                        &self.name,
                        settings.clone(),
                        self.budget.clone(),
                    )?)),
                    None => None,
                },
                Part::Hedge => settings.hedge.clone().map(|hedge| Stage::Hedge(Hedger::new(hedge))),
                Part::Throttle => match &settings.throttle {
                    Some(settings) => Some(Stage::Throttle(Throttle::new(name(), settings.clone())?)),
                    None => None,
                },
                Part::RateLimit => match &settings.rate_limit {
                    Some(settings) => Some(Stage::RateLimit(RateLimit::new(name(), settings.clone())?)),
                    None => None,
                },
                Part::ConcurrencyLimit => match &settings.concurrency_limit {
                    Some(settings) => Some(Stage::ConcurrencyLimit(AdaptiveLimit::new(name(), settings.clone())?)),
                    None => None,
                },
                #[cfg(feature = "fault-injection")]
                Part::Faults => Some(Stage::Faults(crate::Faults::new(name()))),
                #[cfg(not(feature = "fault-injection"))]
                Part::Faults => None,
            };
            stages.extend(stage);
        }
        Ok(stages)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.settings.doubts();
        if self.settings.retry.is_some() {
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
