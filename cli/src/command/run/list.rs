//! `opsctl run list`: every run there is a record of, newest last.

use opsctl_platform::run::{Orphan, RunRecord, orphans};
use serde::Serialize;

use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table};
use crate::platform::{self, words};

/// List runs, newest last
#[derive(Debug, clap::Args)]
#[command(after_long_help = Exit::section(&[Exit::Usage]))]
pub(crate) struct Args {
    /// Only those that are not over
    #[arg(long)]
    active: bool,

    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    runs: &'a [RunRecord],
    orphans: Vec<&'a str>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let all = platform::open_all(context)?;
    context.block_on(async {
        let failed = |error| error::platform::run_failure("could not list the runs", &error);
        let (mut records, mut lost) = (Vec::new(), Vec::<Orphan>::new());
        for opened in &all {
            let platform = opened.platform.as_ref();
            let found = platform.records().await;
            records.extend(found.map_err(|error| error::platform::failure("could not list the runs", &error))?);
            lost.extend(orphans(platform).await.map_err(failed)?);
        }
        records.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        if args.active {
            records.retain(|record| record.outcome.is_none());
        }
        let newest = records.split_off(records.len().saturating_sub(args.last));
        let document = Document {
            schema: "opsctl.runs/v1",
            r#type: "runs",
            runs: &newest,
            orphans: lost.iter().map(|orphan| orphan.record.id.as_str()).collect(),
        };
        context.out.answer(&document, |paint| {
            let mut table = Table::new(&["run", "kind", "target", "by", "state", "message"]);
            for record in &newest {
                let (state, style) = words::state(record);
                table.styled(vec![
                    (record.id.clone(), Some(Style::Hint)),
                    (record.kind.clone(), None),
                    (words::target(record).to_owned(), None),
                    (record.actor.clone(), None),
                    (state, Some(style)),
                    (record.message.clone().unwrap_or_default(), Some(Style::Faint)),
                ]);
            }
            table.render(paint, context.out.width)
        })?;
        if newest.is_empty() {
            context.out.note("there is no run yet");
        }
        Ok(Exit::Done)
    })
}
