//! The report of a canary, made from its record and journal alone: also of one that still runs, or whose worker was lost.
//! It is data; words on a terminal and pictures are made elsewhere.

use crate::analysis::{Evidence, Traffic, Verdict};
use crate::judge::bake::Metric;
use crate::judge::criteria::CriterionReport;
use crate::judge::{Cause, Judge, Resources, Stage};
use crate::spec::Spec;
use crate::worker::State;
use jiff::Timestamp;
use opsctl_platform::run::{Event, Outcome, Phase, RunRecord};
use serde::{Deserialize, Serialize};

/// The `schema` of a canary's report.
pub const SCHEMA: &str = "opsctl.canary/v1";
/// Points of the time line that a report holds at most; more are merged.
const POINTS: usize = 600;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The specification in the record cannot be read.
    #[error("the record of run `{run}` is not that of a canary")]
    NotACanary {
        /// The run.
        run: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Where a canary is or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its instances start.
    Starting,
    /// It goes through its steps.
    Judging,
    /// It is held until somebody decides.
    Held,
    /// It is stable; the old version is kept for the moment.
    Baking,
    /// It is the stable version and nothing else runs.
    Promoted,
    /// It is being taken away.
    RollingBack,
    /// It was taken away by its judge.
    RolledBack,
    /// It was taken away because somebody asked for it.
    Aborted,
    /// Its judge was lost, and it was taken away by its watchdog or by hand.
    Lost,
    /// Something could not be undone.
    UndoIncomplete,
}

/// What a canary was and what it proved, schema [`SCHEMA`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The service.
    pub service: String,
    /// The version compared with.
    pub stable_version: String,
    /// The new version.
    pub canary_version: String,
    /// The steps, as typed.
    pub steps: String,
    /// Where it is or how it ended.
    pub status: Status,
    /// What is proven.
    pub verdict: Verdict,
    /// Why it was taken away.
    pub cause: Option<Cause>,
    /// One line each: why the verdict is what it is.
    pub reasons: Vec<String>,
    /// How the run ended, as its record has it.
    pub outcome: Option<Outcome>,
    /// The record's last word.
    pub message: Option<String>,
    /// The share that the canary should have now or had last, in percent.
    pub percent: u8,
    /// The share observed.
    pub share: ShareReport,
    /// The evidence against the stable version.
    pub evidence: Option<Evidence>,
    /// The service's own criteria.
    #[serde(default)]
    pub criteria: Vec<CriterionReport>,
    /// What the instances of both versions used; absent where nobody tells.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// What happened after the promotion, one for each objective; empty before it.
    pub bake: Vec<Metric>,
    /// About how many more canary requests a pass needs.
    pub more_requests_needed: Option<u64>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// The traffic of both versions over time.
    pub series: Vec<Point>,
    /// When the run was made, UTC.
    pub started_at: Timestamp,
    /// When it was closed, UTC.
    pub ended_at: Option<Timestamp>,
    /// How long it took or has taken.
    pub elapsed_seconds: f64,
}

/// The share of the last step, granted and observed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareReport {
    /// Granted, 0 to 1.
    pub granted_ratio: f64,
    /// Observed, 0 to 1; absent without requests.
    pub observed_ratio: Option<f64>,
    /// Lower end of what is believed for so many requests.
    pub low_ratio: Option<f64>,
    /// Upper end.
    pub high_ratio: Option<f64>,
    /// Whether the observed share can be the granted one.
    pub verified: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// The event's type in the journal.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// What happened between two looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the start, at the end of the interval.
    pub at_seconds: f64,
    /// How long the interval was.
    pub interval_seconds: f64,
    /// The share granted, in percent.
    pub percent: u8,
    /// The canary in this interval.
    pub canary: Traffic,
    /// The stable version in this interval.
    pub stable: Traffic,
    /// Highest `ln e` of all metrics that the canary is worse.
    pub worse_ln_e: f64,
    /// Lowest `ln e` of all metrics for a pass.
    pub pass_ln_e: f64,
}

impl Report {
    /// Makes the report of a run from its record and the events of its journal.
    pub fn new(record: &RunRecord, events: &[Event]) -> Result<Self, ReportError> {
        let spec: Spec = serde_json::from_value(record.spec.clone()).map_err(|source| ReportError::NotACanary {
            run: record.id.clone(),
            source,
        })?;
        let judge = serde_json::from_value::<State>(record.stats.clone())
            .ok()
            .map(|s| s.judge);
        let evidence = judge.as_ref().map(|judge| judge.analysis.evidence());
        let cause = match judge.as_ref().map(|judge| judge.stage) {
            Some(Stage::RollingBack { cause, .. }) => Some(cause),
            _ => None,
        };
        let mut reasons = evidence.as_ref().map_or_else(Vec::new, |e| e.reasons.clone());
        let criteria = criteria(&spec, judge.as_ref());
        let open = criteria.iter().filter(|one| one.verdict != Verdict::Pass);
        reasons.extend(open.map(CriterionReport::describe));
        if let Some(cause) = cause {
            reasons.insert(0, cause.describe().to_owned());
        }
        let share = judge.as_ref().map_or_else(ShareReport::default, |judge| {
            let interval = judge.share.interval();
            ShareReport {
                granted_ratio: f64::from(judge.share.percent()) / 100.0,
                observed_ratio: judge.share.observed(),
                low_ratio: interval.map(|i| i.0),
                high_ratio: interval.map(|i| i.1),
                verified: judge.share.observed().is_some() && !judge.share.refuted(),
            }
        });
        if share.observed_ratio.is_some() && !share.verified {
            reasons.push("the canary does not get the share of the traffic that it was given".to_owned());
        }
        let promoted = matches!(
            judge.as_ref().map(|judge| judge.stage),
            Some(Stage::Baking { .. } | Stage::Finishing { .. })
        ) || (cause == Some(Cause::ObjectiveMissed)
            || cause == Some(Cause::CriterionMissed) && events.iter().any(|event| event.kind == "promoted"));
        let verdict = judge.as_ref().map_or(Verdict::Inconclusive, Judge::verdict);
        let end = record
            .ended_at
            .or(events.last().map(|event| event.ts))
            .unwrap_or(record.updated_at);
        Ok(Self {
            schema: SCHEMA.to_owned(),
            run: record.id.clone(),
            service: spec.service.clone(),
            stable_version: spec.stable.clone(),
            canary_version: spec.version.version.clone(),
            steps: spec.schedule.to_string(),
            status: status(record, judge.as_ref().map(|judge| judge.stage)),
            verdict,
            cause,
            reasons,
            outcome: record.outcome,
            message: record.message.clone(),
            percent: judge.as_ref().map_or(0, |judge| judge.percent),
            share,
            criteria,
            resources: judge
                .as_ref()
                .map(|judge| judge.resources.clone())
                .filter(Resources::is_known),
            bake: judge
                .as_ref()
                .filter(|_| promoted)
                .map_or_else(Vec::new, |j| j.bake.metrics().to_vec()),
            more_requests_needed: evidence.as_ref().and_then(|e| e.more_requests_needed),
            evidence,
            timeline: events.iter().filter_map(|event| moment(record, event)).collect(),
            series: series(record, events),
            started_at: record.started_at,
            ended_at: record.ended_at,
            elapsed_seconds: seconds(record.started_at, end),
        })
    }
}

fn criteria(spec: &Spec, judge: Option<&Judge>) -> Vec<CriterionReport> {
    let Some(judge) = judge else { return Vec::new() };
    let both = spec.criteria.iter().zip(&judge.criteria);
    both.map(|(criterion, seen)| CriterionReport {
        criterion: criterion.clone(),
        seen: seen.clone(),
        verdict: seen.verdict(spec.settings.fail_intervals),
    })
    .collect()
}

fn status(record: &RunRecord, stage: Option<Stage>) -> Status {
    if record.phase == Phase::Closed {
        return match record.outcome {
            Some(Outcome::Passed) => Status::Promoted,
            Some(Outcome::Aborted) => Status::Aborted,
            Some(Outcome::Lost) => Status::Lost,
            Some(Outcome::UndoIncomplete) => Status::UndoIncomplete,
            _ => Status::RolledBack,
        };
    }
    match stage {
        None | Some(Stage::Starting { .. }) => Status::Starting,
        Some(Stage::Step { .. } | Stage::Promoting { .. }) => Status::Judging,
        Some(Stage::Holding { .. }) => Status::Held,
        Some(Stage::Baking { .. } | Stage::Finishing { .. }) => Status::Baking,
        Some(Stage::RollingBack { .. }) => Status::RollingBack,
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// What of an event people want to read; absent for what is machinery.
fn moment(record: &RunRecord, event: &Event) -> Option<Moment> {
    let data = &event.data;
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| data[key].as_f64().unwrap_or_default();
    let words = match event.kind.as_str() {
        "started" => format!("{} started, {} instances", text("version"), number("replicas")),
        "step_started" => format!("{} % of the traffic", number("percent")),
        "held" => format!("held at {} %, {}", number("percent"), text("verdict")),
        "criterion" => format!(
            "{} is {}, good is {}: {}",
            text("name"),
            data["value"]
                .as_f64()
                .map_or_else(|| "unknown".to_owned(), |value| format!("{value:.4}")),
            text("good"),
            text("verdict")
        ),
        "promotion_requested" => "promotion asked for".to_owned(),
        "promoted" => format!("{} is the stable version", text("version")),
        "rolling_back" => format!("rolling back: {}", text("why")),
        "share_removed" => "no new requests to the canary".to_owned(),
        "drained" if data["complete"] == true => "requests under way have ended".to_owned(),
        "drained" => "requests under way did not end in time".to_owned(),
        "undone" => "everything is as before".to_owned(),
        "undo_incomplete" => "something could not be undone".to_owned(),
        "finishing" => format!("{} goes", text("version")),
        "worker_lost" => "the judge was lost".to_owned(),
        "resumed" => "another judge goes on".to_owned(),
        "interference" => format!("somebody else changed {}", text("field")),
        "leftover_removed" => format!("{} ran beside the stable version and was taken away", text("version")),
        "platform_failed" => format!("the platform did not answer: {}", text("error")),
        "run_closed" => text("message"),
        _ => return None,
    };
    Some(Moment {
        at_seconds: seconds(record.started_at, event.ts),
        kind: event.kind.clone(),
        text: words,
    })
}

/// Pairs of looks become points; a restarted counter begins again.
fn series(record: &RunRecord, events: &[Event]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let mut last: Option<(Timestamp, String, Traffic, Traffic)> = None;
    for event in events.iter().filter(|event| event.kind == "look") {
        let data = &event.data;
        let read = |key: &str| {
            serde_json::from_value::<Option<Traffic>>(data[key].clone())
                .ok()
                .flatten()
        };
        let (Some(canary), Some(stable)) = (read("canary"), read("stable")) else {
            continue;
        };
        let boot = data["boot_id"].as_str().unwrap_or_default().to_owned();
        if let Some((at, known, old_canary, old_stable)) = &last
            && *known == boot
        {
            let of = |key: &'static str| {
                let metrics = data["metrics"].as_array();
                metrics.into_iter().flatten().filter_map(move |m| m[key].as_f64())
            };
            points.push(Point {
                at_seconds: seconds(record.started_at, event.ts),
                interval_seconds: seconds(*at, event.ts),
                percent: data["percent"].as_u64().and_then(|p| u8::try_from(p).ok()).unwrap_or(0),
                canary: less(canary, *old_canary),
                stable: less(stable, *old_stable),
                worse_ln_e: of("worse_ln_e").fold(f64::MIN, f64::max).max(-1e9),
                pass_ln_e: of("pass_ln_e").fold(f64::MAX, f64::min).min(1e9),
            });
        }
        last = Some((event.ts, boot, canary, stable));
    }
    while points.len() > POINTS {
        points = points.chunks(2).map(merge).collect();
    }
    points
}

fn merge(pair: &[Point]) -> Point {
    let mut merged = pair[pair.len() - 1].clone();
    if let [first, _] = pair {
        merged.interval_seconds += first.interval_seconds;
        merged.canary = sum(first.canary, merged.canary);
        merged.stable = sum(first.stable, merged.stable);
    }
    merged
}

fn less(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        requests: now.requests.saturating_sub(before.requests),
        errors: now.errors.saturating_sub(before.errors),
        slow: now.slow.saturating_sub(before.slow),
    }
}

fn sum(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        requests: a.requests + b.requests,
        errors: a.errors + b.errors,
        slow: a.slow + b.slow,
    }
}
