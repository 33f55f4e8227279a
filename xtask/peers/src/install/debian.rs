//! Packages of Debian's archive, through `apt-get`, which wants root.

use std::path::Path;

use super::{InstallError, tool};
use crate::Program;

/// Installs the packages.
pub(super) fn install(packages: &[&str]) -> Result<(), InstallError> {
    run(apt_get().args(["update", "-qq"]))?;
    run(apt_get()
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))
}

fn apt_get() -> Program {
    // A package must not start a server of its own: tests start theirs.
    Program::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1")
}

fn run(apt_get: Program) -> Result<(), InstallError> {
    tool::run(&apt_get, Path::new("/"), None).map(drop)
}
