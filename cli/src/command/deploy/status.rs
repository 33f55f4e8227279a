//! `opsctl deploy status`: where the canary is, or how the last one ended.

use opsctl_platform::run::RunRecord;
use opsctl_rollouts::judge::resources::PerPod;
use opsctl_rollouts::{Later, Report, Status, standing};
use serde::Serialize;
use serde_json::Value;

use super::{active, canaries};
use crate::attach;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, bytes, seconds};
use crate::platform::{self, Opened, words};

/// Show where the canary is, or how the last one ended
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the canary that is on, or the last one
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

fn help() -> String {
    format!(
        "A canary that was taken away is exit 4, also after `deploy canary` had ended with 0, and by a later `deploy rollback`.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::UndoIncomplete])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let all = platform::open_all(context)?;
    let Some((opened, record)) = context.block_on(newest(all, args.service.as_deref()))? else {
        context.out.answer(&Value::Null, |_| String::new())?;
        context.out.note("there was no canary yet");
        return Ok(Exit::Done);
    };
    let events = context.block_on(opened.events(&record));
    let mut report = Report::new(&record, &events)
        .map_err(|error| Failure::new(Exit::Failed, "state_damaged", "could not read the canary").because(&error))?;
    let (records, stable) = context.block_on(async {
        let failed = |error| error::platform::failure("could not read what runs", &error);
        let records = opened.platform.records().await.map_err(failed)?;
        // A service that is not there (any more) has no stable version; its last canary is still told.
        let stable = opened.platform.service(&report.service).await.ok();
        Ok::<_, Failure>((records, stable.and_then(|state| state.stable_version)))
    })?;
    let standing = standing(&record, report.status, &report.canary_version, &records);
    report.status = standing.status;
    let document = Document {
        report: &report,
        rollback: standing.rollback.as_ref(),
        stable_now: stable.as_deref(),
    };
    context.out.answer(&document, |_| {
        let mut text = text(context, serde_json::to_value(&report).ok().as_ref());
        if let Some(later) = &standing.rollback {
            let ended = later.outcome.map_or("under way", |outcome| words::ended(outcome).0);
            text.push_str(&line(
                "rollback",
                &format!("to {}, {ended} (run {})", later.to, later.run),
            ));
        }
        if let Some(stable) = &stable {
            text.push_str(&line("stable", &format!("{stable} now")));
        }
        text
    })?;
    Ok(match report.status {
        status if attach::is_on(status) => Exit::Done,
        Status::Promoted => Exit::Done,
        Status::UndoIncomplete => Exit::UndoIncomplete,
        _ => Exit::No,
    })
}

/// The canary that is on, else the last one, of all clusters.
async fn newest(all: Vec<Opened>, service: Option<&str>) -> Result<Option<(Opened, RunRecord)>, Failure> {
    let (mut on, mut over) = (Vec::new(), Vec::new());
    for opened in all {
        if let Some(record) = active(&opened, service).await? {
            on.push((opened, record));
        } else if let Some(record) = canaries(&opened, service).await?.pop() {
            over.push((opened, record));
        }
    }
    if on.len() > 1 {
        return Err(Failure::usage("ambiguous", "a canary is on at several clusters")
            .details(on.iter().filter_map(|(opened, _)| opened.cluster().map(str::to_owned)))
            .help("say which with `--cluster NAME`"));
    }
    let over = over.into_iter().max_by_key(|(_, record)| record.started_at);
    Ok(on.pop().or(over))
}

/// The canary's report, and what came of it since.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    rollback: Option<&'a Later>,
    stable_now: Option<&'a str>,
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<9} {value}\n")
}

/// What the instances of a version use: the middle one and the most.
fn used(arm: &PerPod) -> String {
    let cores = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.3}"));
    let memory = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| bytes(value as u64));
    format!(
        "{} pods, cpu {} cores (most {}), memory {} (most {})",
        arm.pods,
        cores(arm.cpu_cores_median),
        cores(arm.cpu_cores_max),
        memory(arm.memory_bytes_median),
        memory(arm.memory_bytes_max)
    )
}

/// A canary's report as lines.
pub(super) fn text(context: &Context, report: Option<&Value>) -> String {
    let Some(report) = report
        .cloned()
        .and_then(|report| serde_json::from_value::<Report>(report).ok())
    else {
        return String::new();
    };
    let paint = context.out.stdout;
    let status = serde_json::to_value(report.status)
        .ok()
        .and_then(|word| word.as_str().map(|word| word.replace('_', " ")))
        .unwrap_or_default();
    let style = match report.status {
        Status::Promoted | Status::Baking => Style::Done,
        Status::RolledBack | Status::RollingBack | Status::Lost | Status::UndoIncomplete => Style::Error,
        Status::Aborted => Style::Warning,
        _ => Style::Hint,
    };
    let mut lines = vec![
        (
            "canary",
            format!(
                "{} {} against {}",
                report.service, report.canary_version, report.stable_version
            ),
        ),
        ("run", report.run.clone()),
        ("status", paint.apply(style, &status)),
        ("verdict", report.verdict.as_str().to_owned()),
    ];
    for reason in &report.reasons {
        lines.push(("", reason.clone()));
    }
    lines.push((
        "share",
        match report.share.observed_ratio {
            Some(observed) => format!("{} %, observed {:.1} %", report.percent, observed * 100.0),
            None => format!("{} %", report.percent),
        },
    ));
    if let Some(evidence) = &report.evidence {
        for metric in serde_json::to_value(&evidence.metrics)
            .ok()
            .iter()
            .flat_map(|metrics| metrics.as_array().cloned().unwrap_or_default())
        {
            let name = metric
                .get("metric")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            let arm = |arm: &str| {
                let number = |what: &str| {
                    metric
                        .pointer(&format!("/{arm}/{what}"))
                        .and_then(Value::as_u64)
                        .unwrap_or_default()
                };
                format!("{} of {}", number("bad"), number("requests"))
            };
            lines.push((
                "evidence",
                format!("{name}: canary {}, stable {}", arm("canary"), arm("stable")),
            ));
        }
    }
    for criterion in &report.criteria {
        lines.push((
            "criterion",
            format!("{}: {}", criterion.describe(), criterion.verdict.as_str()),
        ));
    }
    for (version, arm) in report
        .resources
        .iter()
        .flat_map(|resources| [("canary", &resources.canary), ("stable", &resources.stable)])
    {
        lines.push(("resources", format!("{version}: {}", used(arm))));
    }
    if let Some(more) = report.more_requests_needed {
        lines.push(("needs", format!("about {more} more canary requests for a pass")));
    }
    if let Some(message) = &report.message {
        lines.push(("message", message.clone()));
    }
    lines.push(("elapsed", seconds(report.elapsed_seconds)));
    lines.into_iter().map(|(name, value)| line(name, &value)).collect()
}
