//! `opsctl completions`: the shell's completion script, from the one clap tree.

use clap::ValueEnum;
use clap_complete::Shell;

use crate::cli;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;

/// What can be written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
    /// The manual page instead of a completion script
    Man,
}

/// Write the completion script of a shell, or the man page
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  # bash, for this user\n  \
    opsctl completions bash > ~/.local/share/bash-completion/completions/opsctl\n\n  \
    # The manual page\n  opsctl completions man | man -l -")]
pub(crate) struct Args {
    #[arg(value_enum)]
    kind: Kind,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let mut tree = cli::tree(None);
    let mut text = Vec::new();
    let shell = match args.kind {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
        Kind::Elvish => Shell::Elvish,
        Kind::Powershell => Shell::PowerShell,
        Kind::Man => {
            clap_mangen::Man::new(tree)
                .render(&mut text)
                .map_err(|error| Failure::io("could not write the manual page", &error))?;
            context.out.raw(&text)?;
            return Ok(Exit::Done);
        }
    };
    clap_complete::generate(shell, &mut tree, "opsctl", &mut text);
    context.out.raw(&text)?;
    Ok(Exit::Done)
}
