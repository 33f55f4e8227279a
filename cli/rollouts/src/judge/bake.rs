//! The time after a promotion: the new version has all traffic and is judged by the objectives alone, since there is
//! nothing left to compare it with.

use crate::analysis::bound::ln_evidence_over;
use crate::analysis::{Arm, MetricKind, Settings, Traffic};
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
    /// Ratio of bad answers that the objective allows.
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
        let threshold = (self.metrics.len() as f64 / self.settings.fail_alpha).ln();
        self.metrics.iter().any(|metric| {
            let evidence = metric.missed_ln_e();
            let sustained = metric.bad_intervals >= self.settings.fail_intervals;
            evidence >= self.settings.fast_path.ln() || (sustained && evidence >= threshold)
        })
    }

    /// One for each objective.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}
