//! The page of a canary, made from its JSON document (schema `opsctl.canary/v1`): the document is the seam, so that this
//! crate need not know how a canary is judged.

use pictures::{Axis, Badge, Figure, Lines, Mark, Page, Series, Threshold, Tone};
use serde_json::Value;

use super::rate::per_second;
use crate::figures::percent;

/// The schema that is read.
const SCHEMA: &str = "opsctl.canary/v1";

/// The document is of another kind or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no document of schema {SCHEMA}")]
pub struct NotACanary;

/// The whole report as one self-contained page.
pub fn page(report: &Value) -> Result<String, NotACanary> {
    check(report)?;
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let verdict = text("verdict");
    let mut page = Page::new(&format!("Canary of {}: {}", text("service"), text("canary_version")))
        .badge(badge(report))
        .lead(&lead(report))
        .facts(&facts(report))
        .section_with("Evidence", &Badge::new(verdict, tone(verdict)));
    for figure in figures(report)? {
        page = page.figure(&figure);
    }
    let reasons: Vec<&str> = report["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !reasons.is_empty() {
        page = page.section("Why").list(&reasons);
    }
    let criteria: Vec<Vec<String>> = report["criteria"]
        .as_array()
        .into_iter()
        .flatten()
        .map(criterion)
        .collect();
    if !criteria.is_empty() {
        page = page.section("Criteria of the service").table(
            &["Name", "Last", "Worst", "Good is", "Looks without a number", "Verdict"],
            criteria,
        );
    }
    if report["resources"].is_object() {
        let rows = ["canary", "stable"].map(|version| used(version, &report["resources"][version]));
        let columns = [
            "Version",
            "Pods",
            "CPU, middle",
            "CPU, most",
            "Memory, middle",
            "Memory, most",
        ];
        page = page.section("Per pod").table(&columns, rows.to_vec());
    }
    let moments = report["timeline"].as_array().into_iter().flatten().map(|moment| {
        vec![
            format!("{:.1} s", moment["at_seconds"].as_f64().unwrap_or_default()),
            moment["text"].as_str().unwrap_or_default().to_owned(),
        ]
    });
    page = page
        .section("What happened")
        .table(&["When", "What"], moments.collect());
    Ok(page
        .footer(&format!("Run {}, {}", text("run"), text("started_at")))
        .render())
}

/// The pictures with their captions: traffic of both versions, and the evidence.
pub fn figures(report: &Value) -> Result<[Figure; 2], NotACanary> {
    check(report)?;
    Ok([traffic(report), evidence(report)])
}

/// The word for where the canary is, in its colour.
pub fn badge(report: &Value) -> Badge {
    let status = report["status"].as_str().unwrap_or_default();
    let tone = match status {
        "promoted" => Tone::Good,
        "rolled_back" | "undo_incomplete" | "lost" => Tone::Bad,
        _ => Tone::Other,
    };
    Badge::new(&status.replace('_', " "), tone)
}

fn check(report: &Value) -> Result<(), NotACanary> {
    if report["schema"] == SCHEMA {
        Ok(())
    } else {
        Err(NotACanary)
    }
}

fn tone(verdict: &str) -> Tone {
    match verdict {
        "pass" => Tone::Good,
        "fail" => Tone::Bad,
        _ => Tone::Other,
    }
}

fn lead(report: &Value) -> String {
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let message = report["message"]
        .as_str()
        .or(report["reasons"][0].as_str())
        .unwrap_or_default();
    let mut letters = message.chars();
    let sentence = letters.next().map_or_else(String::new, |first| {
        format!(" {}{}.", first.to_uppercase(), letters.as_str().trim_end_matches('.'))
    });
    format!(
        "Version {} went through {}, judged against {}, which ran beside it.{sentence}",
        text("canary_version"),
        text("steps"),
        text("stable_version"),
    )
}

fn facts(report: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for metric in report["evidence"]["metrics"].as_array().into_iter().flatten() {
        let name = match metric["metric"].as_str() {
            Some("latency") => "Slow answers",
            _ => "Errors",
        };
        let arm = |who: &str| format!("{} of {}", metric[who]["bad"], metric[who]["requests"]);
        facts.push((format!("{name}, canary"), arm("canary")));
        facts.push((format!("{name}, stable"), arm("stable")));
        if let Some(bound) = metric["upper_bound_ratio"].as_f64().filter(|bound| *bound < 1.0) {
            facts.push((format!("{name}, upper bound"), percent(bound)));
        }
    }
    if let Some(share) = report["share"]["observed_ratio"].as_f64() {
        let granted = report["share"]["granted_ratio"].as_f64().unwrap_or_default();
        facts.push((
            "Share observed / granted".to_owned(),
            format!("{} / {}", percent(share), percent(granted)),
        ));
    }
    if let Some(more) = report["more_requests_needed"].as_u64() {
        facts.push(("Canary requests still needed".to_owned(), format!("about {more}")));
    }
    facts
}

/// What the pods of a version used.
fn used(version: &str, arm: &Value) -> Vec<String> {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let cores = |key: &str| or_unknown(arm[key].as_f64().map(|cores| format!("{cores:.3} cores")));
    let memory = |key: &str| or_unknown(arm[key].as_f64().map(|bytes| format!("{:.1} MiB", bytes / 1_048_576.0)));
    vec![
        version.to_owned(),
        arm["pods"].to_string(),
        cores("cpu_cores_median"),
        cores("cpu_cores_max"),
        memory("memory_bytes_median"),
        memory("memory_bytes_max"),
    ]
}

fn criterion(one: &Value) -> Vec<String> {
    let number = |key: &str| one[key].as_f64().map(|number| format!("{number:.4}"));
    let or_none = |key: &str| number(key).unwrap_or_else(|| "none".to_owned());
    let bounds = [("at least", one["min"].as_f64()), ("at most", one["max"].as_f64())];
    let bounds: Vec<String> = bounds
        .into_iter()
        .filter_map(|(word, bound)| Some(format!("{word} {}", bound?)))
        .collect();
    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    vec![
        text("name"),
        or_none("last"),
        or_none("worst"),
        bounds.join(", "),
        format!("{} of {}", one["missing"], one["looks"]),
        text("verdict"),
    ]
}

fn points(report: &Value) -> impl Iterator<Item = &Value> {
    report["series"].as_array().into_iter().flatten()
}

fn marks(report: &Value) -> Vec<Mark> {
    let wanted = ["step_started", "held", "promoted", "rolling_back", "finishing"];
    report["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|moment| moment["kind"].as_str().is_some_and(|kind| wanted.contains(&kind)))
        .map(|moment| {
            let tone = match moment["kind"].as_str() {
                Some("rolling_back") => Tone::Bad,
                Some("promoted") => Tone::Good,
                _ => Tone::Plain,
            };
            let at = moment["at_seconds"].as_f64().unwrap_or_default();
            Mark::new(at, &short(moment["text"].as_str().unwrap_or_default()), tone)
        })
        .collect()
}

/// A few words of a sentence, for a label.
fn short(text: &str) -> String {
    let part = text
        .split([':', ','])
        .next()
        .unwrap_or_default()
        .replace(" of the traffic", "");
    if part.chars().count() <= 32 {
        return part;
    }
    part.chars().take(31).chain(['…']).collect()
}

fn traffic(report: &Value) -> Figure {
    let rate = |who: &'static str, what: &'static str| {
        per_second(points(report).map(move |point| {
            (
                point["at_seconds"].as_f64().unwrap_or_default(),
                point["interval_seconds"].as_f64().unwrap_or_default(),
                point[who][what].as_f64().unwrap_or_default(),
            )
        }))
    };
    let chart = Lines {
        axis: Axis::Number("seconds".to_owned()),
        label: "per second".to_owned(),
        low: Some(0.0),
        series: vec![
            Series::of("stable", Tone::Plain, rate("stable", "requests")),
            Series::of("canary", Tone::Other, rate("canary", "requests")),
            Series::of("canary errors", Tone::Bad, rate("canary", "errors")),
        ],
        marks: marks(report),
        ..Lines::default()
    };
    Figure {
        title: "Traffic of canary and stable version".to_owned(),
        chart: Box::new(chart),
        height: 280.0,
        caption: "Requests per second to each version, and the canary's errors.".to_owned(),
    }
}

/// The evidence over time, in powers of ten: which of the two crosses its line first decides.
fn evidence(report: &Value) -> Figure {
    let powers = |ln_e: f64| ln_e / std::f64::consts::LN_10;
    let line = |what: &str| {
        let at = |point: &Value| point["at_seconds"].as_f64().unwrap_or_default();
        let value = |point: &Value| powers(point[what].as_f64().unwrap_or_default());
        points(report).map(|point| (at(point), value(point))).collect()
    };
    let metric = &report["evidence"]["metrics"][0];
    let limit = |what: &str, usual: f64, words: &str, tone| Threshold {
        value: powers(metric[what].as_f64().unwrap_or(usual.ln())),
        label: words.to_owned(),
        tone,
    };
    let chart = Lines {
        axis: Axis::Number("seconds".to_owned()),
        label: "evidence, powers of ten".to_owned(),
        series: vec![
            Series::of("good enough", Tone::Good, line("pass_ln_e")),
            Series::of("worse than stable", Tone::Bad, line("worse_ln_e")),
        ],
        marks: marks(report),
        thresholds: vec![
            limit("pass_threshold_ln_e", 20.0, "enough for a pass", Tone::Good),
            limit("worse_threshold_ln_e", 100.0, "enough for a roll-back", Tone::Bad),
        ],
        low: Some(-2.0),
        high: Some(4.0),
        ..Lines::default()
    };
    Figure {
        title: "Evidence for and against the canary".to_owned(),
        chart: Box::new(chart),
        height: 280.0,
        caption:
            "Evidence in powers of ten. It may be looked at after every interval without raising the chance of an \
                  error. Upper bounds above are with 95 % confidence."
                .to_owned(),
    }
}
