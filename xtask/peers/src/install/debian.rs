//! Packages of Debian's archive, through `apt-get`, which wants root.

use std::process::Command;

use super::{InstallError, tool};

/// Installs the packages.
pub(super) fn install(packages: &[&str]) -> Result<(), InstallError> {
    tool::run(&mut apt_get(&["update", "-qq"]))?;
    tool::run(apt_get(&["install", "-y", "-qq", "--no-install-recommends"]).args(packages))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    // A package must not start a server of its own: tests start theirs.
    command.env("RUNLEVEL", "1");
    command
}
