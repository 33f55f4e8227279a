//! From the snapshots of our other libraries to metrics, read at each scrape. They know nothing of metrics.

#[cfg(feature = "health")]
pub(crate) use of_health::health;

#[cfg(feature = "resilience")]
pub(crate) use of_resilience::policy;

#[cfg(feature = "resilience")]
mod of_resilience {
    //! Policies: one function a kind of policy, one line a metric. What a policy does not have is not exported; what it
    //! has is there with 0 before the first call.

    use resilience::{
        BreakerSnapshot, BudgetSnapshot, BulkheadSnapshot, Pipeline, PipelineSnapshot, RetrySnapshot, State,
    };

    use crate::metrics::Metrics;

    pub(crate) fn policy(metrics: &Metrics, policy: &Pipeline) {
        let policy = policy.clone();
        metrics.on_scrape(move |metrics| {
            let snapshot = policy.snapshot();
            let out = Out {
                metrics,
                name: &snapshot.name,
            };
            pipeline(&out, &snapshot);
        });
    }

    fn pipeline(out: &Out<'_>, policy: &PipelineSnapshot) {
        policy.breaker.iter().for_each(|snapshot| breaker(out, snapshot));
        policy.retry.iter().for_each(|snapshot| retry(out, snapshot));
        policy.bulkhead.iter().for_each(|snapshot| bulkhead(out, snapshot));
        out.total_of(catalogue::TIMEOUTS_TOTAL, "attempt", policy.attempt_timeouts);
        out.total_of(catalogue::TIMEOUTS_TOTAL, "total", policy.total_timeouts);
        out.total(catalogue::FALLBACK_TOTAL, policy.fallbacks);
    }

    fn breaker(out: &Out<'_>, breaker: &BreakerSnapshot) {
        // Every state, so that exactly one of them is 1 at any time, before the first call too.
        for state in State::ALL {
            let value = f64::from(u8::from(state == breaker.state));
            out.gauge_of(catalogue::CIRCUIT_BREAKER_STATE, state.as_str(), value);
        }
        for from in State::ALL {
            for to in State::ALL {
                out.change(from, to, breaker.transitions[from as usize][to as usize]);
            }
        }
        let calls = &breaker.calls;
        for (outcome, count) in [
            ("success", calls.success),
            ("failure", calls.failure),
            ("slow", calls.slow),
            ("ignored", calls.ignored),
            ("cancelled", calls.cancelled),
            ("stale", calls.stale),
            ("rejected", calls.rejected),
        ] {
            out.total_of(catalogue::CIRCUIT_BREAKER_CALLS_TOTAL, outcome, count);
        }
        out.gauge(catalogue::CIRCUIT_BREAKER_FAILURE_RATIO, breaker.failure_ratio);
    }

    fn retry(out: &Out<'_>, retry: &RetrySnapshot) {
        for (reason, count) in &retry.retries {
            out.total_of(catalogue::RETRY_ATTEMPTS_TOTAL, reason, *count);
        }
        retry.budget.iter().for_each(|snapshot| budget(out, snapshot));
    }

    fn budget(out: &Out<'_>, budget: &BudgetSnapshot) {
        out.total(catalogue::RETRY_BUDGET_EXHAUSTED_TOTAL, budget.exhausted);
        out.gauge(catalogue::RETRY_BUDGET_RATIO, budget.ratio);
    }

    fn bulkhead(out: &Out<'_>, bulkhead: &BulkheadSnapshot) {
        out.gauge(catalogue::BULKHEAD_IN_FLIGHT, bulkhead.in_flight as f64);
        out.gauge(catalogue::BULKHEAD_QUEUED, bulkhead.queued as f64);
        out.gauge(catalogue::BULKHEAD_LIMIT, bulkhead.limit as f64);
        out.total(catalogue::BULKHEAD_REJECTED_TOTAL, bulkhead.rejected);
    }

    /// Series of one policy: `name` is their first label.
    struct Out<'a> {
        metrics: &'a Metrics,
        name: &'a str,
    }

    impl Out<'_> {
        fn gauge(&self, handle: catalogue::Gauge<1>, value: f64) {
            self.metrics.gauge(handle, [self.name]).set(value);
        }

        fn gauge_of(&self, handle: catalogue::Gauge<2>, label: &str, value: f64) {
            self.metrics.gauge(handle, [self.name, label]).set(value);
        }

        fn total(&self, handle: catalogue::Counter<1>, count: u64) {
            self.metrics.counter(handle, [self.name]).set_total(count as f64);
        }

        fn total_of(&self, handle: catalogue::Counter<2>, label: &str, count: u64) {
            self.metrics.counter(handle, [self.name, label]).set_total(count as f64);
        }

        /// A change of state that has happened: most of the 25 never can.
        fn change(&self, from: State, to: State, count: u64) {
            if count > 0 {
                let labels = [self.name, from.as_str(), to.as_str()];
                self.metrics
                    .counter(catalogue::CIRCUIT_BREAKER_TRANSITIONS_TOTAL, labels)
                    .set_total(count as f64);
            }
        }
    }
}

#[cfg(feature = "health")]
mod of_health {
    //! Health as `health_*`.

    use health::{Health, State, Status};

    use crate::metrics::Metrics;

    pub(crate) fn health(metrics: &Metrics, health: &Health) {
        let health = health.clone();
        metrics.on_scrape(move |metrics| {
            let snapshot = health.snapshot();
            for state in State::ALL {
                let value = f64::from(u8::from(state == snapshot.state));
                metrics.gauge(catalogue::HEALTH_STATUS, [state.as_str()]).set(value);
            }
            for check in &snapshot.checks {
                let up = f64::from(u8::from(check.status != Status::Fail));
                metrics.gauge(catalogue::HEALTH_CHECK_UP, [&check.name]).set(up);
                metrics
                    .gauge(catalogue::HEALTH_CHECK_DURATION_SECONDS, [&check.name])
                    .set(check.duration_seconds);
                let last = check.last_success.map_or(0.0, |at| at.as_millisecond() as f64 / 1e3);
                metrics
                    .gauge(catalogue::HEALTH_CHECK_LAST_SUCCESS_TIMESTAMP_SECONDS, [&check.name])
                    .set(last);
                for (to, count) in [Status::Pass, Status::Warn, Status::Fail]
                    .into_iter()
                    .zip(check.transitions)
                {
                    metrics
                        .counter(catalogue::HEALTH_TRANSITIONS_TOTAL, [&check.name, to.as_str()])
                        .set_total(count as f64);
                }
            }
        });
    }
}
