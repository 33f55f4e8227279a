//! `opsctl run show`: the record, the events and the report of one run.

use opsctl_platform::run::{Event, RunRecord};
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::Style;
use crate::platform::{self, words};

/// Show what a run did
#[derive(Debug, clap::Args)]
#[command(after_long_help = Exit::section(&[Exit::Usage]))]
pub(crate) struct Args {
    /// The run, or its first characters; without it the newest
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    record: &'a RunRecord,
    report: Option<Value>,
    events: &'a [Event],
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let all = platform::open_all(context)?;
    let (opened, record) = context.block_on(platform::find_run_in(all, args.run.as_deref()))?;
    let events = context.block_on(opened.events(&record));
    let document = Document {
        schema: "opsctl.run_show/v1",
        r#type: "run_show",
        record: &record,
        report: context.block_on(opened.report(&record)),
        events: &events,
    };
    context.out.answer(&document, |paint| {
        let (state, style) = words::state(&record);
        let mut text = format!(
            "{} {} {}\n",
            paint.apply(Style::Hint, &record.id),
            record.kind,
            words::target(&record)
        );
        let mut row = |name: &str, value: String| {
            if !value.is_empty() {
                text.push_str(&format!("  {name:<12} {value}\n"));
            }
        };
        row("state", paint.apply(style, &state));
        row("message", record.message.clone().unwrap_or_default());
        row("by", record.actor.clone());
        row("reason", record.reason.clone().unwrap_or_default());
        row("environment", record.environment.clone());
        row("cluster", record.cluster.clone().unwrap_or_default());
        row("started", record.started_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
        row(
            "ended",
            record
                .ended_at
                .map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
                .unwrap_or_default(),
        );
        for step in &record.undo {
            row("undo", format!("{} {}", step.field, words::undo(step)));
        }
        text.push('\n');
        for event in &events {
            text.push_str(&format!(
                "  {}  {}\n",
                paint.apply(Style::Faint, &event.ts.strftime("%H:%M:%S%.3f").to_string()),
                words::event(event)
            ));
        }
        text
    })?;
    let reports = opened.report_files(&record.id);
    if !reports.is_empty() {
        context.out.note(format!(
            "report: {}",
            reports
                .iter()
                .map(|path| context.shown(path))
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    Ok(Exit::Done)
}
