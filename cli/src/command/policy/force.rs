//! `opsctl policy force`: a breaker open or closed by a person's word, for a limited time.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::change::{self, Wanted};
use crate::consent::ConsentArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;

/// The longest that a force may last.
const LONGEST: Duration = Duration::from_hours(24);

/// Force a breaker open or closed for a while
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service whose calls the breaker guards
    #[arg(value_name = "SERVICE")]
    service: String,

    /// The policy, as `policy show` names it
    #[arg(value_name = "POLICY")]
    policy: String,

    /// open: refuse every call; closed: let every call pass
    #[arg(value_name = "STATE", value_enum)]
    state: State,

    /// After how long the breaker decides by itself again, at most 24h
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = ttl)]
    ttl: Duration,

    /// Only on this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Say what would be forced, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Open,
    Closed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl.is_zero() || ttl > LONGEST {
        return Err("must be above zero and at most 24h: what should last belongs into the settings".to_owned());
    }
    Ok(ttl)
}

fn help() -> String {
    format!(
        "Examples:\n  # Spare a peer that is being repaired\n  \
         opsctl policy force orders payments open --for 20m --reason \"database move\"\n\n  \
         # The breaker is wrong: let calls pass on one instance\n  \
         opsctl policy force orders payments closed --instance orders-1\n\n\
         A second force replaces the first. An instance that starts meanwhile starts with its breaker closed. The log of\n\
         each instance says who did it, what, how long and why. Exit 3: some instances were not changed, and are listed.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::Partial, Exit::Refused, Exit::Unreachable])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let ttl = humantime::format_duration(args.ttl).to_string();
    let state = args.state.word();
    change::run(
        context,
        &Wanted {
            service: &args.service,
            policy: &args.policy,
            instance: args.instance.as_deref(),
            action: "force",
            what: format!("force the breaker `{}` {state} for {ttl}", args.policy),
            done: format!("is forced {state} for {ttl}"),
            body: json!({"state": state, "ttl": ttl}),
            dry_run: args.dry_run,
            consent: &args.consent,
        },
    )
}
