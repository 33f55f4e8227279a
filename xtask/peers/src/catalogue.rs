//! The list of peers. A new one is one row.

use std::{fmt, path::PathBuf};

/// A real program that tests or benchmarks run beside ours.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The program's name, as found on `PATH`.
    pub name: &'static str,
    /// What it is for here.
    pub purpose: &'static str,
    /// How it is had.
    pub origin: Origin,
    /// Installed size in MiB, rounded up; printed before anything is installed.
    pub size_mib: u32,
}

/// How a peer is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A package of Debian's archive.
    Debian {
        /// The package's name.
        package: &'static str,
    },
}

/// Every peer that a test or a benchmark of this workspace asks for.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "restic",
        purpose: "judges our repositories: checks, restores and prunes them",
        origin: Origin::Debian { package: "restic" },
        size_mib: 22,
    },
    Peer {
        name: "valgrind",
        purpose: "counts the instructions of hot paths in `xtask ci`",
        origin: Origin::Debian { package: "valgrind" },
        size_mib: 76,
    },
    Peer {
        name: "wrk",
        purpose: "drives the proxy in `xtask bench proxy`",
        origin: Origin::Debian { package: "wrk" },
        size_mib: 1,
    },
];

impl Peer {
    /// Where the program is, looked up on `PATH`.
    pub fn locate(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join(self.name))
            .find(|file| file.is_file())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { package } => write!(f, "Debian package {package}"),
        }
    }
}
