//! How long an alert takes at the least, from the figures of its rule: scrape, evaluation, the ramp of the expression, `for`,
//! Alertmanager's `group_wait`. Pure; who asks the servers is in [`watch`](super::watch).

use std::collections::BTreeSet;
use std::time::Duration;

use opsctl_platform::prometheus::{AlertRule, Rules};
use serde::{Deserialize, Serialize};

use super::query::parts;
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

/// Predicts for one rule. `scrape` is the time between two scrapes.
pub fn predict(rule: &AlertRule, rules: &Rules, scrape: Duration, wait: GroupWait) -> Predicted {
    let base = base(rule, rules);
    let interval = rule.interval.as_secs_f64();
    let hold = rule.hold.as_secs_f64();
    let mut predicted = Predicted {
        scrape_seconds: scrape.as_secs_f64(),
        evaluation_seconds: interval + base.evaluations.as_secs_f64(),
        range_seconds: base.range.as_secs_f64(),
        ramp_seconds: 0.0,
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

/// What an expression stands on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Base {
    range: Duration,
    /// What the recording rules under it add, one after the other.
    evaluations: Duration,
}

/// Recording rules below recording rules are followed so deep.
const DEPTH: usize = 8;

fn base(rule: &AlertRule, rules: &Rules) -> Base {
    let mut base = Base::default();
    let mut known = BTreeSet::new();
    let mut level = vec![(rule.query.as_str(), rule.group.as_str())];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        let mut waits = Duration::ZERO;
        for (query, group) in level {
            let parts = parts(query);
            base.range = base.range.max(parts.ranges.into_iter().max().unwrap_or_default());
            let new = parts.words.into_iter().filter(|word| known.insert(word.clone()));
            for word in new.collect::<Vec<_>>() {
                for recorded in rules.recordings.iter().filter(|rule| rule.name == word) {
                    // Rules of one group are evaluated one after the other.
                    if recorded.group != group {
                        waits = waits.max(recorded.interval);
                    }
                    next.push((recorded.query.as_str(), recorded.group.as_str()));
                }
            }
        }
        base.evaluations += waits;
        level = next;
        if level.is_empty() {
            break;
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use opsctl_platform::prometheus::RecordingRule;

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
            let predicted = predict(&rule("up == 0", interval, hold), &none, S(scrape), wait(group_wait));
            assert!((predicted.floor() - floor).abs() < 1e-9, "{figures:?}: {predicted:?}");
            assert!(predicted.least_seconds() <= predicted.floor() && predicted.floor() <= predicted.most_seconds());
        }
    }

    #[test]
    fn recording_rules_are_looked_through_and_a_ring_of_them_ends() {
        let recording = |name: &str, query: &str, interval| RecordingRule {
            name: name.to_owned(),
            group: "recorded".to_owned(),
            query: query.to_owned(),
            interval: S(interval),
        };
        let rules = Rules {
            recordings: vec![
                recording("job:errors:ratio", "job:errors:rate / job:requests:rate", 30),
                recording("job:errors:rate", "rate(errors_total[10m])", 15),
                recording("job:requests:rate", "rate(requests_total[1h])", 60),
                recording("a:ring", "b:ring + rate(x[2m])", 1),
                recording("b:ring", "a:ring", 1),
            ],
            ..Rules::default()
        };
        let predicted = predict(&rule("job:errors:ratio > 0.1", 5, 0), &rules, S(1), wait(0));
        assert!((predicted.range_seconds - 3600.0).abs() < 1e-9);
        // The rates are recorded in the group of the ratio, right before it.
        assert!((predicted.evaluation_seconds - (5.0 + 30.0)).abs() < 1e-9);
        let ring = predict(&rule("a:ring > 1", 1, 0), &rules, S(1), wait(0));
        assert!((ring.range_seconds - 120.0).abs() < 1e-9);
    }
}
