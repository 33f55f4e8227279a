//! Runs one tool that installs or builds something: quiet when it succeeds, with the end of what it said when it fails.

use std::{
    fs::File,
    io::{self, Read, Seek},
    process::{Command, Stdio},
};

use super::InstallError;

/// How much of the output an error shows, in lines.
const TAIL: usize = 20;

/// Runs `command` to its end.
pub(super) fn run(command: &mut Command) -> Result<(), InstallError> {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    let words = words.join(" ");
    let start = |source| InstallError::Start {
        command: words.clone(),
        source,
    };
    let mut output = tempfile::tempfile().map_err(start)?;
    let status = spawn(command, &output).map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let tail = tail(&mut output).unwrap_or_default();
    Err(InstallError::Failed {
        command: words,
        status,
        tail,
    })
}

fn spawn(command: &mut Command, output: &File) -> io::Result<std::process::ExitStatus> {
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    command.status()
}

fn tail(output: &mut File) -> io::Result<String> {
    output.rewind()?;
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}
