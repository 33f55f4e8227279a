//! Programs built from crates of the registry. Each package brings the `Cargo.lock` that says what it is built from, and
//! the registry's index the checksums.

use std::{fs, path::Path};

use super::{InstallError, tool};
use crate::{Peer, Program};

/// Builds the programs of `peer` into `made`.
pub(super) fn build(
    peer: &Peer,
    package: &str,
    version: &str,
    workshop: &Path,
    made: &Path,
) -> Result<(), InstallError> {
    let root = workshop.join("root");
    // At a low priority: people work beside it.
    let cargo = Program::new("nice")
        .args([
            "-n",
            "5",
            "cargo",
            "install",
            "--quiet",
            "--locked",
            "--no-default-features",
        ])
        .args(["--version", version, "--root"])
        .arg(&root)
        .arg(package)
        .env("CARGO_TARGET_DIR", workshop.join("target"));
    // Not in the workspace's folder, whose settings are none of the package's.
    tool::run(&cargo, workshop, Some(workshop))?;
    for program in peer.programs {
        let path = root.join("bin").join(program);
        fs::rename(&path, made.join(program)).map_err(|source| InstallError::File { path, source })?;
    }
    Ok(())
}
