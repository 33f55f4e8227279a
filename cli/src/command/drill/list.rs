//! `opsctl drill list`: which drills there are.

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
    drills: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    kind: &'static str,
    does: &'static str,
    shows: &'static str,
    undo: &'static str,
    guard: &'static str,
}

/// The one drill that breaks nothing.
const RESTORE: Listed = Listed {
    kind: "restore",
    does: "Bring a datastore back into a scratch place",
    shows: "whether its backup restores and is sound, how long that takes, and how much would have been lost",
    undo: "nothing to undo: the scratch place is removed, after a kill by the next restore drill",
    guard: "never without enough free space; nothing that runs is touched",
};

/// Runs the command.
pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let document = Document {
        schema: "opsctl.drills/v1",
        r#type: "drills",
        drills: opsctl_drills::list()
            .into_iter()
            .map(|drill| Listed {
                kind: drill.kind.as_str(),
                does: drill.does,
                shows: drill.shows,
                undo: drill.undo,
                guard: drill.guard,
            })
            .chain([RESTORE])
            .collect(),
    };
    context.out.answer(&document, |paint| {
        document
            .drills
            .iter()
            .map(|drill| {
                format!(
                    "{}\n  {}\n  shows  {}\n  undo   {}\n  guard  {}\n",
                    paint.apply(Style::Hint, drill.kind),
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
