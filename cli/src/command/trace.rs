//! stub

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;

/// Show a request's trace as a tree
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args, _context: &Context) -> Outcome {
    Ok(Exit::Done)
}
