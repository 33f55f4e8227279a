//! `opsctl snapshot list`: which snapshots there are, oldest first.

use backups::snapshots::{self, SnapshotFilter};
use serde::Serialize;

use super::{Told, exit_section, proved, with_repository};
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table, bytes};
use crate::repository::store_tag;
use crate::target;

/// List snapshots, oldest first
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Only those of a datastore, or of the stores of a service
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Only those with this tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # What was saved of orders-db\n  opsctl snapshot list orders-db\n\n{}",
        exit_section()
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    snapshots: Vec<Told>,
    damaged: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, repository: Option<&str>, context: &Context) -> Outcome {
    with_repository(repository, context, async |config, engine| {
        let filter = SnapshotFilter {
            host: args.host.clone(),
            tags: args.tags.clone(),
            ..SnapshotFilter::default()
        };
        let listed = snapshots::list(&engine, &filter)
            .await
            .map_err(|error| error::backups::failure("could not list the snapshots", &error))?;
        let wanted: Option<Vec<String>> = match &args.target {
            Some(target) => Some(
                target::stores(&config, Some(target))?
                    .into_iter()
                    .map(|store| store_tag(&store.name))
                    .collect(),
            ),
            None => None,
        };
        let proved = proved(context, &engine).await?;
        let told: Vec<Told> = listed
            .snapshots
            .iter()
            .filter(|record| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| record.snapshot.tags.iter().any(|tag| wanted.contains(tag)))
            })
            .map(|record| Told::new(record, &proved))
            .collect();
        let document = Document {
            schema: "opsctl.snapshots/v1",
            r#type: "snapshots",
            snapshots: told,
            damaged: listed
                .damaged
                .iter()
                .map(|(id, damage)| format!("{id} is {damage}"))
                .collect(),
        };
        context.out.answer(&document, |paint| {
            let mut table = Table::new(&["snapshot", "time", "datastore", "host", "size", "proved", "paths"]);
            for told in &document.snapshots {
                table.styled(vec![
                    (told.short().to_owned(), Some(Style::Hint)),
                    (told.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(), None),
                    (told.datastore.clone().unwrap_or_default(), None),
                    (told.host.clone(), None),
                    (told.total_bytes.map(bytes).unwrap_or_default(), None),
                    (
                        told.proved
                            .map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
                            .unwrap_or_default(),
                        told.proved.map(|_| Style::Done),
                    ),
                    (told.paths.join(" "), Some(Style::Faint)),
                ]);
            }
            table.render(paint, context.out.width)
        })?;
        for damaged in &document.damaged {
            context.out.warn(format!("snapshot file {damaged}"));
        }
        if !document.damaged.is_empty() {
            return Ok(Exit::Partial);
        }
        if document.snapshots.is_empty() {
            context.out.note("there is no snapshot yet");
        }
        Ok(Exit::Done)
    })
}
