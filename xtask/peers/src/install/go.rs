//! Programs built from Go modules. What they are built from is fixed by a `go.mod` and a `go.sum` of this project, a
//! folder a peer, since their dependencies would clash in a shared one. The caches are the build's own, and go with it.
//!
//! A folder may also hold `overlay/PACKAGE/FILE`: files that a module lacks, or has otherwise.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{InstallError, recipe, tool};
use crate::Peer;

/// Builds the programs of `peer` into `made`.
pub(super) fn build(peer: &Peer, packages: &[&str], workshop: &Path, made: &Path) -> Result<(), InstallError> {
    let source = recipe("go", peer);
    let overlay = overlay(&source, workshop)?;
    for (program, package) in peer.programs.iter().zip(packages) {
        let mut build = go(&source, workshop);
        build.args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w"]);
        build.arg("-overlay").arg(&overlay);
        build.arg("-o").arg(made.join(program)).arg(package);
        tool::run(&mut build)?;
    }
    Ok(())
}

/// `go` in the peer's folder, with caches in `workshop`, at a low priority: people work beside it.
fn go(source: &Path, workshop: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "5", "go"]).current_dir(source);
    command
        .env("GOMODCACHE", workshop.join("modules"))
        .env("GOCACHE", workshop.join("cache"));
    // `-modcacherw`: what is read-only could not be removed afterwards.
    command
        .env("GOFLAGS", "-modcacherw -buildvcs=false")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local");
    command
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
        let folder = workshop.join("folder");
        let mut list = go(source, workshop);
        list.args(["list", "-mod=readonly", "-f", "{{.Dir}}"]).arg(package);
        let output = list.output().map_err(|error| in_file(&folder, error))?;
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
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
