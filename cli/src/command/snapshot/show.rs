//! `opsctl snapshot show`: everything that one snapshot says of itself.

use backups::snapshots::SnapshotFilter;
use serde::Serialize;

use super::{Told, exit_section, find, with_repository};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{bytes, one_line};

/// Show what a snapshot says of itself
#[derive(Debug, clap::Args)]
#[command(after_long_help = exit_section())]
pub(crate) struct Args {
    /// Id, its first digits, or latest
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    snapshot: Told,
}

/// Runs the command.
pub(crate) fn run(args: &Args, repository: Option<&str>, context: &Context) -> Outcome {
    with_repository(repository, context, async |_, engine| {
        let record = find(&engine, &args.snapshot, &SnapshotFilter::default()).await?;
        let document = Document {
            schema: "opsctl.snapshot/v1",
            r#type: "snapshot",
            snapshot: Told::new(&record, &super::proved(context, &engine).await?),
        };
        context.out.answer(&document, |_| {
            let told = &document.snapshot;
            let rows = [
                ("snapshot", told.snapshot.clone()),
                ("time", told.time.to_string()),
                ("datastore", told.datastore.clone().unwrap_or_default()),
                ("host", told.host.clone()),
                ("user", told.user.clone()),
                ("tags", told.tags.join(" ")),
                ("paths", told.paths.join(" ")),
                ("files", told.files.map(|files| files.to_string()).unwrap_or_default()),
                ("size", told.total_bytes.map(bytes).unwrap_or_default()),
                ("new", told.added_bytes.map(bytes).unwrap_or_default()),
                ("proved", told.proved.map(|at| at.to_string()).unwrap_or_default()),
                ("parent", told.parent.clone().unwrap_or_default()),
                ("tree", told.tree.clone()),
                ("program", told.program.clone().unwrap_or_default()),
            ];
            rows.into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| format!("{name:<10} {}\n", one_line(&value)))
                .collect()
        })?;
        Ok(Exit::Done)
    })
}
