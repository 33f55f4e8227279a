//! `opsctl logs`: what services print, of all or of one, and as it comes.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::local::logs::{LogLine, LogTail};
use serde::Serialize;

use crate::context::{Context, Signals};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::Style;
use crate::platform;
use crate::target;

/// Show what services print
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Services; without any, all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,

    /// Only lines that say they are younger than this; lines without a time go with the one before them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,

    /// So many lines of each instance
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    last: usize,

    /// Only this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # What did orders say in the last ten minutes?\n  opsctl logs orders --since 10m\n\n{}",
        Exit::section(&[Exit::Usage])
    )
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    r#type: &'static str,
    service: &'a str,
    instance: &'a str,
    text: &'a str,
}

/// How often the files are read.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    for name in &args.services {
        if !opened.config.services.contains_key(name) {
            return Err(target::unknown_service(&opened.config, name));
        }
    }
    let failed = |error| error::platform::failure("could not read the logs", &error);
    let mut tail = LogTail::new(&opened.state, &args.services, args.instance.as_deref());
    let last = if args.since.is_some() { usize::MAX } else { args.last };
    let lines = tail.last(last).map_err(failed)?;
    let oldest = args.since.and_then(|since| context.now().checked_sub(since).ok());
    let mut young = HashMap::new();
    for line in &lines {
        let show = match (oldest, time_of(&line.line)) {
            (None, _) => true,
            (Some(oldest), Some(time)) => {
                young.insert(line.instance.clone(), time >= oldest);
                time >= oldest
            }
            (Some(_), None) => young.get(&line.instance).copied().unwrap_or(false),
        };
        if show {
            tell(context, line)?;
        }
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    context.block_on(async {
        let mut signals = Signals::listen()?;
        while !context.out.is_closed() {
            for line in tail.poll().map_err(failed)? {
                tell(context, &line)?;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                _ = signals.next() => break,
            }
        }
        Ok(Exit::Done)
    })
}

fn tell(context: &Context, line: &LogLine) -> Result<(), Failure> {
    if context.out.json {
        return context.out.event(&Line {
            schema: "opsctl.log/v1",
            r#type: "log",
            service: &line.service,
            instance: &line.instance,
            text: &line.line,
        });
    }
    context.out.line(&format!(
        "{}  {}",
        context.out.stdout.apply(Style::Hint, &line.instance),
        line.line
    ))
}

/// The time that a line says it is of: a field of a JSON line, or its first word.
fn time_of(line: &str) -> Option<Timestamp> {
    if line.starts_with('{') {
        let fields: serde_json::Value = serde_json::from_str(line).ok()?;
        return ["timestamp", "time", "ts", "@timestamp"]
            .iter()
            .find_map(|key| fields.get(key)?.as_str()?.parse().ok());
    }
    line.split_whitespace().next()?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn finds_the_time_of_a_line() {
        let time = "2026-03-14T09:26:53Z".parse().ok();
        assert_eq!(time_of(r#"{"timestamp":"2026-03-14T09:26:53Z","message":"x"}"#), time);
        assert_eq!(time_of("2026-03-14T09:26:53Z INFO x"), time);
        assert_eq!(time_of("panicked at"), None);
    }
}
