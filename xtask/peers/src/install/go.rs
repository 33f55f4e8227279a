//! Programs built from Go modules. What they are built from is fixed by a `go.mod` and a `go.sum` of this project, a
//! folder a peer, since their dependencies would clash in a shared one. The caches are the builds' own, and go with them.
//!
//! A folder may also hold `overlay/PACKAGE/FILE`: files that a module lacks; and `ldflags`: what the linker is told, such
//! as a version that a program cannot know otherwise.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Where one peer is built.
pub(super) struct Workshop<'a> {
    folder: &'a Path,
    /// Go's cache of what is compiled, which the peers of one installation share.
    compiled: &'a Path,
}

/// Builds the programs of `peer` into `made`.
pub(super) fn build(peer: &Peer, packages: &[&str], workshop: &Workshop<'_>, made: &Path) -> Result<(), InstallError> {
    let recipe = recipe("go", peer);
    let overlay = recipe.join("overlay");
    let ldflags = format!("-ldflags=-s -w {}", ldflags(peer)?);
    let (source, modules) = if overlay.exists() {
        (workshop.vendored(&recipe, &overlay)?, "-mod=vendor")
    } else {
        (recipe, "-mod=readonly")
    };
    let build = workshop.go(["build", modules, "-trimpath", ldflags.trim_end(), "-o"]);
    let named_alike = |(program, package): (&&str, &&str)| package.rsplit('/').next() == Some(*program);
    if peer.programs.iter().zip(packages).all(named_alike) {
        // In one go: while one program is linked, the next is compiled.
        return workshop.run(&build.arg(made).args(packages.iter().copied()), &source);
    }
    for (program, package) in peer.programs.iter().zip(packages) {
        workshop.run(&build.clone().arg(made.join(program)).arg(package), &source)?;
    }
    Ok(())
}

/// Fetches `module` and puts what is in its `folder` into `made`, under the name of the peer's only entry.
pub(super) fn files(
    peer: &Peer,
    module: &str,
    folder: &str,
    workshop: &Workshop<'_>,
    made: &Path,
) -> Result<(), InstallError> {
    workshop.run(&workshop.go(["mod", "download", module]), &recipe("go", peer))?;
    let version = peer.version().unwrap_or_default();
    let source = workshop.modules().join(format!("{module}@v{version}")).join(folder);
    copy_all(&source, &made.join(peer.programs[0]))
}

/// What the recipe says to the linker beyond leaving symbols out.
fn ldflags(peer: &Peer) -> Result<String, InstallError> {
    let file = recipe("go", peer).join("ldflags");
    match fs::read_to_string(&file) {
        Ok(flags) => Ok(flags.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(in_file(&file, error)),
    }
}

impl<'a> Workshop<'a> {
    pub(super) fn new(folder: &'a Path, compiled: &'a Path) -> Self {
        Self { folder, compiled }
    }

    /// `go` with these caches, at a low priority: people work beside it.
    fn go<const N: usize>(&self, arguments: [&str; N]) -> Program {
        Program::new("nice")
            .args(["-n", "5", "go"])
            .args(arguments)
            .env("GOMODCACHE", self.modules())
            .env("GOCACHE", self.compiled)
            // What is read-only could not be removed afterwards.
            .env("GOFLAGS", "-modcacherw -buildvcs=false")
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
    }

    fn run(&self, go: &Program, source: &Path) -> Result<(), InstallError> {
        tool::run(go, source, Some(self.folder)).map(drop)
    }

    fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// A folder with the modules' sources in it, and the files of `overlay` among them. `go` has an option of that name, but
    /// it refuses files in its cache.
    fn vendored(&self, recipe: &Path, overlay: &Path) -> Result<PathBuf, InstallError> {
        let source = self.folder.join("source");
        for name in ["go.mod", "go.sum"] {
            copy(&recipe.join(name), &source.join(name))?;
        }
        self.run(&self.go(["mod", "vendor"]), &source)?;
        copy_all(overlay, &source.join("vendor"))?;
        Ok(source)
    }
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
