//! `opsctl recovery report`: what is promised and what was measured, as a document to hand over, with the restore runbook
//! of each datastore. The same snapshots and drills make the same document, whenever it is written.

mod page;
mod runbook;

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::stores::Known;
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;

/// Write the RPO and RTO document with the restore runbook of each datastore
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A datastore, or a service (the stores that it uses); without it every datastore
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Write it to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How it is written [default: by the file's ending, else markdown]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
}

/// How the document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Text with tables, for a wiki or a repository.
    Markdown,
    /// One page, with nothing loaded from elsewhere.
    Html,
}

fn help() -> String {
    format!(
        "Examples:\n  # Beside the code, so that it is there when opsctl is not\n  opsctl recovery report --out docs/recovery.md\n\n  \
         # A page to hand over\n  opsctl recovery report --out recovery.html\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage])
    )
}

#[derive(Serialize)]
struct Written {
    schema: &'static str,
    r#type: &'static str,
    format: Format,
    /// Where it was written to.
    file: Option<String>,
    /// The document itself, where it was not written to a file.
    text: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    context.block_on(async {
        let known = Known::read(context, args.target.as_deref()).await?;
        let ending = args.out.as_ref().and_then(|file| file.extension());
        let by_ending = match ending.and_then(|ending| ending.to_str()) {
            Some("html" | "htm") => Format::Html,
            _ => Format::Markdown,
        };
        let format = args.format.unwrap_or(by_ending);
        let blocks = runbook::document(&known);
        let text = match format {
            Format::Markdown => page::markdown(&blocks),
            Format::Html => page::html(&blocks),
        };
        let mut written = Written {
            schema: "opsctl.recovery_report/v1",
            r#type: "recovery_report",
            format,
            file: None,
            text: None,
        };
        match &args.out {
            Some(file) => {
                let file = context.absolute(file);
                opsctl_platform::local::state_dir::write_file(&file, text.as_bytes(), true).map_err(|error| {
                    error::platform::failure(format!("could not write `{}`", context.shown(&file)), &error)
                })?;
                written.file = Some(file.display().to_string());
                context.out.answer(&written, |_| format!("{}\n", file.display()))?;
            }
            None if context.out.json => {
                written.text = Some(text);
                context.out.document(&written)?;
            }
            None => context.out.data(&text)?,
        }
        Ok(Exit::Done)
    })
}
