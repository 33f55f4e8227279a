//! `opsctl schedule list`: every schedule, what it runs, how the last run ended, when the next is due.

use jiff::Timestamp;
use serde::Serialize;

use super::local;
use crate::config::{self, Schedule};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{Style, Table};
use crate::schedule::{self, Last, Records};

/// List schedules: what runs, how it ended last, when it is due next
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {}

fn help() -> String {
    format!(
        "Examples:\n  # What runs by itself, and how it went\n  opsctl schedule list\n\n{}",
        Exit::section(&[Exit::Usage])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    schedules: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    schedule: String,
    job: &'static str,
    target: Option<String>,
    expression: String,
    timezone: String,
    enabled: bool,
    running_since: Option<Timestamp>,
    last: Option<Last>,
    succeeded_at: Option<Timestamp>,
    next: Option<Timestamp>,
    next_start: Option<Timestamp>,
}

/// Runs the command.
pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let records = Records::find(config.state(), &config.environment.name)?;
    let now = context.now();
    let told = |schedule: &Schedule| {
        let record = records
            .as_ref()
            .and_then(|records| records.read(context, &schedule.name));
        // What was missed meanwhile is due at once, not at the next time on the clock.
        let from = record.as_ref().map_or(now, |record| record.handled);
        let next = schedule.enabled.then(|| schedule.timing.next(from)).flatten();
        let running = record
            .as_ref()
            .and_then(|record| record.running.clone())
            .filter(|running| running.alive(&context.host(), now));
        Told {
            schedule: schedule.name.clone(),
            job: schedule.job.word(),
            target: schedule.target.clone(),
            expression: schedule.timing.expression.to_string(),
            timezone: schedule.timing.zone.iana_name().unwrap_or("UTC").to_owned(),
            enabled: schedule.enabled,
            running_since: running.map(|running| running.started),
            succeeded_at: record.as_ref().and_then(|record| record.succeeded_at),
            last: record.and_then(|record| record.last),
            next: next.map(|due| due.occurrence),
            next_start: next.map(|due| due.start),
        }
    };
    let document = Document {
        schema: "opsctl.schedules/v1",
        r#type: "schedules",
        environment: &config.environment.name,
        schedules: config.schedules.values().map(told).collect(),
    };
    if document.schedules.is_empty() {
        context.out.note(
            "nothing runs by itself: a datastore has `backup = { schedule = \"0 2 * * *\" }`, other jobs are `[schedule.NAME]`",
        );
        if !context.out.json {
            return Ok(Exit::Done);
        }
    }
    context.out.answer(&document, |paint| {
        let mut table = Table::new(&["schedule", "runs", "when", "last", "next"]);
        for (told, schedule) in document.schedules.iter().zip(config.schedules.values()) {
            let (last, style) = match (&told.last, told.running_since) {
                (_, Some(since)) => (format!("runs since {}", since.strftime("%H:%M:%SZ")), Some(Style::Hint)),
                (Some(last), None) => (
                    format!("{} {}", last.outcome.word(), last.ended.strftime("%Y-%m-%d %H:%MZ")),
                    Some(if last.outcome.good() { Style::Done } else { Style::Error }),
                ),
                (None, None) => ("-".to_owned(), Some(Style::Faint)),
            };
            let next = match told.next_start {
                _ if !told.enabled => "disabled".to_owned(),
                Some(start) if start <= now => "due".to_owned(),
                Some(start) => local(start, &schedule.timing.zone),
                None => "never".to_owned(),
            };
            table.styled(vec![
                (told.schedule.clone(), None),
                (schedule::what(schedule), None),
                (told.expression.clone(), None),
                (last, style),
                (next, None),
            ]);
        }
        table.render(paint, context.out.width)
    })?;
    Ok(Exit::Done)
}
