//! Cargo, called by what cargo runs: a task or a test.

use std::process::Command;

/// `cargo` in the workspace's folder, as from a shell.
///
/// Cargo tells what it runs which package that is. A build script that reads this (ring's does) would run again for every
/// other caller, and all that stands on its crate be built again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace_root());
    for (name, _) in std::env::vars_os() {
        let said = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|of| said.starts_with(of))
        {
            command.env_remove(&name);
        }
    }
    command
}
