//! `opsctl config show`: every value in force and where it came from.

use serde::Serialize;

use crate::config::{self, Shown};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{Style, Table};

/// Show every value in force and where it came from
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Only values whose path begins with this, for example service.orders
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # Why does orders run twice in production?\n  opsctl config show service.orders -e production\n\n\
         Precedence: flag, then OPSCTL_… variable, then the service's env table, the service, defaults.\n\
         Secrets are shown as their source, never as their value.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::Refused])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    file: String,
    environment: &'a str,
    values: Vec<&'a Shown>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let prefix = args.prefix.as_deref().unwrap_or_default();
    let mut values: Vec<&Shown> = config
        .values
        .iter()
        .filter(|shown| {
            shown
                .path
                .strip_prefix(prefix)
                .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('.'))
        })
        .collect();
    values.sort_by(|a, b| a.path.cmp(&b.path));
    values.dedup();
    let document = Document {
        schema: "opsctl.config/v1",
        r#type: "config",
        file: config.file.display().to_string(),
        environment: &config.environment.name,
        values,
    };
    context.out.answer(&document, |paint| {
        let mut table = Table::new(&["key", "value", "from"]);
        for shown in &document.values {
            table.styled(vec![
                (shown.path.clone(), Some(Style::Hint)),
                (shown.value.clone(), None),
                (shown.origin.to_string(), Some(Style::Faint)),
            ]);
        }
        table.render(paint, context.out.width)
    })?;
    Ok(Exit::Done)
}
