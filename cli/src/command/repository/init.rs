//! `opsctl repository init`: makes the repository before the first backup would.

use backups::{InitOptions, Repository as Engine};
use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::repository::{self, IfEmpty};

/// Make the repository
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Which one of opsctl.toml, instead of the environment's
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Cut content as this repository of opsctl.toml does, so that `copy` between both and backups into both share data
    #[arg(long, value_name = "NAME")]
    copy_chunker_params_from: Option<String>,
}

fn help() -> String {
    format!(
        "The first `opsctl backup` does the same. The format is restic's, version 2: `restic -r FOLDER snapshots` reads it.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    id: String,
    location: String,
    format_version: u32,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.name.as_deref())?;
    let store = repository::store(declared)?;
    let password = repository::password(context, declared)?;
    context.block_on(async {
        let like = match &args.copy_chunker_params_from {
            Some(name) => {
                let like = repository::declared(&config, Some(name))?;
                Some(repository::open(context, like, IfEmpty::Fail).await?)
            }
            None => None,
        };
        let options = InitOptions::default();
        let made = match &like {
            Some(like) => Engine::init_like(store, password.expose(), &options, like).await,
            None => Engine::init(store, password.expose(), &options).await,
        };
        let engine = made.map_err(|error| {
            error::backups::failure(format!("could not make repository `{}`", declared.name), &error)
        })?;
        let document = Document {
            schema: "opsctl.repository/v1",
            r#type: "repository",
            repository: declared.name.clone(),
            id: engine.id().to_string(),
            location: engine.location(),
            format_version: engine.version(),
        };
        context.out.answer(&document, |_| format!("{}\n", document.location))?;
        context.out.done(format!("made repository `{}`", declared.name));
        context.out.next("opsctl backup");
        Ok(Exit::Done)
    })
}
