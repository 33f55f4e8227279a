//! The programs that cargo makes of tests, and how each is run: as cargo does it, so that a test sees no difference.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::lanes::Job;
use crate::step;

/// Those that nothing else may run beside.
const ALONE: &[&str] = &[
    // What customers get is held against objectives: how soon answers come, which is the machine's matter, too.
    "cli/tests/drills.rs",
    "cli/tests/readme.rs",
    "cli/tests/ship.rs",
    // It looks at the whole machine before and after.
    "xtask/tests/cluster.rs",
];

/// One program of tests.
pub struct Program {
    /// The folder of its package.
    package: PathBuf,
    /// What it is built from, seen from the workspace's folder.
    source: String,
    executable: PathBuf,
}

/// A line of what cargo prints as JSON; all else is left out.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact(Artifact),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Every program of the workspace, built.
///
/// # Errors
/// When one does not build, or cargo says what cannot be read.
pub fn all() -> Result<Vec<Program>> {
    let mut list = step::cargo(["test", "--workspace", "--no-run"]);
    list.arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let list = step::output(&mut list)?;
    let mut programs = Vec::new();
    for line in list.lines() {
        let message: Message = serde_json::from_str(line).context("cargo says what is not known")?;
        let Message::CompilerArtifact(artifact) = message else {
            continue;
        };
        let Some(executable) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let source = artifact.target.src_path;
        let source = source.strip_prefix(peers::workspace_root()).unwrap_or(&source);
        programs.push(Program {
            package: artifact
                .manifest_path
                .parent()
                .context("a manifest is in a folder")?
                .to_owned(),
            source: source.display().to_string(),
            executable,
        });
    }
    Ok(programs)
}

impl Program {
    /// It, as cargo runs it.
    pub fn job(self) -> Job {
        let mut command = Command::new(self.executable);
        command
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package);
        Job {
            alone: ALONE.contains(&self.source.as_str()),
            name: self.source,
            command,
        }
    }
}

/// The examples in documentation, which cargo alone can run.
pub fn documentation() -> Job {
    Job {
        name: "documentation".to_owned(),
        command: step::cargo(["test", "--workspace", "--doc", "--quiet"]),
        alone: false,
    }
}
