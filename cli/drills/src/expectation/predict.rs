//! How long an alert takes at the least, from the figures of its rule: scrape, evaluation, the ramp of the expression, `for`,
//! Alertmanager's `group_wait`. Pure; who asks the servers is in [`watch`](super::watch).

use opsctl_platform::prometheus::{AlertRule, Rules, Target};
use serde::{Deserialize, Serialize};

use super::query::base;
use super::route::GroupWait;

/// The parts of the time from an effect until somebody is told, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The time between two scrapes: so long the effect may go unseen.
    pub scrape_seconds: f64,
    /// The time between two evaluations, of the rule and of the recording rules that it stands on.
    pub evaluation_seconds: f64,
    /// The longest range that the expression looks back over: until the effect fills it the threshold may not be crossed,
    /// and so long it may stay crossed afterwards.
    pub range_seconds: f64,
    /// How much of that range must pass at the least, whatever the effect.
    pub ramp_seconds: f64,
    /// `for`, up to the next evaluation.
    pub for_seconds: f64,
    /// How long Alertmanager waits with a new group.
    pub group_wait_seconds: f64,
    /// The same where routes differ that the alert might take.
    pub group_wait_most_seconds: f64,
    /// `keep_firing_for`.
    pub keep_firing_seconds: f64,
    /// [`Predicted::floor`], for readers of the document.
    pub floor_seconds: f64,
}

impl Predicted {
    /// The predicted floor: scrape, evaluation, the shortest ramp, `for` and group wait. By luck it can be less: a scrape and
    /// an evaluation may come at once, and traffic may grow with the fault; see [`Predicted::least_seconds`].
    pub fn floor(&self) -> f64 {
        self.scrape_seconds + self.evaluation_seconds + self.ramp_seconds + self.least_seconds()
    }

    /// What no luck makes shorter.
    pub fn least_seconds(&self) -> f64 {
        self.for_seconds + self.group_wait_seconds
    }

    /// The same when the whole range has to fill.
    pub fn most_seconds(&self) -> f64 {
        self.scrape_seconds
            + self.evaluation_seconds
            + self.range_seconds.max(self.ramp_seconds)
            + self.for_seconds
            + self.group_wait_most_seconds
    }

    /// How long it may go on firing when everything is whole again.
    pub fn resolution_seconds(&self) -> f64 {
        self.scrape_seconds + self.evaluation_seconds + self.range_seconds + self.keep_firing_seconds
    }

    /// How late any moment of the alert is seen by the servers themselves.
    pub fn grain_seconds(&self) -> f64 {
        self.scrape_seconds + self.evaluation_seconds
    }
}

/// Predicts for one rule of those that are loaded, by what is scraped and how long its group waits.
pub fn predict(rule: &AlertRule, rules: &Rules, targets: &[Target], wait: GroupWait) -> Predicted {
    let base = base(rule, rules, targets);
    let interval = rule.interval.as_secs_f64();
    let hold = rule.hold.as_secs_f64();
    let mut predicted = Predicted {
        scrape_seconds: base.scrape.as_secs_f64(),
        evaluation_seconds: interval + base.evaluations.as_secs_f64(),
        range_seconds: base.range.as_secs_f64(),
        ramp_seconds: base.ramp,
        // It is looked at each evaluation, and holds long enough at one of them.
        for_seconds: if interval > 0.0 {
            (hold / interval - 1e-9).ceil().max(0.0) * interval
        } else {
            hold
        },
        group_wait_seconds: wait.least.as_secs_f64(),
        group_wait_most_seconds: wait.most.as_secs_f64(),
        keep_firing_seconds: rule.keep_firing_for.as_secs_f64(),
        floor_seconds: 0.0,
    };
    predicted.floor_seconds = predicted.floor();
    predicted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn rule(query: &str, interval: u64, hold: u64) -> AlertRule {
        AlertRule {
            query: query.to_owned(),
            interval: S(interval),
            hold: S(hold),
            ..AlertRule::default()
        }
    }

    fn wait(seconds: u64) -> GroupWait {
        GroupWait {
            least: S(seconds),
            most: S(seconds),
        }
    }

    fn scraped(seconds: u64) -> Vec<Target> {
        vec![Target {
            labels: std::collections::BTreeMap::new(),
            up: true,
            error: None,
            scraped_at: None,
            interval: Some(S(seconds)),
        }]
    }

    #[test]
    fn the_floor_is_the_sum_of_its_parts() {
        let none = Rules::default();
        // Scrape, evaluation, for, group wait; and the floor.
        for (figures, floor) in [
            ([5, 5, 15, 5], 30.0),
            ([60, 60, 300, 30], 450.0),
            ([1, 1, 0, 0], 2.0),
            // 10 s are over at the second evaluation after the first.
            ([15, 8, 10, 1], 15.0 + 8.0 + 16.0 + 1.0),
        ] {
            let [scrape, interval, hold, group_wait] = figures;
            let predicted = predict(
                &rule("up == 0", interval, hold),
                &none,
                &scraped(scrape),
                wait(group_wait),
            );
            assert!((predicted.floor() - floor).abs() < 1e-9, "{figures:?}: {predicted:?}");
            assert!(predicted.least_seconds() <= predicted.floor() && predicted.floor() <= predicted.most_seconds());
        }
    }
}
