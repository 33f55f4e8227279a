//! The programs that judge what was derived.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use alerts::render::File;

/// Writes files below a folder.
pub fn write(folder: &Path, files: &[File]) {
    for file in files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.text).unwrap();
    }
}

/// promtool.
pub struct Promtool(PathBuf);

impl Promtool {
    /// Where it is installed.
    pub fn find(test: &str) -> Option<Self> {
        peers::peer("promtool", test).map(Self)
    }

    /// `promtool check rules` with every lint, each of them fatal.
    pub fn check(&self, folder: &Path, files: &[File]) -> Result<(), String> {
        let rules = files.iter().filter(|file| !file.path.contains('/'));
        let mut promtool = Command::new(&self.0);
        promtool
            .args(["check", "rules", "--lint=all", "--lint-fatal"])
            .args(rules.map(|file| folder.join(&file.path)));
        told(&promtool.output().unwrap())
    }

    /// `promtool test rules`.
    pub fn test(&self, folder: &Path, files: &[File]) -> Result<(), String> {
        let tests = files.iter().filter(|file| file.path.starts_with("tests/"));
        let mut promtool = Command::new(&self.0);
        promtool
            .args(["test", "rules"])
            .args(tests.map(|file| folder.join(&file.path)));
        told(&promtool.output().unwrap())
    }
}

/// What a program said, as an error where it said no.
pub fn told(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
