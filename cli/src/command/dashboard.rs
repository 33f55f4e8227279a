//! `opsctl dashboard`: boards of the catalogue written, drawn and brought to a Grafana, and any board checked. What is on
//! them stands in the crate `dashboards`.

mod check;
mod push;
mod render;

use std::io::Read as _;
use std::path::Path;

use clap::Subcommand;
use dashboards::boards::{self, TAG};
use dashboards::model::Dashboard;
use dashboards::read::json::LARGEST;
use manifest::landscape::Landscape;

use crate::config::suggestion;
use crate::context::Context;
use crate::error::{Failure, Outcome};

/// Write, check, draw and push Grafana boards
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Render(render::Args),
    Check(check::Args),
    Push(push::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Render(args) => render::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Push(args) => push::run(&args, context),
    }
}

/// What boards are called without their beginning: `opsctl-requests` is `requests`.
fn short(uid: &str) -> &str {
    uid.strip_prefix(TAG)
        .and_then(|rest| rest.strip_prefix('-'))
        .unwrap_or(uid)
}

/// The boards of an environment: all, or those that are named by their uid, whole or short, or by their title.
fn ours(landscape: &Landscape, names: &[String]) -> Result<Vec<Dashboard>, Failure> {
    let all = boards::of(landscape);
    if all.is_empty() {
        return Err(Failure::usage(
            "nothing_declared",
            "there are no boards: neither services nor datastores are declared",
        ));
    }
    if names.is_empty() {
        return Ok(all);
    }
    let named = |name: &String| {
        let is = |board: &&Dashboard| {
            board.uid == *name || short(&board.uid) == name || board.title.eq_ignore_ascii_case(name)
        };
        let found = all.iter().find(is);
        found.cloned().ok_or_else(|| unknown(name, &all))
    };
    names.iter().map(named).collect()
}

fn unknown(name: &str, all: &[Dashboard]) -> Failure {
    let failure = Failure::usage("unknown_board", format!("there is no board `{name}`")).details(names(all));
    match suggestion(name, all.iter().map(|board| short(&board.uid))) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure.help("a board in a file is named with its ending: `board.json`"),
    }
}

/// A line for each board, to choose from.
fn names(all: &[Dashboard]) -> Vec<String> {
    let widest = all.iter().map(|board| short(&board.uid).len()).max().unwrap_or(0);
    all.iter()
        .map(|board| format!("{:widest$}  {}", short(&board.uid), board.title))
        .collect()
}

/// The text of a file from outside, of bounded size.
fn read(context: &Context, file: &Path) -> Result<String, Failure> {
    let shown = context.shown(file);
    let failed =
        |error: &std::io::Error| Failure::usage("unreadable", format!("could not read `{shown}`")).because(error);
    let file = std::fs::File::open(context.absolute(file)).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    let most = LARGEST as u64 + 1;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() > LARGEST {
        let told = format!("`{shown}` has more than {} MB", LARGEST >> 20);
        return Err(Failure::usage("too_large", told));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("not_text", format!("`{shown}` is not text in UTF-8")))
}
