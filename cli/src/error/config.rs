//! What is told of a configuration that cannot be used.

use crate::config::ConfigError;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::plural;

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::NotFound { from } => Self::usage(
                "config_not_found",
                format!("there is no `opsctl.toml` in `{from}` or above"),
            )
            .help("`opsctl init` writes one, `opsctl tour` shows everything without one"),
            ConfigError::Untrusted { path, reason, cure } => Self::new(
                Exit::Refused,
                "config_untrusted",
                format!("`{path}` is not used: {reason}"),
            )
            .cause("it says which commands run, so only its owner may be able to change it")
            .help(cure),
            ConfigError::Read { path, source } => {
                Self::usage("config_unreadable", format!("could not read `{path}`")).because(&source)
            }
            ConfigError::Invalid { file, diagnostics } => {
                let count = plural(diagnostics.len() as u64, "error", "errors");
                Self::usage("config_invalid", format!("`{file}` has {count}"))
                    .details(diagnostics.iter().map(ToString::to_string))
                    .help("opsctl help config")
            }
        }
    }
}
