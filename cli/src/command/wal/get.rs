//! `opsctl wal get`: what `restore_command` runs. It asks the server that a restore of ours keeps, reads no configuration
//! and starts no runtime: it is started once for each segment.
//!
//! PostgreSQL takes every status from 1 to 125 for the end of the log. So there is 1, which means just that, and over
//! 125, on which it aborts the recovery, for everything else that is not 0.

use std::path::PathBuf;

use backups::pitr::postgres::serve::{Taken, take};

use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;

/// Take a file of the log from a restore that runs: for restore_command
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The socket of the restore
    #[arg(long, value_name = "SOCKET")]
    from: PathBuf,

    /// The file that is wanted: %f
    #[arg(value_name = "FILE")]
    file: String,

    /// Where to put it: %p
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

fn help() -> String {
    format!(
        "Examples:\n  # What `opsctl restore` gives to the server that it starts\n  \
         restore_command = 'opsctl wal get --from /tmp/opsctl-1f0c/wal %f %p'\n\n\
         `opsctl restore` writes that by itself. The files come from memory: the restore fetches ahead.\n\
         0: the file is there. 1: it lies beyond the known end of the log, or is a history that does not exist.\n\
         250: it is known to be missing or damaged, or nobody answers; the server then aborts its recovery\n\
         instead of ending it early.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Stop])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match take(&args.from, &args.file, &context.absolute(&args.path)) {
        Ok(Taken::Written) => Ok(Exit::Done),
        Ok(Taken::Absent) => Ok(Exit::Failed),
        Err(error) => Err(Failure::new(
            Exit::Stop,
            "log_missing",
            format!("could not get `{}` of the log", args.file),
        )
        .because(&error)),
    }
}
