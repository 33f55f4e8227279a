//! Programs built from Go modules. What they are built from is fixed by a `go.mod` and a `go.sum` of this project, a
//! folder a peer, since their dependencies would clash in a shared one. The caches are the build's own, and go with it.
//!
//! A folder may also hold `overlay/PACKAGE/FILE`: files that a module lacks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Builds the programs of `peer` into `made`.
pub(super) fn build(peer: &Peer, packages: &[&str], workshop: &Path, made: &Path) -> Result<(), InstallError> {
    let recipe = recipe("go", peer);
    let overlay = recipe.join("overlay");
    let (source, modules) = if overlay.exists() {
        (vendored(&recipe, &overlay, workshop)?, "-mod=vendor")
    } else {
        (recipe, "-mod=readonly")
    };
    for (program, package) in peer.programs.iter().zip(packages) {
        let build = go(workshop)
            .args(["build", modules, "-trimpath", "-ldflags=-s -w", "-o"])
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

/// A folder in `workshop` with the modules' sources in it, and the files of `overlay` among them. `go` has an option of
/// that name, but it refuses files in its cache.
fn vendored(recipe: &Path, overlay: &Path, workshop: &Path) -> Result<PathBuf, InstallError> {
    let source = workshop.join("source");
    for name in ["go.mod", "go.sum"] {
        copy(&recipe.join(name), &source.join(name))?;
    }
    tool::run(&go(workshop).args(["mod", "vendor"]), &source, Some(workshop))?;
    copy_all(overlay, &source.join("vendor"))?;
    Ok(source)
}

fn copy_all(from: &Path, to: &Path) -> Result<(), InstallError> {
    for entry in fs::read_dir(from).map_err(|error| in_file(from, error))? {
        let entry = entry.map_err(|error| in_file(from, error))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target)?;
        } else {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), InstallError> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(|error| in_file(folder, error))?;
    fs::copy(from, to).map_err(|error| in_file(from, error))?;
    Ok(())
}

fn in_file(path: &Path, source: io::Error) -> InstallError {
    let path = path.to_owned();
    InstallError::File { path, source }
}
