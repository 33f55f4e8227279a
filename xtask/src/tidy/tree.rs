//! The project's files as tidy sees them: without hidden folders and build output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// Every file below `root` whose name ends in `.EXTENSION`, in the order of their paths.
pub fn files_with(extension: &str, root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() {
                if !hidden && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
