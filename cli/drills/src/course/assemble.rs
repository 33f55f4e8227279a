//! The report of a drill that has taken its course: the figures split where something was done, and what they say.

use std::time::Duration;

use opsctl_platform::Objectives;
use opsctl_platform::run::Run;

use super::{Fault, Story, Terms};
use crate::expectation::{AlertReport, Unexpected};
use crate::figures::{self, Check, Figures, Verdict};
use crate::observe::{Observer, Sample};
use crate::probe::ProbeReport;
use crate::report::{Bystander, Recovery, Report, Status, Stretch};

/// What a kind holds its expectations against.
pub struct Seen<'a> {
    /// What the drilled service promises.
    pub objectives: &'a Objectives,
    /// Before anything was done.
    pub before: Stretch,
    /// From the injection to the undo; to the end when there was none.
    pub during: Stretch,
    /// After the undo.
    pub after: Stretch,
    /// The services that were watched beside it.
    pub others: &'a [Bystander],
    /// How often instances of the drilled service were started again since the injection.
    pub restarts: u32,
    /// How long a recovery may take.
    pub within: Duration,
}

pub(super) fn report(
    run: &Run,
    terms: &Terms,
    fault: &impl Fault,
    story: Story,
    subject: Observer,
    others: Vec<Observer>,
    mut probes: Vec<Option<ProbeReport>>,
) -> Report {
    let record = run.record();
    let injected = story.injected;
    let undone = story.undone.filter(|_| fault.lasts());
    let split = |samples: &[Sample]| {
        let (from, to) = (injected.unwrap_or(f64::MAX), undone.unwrap_or(f64::MAX));
        let mut parts = [Stretch::default(); 3];
        for sample in samples {
            let part = usize::from(sample.at_seconds > from) + usize::from(sample.at_seconds > to);
            parts[part].add(sample);
        }
        parts
    };
    let probe = probes.remove(0);
    let others: Vec<Bystander> = others
        .into_iter()
        .zip(probes)
        .map(|(observer, probe)| {
            let [before, during, after] = split(&observer.samples);
            let from = undone.or(injected);
            let recovered = from.and_then(|from| observer.recovered_at(from, super::HOLD));
            Bystander {
                ready_before: observer.wanted,
                ready_lowest: observer
                    .samples
                    .iter()
                    .filter(|sample| injected.is_some_and(|at| sample.at_seconds > at))
                    .filter_map(|sample| sample.ready)
                    .min(),
                restarts: observer.restarts.saturating_sub(observer.restarts_before),
                time_to_recovery_seconds: between(from, recovered),
                recovered_seconds: recovered,
                objectives: observer.objectives,
                service: observer.service,
                before,
                during,
                after,
                probe,
                samples: observer.samples,
            }
        })
        .collect();
    let [before, during, after] = split(&subject.samples);
    let since = during.and(after);
    let status = story.status.unwrap_or(Status::Completed);
    let begun = undone.or(injected);
    let recovery = Recovery {
        resolution_seconds: subject
            .samples
            .iter()
            .find(|sample| Some(sample.at_seconds) == story.recovery.recovered_seconds)
            .map_or(terms.sample_every.as_secs_f64(), |sample| sample.interval_seconds),
        time_to_recovery_seconds: between(begun, story.recovery.recovered_seconds),
        time_to_detect_seconds: between(injected, story.recovery.effect_seconds),
        ..story.recovery
    };
    let mut checks = Vec::new();
    if status == Status::Completed {
        let seen = Seen {
            objectives: &subject.objectives,
            before,
            during,
            after,
            others: &others,
            restarts: subject.restarts.saturating_sub(subject.restarts_before),
            within: terms.recovery_within,
        };
        checks.extend(fault.checks(&seen));
        if since.clients.requests + since.probe.requests == 0 {
            checks.push(Check {
                name: "requests".to_owned(),
                expected: "some".to_owned(),
                observed: "none".to_owned(),
                met: None,
            });
        }
        let within = if fault.lasts() {
            terms.recovery_within
        } else {
            terms.duration.max(terms.recovery_within)
        };
        let seconds = recovery.time_to_recovery_seconds;
        checks.extend(story.conditions.iter().map(|condition| Check {
            name: format!("steady ({})", condition.condition),
            expected: "holds at the end".to_owned(),
            observed: format!(
                "{}; held {} of {} times",
                condition.last, condition.held, condition.asked
            ),
            met: condition.holds,
        }));
        checks.extend(story.alerts.iter().map(AlertReport::check));
        checks.push(Check {
            name: "recovery".to_owned(),
            expected: format!("within {}", figures::duration(within.as_secs_f64())),
            observed: seconds.map_or_else(|| "not recovered".to_owned(), figures::duration),
            met: Some(seconds.is_some_and(|seconds| seconds <= within.as_secs_f64())),
        });
    }
    let verdict = match status {
        Status::Completed => figures::verdict(&checks),
        _ => Verdict::Inconclusive,
    };
    let mut reasons: Vec<String> = match status {
        Status::Completed => checks
            .iter()
            .filter(|check| check.met != Some(true))
            .map(|check| format!("{}: {}, expected {}", check.name, check.observed, check.expected))
            .collect(),
        Status::Aborted => vec!["it was aborted".to_owned()],
        Status::Lost => vec!["its worker was lost, and with it what it had seen".to_owned()],
        Status::NotSteady | Status::Refused | Status::NotEffective => story.refused.into_iter().collect(),
    };
    reasons.extend(story.notes);
    reasons.extend(story.unexpected_alerts.iter().map(Unexpected::text));
    for probe in probe
        .iter()
        .chain(others.iter().filter_map(|other| other.probe.as_ref()))
    {
        reasons.extend(probe.generator_bound.iter().cloned());
    }
    let mut timeline = story.timeline;
    timeline.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    Report {
        schema: crate::report::SCHEMA.to_owned(),
        run: record.id.clone(),
        kind: fault.kind(),
        service: terms.service.clone(),
        environment: record.environment.clone(),
        actor: record.actor.clone(),
        reason: record.reason.clone(),
        status,
        verdict,
        reasons,
        checks,
        killed: Vec::new(),
        drained: Vec::new(),
        conditions: story.conditions,
        alerts: story.alerts,
        unexpected_alerts: story.unexpected_alerts,
        ready_before: subject.wanted,
        steady_clients: before.clients,
        steady_probe: before.probe,
        clients: since.clients,
        probe_figures: since.probe,
        fault_clients: during.clients,
        fault_probe: during.probe,
        probe,
        others,
        injected_seconds: injected,
        undone_seconds: undone,
        recovery,
        timeline,
        elapsed_seconds: subject.samples.last().map_or(0.0, |sample| sample.at_seconds),
        samples: subject.samples,
        started_at: record.started_at,
        ended_at: None,
    }
}

fn between(from: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some((to? - from?).max(0.0))
}

impl Seen<'_> {
    /// All from the injection on.
    pub fn since(&self) -> Stretch {
        self.during.and(self.after)
    }

    /// Whether clients and probe got what is promised in these stretches.
    pub fn objectives(&self, clients: Figures, probe: Figures) -> Vec<Check> {
        let mut checks = figures::check_objectives("clients", clients, self.objectives);
        checks.extend(figures::check_objectives("probe", probe, self.objectives));
        checks
    }

    /// Whether the requests that a slow or lost dependency makes its callers send again stay few: as many requests as
    /// before, and half as many more. Known only where there was enough traffic to compare.
    pub fn no_storm(&self, service: &str, before: Stretch, during: Stretch) -> Option<Check> {
        const ENOUGH: u64 = 100;
        const FACTOR: f64 = 1.5;
        if before.clients.requests < ENOUGH || before.seconds <= 0.0 || during.seconds <= 0.0 {
            return None;
        }
        let (was, is) = (
            before.clients.requests as f64 / before.seconds,
            during.clients.requests as f64 / during.seconds,
        );
        Some(Check {
            name: format!("no retry storm ({service})"),
            expected: format!("at most {:.1} requests a second", was * FACTOR),
            observed: format!("{is:.1} a second, {was:.1} before"),
            met: Some(is <= was * FACTOR),
        })
    }

    /// Whether the services beside it stood while the fault was on, and came back: no instance of theirs became unready or
    /// was started again. With `unharmed`, also whether they kept what they promise.
    pub fn others_stand(&self, unharmed: bool) -> Vec<Check> {
        let mut checks = Vec::new();
        for other in self.others {
            let name = &other.service;
            let lowest = other.ready_lowest;
            checks.push(Check {
                name: format!("instances ({name})"),
                expected: format!("{} stay ready", other.ready_before),
                observed: format!(
                    "{} at the least, {}",
                    lowest.map_or_else(|| "not known".to_owned(), |lowest| lowest.to_string()),
                    match other.restarts {
                        0 => "no restart".to_owned(),
                        1 => "1 restart".to_owned(),
                        restarts => format!("{restarts} restarts"),
                    }
                ),
                met: lowest.map(|lowest| lowest >= other.ready_before && other.restarts == 0),
            });
            if unharmed {
                for (who, figures) in [("clients", other.during.clients), ("probe", other.during.probe)] {
                    let who = format!("{who} of {name}");
                    checks.extend(figures::check_objectives(&who, figures, &other.objectives));
                }
            }
            let seconds = other.time_to_recovery_seconds;
            checks.push(Check {
                name: format!("recovery ({name})"),
                expected: format!("within {}", figures::duration(self.within.as_secs_f64())),
                observed: seconds.map_or_else(|| "not recovered".to_owned(), figures::duration),
                met: Some(seconds.is_some_and(|seconds| seconds <= self.within.as_secs_f64())),
            });
        }
        checks
    }
}
