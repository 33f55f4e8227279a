//! What is seen against what should be there. Pure: a [`World`] in, findings and a verdict out.

mod rule;
mod table;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use lint::{Finding, Report, Severity, SourceFile};
use serde::Serialize;

use super::prometheus::{LoadedGroup, LoadedRule, seconds};
use super::series;
use super::silence::{Hides, Matchers};
use super::world::{Expected, Seen, World};
use crate::duration;
use crate::rules::{Group, RuleKind};
use rule::{differences, merged, named};
pub use table::CHECKS;
use table::{
    ALERT_FIRES, EVALUATION_LATE, EVALUATION_SLOW, METRIC_MISSING, NEVER_EVALUATED, NO_ALERTMANAGER, NO_ANSWER,
    NO_TARGETS, RECEIVER_FAILS, RECEIVER_MISSING, RECEIVER_UNREACHABLE, RULE_DIFFERS, RULE_FAILS, RULE_UNKNOWN,
    RULES_NOT_LOADED, SERIES_MISSING, SILENCE_HIDES, SILENCE_UNEXPLAINED, TARGET_DOWN,
};

/// A silence that lasts longer than this is forever.
const FOREVER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What all of it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything is as it should be.
    Good,
    /// Something is not.
    Bad,
    /// A server is not there, and nothing else is wrong.
    Unreachable,
    /// Something is not known, and nothing else is wrong.
    Inconclusive,
}

/// What was found.
#[derive(Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Its reasons, and what else is worth knowing.
    pub report: Report,
}

/// Compares.
pub fn check(world: &World, expected: &Expected) -> Outcome {
    let mut checker = Checker {
        world,
        expected,
        prometheus: SourceFile::new(&world.prometheus, ""),
        alertmanager: SourceFile::new(world.alertmanager.as_deref().unwrap_or("Alertmanager"), ""),
        findings: Vec::new(),
        unknown: false,
    };
    checker.answers();
    checker.rules();
    checker.targets();
    checker.series();
    checker.delivery();
    checker.silences();
    checker.firing();
    let unanswered = |finding: &Finding| finding.check.name == NO_ANSWER.name;
    let wrong = checker
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Error && !unanswered(finding));
    let verdict = if wrong {
        Verdict::Bad
    } else if silences(world).any(|(_, unreachable)| unreachable) {
        Verdict::Unreachable
    } else if checker.unknown || checker.findings.iter().any(unanswered) {
        Verdict::Inconclusive
    } else {
        Verdict::Good
    };
    let mut files: Vec<SourceFile> = expected.rules.iter().map(|(file, _)| file.clone()).collect();
    files.extend([checker.prometheus, checker.alertmanager]);
    Outcome {
        verdict,
        report: Report {
            files,
            findings: checker.findings,
        },
    }
}

/// Why there are no answers, whoever was asked.
fn silences(world: &World) -> impl Iterator<Item = (&str, bool)> {
    let told = &world.told;
    [
        told.rules.silence(),
        told.targets.silence(),
        told.active.silence(),
        told.alertmanagers.silence(),
        told.series.silence(),
        told.receivers.silence(),
        told.deliveries.silence(),
        told.alerts.silence(),
        told.silences.silence(),
    ]
    .into_iter()
    .flatten()
}

/// So many loaded rules of one name are compared with one of ours. A group has a few; a server may say that it has more.
const COMPARED: usize = 200;

struct Checker<'a> {
    world: &'a World,
    expected: &'a Expected,
    prometheus: SourceFile,
    alertmanager: SourceFile,
    findings: Vec<Finding>,
    /// Something cannot be known yet.
    unknown: bool,
}

impl Checker<'_> {
    /// About a server.
    fn of_prometheus(&mut self, check: &'static lint::Check, what: impl Into<String>) -> &mut Finding {
        let finding = Finding::new(check, &self.prometheus, 0..0, what);
        self.push(finding)
    }

    fn of_alertmanager(&mut self, check: &'static lint::Check, what: impl Into<String>) -> &mut Finding {
        let finding = Finding::new(check, &self.alertmanager, 0..0, what);
        self.push(finding)
    }

    fn push(&mut self, finding: Finding) -> &mut Finding {
        let at = self.findings.len();
        self.findings.push(finding);
        &mut self.findings[at]
    }

    /// Each reason once: a server that is not there gives the same one to every question.
    fn answers(&mut self) {
        let reasons: BTreeSet<String> = silences(self.world).map(|(why, _)| why.to_owned()).collect();
        for why in reasons {
            self.of_prometheus(&NO_ANSWER, format!("{why}."));
        }
    }

    fn rules(&mut self) {
        let Seen::Told(loaded) = &self.world.told.rules else {
            return;
        };
        let expected = self.expected;
        for (source, file) in &expected.rules {
            for group in &file.groups {
                let there: Vec<&LoadedGroup> = loaded.iter().filter(|one| one.name == group.name.value).collect();
                // The same name may stand in another team's file: the group with most of our rules is ours.
                let count = |one: &&LoadedGroup| {
                    group
                        .rules
                        .iter()
                        .filter(|rule| one.rules.iter().any(|it| named(rule, it)))
                        .count()
                };
                if let Some(one) = there.into_iter().max_by_key(count) {
                    self.group(source, group, one);
                } else {
                    let what = format!("The group `{}` is not loaded.", group.name.value);
                    self.findings
                        .push(Finding::new(&RULES_NOT_LOADED, source, group.name.span.clone(), what));
                }
            }
        }
        for group in loaded {
            self.evaluation(group);
        }
    }

    fn group(&mut self, source: &SourceFile, group: &Group, loaded: &LoadedGroup) {
        if let Some(interval) = &group.interval {
            let (ours, theirs) = (
                duration::show(interval.value.as_millis() as u64),
                seconds(loaded.interval),
            );
            if ours != theirs {
                let what = format!(
                    "The group `{}` is evaluated every {theirs}, not every {ours}.",
                    group.name.value
                );
                self.findings
                    .push(Finding::new(&RULE_DIFFERS, source, interval.span.clone(), what));
            }
        }
        let mut left: Vec<&LoadedRule> = loaded.rules.iter().collect();
        let mut unmatched = Vec::new();
        for rule in &group.rules {
            let ours = left.iter().enumerate().filter(|(_, one)| named(rule, one));
            match ours
                .take(COMPARED)
                .find(|(_, one)| differences(group, rule, one).is_empty())
                .map(|(at, _)| at)
            {
                Some(at) => _ = left.remove(at),
                None => unmatched.push(rule),
            }
        }
        for rule in unmatched {
            let name = &rule.name.value;
            let finding = if let Some(at) = left.iter().position(|one| named(rule, one)) {
                let loaded = left.remove(at);
                let what = format!(
                    "The loaded `{name}` differs: {}.",
                    differences(group, rule, loaded).join("; ")
                );
                Finding::new(&RULE_DIFFERS, source, rule.span.clone(), what)
            } else {
                let what = format!("`{name}` is not loaded, though its group is.");
                Finding::new(&RULES_NOT_LOADED, source, rule.name.span.clone(), what)
            };
            self.findings.push(finding.about(name.clone()));
        }
        for rule in left {
            let what = format!(
                "The loaded group `{}` has `{}`, which is not in the rendered one.",
                group.name.value, rule.name
            );
            let finding = Finding::new(&RULE_UNKNOWN, source, group.name.span.clone(), what).about(rule.name.clone());
            self.findings.push(finding);
        }
    }

    /// Whether a group's rules work, and in time.
    fn evaluation(&mut self, group: &LoadedGroup) {
        for rule in group.rules.iter().filter(|rule| rule.health == "err") {
            let what = format!(
                "`{}` of `{}` fails: {}.",
                rule.name,
                group.name,
                rule.last_error.trim_end_matches('.')
            );
            self.of_prometheus(&RULE_FAILS, what).subject.clone_from(&rule.name);
        }
        let Some(last) = group.last_evaluation else {
            self.unknown |= !group.rules.is_empty();
            if !group.rules.is_empty() {
                self.of_prometheus(
                    &NEVER_EVALUATED,
                    format!("The group `{}` has not been evaluated yet.", group.name),
                );
            }
            return;
        };
        let age = self.world.now.duration_since(last).as_secs_f64();
        if group.interval > 0.0 && age > group.interval * 3.0 {
            let what = format!(
                "The group `{}` was last evaluated {} ago; it should be every {}.",
                group.name,
                seconds(age.round()),
                seconds(group.interval)
            );
            self.of_prometheus(&EVALUATION_LATE, what);
        }
        if group.interval > 0.0 && group.evaluation_time > group.interval / 2.0 {
            let what = format!(
                "The group `{}` takes {} of every {}.",
                group.name,
                seconds(group.evaluation_time),
                seconds(group.interval)
            );
            let late = group.evaluation_time > group.interval;
            let finding = self.of_prometheus(&EVALUATION_SLOW, what);
            if late {
                finding.severity = Severity::Error;
            }
        }
    }

    fn targets(&mut self) {
        let Seen::Told(targets) = &self.world.told.targets else {
            return;
        };
        if targets.is_empty() {
            self.of_prometheus(&NO_TARGETS, "Prometheus has no targets.");
        }
        for target in targets {
            let label = |name: &str| target.labels.get(name).map_or("", String::as_str);
            let who = format!("`{}` of the job `{}`", label("instance"), label("job"));
            match target.health.as_str() {
                "up" => {}
                // Not scraped yet.
                "unknown" => self.unknown = true,
                _ => {
                    let what = format!("{who} cannot be scraped: {}.", target.last_error.trim_end_matches('.'));
                    self.of_prometheus(&TARGET_DOWN, what);
                }
            }
        }
    }

    fn series(&mut self) {
        let Seen::Told(presence) = &self.world.told.series else {
            return;
        };
        if presence.left_out > 0 {
            self.unknown = true;
            let what = format!(
                "{} selectors were not asked for: more than {} are too many at once.",
                presence.left_out,
                series::MOST
            );
            self.of_prometheus(&NO_ANSWER, what);
        }
        let expected = self.expected;
        for (source, file) in &expected.rules {
            for (_, rule) in file.rules() {
                for (selector, metric) in series::wanted(&rule.expr.value) {
                    if !presence.empty.contains(&selector) {
                        continue;
                    }
                    let unknown = metric.as_ref().filter(|metric| presence.unknown.contains(*metric));
                    let (check, what) = match unknown {
                        Some(metric) => (&METRIC_MISSING, format!("No series has the name `{metric}`.")),
                        None => (&SERIES_MISSING, format!("There is no series `{selector}` now.")),
                    };
                    let finding = Finding::new(check, source, rule.expr.span.clone(), what);
                    self.findings.push(
                        finding
                            .about(rule.name.value.clone())
                            .according_to(&self.world.prometheus),
                    );
                }
            }
        }
    }

    /// Whether what fires arrives.
    fn delivery(&mut self) {
        if let Seen::Told(alertmanagers) = &self.world.told.alertmanagers
            && alertmanagers.is_empty()
        {
            self.of_prometheus(&NO_ALERTMANAGER, "Prometheus knows no Alertmanager.");
        }
        let world = self.world;
        for delivery in world.told.deliveries.told().into_iter().flatten() {
            let (all, failed, to) = (delivery.requests, delivery.failed, delivery.to());
            if failed > 0 && failed >= all {
                let what = format!("None of {all} requests to {to} came through since Alertmanager started.");
                self.of_alertmanager(&RECEIVER_UNREACHABLE, what);
            } else if failed > 0 {
                let what = format!("{failed} of {all} requests to {to} failed since Alertmanager started.");
                self.of_alertmanager(&RECEIVER_FAILS, what);
            }
        }
        let Seen::Told(receivers) = &world.told.receivers else {
            return;
        };
        for receiver in self.expected.receivers.iter().filter(|name| !receivers.contains(*name)) {
            self.of_alertmanager(&RECEIVER_MISSING, format!("Alertmanager has no receiver `{receiver}`."));
        }
    }

    fn silences(&mut self) {
        let Seen::Told(all) = &self.world.told.silences else {
            return;
        };
        let expected = self.expected;
        for silence in all.iter().filter(|silence| silence.status.state == "active") {
            let matchers: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
            let who = if silence.created_by.is_empty() {
                "nobody"
            } else {
                &silence.created_by
            };
            let name = format!("{{{}}} of {who} ({})", matchers.join(", "), silence.id);
            let forever = silence
                .ends_at
                .is_none_or(|end| end.duration_since(self.world.now) > FOREVER);
            let until = silence
                .ends_at
                .map_or_else(|| "without end".to_owned(), |end| format!("until {end}"));
            if silence.created_by.trim().is_empty() || silence.comment.trim().is_empty() {
                self.of_alertmanager(
                    &SILENCE_UNEXPLAINED,
                    format!("The silence {name} lacks an author or a reason."),
                );
            }
            let hidden = Matchers::new(&silence.matchers);
            let mut vague = 0;
            for (source, file) in &expected.rules {
                for (group, rule) in file.rules().filter(|(_, rule)| rule.kind == RuleKind::Alert) {
                    let mut labels = merged(&group.labels, &rule.labels);
                    labels.insert("alertname", &rule.name.value);
                    let extent = match hidden.hides(&labels) {
                        Hides::Nothing => continue,
                        Hides::Unknown => {
                            vague += 1;
                            continue;
                        }
                        Hides::All => "hides",
                        Hides::Some => "hides part of",
                    };
                    let what = format!("The silence {name} {extent} `{}`, {until}.", rule.name.value);
                    let mut finding = Finding::new(&SILENCE_HIDES, source, rule.name.span.clone(), what)
                        .about(rule.name.value.clone())
                        .according_to(self.alertmanager.name());
                    if forever {
                        finding = finding.graded(Severity::Error);
                    }
                    self.findings.push(finding);
                }
            }
            if vague > 0 {
                let what = format!("The silence {name} may hide part of {vague} rendered alerts, {until}.");
                let finding = self.of_alertmanager(&SILENCE_HIDES, what);
                if forever {
                    finding.severity = Severity::Error;
                }
            }
        }
    }

    fn firing(&mut self) {
        let Seen::Told(active) = &self.world.told.active else {
            return;
        };
        for alert in active.iter().filter(|alert| alert.state == "firing") {
            let name = alert.labels.get("alertname").map_or("", String::as_str);
            let since = alert.active_at.map_or_else(String::new, |at| format!(", since {at}"));
            let labels: Vec<String> = alert
                .labels
                .iter()
                .filter(|(label, _)| *label != "alertname")
                .map(|(label, value)| format!("{label}={value:?}"))
                .collect();
            let what = format!("`{name}` {{{}}} fires{since}.", labels.join(", "));
            let finding = Finding::new(&ALERT_FIRES, &self.prometheus, 0..0, what).about(name);
            self.findings.push(finding);
        }
    }
}
