//! placeholder
use super::Args;
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{Failure, Outcome};
/// Runs the command.
pub(super) fn run(_args: &Args, _context: &Context, _config: &Config, _store: &Datastore) -> Outcome {
    Err(Failure::usage("not_built", "not built yet"))
}
