//! The report of a drill: the data, and how it reads as text and as a page. It measures and concludes nothing.

mod alerts;
pub mod canary;
pub mod rate;

use jiff::Timestamp;
use opsctl_platform::Objectives;
use pictures::{Axis, Badge, Figure, Lines, Mark, Page, Series, Shape, Tone};
use serde::{Deserialize, Serialize};

use crate::condition::ConditionReport;
use crate::expectation::{AlertReport, Unexpected};
use crate::figures::{Check, Figures, Verdict, duration, percent};
use crate::kinds::Kind;
use crate::observe::Sample;
use crate::probe::ProbeReport;

/// The `schema` of a drill's report.
pub const SCHEMA: &str = "opsctl.drill/v1";

/// The moments that charts mark.
const MARKED: [&str; 7] = [
    "killed",
    "injected",
    "alert_firing",
    "undo",
    "ready_again",
    "recovered",
    "alert_resolved",
];

/// How far a drill went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// To its end.
    Completed,
    /// There was no steady state; nothing was done.
    NotSteady,
    /// A guard refused it at the last moment; nothing was done.
    Refused,
    /// What was done had no effect that could be seen.
    NotEffective,
    /// Somebody stopped it.
    Aborted,
    /// Its worker was lost, and with it what it had seen.
    Lost,
}

/// An instance that was killed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Killed {
    /// Its name.
    pub instance: String,
    /// The process or pod that it was.
    pub uid: String,
    /// The version that it ran.
    pub version: String,
    /// When the kill was sent, seconds from the start of the observation.
    pub at_seconds: f64,
    /// When it was seen to be gone.
    pub gone_seconds: Option<f64>,
}

/// How the service came back. Times are seconds from the start of the observation; each is late by at most the resolution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// When the effect was first seen.
    pub effect_seconds: Option<f64>,
    /// When as many instances were ready as before.
    pub ready_back_seconds: Option<f64>,
    /// When steady state began to hold again.
    pub recovered_seconds: Option<f64>,
    /// From the undo, or from the injection where there is nothing to undo, to `recovered_seconds`: the time to recovery.
    pub time_to_recovery_seconds: Option<f64>,
    /// Time between two samples.
    pub resolution_seconds: f64,
    /// From the injection to `effect_seconds`: the time to detection.
    #[serde(default)]
    pub time_to_detect_seconds: Option<f64>,
}

/// What was counted in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// How long it was.
    pub seconds: f64,
    /// Requests of clients.
    pub clients: Figures,
    /// Requests of the probe.
    pub probe: Figures,
}

impl Stretch {
    /// Takes a sample in.
    pub fn add(&mut self, sample: &Sample) {
        self.seconds += sample.interval_seconds;
        self.clients = self.clients.and(sample.clients);
        self.probe = self.probe.and(sample.probe);
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            clients: self.clients.and(other.clients),
            probe: self.probe.and(other.probe),
        }
    }
}

/// A service that was watched beside the one that was drilled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bystander {
    /// Its name.
    pub service: String,
    /// What it promises.
    pub objectives: Objectives,
    /// Ready instances before.
    pub ready_before: u32,
    /// The fewest that were ready from the injection on; absent when they could not be read.
    pub ready_lowest: Option<u32>,
    /// How often its instances were started again since then.
    pub restarts: u32,
    /// Before the injection.
    pub before: Stretch,
    /// From the injection to the undo.
    pub during: Stretch,
    /// After the undo.
    pub after: Stretch,
    /// When its steady state began to hold again after the undo, seconds from the start of the observation.
    pub recovered_seconds: Option<f64>,
    /// From the undo to then.
    pub time_to_recovery_seconds: Option<f64>,
    /// Its probe over the whole time.
    pub probe: Option<ProbeReport>,
    /// Every sample.
    pub samples: Vec<Sample>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds from the start of the observation.
    pub at_seconds: f64,
    /// A word for machines.
    pub kind: String,
    /// A few words for people.
    pub text: String,
}

/// What a drill was and what came of it, schema [`SCHEMA`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The kind of drill.
    pub kind: Kind,
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// Who asked for it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// How far it went.
    pub status: Status,
    /// What it says about the service.
    pub verdict: Verdict,
    /// One line each: why the verdict is not a pass, and what else is worth knowing.
    pub reasons: Vec<String>,
    /// The named expectations.
    pub checks: Vec<Check>,
    /// Who was killed.
    pub killed: Vec<Killed>,
    /// What else was to hold, and whether it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionReport>,
    /// The alerts that it was to make fire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertReport>,
    /// Alerts that fired and were not expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unexpected_alerts: Vec<Unexpected>,
    /// What was to leave its node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
    /// Ready instances before.
    pub ready_before: u32,
    /// Requests of clients before the injection.
    pub steady_clients: Figures,
    /// Requests of the probe before the injection.
    pub steady_probe: Figures,
    /// Requests of clients from the injection on.
    pub clients: Figures,
    /// Requests of the probe from the injection on.
    pub probe_figures: Figures,
    /// Requests of clients while the fault was on; all from the injection on when it did not last.
    #[serde(default)]
    pub fault_clients: Figures,
    /// Requests of the probe while the fault was on.
    #[serde(default)]
    pub fault_probe: Figures,
    /// The probe over the whole time.
    pub probe: Option<ProbeReport>,
    /// Services that were watched beside it.
    #[serde(default)]
    pub others: Vec<Bystander>,
    /// When the injection was made.
    pub injected_seconds: Option<f64>,
    /// When a fault that lasts was undone.
    #[serde(default)]
    pub undone_seconds: Option<f64>,
    /// How the service came back.
    pub recovery: Recovery,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// Every sample.
    pub samples: Vec<Sample>,
    /// When the run was made, UTC.
    pub started_at: Timestamp,
    /// When it was closed, UTC.
    pub ended_at: Option<Timestamp>,
    /// How long the service was observed.
    pub elapsed_seconds: f64,
}

impl Bystander {
    /// How it did while the fault was on.
    fn text(&self) -> String {
        let ready = self
            .ready_lowest
            .map_or_else(|| "?".to_owned(), |lowest| lowest.to_string());
        let seen = self.during.clients.and(self.during.probe);
        format!(
            "{ready} of {} ready at the least, {} of {} requests failed ({})",
            self.ready_before,
            seen.errors,
            seen.requests,
            ratio(seen.error_ratio())
        )
    }
}

impl Report {
    /// Label and value, in the order in which they are to be read on a terminal.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |label: &str, value: String| rows.push((label.to_owned(), value));
        row("drill", format!("{} of {}", self.kind.as_str(), self.service));
        row("verdict", self.verdict.as_str().to_owned());
        for killed in &self.killed {
            row("killed", format!("{} (version {})", killed.instance, killed.version));
        }
        for (who, before, after) in [
            ("clients", self.steady_clients, self.clients),
            ("probe", self.steady_probe, self.probe_figures),
        ] {
            if before.requests + after.requests > 0 {
                row(
                    &format!("requests ({who})"),
                    format!("{} before, {} after", before.requests, after.requests),
                );
                row(
                    &format!("errors ({who})"),
                    format!(
                        "{} before, {} after ({})",
                        before.errors,
                        after.errors,
                        ratio(after.error_ratio())
                    ),
                );
            }
        }
        if let Some(probe) = &self.probe {
            row(
                "probe response time",
                format!(
                    "p50 {}  p95 {}  p99 {}",
                    duration(probe.p50_seconds),
                    duration(probe.p95_seconds),
                    duration(probe.p99_seconds)
                ),
            );
        }
        for other in &self.others {
            row(&other.service, other.text());
        }
        if self.status == Status::Completed {
            if let Some(seconds) = self.recovery.time_to_detect_seconds {
                row(
                    "time to detect",
                    format!("{} (± {})", duration(seconds), self.resolution()),
                );
            }
            row("time to recovery", self.recovery_text());
        }
        for (label, value) in alerts::rows(&self.alerts) {
            row(&label, value);
        }
        for check in &self.checks {
            row(
                &check.name,
                format!("{}: {}, expected {}", met(check.met), check.observed, check.expected),
            );
        }
        for reason in &self.reasons {
            row("note", reason.clone());
        }
        rows
    }

    /// The time to recovery with its resolution, in words.
    pub fn recovery_text(&self) -> String {
        self.recovery.time_to_recovery_seconds.map_or_else(
            || "not recovered".to_owned(),
            |seconds| format!("{} (± {})", duration(seconds), self.resolution()),
        )
    }

    fn resolution(&self) -> String {
        duration(self.recovery.resolution_seconds)
    }

    /// What to call the time from the injection on.
    fn since(&self) -> &'static str {
        match self.kind {
            Kind::PodKill => "after the kill",
            _ => "from the fault on",
        }
    }

    /// The time line: requests and errors a second, what happened marked.
    fn requests_figure(&self) -> Figure {
        let rate = |pick: &dyn Fn(&Sample) -> u64| -> Vec<(f64, f64)> {
            rate::per_second(
                self.samples
                    .iter()
                    .map(|s| (s.at_seconds, s.interval_seconds, pick(s) as f64)),
            )
        };
        let tone = |kind: &str| match kind {
            "killed" | "injected" | "alert_firing" => Tone::Bad,
            _ => Tone::Good,
        };
        let marked = self
            .timeline
            .iter()
            .filter(|moment| MARKED.contains(&moment.kind.as_str()));
        let chart = Lines {
            axis: Axis::Number("seconds".to_owned()),
            label: "per second".to_owned(),
            low: Some(0.0),
            series: vec![
                Series::of("requests", Tone::Plain, rate(&|s| s.clients.requests)),
                Series::of("probes", Tone::Other, rate(&|s| s.probe.requests)),
                Series::of("errors", Tone::Bad, rate(&|s| s.clients.errors + s.probe.errors)),
            ]
            .into_iter()
            .filter(|series| series.name == "errors" || series.points.iter().any(|p| p.1 > 0.0))
            .collect(),
            marks: marked
                .map(|moment| Mark::new(moment.at_seconds, &moment.text, tone(&moment.kind)))
                .collect(),
            bands: match (self.injected_seconds, self.recovery.recovered_seconds) {
                (Some(from), Some(to)) => vec![(from, to)],
                (Some(from), None) => vec![(from, self.elapsed_seconds)],
                _ => Vec::new(),
            },
            ..Lines::default()
        };
        Figure {
            title: format!("Requests to {} and their errors", self.service),
            chart: Box::new(chart),
            height: 280.0,
            caption: "Requests and errors per second; shaded from the fault to the recovery.".to_owned(),
        }
    }

    /// Ready instances over time.
    fn ready_figure(&self) -> Figure {
        let points = self
            .samples
            .iter()
            .filter_map(|s| s.ready.map(|ready| (s.at_seconds, f64::from(ready))));
        let chart = Lines {
            axis: Axis::Number("seconds".to_owned()),
            label: "instances".to_owned(),
            low: Some(0.0),
            series: vec![Series {
                shape: Shape::Step,
                ..Series::of("ready", Tone::Good, points.collect())
            }],
            ..Lines::default()
        };
        Figure {
            title: "Ready instances".to_owned(),
            chart: Box::new(chart),
            height: 150.0,
            caption: "Instances that take traffic.".to_owned(),
        }
    }

    /// The whole report as one self-contained page.
    pub fn page(&self) -> String {
        let tone = match self.verdict {
            Verdict::Pass => Tone::Good,
            Verdict::Fail => Tone::Bad,
            Verdict::Inconclusive => Tone::Other,
        };
        let mut page = Page::new(&format!("Drill: {} of {}", self.kind.as_str(), self.service))
            .badge(Badge::new(self.verdict.as_str(), tone))
            .lead(&self.lead());
        let (errors, requests) = (format!("Errors {}", self.since()), format!("Requests {}", self.since()));
        let told = |alert: &AlertReport| alert.notified_seconds.map_or_else(|| "nobody".to_owned(), duration);
        let mut facts = vec![
            ("Time to recovery", self.recovery_text()),
            (
                errors.as_str(),
                (self.clients.errors + self.probe_figures.errors).to_string(),
            ),
            (
                requests.as_str(),
                (self.clients.requests + self.probe_figures.requests).to_string(),
            ),
            ("Ready instances before", self.ready_before.to_string()),
        ];
        if let Some(alert) = self.alerts.first() {
            facts.insert(1, ("Somebody is told after", told(alert)));
        }
        page = page
            .facts(&facts)
            .section("What happened")
            .figure(&self.requests_figure())
            .figure(&self.ready_figure());
        let moments = self
            .timeline
            .iter()
            .map(|m| vec![format!("{:.1} s", m.at_seconds), m.text.clone()]);
        page = page.table(&["When", "What"], moments.collect());
        page = alerts::section(page, &self.alerts, &self.unexpected_alerts);
        if !self.checks.is_empty() {
            let rows = self.checks.iter().map(|check| {
                vec![
                    check.name.clone(),
                    check.expected.clone(),
                    check.observed.clone(),
                    met(check.met).to_owned(),
                ]
            });
            page = page
                .section("Expectations")
                .table(&["What", "Expected", "Observed", ""], rows.collect());
        }
        if !self.others.is_empty() {
            let rows = self
                .others
                .iter()
                .map(|other| vec![other.service.clone(), other.text()]);
            page = page
                .section("Services beside it")
                .table(&["Service", "While the fault was on"], rows.collect());
        }
        if !self.reasons.is_empty() {
            page = page.section("Notes").list(&self.reasons);
        }
        let line = |who: &str, when: &str, f: Figures| {
            vec![
                who.to_owned(),
                when.to_owned(),
                f.requests.to_string(),
                f.errors.to_string(),
                ratio(f.error_ratio()),
                f.slow.to_string(),
            ]
        };
        page = page.section("Requests").table(
            &["Who", "When", "Requests", "Errors", "Error ratio", "Slow"],
            [
                ("clients", "before", self.steady_clients),
                ("clients", "after", self.clients),
                ("probe", "before", self.steady_probe),
                ("probe", "after", self.probe_figures),
            ]
            .into_iter()
            .filter(|(who, _, _)| match *who {
                "clients" => self.steady_clients.and(self.clients).requests > 0,
                _ => self.steady_probe.and(self.probe_figures).requests > 0,
            })
            .map(|(who, when, figures)| line(who, when, figures))
            .collect(),
        );
        if let Some(probe) = &self.probe {
            page = page.text(&format!(
                "The probe sent {} to {}. Response time: median {}, 95th percentile {}, 99th percentile {}.",
                probe.spec.rate,
                probe.spec.url,
                duration(probe.p50_seconds),
                duration(probe.p95_seconds),
                duration(probe.p99_seconds)
            ));
        }
        page.footer(&self.origin()).render()
    }

    /// Which run this is, and where and when it was.
    fn origin(&self) -> String {
        let place = if self.environment.is_empty() {
            String::new()
        } else {
            format!(" in {}", self.environment)
        };
        format!(
            "Run {}{place}, {}",
            self.run,
            self.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")
        )
    }

    fn lead(&self) -> String {
        let killed: Vec<&str> = self.killed.iter().map(|killed| killed.instance.as_str()).collect();
        let what = match self.kind {
            _ if self.injected_seconds.is_none() => "Nothing was done".to_owned(),
            Kind::PodKill => format!("{} was killed under traffic", killed.join(", ")),
            Kind::DbDown => format!("{} was cut off from its database", self.service),
            Kind::NodeDrain => format!("{} left their node", plural(self.drained.len())),
            Kind::ServiceDown => format!("{} was taken down", self.service),
            Kind::Latency => format!("Answers to or of {} were slowed", self.service),
        };
        let who = if self.actor.is_empty() {
            String::new()
        } else {
            format!(" by {}", self.actor)
        };
        let why = self
            .reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        format!("{what}{who}{why}.")
    }
}

fn met(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "not met",
        None => "not known",
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "no requests".to_owned(), percent)
}

fn plural(instances: usize) -> String {
    match instances {
        1 => "1 instance".to_owned(),
        more => format!("{more} instances"),
    }
}
