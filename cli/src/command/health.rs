//! `opsctl health`: how services are, asked of the services themselves over HTTP and gRPC. It changes nothing and starts
//! nothing; what the supervisor last saw is `opsctl status`.

mod ask;
mod check;
mod connect;
mod pods;
mod target;
mod watch;

use clap::Subcommand;
use serde::Serialize;

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::Style;

/// Ask services how they are, once or again and again
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Watch(watch::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Check(args) => check::run(&args, context),
        Command::Watch(args) => watch::run(&args, context),
    }
}

/// What is to be asked: the same words for both commands.
#[derive(Debug, clap::Args)]
struct Asked {
    /// Services of opsctl.toml, or addresses: http://, https://, grpc://, grpcs:// or
    /// tcp://HOST:PORT; without any, all services
    #[arg(value_name = "SERVICE|URL")]
    targets: Vec<String>,

    /// Ask for ready, live, startup or a group of the service's own
    #[arg(long, value_name = "NAME")]
    group: Option<String>,

    /// How long each answer may take, the connection included
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: std::time::Duration,
}

/// How a target is. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It says that it is well.
    Healthy,
    /// It serves, and says that something is amiss (`warn`).
    Degraded,
    /// It answers, and the answer is no.
    Unhealthy,
    /// Nobody answers, or not in time.
    Unreachable,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Healthy => Style::Done,
            Self::Degraded => Style::Warning,
            Self::Unhealthy | Self::Unreachable => Style::Error,
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Healthy | Self::Degraded => Exit::Done,
            Self::Unhealthy => Exit::No,
            Self::Unreachable => Exit::Unreachable,
        }
    }
}
