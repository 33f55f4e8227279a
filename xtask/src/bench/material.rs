//! What is measured on: rules and boards that people publish, the catalogue that ours are derived from, and how large a
//! folder is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Data beside the project.
pub fn shared(path: &str) -> Result<PathBuf> {
    let found = peers::shared_data(path, "the measurement");
    found.with_context(|| format!("there is no `{path}` beside the project"))
}

/// The mixins that people publish, by name.
pub fn mixins() -> Result<Vec<PathBuf>> {
    let mut mixins = folder(&shared("mixins")?)?;
    mixins.retain(|path| path.is_dir());
    Ok(mixins)
}

/// What is in a folder, by name.
pub fn folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// The last part of a path.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes the catalogue of the reference services into `place`, with `more` at its end.
pub fn catalogue(place: &Path, more: &str) -> Result<()> {
    let text = fs::read_to_string(peers::workspace_root().join("opsctl.toml"))? + more;
    let file = place.join("opsctl.toml");
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// How many bytes the files in a folder have.
pub fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() {
            size_of(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(size)
}
