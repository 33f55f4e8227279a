//! The time after a promotion: the new version has all traffic and is judged by the objectives, since there is nothing
//! left to compare it with. An objective that the old version was seen to miss is no ground to go back to it: there the
//! bar is what the old version did.

use crate::analysis::bound::ln_evidence_over;
use crate::analysis::{Arm, FAIL_NULL, MetricEvidence, MetricKind, Settings, Traffic};
use crate::spec::Spec;
use serde::{Deserialize, Serialize};

/// What the new version did since its promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bake {
    settings: Settings,
    metrics: Vec<Metric>,
}

/// One metric against its objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Which.
    pub metric: MetricKind,
    /// Ratio of bad answers that is allowed: that of the objective, or what an old version that missed it did.
    pub allowed_ratio: f64,
    /// Counts since the promotion.
    pub counts: Arm,
    /// Intervals with bad answers.
    pub bad_intervals: u32,
}

impl Metric {
    /// `ln e` that the objective is missed.
    pub fn missed_ln_e(&self) -> f64 {
        ln_evidence_over(self.allowed_ratio, self.counts.requests, self.counts.bad)
    }
}

impl Bake {
    /// Nothing seen yet.
    pub fn new(spec: &Spec) -> Self {
        let metric = |metric, allowed_ratio| Metric {
            metric,
            allowed_ratio,
            counts: Arm::default(),
            bad_intervals: 0,
        };
        let mut metrics = vec![metric(MetricKind::Errors, spec.errors_allowed_ratio)];
        metrics.extend(
            spec.slow_allowed_ratio
                .map(|allowed| metric(MetricKind::Latency, allowed)),
        );
        Self {
            settings: spec.settings,
            metrics,
        }
    }

    /// The promotion, with what was seen until then. Where the old version missed an objective, by the test that the new
    /// one will be put to, the new one may do as badly: up to the odds of the fail test, within which rates wander.
    pub fn begin(&mut self, seen: &[MetricEvidence]) {
        let threshold = self.threshold();
        for metric in &mut self.metrics {
            let Some(old) = seen.iter().find(|s| s.metric == metric.metric).map(|s| s.stable) else {
                continue;
            };
            let missed = ln_evidence_over(metric.allowed_ratio, old.requests, old.bad) >= threshold;
            if let (true, Some(ratio)) = (missed, old.ratio()) {
                let odds = FAIL_NULL * ratio / (1.0 - ratio).max(f64::MIN_POSITIVE);
                metric.allowed_ratio = metric.allowed_ratio.max(odds / (1.0 + odds));
            }
        }
    }

    /// Takes in one interval.
    pub fn add(&mut self, traffic: Traffic) {
        for metric in &mut self.metrics {
            let bad = match metric.metric {
                MetricKind::Errors => traffic.errors,
                MetricKind::Latency => traffic.slow,
            };
            let arm = Arm::new(traffic.requests, bad);
            metric.counts.requests += arm.requests;
            metric.counts.bad += arm.bad;
            metric.bad_intervals += u32::from(bad > 0);
        }
    }

    /// Whether an objective is missed: same levels as the fail test.
    pub fn missed(&self) -> bool {
        let threshold = self.threshold();
        self.metrics.iter().any(|metric| {
            let evidence = metric.missed_ln_e();
            let sustained = metric.bad_intervals >= self.settings.fail_intervals;
            evidence >= self.settings.fast_path.ln() || (sustained && evidence >= threshold)
        })
    }

    /// `ln e` from which an objective counts as missed: the fail test's level, shared by the metrics.
    fn threshold(&self) -> f64 {
        (self.metrics.len() as f64 / self.settings.fail_alpha).ln()
    }

    /// One for each objective.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}
