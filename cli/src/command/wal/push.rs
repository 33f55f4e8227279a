//! `opsctl wal push`: what `archive_command` runs. The server keeps the file until this succeeds.

use std::io::Read as _;
use std::path::PathBuf;

use backups::pitr::postgres::push::{Cluster, Pushed, push};
use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::physical;
use crate::repository::{self, IfEmpty};
use crate::target;

/// No segment is larger.
const LIMIT: u64 = 1 << 30;

/// Put a file of the log into the archive: for archive_command
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The datastore
    #[arg(value_name = "DATASTORE")]
    store: String,

    /// The file: %p
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

fn help() -> String {
    format!(
        "Examples:\n  # In postgresql.conf, where the server cannot be reached for replication\n  \
         archive_mode = on\n  \
         archive_command = 'opsctl --config /etc/opsctl.toml wal push pg-main %p'\n  \
         archive_timeout = 60\n\n\
         The server runs it in its data folder, so say where the configuration is. Every file is read as log and held against\n\
         its name and cluster first. The same file again is no error, since the server repeats what it is not sure of;\n\
         another content under the same name is. Labels of backups are not kept. Any status but 0 makes the server\n\
         keep the file and try again. `opsctl backup --follow` loses less: it does not wait for a file to fill up.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Interrupted])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    datastore: &'a str,
    file: &'a str,
    outcome: &'static str,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let store = target::store(context, &config, Some(&args.store))?;
    let path = context.absolute(&args.path);
    let what = format!("could not archive `{}`", context.shown(&path));
    physical::only(store, &what)?;
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(Failure::usage("usage", what).cause("it has no name"));
    };
    let declared = repository::declared(&config, None)?;
    let unread = |error| Failure::io(what.clone(), &error);
    let mut content = Vec::new();
    let file = std::fs::File::open(&path).map_err(unread)?;
    file.take(LIMIT + 1).read_to_end(&mut content).map_err(unread)?;
    let cluster = Cluster::around(&path);
    repository::cancellable(context, async |_cancel| {
        let engine = repository::open(context, declared, IfEmpty::Make).await?;
        let archive = physical::archive(&config, store, &engine)?;
        let pushed = push(&archive, name, content.into(), cluster).await;
        let pushed = pushed.map_err(|error| error::backups::pushed(what.clone(), &error))?;
        let outcome = match pushed {
            Pushed::Stored => "stored",
            Pushed::Present => "present",
            Pushed::NotNeeded => "not_needed",
        };
        let document = Document {
            schema: "opsctl.wal_push/v1",
            r#type: "wal_push",
            datastore: &store.name,
            file: name,
            outcome,
        };
        // To the server's log it has nothing to say when all is well.
        if context.out.json {
            context.out.document(&document)?;
        }
        context.out.detail(format!("{name}: {outcome}"));
        Ok(Exit::Done)
    })
}
