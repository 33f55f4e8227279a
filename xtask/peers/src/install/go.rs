//! Programs built from Go modules. What they are built from is fixed by a `go.mod` and a `go.sum` of this project, a
//! folder a peer, since their dependencies would clash in a shared one. The caches are the build's own, and go with it.
//!
//! A folder may also hold `overlay/PACKAGE/FILE`: files that a module lacks, or has otherwise.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Builds the programs of `peer` into `made`.
pub(super) fn build(peer: &Peer, packages: &[&str], workshop: &Path, made: &Path) -> Result<(), InstallError> {
    let source = recipe("go", peer);
    let overlay = overlay(&source, workshop)?;
    for (program, package) in peer.programs.iter().zip(packages) {
        let build = go(workshop)
            .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-overlay"])
            .arg(&overlay)
            .arg("-o")
            .arg(made.join(program))
            .arg(package);
        tool::run(&build, &source, Some(workshop))?;
    }
    Ok(())
}

/// `go` with caches in `workshop`, at a low priority: people work beside it.
fn go(workshop: &Path) -> Program {
    Program::new("nice")
        .args(["-n", "5", "go"])
        .env("GOMODCACHE", workshop.join("modules"))
        .env("GOCACHE", workshop.join("cache"))
        // What is read-only could not be removed afterwards.
        .env("GOFLAGS", "-modcacherw -buildvcs=false")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
}

/// Writes the file that tells `go` which files are laid over the modules'.
fn overlay(source: &Path, workshop: &Path) -> Result<PathBuf, InstallError> {
    let mut replace = BTreeMap::new();
    let root = source.join("overlay");
    for file in files(&root).map_err(|error| in_file(&root, error))? {
        let (Some(package), Some(name)) = (
            file.parent().and_then(|folder| folder.strip_prefix(&root).ok()),
            file.file_name(),
        ) else {
            continue;
        };
        let list = go(workshop)
            .args(["list", "-mod=readonly", "-f", "{{.Dir}}"])
            .arg(package);
        // What it downloads on the way it says before.
        let said = tool::run(&list, source, Some(workshop))?;
        let folder = PathBuf::from(said.lines().next_back().unwrap_or_default());
        replace.insert(folder.join(name), file);
    }
    let file = workshop.join("overlay.json");
    let text = serde_json::json!({ "Replace": replace }).to_string();
    fs::write(&file, text).map_err(|error| in_file(&file, error))?;
    Ok(file)
}

/// Every file below `folder`; none when there is no such folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn in_file(path: &Path, source: io::Error) -> InstallError {
    let path = path.to_owned();
    InstallError::File { path, source }
}
