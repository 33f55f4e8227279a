//! Free space of a file system. It tells of the file system that holds a path, not of the path's own size.

use std::path::PathBuf;

use rustix::fs::StatVfsMountFlags;

use super::Asking;
use super::single_flight::SingleFlight;
use crate::check::{Check, Failure, Outcome, Reason};

/// Fails when the file system that holds a path has less free bytes (for unprivileged users) or inodes than asked for.
#[derive(Debug)]
pub struct DiskCheck {
    limits: Limits,
    flight: SingleFlight,
}

#[derive(Debug, Clone)]
struct Limits {
    path: PathBuf,
    min_free_bytes: u64,
    warn_free_bytes: u64,
    min_free_inodes: u64,
    writable: bool,
}

impl DiskCheck {
    /// At least `min_free_bytes` bytes free where `path` lies, and 100 inodes where the file system counts them.
    pub fn new(path: impl Into<PathBuf>, min_free_bytes: u64) -> Self {
        Self {
            limits: Limits {
                path: path.into(),
                min_free_bytes,
                warn_free_bytes: 0,
                min_free_inodes: 100,
                writable: false,
            },
            flight: SingleFlight::default(),
        }
    }

    /// Warns below this many free bytes, while there is still time.
    #[must_use]
    pub fn warn_below(mut self, free_bytes: u64) -> Self {
        self.limits.warn_free_bytes = free_bytes;
        self
    }

    /// Least number of free inodes; file systems without a limit pass.
    #[must_use]
    pub fn min_free_inodes(mut self, inodes: u64) -> Self {
        self.limits.min_free_inodes = inodes;
        self
    }

    /// Fails on a file system that is mounted read-only, which is how Linux leaves one after an I/O error.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.limits.writable = true;
        self
    }
}

impl Limits {
    fn ask(&self) -> Outcome {
        let stat = match rustix::fs::statvfs(&self.path) {
            Ok(stat) => stat,
            Err(error) => return Outcome::Fail(std::io::Error::from(error).into()),
        };
        let saturated = |detail| Failure::new(Reason::Saturated, detail);
        if self.writable && stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Outcome::Fail(Failure::new(Reason::Protocol, "mounted read-only"));
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.min_free_bytes {
            return Outcome::Fail(saturated(format!("{free} bytes free, {} wanted", self.min_free_bytes)));
        }
        if stat.f_files > 0 && stat.f_favail < self.min_free_inodes {
            let detail = format!("{} inodes free, {} wanted", stat.f_favail, self.min_free_inodes);
            return Outcome::Fail(saturated(detail));
        }
        if free < self.warn_free_bytes {
            return Outcome::Warn(saturated(format!("{free} bytes free, {} wanted", self.warn_free_bytes)));
        }
        Outcome::Pass
    }
}

impl Check for DiskCheck {
    fn run(&self) -> Asking<'_> {
        // A stale network file system hangs statvfs for hours, so it must neither sit on a runtime thread nor take a new
        // thread at every run.
        let limits = self.limits.clone();
        Box::pin(self.flight.ask(move || limits.ask()))
    }

    fn component_type(&self) -> &'static str {
        "system"
    }
}
