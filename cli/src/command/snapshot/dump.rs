//! `opsctl snapshot dump`: a file of a snapshot on stdout, or a folder as a tar archive.

use std::io::{self, Write};
use std::path::PathBuf;

use backups::Error;
use backups::snapshots::{self, SnapshotFilter};

use super::{exit_section, find, with_repository};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;

/// Write a file of a snapshot to stdout, a folder as tar
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Id, its first digits, or latest
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,

    /// The file or folder inside the snapshot
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

fn help() -> String {
    format!(
        "Examples:\n  # One database of the latest snapshot\n  opsctl snapshot dump latest orders.db > orders.db\n\n{}",
        exit_section()
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, repository: Option<&str>, context: &Context) -> Outcome {
    if context.global.json {
        return Err(Failure::usage("usage", "a dump is bytes, not a document").help("leave out `--json`"));
    }
    if context.out.width.is_some() && !context.global.no_input {
        return Err(Failure::usage("usage", "a dump would fill the terminal").help("write it to a file with `>`"));
    }
    with_repository(repository, context, async |_, engine| {
        let record = find(&engine, &args.snapshot, &SnapshotFilter::default()).await?;
        let path = args.path.strip_prefix("/").unwrap_or(&args.path);
        let mut stdout = io::BufWriter::with_capacity(1 << 20, io::stdout());
        let dumped = match snapshots::dump(&engine, &record.snapshot, path, &mut stdout).await {
            Ok(()) => stdout.flush().map_err(Error::Output),
            Err(error) => Err(error),
        };
        match dumped {
            Ok(()) => Ok(Exit::Done),
            // The reader has what it wanted.
            Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
            Err(error) => Err(error::backups::failure(
                format!("could not dump `{}`", args.path.display()),
                &error,
            )),
        }
    })
}
