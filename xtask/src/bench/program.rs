//! The programs that are measured: ours, built for release, found where cargo put them, and the peers beside them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use peers::Peer;

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

/// A peer's program by name.
pub fn peer(name: &str) -> Result<PathBuf> {
    let peer = Peer::named(name).with_context(|| format!("`{name}` is no peer"))?;
    let found = peer.program(name);
    found.with_context(|| {
        format!(
            "{name} is not installed; `cargo xtask peers build {}` does it",
            peer.name
        )
    })
}
