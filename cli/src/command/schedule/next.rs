//! `opsctl schedule next`: when schedules, or an expression that one thinks of writing, are due.

use backups::schedule::{Timing, zone};
use jiff::Timestamp;
use serde::Serialize;

use super::local;
use crate::config::{self, suggestion};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table};
use crate::schedule::{self, Named};

/// Show when schedules are due, jitter and quiet hours included
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Only this schedule
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// How many times
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,

    /// Not a schedule of opsctl.toml but this expression
    #[arg(long, value_name = "CRON", conflicts_with = "name")]
    expression: Option<String>,

    /// The expression's time zone
    #[arg(long, value_name = "ZONE", requires = "expression", default_value = "UTC")]
    timezone: String,

    /// From this time on, instead of now
    #[arg(long, value_name = "TIME")]
    after: Option<Timestamp>,
}

fn help() -> String {
    format!(
        "Examples:\n  # The next ten runs of everything\n  opsctl schedule next\n\n  \
         # What an expression means, also when the clocks change\n  \
         opsctl schedule next --expression \"30 2 * * *\" --timezone Europe/Berlin --after 2026-03-28T00:00:00Z -n 3\n\n\
         Expressions: five fields as in a crontab, six with seconds first, seven with years last, or @hourly, @daily,\n\
         @weekly, @monthly, @yearly. With both day fields given a day that fits either is taken. A time that the clock\n\
         leaves out comes when it leaps, one that it repeats comes once.\n\n{}",
        Exit::section(&[Exit::Usage])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    times: Vec<Time>,
}

#[derive(Serialize)]
struct Time {
    schedule: Option<String>,
    /// What the expression names.
    occurrence: Timestamp,
    /// When its job begins.
    start: Timestamp,
    local: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let after = args.after.unwrap_or_else(|| context.now());
    let count = usize::from(args.count);
    let mut times: Vec<Time> = Vec::new();
    let mut add = |name: Option<&str>, timing: &Timing| {
        times.extend(timing.upcoming(after).take(count).map(|due| Time {
            schedule: name.map(str::to_owned),
            occurrence: due.occurrence,
            start: due.start,
            local: local(due.start, &timing.zone),
        }));
    };
    if let Some(text) = &args.expression {
        add(None, &timing(text, &args.timezone)?);
    } else {
        let config = config::load(context)?;
        match &args.name {
            Some(name) => match schedule::find(&config, name)? {
                Named::Schedule(schedule) => add(Some(&schedule.name), &schedule.timing),
                Named::Cleanup(cleanup) => {
                    return Err(
                        Failure::usage("no_schedule", format!("cleanup `{}` has no schedule", cleanup.name))
                            .help(format!("opsctl schedule run {}", cleanup.name)),
                    );
                }
            },
            None => {
                for schedule in config.schedules.values().filter(|schedule| schedule.enabled) {
                    add(Some(&schedule.name), &schedule.timing);
                }
            }
        }
    }
    times.sort_by(|a, b| (a.start, &a.schedule).cmp(&(b.start, &b.schedule)));
    times.truncate(count);
    let document = Document {
        schema: "opsctl.schedule_next/v1",
        r#type: "schedule_next",
        times,
    };
    context.out.answer(&document, |paint| {
        let mut table = Table::new(&["start", "schedule"]);
        for time in &document.times {
            table.styled(vec![
                (time.local.clone(), None),
                (time.schedule.clone().unwrap_or_default(), Some(Style::Faint)),
            ]);
        }
        table.render(paint, context.out.width)
    })?;
    if document.times.is_empty() {
        context.out.note("nothing is due any more");
    }
    Ok(Exit::Done)
}

fn timing(text: &str, place: &str) -> Result<Timing, Failure> {
    let expression = text
        .parse()
        .map_err(|error| Failure::usage("invalid_expression", format!("`{text}` is no schedule")).because(&error))?;
    let zone = zone(place).ok_or_else(|| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let failure = Failure::usage("invalid_timezone", format!("`{place}` is no time zone"));
        match suggestion(place, names.iter().map(String::as_str)) {
            Some(near) => failure.help(format!("did you mean `{near}`?")),
            None => failure.help("expected for example Europe/Berlin"),
        }
    })?;
    Ok(Timing {
        name: String::new(),
        expression,
        zone,
        jitter: std::time::Duration::ZERO,
        quiet: Vec::new(),
    })
}
