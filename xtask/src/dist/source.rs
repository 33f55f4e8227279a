//! Which source something was made from, as labels of what is shipped say it: a commit, and a time that does not depend on
//! when the build ran, so that the same source makes the same bytes.

use std::process::Command;

use anyhow::{Context, Result};

/// The source.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The commit, where nothing was changed since.
    pub revision: Option<String>,
    /// Seconds since 1970: the commit's, or what `SOURCE_DATE_EPOCH` says. 0 where there is neither.
    pub seconds: i64,
}

impl Source {
    /// Asks git and the environment.
    ///
    /// # Errors
    /// When `SOURCE_DATE_EPOCH` is no number.
    pub fn read() -> Result<Self> {
        let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
        let of_commit = |format| git(&["log", "-1", format]).filter(|_| clean);
        let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => Some(text.parse().context("SOURCE_DATE_EPOCH is no number of seconds")?),
            Err(_) => of_commit("--format=%ct").and_then(|text| text.parse().ok()),
        };
        Ok(Self {
            revision: of_commit("--format=%H"),
            seconds: seconds.unwrap_or(0),
        })
    }

    /// The time, as documents write it.
    ///
    /// # Errors
    /// When it lies outside of the calendar.
    pub fn time(&self) -> Result<String> {
        Ok(jiff::Timestamp::from_second(self.seconds)?.to_string())
    }
}

/// What git says, where there is a git and a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let said = git.args(arguments).current_dir(peers::workspace_root()).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| text.trim().to_owned())
}
