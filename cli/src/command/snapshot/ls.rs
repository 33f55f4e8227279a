//! `opsctl snapshot ls`: which files a snapshot holds.

use std::path::PathBuf;

use backups::repo::NodeKind;
use backups::snapshots::{self, SnapshotFilter};
use serde::Serialize;

use super::{exit_section, find, with_repository};
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Table, bytes};

/// List the files of a snapshot
#[derive(Debug, clap::Args)]
#[command(after_long_help = exit_section())]
pub(crate) struct Args {
    /// Id, its first digits, or latest
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,

    /// A folder inside the snapshot
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// Not what lies deeper
    #[arg(long)]
    shallow: bool,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    snapshot: String,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    path: String,
    kind: String,
    mode: String,
    size_bytes: u64,
    modified_at: jiff::Timestamp,
}

/// Runs the command.
pub(crate) fn run(args: &Args, repository: Option<&str>, context: &Context) -> Outcome {
    with_repository(repository, context, async |_, engine| {
        let record = find(&engine, &args.snapshot, &SnapshotFilter::default()).await?;
        let path = args.path.clone().unwrap_or_default();
        let path = path.strip_prefix("/").unwrap_or(&path);
        let listed = snapshots::ls(&engine, &record.snapshot, path, !args.shallow)
            .await
            .map_err(|error| {
                error::backups::failure(format!("could not list snapshot {}", record.id.short()), &error)
            })?;
        let entries = listed
            .into_iter()
            .map(|entry| Entry {
                path: entry.path.display().to_string(),
                kind: kind(entry.node.kind).to_owned(),
                mode: format!("{:04o}", entry.node.permissions()),
                size_bytes: entry.node.size,
                modified_at: entry.node.mtime,
            })
            .collect();
        let document = Document {
            schema: "opsctl.snapshot_files/v1",
            r#type: "snapshot_files",
            snapshot: record.id.to_string(),
            entries,
        };
        context.out.answer(&document, |paint| {
            let mut table = Table::new(&["mode", "size", "modified", "path"]);
            for entry in &document.entries {
                let slash = if entry.kind == "dir" { "/" } else { "" };
                table.row([
                    entry.mode.clone(),
                    bytes(entry.size_bytes),
                    entry.modified_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                    format!("{}{slash}", entry.path),
                ]);
            }
            table.render(paint, None)
        })?;
        Ok(Exit::Done)
    })
}

/// Restic's word for a kind of node.
fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::Dev => "dev",
        NodeKind::Chardev => "chardev",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::Unknown => "unknown",
    }
}
