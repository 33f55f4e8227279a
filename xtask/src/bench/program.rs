//! The programs that are measured: built for release, found where cargo put them.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::step;

/// Builds the binaries of `packages` for release.
pub fn build(packages: &[&str]) -> Result<()> {
    let mut build = step::cargo(["build", "--release", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    step::run(&mut build)
}

/// The folder of the release binaries.
pub fn folder() -> PathBuf {
    step::target().join("release")
}

/// A release binary by name.
pub fn release(name: &str) -> Result<PathBuf> {
    let file = folder().join(name);
    ensure!(file.is_file(), "{} was not built", file.display());
    Ok(file)
}
