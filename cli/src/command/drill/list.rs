//! `opsctl drill list`: which drills there are.

use opsctl_drills::kinds::Description;
use serde::Serialize;

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::Style;

/// List the kinds of drills
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    drills: Vec<Description>,
}

/// Runs the command.
pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let document = Document {
        schema: "opsctl.drills/v1",
        r#type: "drills",
        drills: opsctl_drills::list(),
    };
    context.out.answer(&document, |paint| {
        document
            .drills
            .iter()
            .map(|drill| {
                format!(
                    "{}\n  {}\n  shows  {}\n  undo   {}\n  guard  {}\n",
                    paint.apply(Style::Hint, drill.kind.as_str()),
                    drill.does,
                    drill.shows,
                    drill.undo,
                    drill.guard
                )
            })
            .collect()
    })?;
    Ok(Exit::Done)
}
