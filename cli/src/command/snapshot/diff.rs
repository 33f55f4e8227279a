//! `opsctl snapshot diff`: what changed from one snapshot to another.

use backups::snapshots::{self, ChangeKind, SnapshotFilter};
use serde::Serialize;

use super::{exit_section, find, with_repository};
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, bytes, one_line, plural};

/// Compare two snapshots
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Id, its first digits, or latest
    #[arg(value_name = "BEFORE")]
    before: String,

    /// Id, its first digits, or latest
    #[arg(value_name = "AFTER", default_value = "latest")]
    after: String,
}

fn help() -> String {
    format!(
        "Marks: + added, - removed, M content, U mode, owner, time or extended attributes alone, T another type.\n\n{}",
        exit_section()
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    before: String,
    after: String,
    changes: Vec<Change>,
    changed_files: u64,
    added: Totals,
    removed: Totals,
}

#[derive(Serialize)]
struct Totals {
    files: u64,
    directories: u64,
    others: u64,
    data_blobs: u64,
    tree_blobs: u64,
    blob_bytes: u64,
}

impl From<snapshots::Totals> for Totals {
    fn from(totals: snapshots::Totals) -> Self {
        Self {
            files: totals.files,
            directories: totals.directories,
            others: totals.others,
            data_blobs: totals.data_blobs,
            tree_blobs: totals.tree_blobs,
            blob_bytes: totals.bytes,
        }
    }
}

#[derive(Serialize)]
struct Change {
    path: String,
    kind: &'static str,
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, repository: Option<&str>, context: &Context) -> Outcome {
    with_repository(repository, context, async |_, engine| {
        let before = find(&engine, &args.before, &SnapshotFilter::default()).await?;
        let after = find(&engine, &args.after, &SnapshotFilter::default()).await?;
        let difference = snapshots::diff(&engine, &before.snapshot, &after.snapshot)
            .await
            .map_err(|error| error::backups::failure("could not compare the snapshots", &error))?;
        let told: Vec<Change> = difference
            .changes
            .iter()
            .map(|change| Change {
                path: change.path.display().to_string(),
                kind: match change.kind {
                    ChangeKind::Added => "added",
                    ChangeKind::Removed => "removed",
                    ChangeKind::Modified => "modified",
                    ChangeKind::Metadata => "metadata",
                    ChangeKind::Type => "type",
                },
                before_bytes: change.size_bytes.0,
                after_bytes: change.size_bytes.1,
            })
            .collect();
        let document = Document {
            schema: "opsctl.snapshot_diff/v1",
            r#type: "snapshot_diff",
            before: before.id.to_string(),
            after: after.id.to_string(),
            changes: told,
            changed_files: difference.changed_files,
            added: difference.added.into(),
            removed: difference.removed.into(),
        };
        context.out.answer(&document, |paint| {
            document
                .changes
                .iter()
                .map(|change| {
                    let (mark, style) = match change.kind {
                        "added" => ("+", Style::Done),
                        "removed" => ("-", Style::Error),
                        "modified" => ("M", Style::Warning),
                        "metadata" => ("U", Style::Faint),
                        _ => ("T", Style::Warning),
                    };
                    format!("{} {}\n", paint.apply(style, mark), one_line(&change.path))
                })
                .collect()
        })?;
        context.out.note(format!(
            "{}: {} of blobs added, {} removed",
            plural(document.changes.len() as u64, "difference", "differences"),
            bytes(document.added.blob_bytes),
            bytes(document.removed.blob_bytes)
        ));
        Ok(Exit::Done)
    })
}
