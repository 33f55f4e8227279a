//! Free space of a file system. It tells of the file system that holds a path, not of the path's own size.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use crate::check::{Check, Failure, Outcome, Reason};

/// Fails when the file system that holds a path has less free bytes (for unprivileged users) or inodes than asked for.
#[derive(Debug, Clone)]
pub struct DiskCheck {
    path: PathBuf,
    min_free_bytes: u64,
    min_free_inodes: u64,
}

impl DiskCheck {
    /// At least `min_free_bytes` bytes free where `path` lies, and 100 inodes where the file system counts them.
    pub fn new(path: impl Into<PathBuf>, min_free_bytes: u64) -> Self {
        Self {
            path: path.into(),
            min_free_bytes,
            min_free_inodes: 100,
        }
    }

    /// Least number of free inodes; file systems without a limit pass.
    #[must_use]
    pub fn min_free_inodes(mut self, inodes: u64) -> Self {
        self.min_free_inodes = inodes;
        self
    }

    fn ask(&self) -> Outcome {
        let stat = match rustix::fs::statvfs(&self.path) {
            Ok(stat) => stat,
            Err(error) => return Outcome::Fail(std::io::Error::from(error).into()),
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.min_free_bytes {
            let detail = format!("{free} bytes free, {} wanted", self.min_free_bytes);
            return Outcome::Fail(Failure::new(Reason::Saturated, detail));
        }
        if stat.f_files > 0 && stat.f_favail < self.min_free_inodes {
            let detail = format!("{} inodes free, {} wanted", stat.f_favail, self.min_free_inodes);
            return Outcome::Fail(Failure::new(Reason::Saturated, detail));
        }
        Outcome::Pass
    }
}

impl Check for DiskCheck {
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        let check = self.clone();
        // A stale network file system can hang statvfs, so it must not sit on a runtime thread.
        Box::pin(async move {
            tokio::task::spawn_blocking(move || check.ask())
                .await
                .unwrap_or_else(|error| Outcome::Fail(Failure::new(Reason::Panic, error.to_string())))
        })
    }
}
