//! From the snapshots of our other libraries to metrics, read at each scrape. They know nothing of metrics.

#[cfg(feature = "health")]
pub(crate) use of_health::health;

#[cfg(feature = "resilience")]
pub(crate) use of_resilience::policy;

#[cfg(feature = "resilience")]
mod of_resilience {
    //! Policies as `circuit_breaker_*`, `retry_*`, `timeouts_total`, `bulkhead_*`.

    use resilience::{Pipeline, State};

    use crate::metrics::Metrics;

    pub(crate) fn policy(metrics: &Metrics, policy: &Pipeline) {
        let policy = policy.clone();
        metrics.on_scrape(move |metrics| {
            let snapshot = policy.snapshot();
            let name = snapshot.name.as_str();
            if let Some(breaker) = &snapshot.breaker {
                for state in State::ALL {
                    let value = f64::from(u8::from(state == breaker.state));
                    metrics
                        .gauge(catalogue::CIRCUIT_BREAKER_STATE, [name, state.as_str()])
                        .set(value);
                    for to in State::ALL {
                        let count = breaker.transitions[state as usize][to as usize];
                        if count > 0 {
                            metrics
                                .counter(
                                    catalogue::CIRCUIT_BREAKER_TRANSITIONS_TOTAL,
                                    [name, state.as_str(), to.as_str()],
                                )
                                .set_total(count as f64);
                        }
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
                    metrics
                        .counter(catalogue::CIRCUIT_BREAKER_CALLS_TOTAL, [name, outcome])
                        .set_total(count as f64);
                }
                metrics
                    .gauge(catalogue::CIRCUIT_BREAKER_FAILURE_RATIO, [name])
                    .set(breaker.failure_ratio);
            }
            if let Some(retry) = &snapshot.retry {
                for (reason, count) in &retry.retries {
                    metrics
                        .counter(catalogue::RETRY_ATTEMPTS_TOTAL, [name, reason])
                        .set_total(*count as f64);
                }
                if let Some(budget) = &retry.budget {
                    metrics
                        .counter(catalogue::RETRY_BUDGET_EXHAUSTED_TOTAL, [name])
                        .set_total(budget.exhausted as f64);
                    metrics.gauge(catalogue::RETRY_BUDGET_RATIO, [name]).set(budget.ratio);
                }
            }
            for (scope, count) in [
                ("attempt", snapshot.attempt_timeouts),
                ("total", snapshot.total_timeouts),
            ] {
                metrics
                    .counter(catalogue::TIMEOUTS_TOTAL, [name, scope])
                    .set_total(count as f64);
            }
            if let Some(bulkhead) = &snapshot.bulkhead {
                metrics
                    .gauge(catalogue::BULKHEAD_IN_FLIGHT, [name])
                    .set(bulkhead.in_flight as f64);
                metrics
                    .gauge(catalogue::BULKHEAD_QUEUED, [name])
                    .set(bulkhead.queued as f64);
                metrics
                    .gauge(catalogue::BULKHEAD_LIMIT, [name])
                    .set(bulkhead.limit as f64);
                metrics
                    .counter(catalogue::BULKHEAD_REJECTED_TOTAL, [name])
                    .set_total(bulkhead.rejected as f64);
            }
        });
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
