//! A task of ours that goes on beside another, and gives way to it.

use std::{fs::File, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use peers::{Program, Tree};

use crate::step;

/// It ends with this value, or with this process.
pub struct Background {
    name: &'static str,
    process: Tree,
    log: PathBuf,
}

impl Background {
    /// Starts `cargo xtask` with these words. What it says goes to the log of this name in the target directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &'static str, words: &[&str]) -> Result<Self> {
        let log = step::target().join(format!("{name}.log"));
        println!("{name}: made beside the rest; the log is {}", log.display());
        let file = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        // By its name: cargo may have built it anew since it was started.
        let this = std::env::args_os().next().context("a program has a name")?;
        let task = Program::new("nice").arg("--adjustment=19").arg(this).args(words);
        let started = Tree::start(&task, peers::workspace_root(), &file, None);
        Ok(Self {
            name,
            process: started.with_context(|| format!("could not start {name}"))?,
            log,
        })
    }

    /// Shows how far it is until it has ended.
    ///
    /// # Errors
    /// When it fails.
    pub fn wait(self) -> Result<()> {
        let Self { name, process, log } = self;
        let mut follow = Command::new("tail");
        follow
            .args(["--lines=+1", "--follow", "--sleep-interval=0.2"])
            .arg(format!("--pid={}", process.id()));
        // Waited for meanwhile: for tail, a process that has ended is there until somebody asks how it ended.
        let ended = thread::spawn(move || process.wait());
        step::run(follow.arg(&log))?;
        let status = ended.join().map_err(|_| anyhow!("waiting for {name} panicked"))??;
        ensure!(status.success(), "{name} failed; see {}", log.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The task is this program, which is the test's own here.
    #[test]
    fn what_ended_long_ago_is_waited_for_no_longer() {
        let done = Background::start("a-task-that-is-done", &["--list"]).unwrap();
        let stat = format!("/proc/{}/stat", done.process.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            thread::yield_now();
        }
        done.wait().unwrap();
        let failed = Background::start("a-task-that-fails", &["--no-such-flag"]).unwrap();
        assert!(failed.wait().unwrap_err().to_string().contains("failed; see"));
    }
}
