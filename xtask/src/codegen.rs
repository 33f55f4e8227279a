//! `cargo xtask codegen`: what is generated and checked in, so that a reader finds it and a build needs no generator.

mod deploy;
mod protos;
mod reference;

use anyhow::Result;

/// Write or check.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Change nothing; fail when a generated file is stale
    #[arg(long)]
    check: bool,
}

impl Arguments {
    /// Only looks.
    pub fn check() -> Self {
        Self { check: true }
    }
}

/// Writes or checks every generated file.
///
/// # Errors
/// When a generator fails, or a file is stale and `--check` was given.
pub fn run(arguments: &Arguments) -> Result<()> {
    protos::write(arguments.check)?;
    deploy::write(arguments.check)?;
    reference::write(arguments.check)
}
