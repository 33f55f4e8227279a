//! Policies: one entry a kind of policy, one line a metric. What a policy does not have is not exported; what it has is
//! there with 0 before the first call. Nothing is counted here, and no label comes from a call.

use resilience::{
    AdaptiveSnapshot, BreakerSnapshot, BudgetSnapshot, BulkheadSnapshot, ConsumerSnapshot, HedgeSnapshot,
    KeyedRateLimitSnapshot, PipelineSnapshot, RateLimitSnapshot, RetrySnapshot, ShedSnapshot, StaleSnapshot, State,
    ThrottleSnapshot,
};

use crate::metrics::Metrics;

/// Exports what `read` returns at each scrape.
pub(crate) fn watch<F: Figures>(metrics: &Metrics, name: &str, read: impl Fn() -> F + Send + Sync + 'static) {
    let name = name.to_owned();
    metrics.on_scrape(move |metrics| read().export(&Out { metrics, name: &name }));
}

/// A snapshot that can be exported as metrics: every one that a policy of `resilience` gives.
#[expect(private_bounds, reason = "what a snapshot becomes is decided here alone")]
pub trait Figures: Export {}

impl<F: Export> Figures for F {}

trait Export {
    fn export(&self, out: &Out<'_>);
}

impl<E: Export> Export for Option<E> {
    fn export(&self, out: &Out<'_>) {
        if let Some(figures) = self {
            figures.export(out);
        }
    }
}

impl Export for PipelineSnapshot {
    fn export(&self, out: &Out<'_>) {
        self.breaker.export(out);
        self.retry.export(out);
        self.bulkhead.export(out);
        self.hedge.export(out);
        self.throttle.export(out);
        self.rate_limit.export(out);
        self.concurrency_limit.export(out);
        out.total_of(catalogue::TIMEOUTS_TOTAL, "attempt", self.attempt_timeouts);
        out.total_of(catalogue::TIMEOUTS_TOTAL, "total", self.total_timeouts);
        out.totals_of(catalogue::FALLBACK_TOTAL, self.fallbacks.iter().copied());
        out.gauge(catalogue::FAULTS_ACTIVE, self.active_faults as f64);
    }
}

impl Export for BreakerSnapshot {
    fn export(&self, out: &Out<'_>) {
        // Every state, so that exactly one of them is 1 at any time, before the first call too.
        for state in State::ALL {
            let value = f64::from(u8::from(state == self.state));
            out.gauge_of(catalogue::CIRCUIT_BREAKER_STATE, state.as_str(), value);
        }
        for from in State::ALL {
            for to in State::ALL {
                out.change(from, to, self.transitions[from as usize][to as usize]);
            }
        }
        let calls = &self.calls;
        let outcomes = [
            ("success", calls.success),
            ("failure", calls.failure),
            ("slow", calls.slow),
            ("ignored", calls.ignored),
            ("cancelled", calls.cancelled),
            ("stale", calls.stale),
            ("rejected", calls.rejected),
            ("spared", calls.spared),
        ];
        out.totals_of(catalogue::CIRCUIT_BREAKER_CALLS_TOTAL, outcomes);
        out.gauge(catalogue::CIRCUIT_BREAKER_FAILURE_RATIO, self.failure_ratio);
    }
}

impl Export for RetrySnapshot {
    fn export(&self, out: &Out<'_>) {
        out.totals_of(catalogue::RETRY_ATTEMPTS_TOTAL, self.retries.iter().copied());
        self.budget.export(out);
    }
}

impl Export for BudgetSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.total(catalogue::RETRY_BUDGET_EXHAUSTED_TOTAL, self.exhausted);
        out.gauge(catalogue::RETRY_BUDGET_RATIO, self.ratio);
        out.gauge(catalogue::RETRY_BUDGET_LEFT, self.left as f64);
    }
}

impl Export for BulkheadSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.gauge(catalogue::BULKHEAD_IN_FLIGHT, self.in_flight as f64);
        out.gauge(catalogue::BULKHEAD_QUEUED, self.queued as f64);
        out.gauge(catalogue::BULKHEAD_LIMIT, self.limit as f64);
        out.total(catalogue::BULKHEAD_REJECTED_TOTAL, self.rejected);
    }
}

impl Export for HedgeSnapshot {
    fn export(&self, out: &Out<'_>) {
        // One that runs still has not won.
        let lost = self.hedges.saturating_sub(self.won);
        out.totals_of(catalogue::HEDGES_TOTAL, [("true", self.won), ("false", lost)]);
    }
}

impl Export for ThrottleSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.total(catalogue::THROTTLE_REJECTED_TOTAL, self.rejected);
        out.gauge(catalogue::THROTTLE_REJECT_RATIO, self.reject_probability);
    }
}

impl Export for RateLimitSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.total(catalogue::RATE_LIMIT_REJECTED_TOTAL, self.rejected);
    }
}

impl Export for KeyedRateLimitSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.total(catalogue::RATE_LIMIT_REJECTED_TOTAL, self.rejected);
        out.gauge(catalogue::RATE_LIMIT_KEYS, self.keys as f64);
        out.total(catalogue::RATE_LIMIT_OVERFLOWED_TOTAL, self.overflowed);
    }
}

impl Export for AdaptiveSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.gauge(catalogue::CONCURRENCY_LIMIT, self.limit as f64);
        out.gauge(catalogue::CONCURRENCY_LIMIT_IN_FLIGHT, self.in_flight as f64);
        out.total(catalogue::CONCURRENCY_LIMIT_REJECTED_TOTAL, self.rejected);
        out.total(catalogue::CONCURRENCY_LIMIT_DROPPED_TOTAL, self.dropped);
    }
}

impl Export for ShedSnapshot {
    fn export(&self, out: &Out<'_>) {
        let shed = self.shed.iter().map(|(priority, count)| (*priority, *count));
        out.totals_of(catalogue::SHED_TOTAL, shed);
        out.gauge(catalogue::SHED_IN_FLIGHT, self.in_flight as f64);
        if let Some(limit) = self.limit {
            out.gauge(catalogue::SHED_LIMIT, limit as f64);
        }
    }
}

impl Export for StaleSnapshot {
    fn export(&self, out: &Out<'_>) {
        out.totals_of(catalogue::FALLBACK_TOTAL, self.fallbacks.iter().copied());
        out.gauge(catalogue::STALE_ENTRIES, self.entries as f64);
        out.total(catalogue::STALE_MISSED_TOTAL, self.missed);
    }
}

impl Export for ConsumerSnapshot {
    fn export(&self, out: &Out<'_>) {
        let outcomes = [
            ("acked", self.acked),
            ("nacked", self.nacked),
            ("dead_lettered", self.dead_lettered),
            ("paused", self.paused),
        ];
        out.totals_of(catalogue::CONSUMER_MESSAGES_TOTAL, outcomes);
        out.gauge(catalogue::CONSUMER_PAUSED, f64::from(u8::from(self.is_paused)));
    }
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

    fn totals_of<'l>(&self, handle: catalogue::Counter<2>, counts: impl IntoIterator<Item = (&'l str, u64)>) {
        for (label, count) in counts {
            self.total_of(handle, label, count);
        }
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
