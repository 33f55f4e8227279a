//! The top level is fixed: a newcomer finds the same folders on every day.

use std::fs;

use anyhow::Result;

use super::Finding;

const FOLDERS: &[&str] = &[
    ".cargo",
    ".ci",
    "alerts",
    "backups",
    "cli",
    "dashboards",
    "docs",
    "health",
    "resilience",
    "services",
    "telemetry",
    "xtask",
];

const FILES: &[&str] = &[
    ".dockerignore",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "opsctl.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Files that must be there.
const REQUIRED: &[&str] = &[
    ".ci/run",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "opsctl.toml",
    "rust-toolchain.toml",
];

/// What stands at the top is known, and what must stand there does.
pub fn check() -> Result<Vec<Finding>> {
    let root = peers::workspace_root();
    let mut findings = Vec::new();
    let ignored = [".git", ".opsctl", "target"];
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ignored.contains(&name.as_str()) {
            continue;
        }
        let known = if entry.file_type()?.is_dir() { FOLDERS } else { FILES };
        if !known.contains(&name.as_str()) {
            findings.push(Finding::new(
                name,
                "is not part of the fixed top level; put it into the crate that it belongs to",
            ));
        }
    }
    for file in REQUIRED {
        if !root.join(file).is_file() {
            findings.push(Finding::new(*file, "is missing"));
        }
    }
    Ok(findings)
}
