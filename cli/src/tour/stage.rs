//! The tour's own folder: a copy of the reference catalogue, a password, the releases that its canaries ship. Nothing of
//! a tour lies outside it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::error::Failure;
use crate::exit::Exit;

/// The service that the tour kills, restores and ships.
pub(crate) const SERVICE: &str = "orders";
/// The version of the good canary.
pub(crate) const GOOD: &str = "v2";
/// The version of the bad canary.
pub(crate) const BAD: &str = "v3";
/// What the bad canary does wrong.
pub(crate) const BAD_FAULT: &str = "errors=20%";
/// The objective that everything in a tour is held against.
pub(crate) const AVAILABILITY: &str = "99%";

/// A prepared folder.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The folder; it holds everything that the tour makes.
    pub(crate) folder: PathBuf,
    /// What builds the services: each command once, with the folder that it runs in.
    pub(crate) builds: Vec<(Vec<String>, PathBuf)>,
}

impl Stage {
    /// Copies the catalogue found at `catalogue` into `folder`, which must be empty or absent.
    /// `programs` is where the services' executables are, beside this one.
    pub(crate) fn prepare(catalogue: &Path, folder: PathBuf, programs: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(catalogue).map_err(|error| {
            Failure::io(
                format!("could not read the reference catalogue `{}`", catalogue.display()),
                &error,
            )
        })?;
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            Failure::usage("bad_catalogue", format!("`{}` is not valid TOML", catalogue.display())).because(&error)
        })?;
        let source = catalogue.parent().unwrap_or(Path::new("/"));
        let builds = builds(&document, source);
        adapt(&mut document, source);
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(
                Failure::usage("not_empty", format!("`{}` is not empty", folder.display()))
                    .help("name a folder that does not exist yet"),
            );
        }
        let write = |error: std::io::Error| Failure::io(format!("could not prepare `{}`", folder.display()), &error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(write)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder.join(".opsctl"))
            .map_err(write)?;
        private(&folder.join("opsctl.toml"), &document.to_string(), 0o600).map_err(write)?;
        private(
            &folder.join(".opsctl/password"),
            &format!("{}\n", uuid::Uuid::new_v4()),
            0o600,
        )
        .map_err(write)?;
        release(&folder, programs, GOOD, "").map_err(write)?;
        release(&folder, programs, BAD, &format!(" --fault {BAD_FAULT}")).map_err(write)?;
        Ok(Self { folder, builds })
    }
}

/// The folder of the checkout that holds the reference catalogue: found upwards from where the tour was started.
pub(crate) fn find_catalogue(start: &Path) -> Result<PathBuf, Failure> {
    start
        .ancestors()
        .find(|folder| folder.join("services").join(SERVICE).is_dir() && folder.join("opsctl.toml").is_file())
        .map(|folder| folder.join("opsctl.toml"))
        .ok_or_else(|| {
            Failure::new(Exit::Usage, "no_checkout", "the reference services are not here")
                .cause("the tour builds them from a checkout of opsctl")
                .help("run it inside a checkout: `cargo run --release --bin opsctl -- tour`")
        })
}

/// Every different build command of the catalogue's services.
fn builds(document: &DocumentMut, source: &Path) -> Vec<(Vec<String>, PathBuf)> {
    let mut builds: Vec<(Vec<String>, PathBuf)> = Vec::new();
    let defaults = document.get("defaults").and_then(|defaults| defaults.get("service"));
    let services = document
        .get("service")
        .and_then(Item::as_table_like)
        .into_iter()
        .flat_map(|table| table.iter());
    for service in defaults.into_iter().chain(services.map(|(_, service)| service)) {
        let local = service.get("local");
        let Some(build) = local.and_then(|local| local.get("build")).and_then(Item::as_array) else {
            continue;
        };
        let words: Vec<String> = build
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        let cwd = local
            .and_then(|local| local.get("cwd"))
            .and_then(Item::as_str)
            .unwrap_or(".");
        let build = (words, source.join(cwd));
        if !builds.contains(&build) {
            builds.push(build);
        }
    }
    builds
}

/// Makes the copy work from another folder, holds it to the tour's objective, and says what a version runs.
fn adapt(document: &mut DocumentMut, source: &Path) {
    if let Some(local) = document["defaults"]["service"]
        .get_mut("local")
        .and_then(Item::as_table_like_mut)
        && local.contains_key("build")
    {
        local.insert("cwd", value(source.display().to_string()));
    }
    document["defaults"]["service"]["objectives"]["availability"] = value(AVAILABILITY);
    let mut command = Array::new();
    command.push(format!("./versions/{{version}}/{SERVICE}"));
    let mut canary = Table::new();
    canary.insert("command", value(command));
    document["service"][SERVICE]["canary"] = Item::Table(canary);
}

/// A release as a deployment would find it: a program of its own in a folder named by its version.
fn release(folder: &Path, programs: &Path, version: &str, arguments: &str) -> std::io::Result<()> {
    let place = folder.join("versions").join(version);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
    let program = programs.join(SERVICE).display().to_string().replace('\'', r"'\''");
    private(
        &place.join(SERVICE),
        &format!("#!/bin/sh\nexec '{program}'{arguments} \"$@\"\n"),
        0o700,
    )
}

fn private(file: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    fs::write(file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
}
