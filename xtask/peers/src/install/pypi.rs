//! Python packages: what a `requirements.txt` of this project names, each with its checksum, and nothing that they would
//! bring along.

use std::path::Path;

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Fetches the packages of `peer` into `made`.
pub(super) fn fetch(peer: &Peer, workshop: &Path, made: &Path) -> Result<(), InstallError> {
    let pip = Program::new("pip")
        .args([
            "install",
            "--quiet",
            "--no-input",
            "--no-cache-dir",
            "--no-compile",
            "--no-deps",
            "--require-hashes",
        ])
        .arg("--target")
        .arg(made)
        .arg("--requirement")
        .arg(recipe("pypi", peer).join("requirements.txt"));
    tool::run(&pip, workshop, Some(workshop)).map(drop)
}
