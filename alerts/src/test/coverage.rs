//! Which alerts of the rule files are shown to fire, and to stay silent, by cases that passed. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::{Case, Demand, Question, State};
use super::judge::Verdict;
use super::slice::RuleSet;

/// The alerts of some rule files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// One a rule, by file and line.
    pub alerts: Vec<Covered>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// The rule file.
    pub file: PathBuf,
    /// Where the rule stands.
    pub line: usize,
    /// The alert's name.
    pub name: String,
    /// A case that passed expects it to fire.
    pub fires: bool,
    /// A case that passed expects that it does not fire.
    pub silent: bool,
}

impl Coverage {
    /// Of the alerts of `rules`, by the cases and how they ended.
    pub(super) fn of<'a>(rules: &RuleSet, cases: impl Iterator<Item = (&'a Case, &'a Verdict)>) -> Self {
        let mut shown: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        for (case, verdict) in cases {
            let Question::Alerts {
                name, expected, state, ..
            } = &case.question
            else {
                continue;
            };
            if *verdict != Verdict::Passed {
                continue;
            }
            let of = shown.entry(name).or_default();
            match state {
                State::Firing if expected.is_empty() => of.1 = true,
                State::Firing => of.0 = true,
                State::Pending | State::Inactive => of.1 = true,
            }
        }
        let covered = |(file, rule): (&Path, &super::rules::Rule)| {
            let (fires, silent) = shown.get(rule.name.as_str()).copied().unwrap_or_default();
            Covered {
                file: file.to_owned(),
                line: rule.line,
                name: rule.name.clone(),
                fires,
                silent,
            }
        };
        Self {
            alerts: rules.places().map(covered).collect(),
        }
    }

    /// What another file shows too.
    pub(super) fn add(&mut self, other: &Self) {
        for alert in &other.alerts {
            match self
                .alerts
                .iter_mut()
                .find(|one| (&one.file, one.line) == (&alert.file, alert.line))
            {
                Some(one) => {
                    one.fires |= alert.fires;
                    one.silent |= alert.silent;
                }
                None => self.alerts.push(alert.clone()),
            }
        }
    }

    /// In per cent: shown to fire, shown to stay silent. Of no alerts all are shown.
    pub fn shares(&self) -> (f64, f64) {
        let share = |shown: fn(&Covered) -> bool| match self.alerts.len() {
            0 => 100.0,
            all => 100.0 * self.alerts.iter().filter(|alert| shown(alert)).count() as f64 / all as f64,
        };
        (share(|alert| alert.fires), share(|alert| alert.silent))
    }

    /// What is demanded and not covered, in words.
    pub(super) fn lacks(&self, demand: Demand) -> Vec<String> {
        let (fires, silent) = self.shares();
        let rows = [(fires, demand.min, "fire"), (silent, demand.min_silent, "stay silent")];
        rows.into_iter()
            .filter(|(share, min, _)| share < min)
            .map(|(share, min, what)| {
                let missing = self
                    .alerts
                    .iter()
                    .filter(|alert| if what == "fire" { !alert.fires } else { !alert.silent });
                let names: Vec<&str> = missing.map(|alert| alert.name.as_str()).take(10).collect();
                format!(
                    "{share:.0} % of the alerts are shown to {what}, {min:.0} % are demanded; among the others: {}",
                    names.join(", ")
                )
            })
            .collect()
    }
}
