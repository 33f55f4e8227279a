//! Files that are to lie in a folder: what would change, and then that. What lies there and is nobody's board stays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dashboards::boards::TAG;
use serde::Serialize;

use crate::error::Failure;

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Create,
    Update,
    /// It is as it should be.
    Keep,
    /// It is a board of ours that nobody renders any more.
    Remove,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Keep => "keep",
            Self::Remove => "remove",
        }
    }
}

/// A file, what happens to it, and what it will hold.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) path: String,
    pub(super) action: Action,
    bytes: Vec<u8>,
}

/// What writing files into a folder would do.
#[derive(Debug)]
pub(super) struct Plan {
    folder: PathBuf,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// How many files change.
    pub(super) fn differing(&self) -> usize {
        self.steps.iter().filter(|step| step.action != Action::Keep).count()
    }
}

/// Compares the files with what lies in the folder. In `sweep`, a folder below it, boards of ours go that are not among
/// the files.
pub(super) fn plan(folder: &Path, files: BTreeMap<String, Vec<u8>>, sweep: Option<&str>) -> Result<Plan, Failure> {
    let mut steps = Vec::with_capacity(files.len());
    if let Some(sweep) = sweep {
        let below = folder.join(sweep);
        for name in boards_in(&below)? {
            let path = if sweep.is_empty() {
                name
            } else {
                format!("{sweep}/{name}")
            };
            if !files.contains_key(&path) {
                steps.push(Step {
                    path,
                    action: Action::Remove,
                    bytes: Vec::new(),
                });
            }
        }
    }
    for (path, bytes) in files {
        let action = match std::fs::read(folder.join(&path)) {
            Ok(there) if there == bytes => Action::Keep,
            Ok(_) => Action::Update,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Action::Create,
            Err(error) => {
                return Err(Failure::io(
                    format!("could not read `{path}` in `{}`", folder.display()),
                    &error,
                ));
            }
        };
        steps.push(Step { path, action, bytes });
    }
    steps.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Plan {
        folder: folder.to_owned(),
        steps,
    })
}

/// Names of files in a folder that are those of our boards.
fn boards_in(folder: &Path) -> Result<Vec<String>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io(format!("could not read `{}`", folder.display()), &error)),
    };
    let beginning = format!("{TAG}-");
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names
        .filter(|name| name.starts_with(&beginning) && name.ends_with(".json"))
        .collect())
}

/// Does what the plan says.
pub(super) fn apply(plan: &Plan) -> Result<(), Failure> {
    for step in &plan.steps {
        let path = plan.folder.join(&step.path);
        let done = match step.action {
            Action::Keep => Ok(()),
            Action::Remove => std::fs::remove_file(&path),
            Action::Create | Action::Update => replace(&path, &step.bytes),
        };
        done.map_err(|error| Failure::io(format!("could not {} `{}`", step.action.word(), path.display()), &error))?;
    }
    Ok(())
}

/// Replaces a file as a whole, so that nobody reads half of one; others may read it as they could before.
pub(in crate::command::dashboard) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        std::fs::write(&temporary, bytes)?;
        if let Ok(there) = std::fs::metadata(path) {
            std::fs::set_permissions(&temporary, there.permissions())?;
        }
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
