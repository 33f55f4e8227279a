//! Runs one tool that installs or builds something: quiet when it succeeds, with the end of what it said when it fails,
//! and gone, with the folder that it works in, when this process is killed.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    process::ExitStatus,
};

use super::InstallError;
use crate::{Program, Tree};

/// How much of the output an error shows, in lines.
const TAIL: usize = 20;

/// Runs `tool` in `folder` to its end and returns what it wrote. Half-made things lie in `workshop`.
pub(super) fn run(tool: &Program, folder: &Path, workshop: Option<&Path>) -> Result<String, InstallError> {
    let command = tool.shown();
    match finish(tool, folder, workshop) {
        Ok((status, output)) if status.success() => Ok(output),
        Ok((status, output)) => {
            let lines: Vec<&str> = output.lines().collect();
            Err(InstallError::Failed {
                command,
                status,
                tail: lines[lines.len().saturating_sub(TAIL)..].join("\n"),
            })
        }
        Err(source) => Err(InstallError::Start { command, source }),
    }
}

fn finish(tool: &Program, folder: &Path, workshop: Option<&Path>) -> io::Result<(ExitStatus, String)> {
    let mut output: File = tempfile::tempfile()?;
    let status = Tree::start(tool, folder, &output, workshop)?.wait()?;
    output.rewind()?;
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}
