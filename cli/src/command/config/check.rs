//! `opsctl config check`: reads the file for every environment and tells everything that is wrong.

use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::plural;

/// Check opsctl.toml for every environment
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {}

fn help() -> String {
    format!(
        "Examples:\n  # In a hook before a commit\n  opsctl config check -q\n\n{}",
        Exit::section(&[Exit::Usage, Exit::Refused])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    file: String,
    environments: Vec<String>,
    services: usize,
    datastores: usize,
    repositories: usize,
}

/// Runs the command.
pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let document = Document {
        schema: "opsctl.config_check/v1",
        r#type: "config_check",
        file: config.file.display().to_string(),
        services: config.services.len(),
        datastores: config.datastores.len(),
        repositories: config.repositories.len(),
        environments: config.environments,
    };
    context.out.answer(&document, |_| {
        format!(
            "{}: {}, {}, {}, {}\n",
            context.shown(&config.file),
            plural(document.environments.len() as u64, "environment", "environments"),
            plural(document.services as u64, "service", "services"),
            plural(document.datastores as u64, "datastore", "datastores"),
            plural(document.repositories as u64, "repository", "repositories"),
        )
    })?;
    Ok(Exit::Done)
}
