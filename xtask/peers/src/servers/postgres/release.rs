//! The releases of PostgreSQL that there are here, and where their programs are. Debian's alone has client programs.

use std::{
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Peer, Place, servers};

/// A major version of PostgreSQL, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Release {
    /// The oldest one; its protocol of replication has the older grammar.
    V14,
    /// Debian's, the only one with client programs.
    #[default]
    V15,
    /// The newest one; it makes page checksums unless told otherwise.
    V18,
}

impl Release {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V14, Self::V15, Self::V18];

    /// The number that people say.
    pub fn major(self) -> u32 {
        match self {
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V18 => 18,
        }
    }

    /// The name of its row in the catalogue of peers.
    pub fn peer(self) -> &'static str {
        match self {
            Self::V14 => "postgres-14",
            Self::V15 => "postgres",
            Self::V18 => "postgres-18",
        }
    }

    /// The folder with its programs, as far as it has some: `postgres`, `initdb` and `pg_ctl` at least. `None` when it is not installed.
    pub fn programs(self) -> Option<PathBuf> {
        let postgres = Peer::named(self.peer())?.locate()?;
        Some(postgres.parent()?.to_owned())
    }

    /// A client program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn client(self, name: &str) -> io::Result<PathBuf> {
        let found = self.programs().map(|folder| folder.join(name));
        found.filter(|path| path.exists()).ok_or_else(|| {
            let problem = format!("there is no {name} of PostgreSQL {self} here");
            io::Error::new(io::ErrorKind::NotFound, problem)
        })
    }

    /// The folder with its programs, where the user that the server is started as gets to it.
    pub(super) fn reachable(self, place: &Place, user: Option<&str>) -> io::Result<PathBuf> {
        let programs = match self.programs() {
            Some(folder) => folder,
            None => servers::program(self.peer())?,
        };
        if user.is_none() || programs.ancestors().all(lets_through) {
            return Ok(programs);
        }
        // Root's cache is nobody else's, and the programs look for their libraries and texts from where they are.
        let copy = place.folder().join("postgres");
        if !copy.exists() {
            copy_tree(programs.parent().unwrap_or(&programs), &copy)?;
        }
        Ok(copy.join("bin"))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.major())
    }
}

/// Whether every user may go through a folder.
fn lets_through(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 != 0)
}

/// By another process: a program that this one has open for writing cannot be started, and whatever another thread starts
/// meanwhile has it open, too.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let copied = Command::new("cp").arg("-RP").arg(from).arg(to).output()?;
    if !copied.status.success() {
        let said = String::from_utf8_lossy(&copied.stderr);
        return Err(io::Error::other(format!("cannot copy {}: {said}", from.display())));
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}
