//! PostgreSQL through its own client programs: which of them are here ([`programs`]), how they are told where the server
//! is without anybody seeing the password ([`Dsn`]), what a dump holds ([`Contents`]), how it comes back ([`load`]) and
//! takes the place of what is there ([`swap`]), and a server of one's own to bring it back into ([`FreshServer`]) or to
//! take it from ([`extract`]). What is saved is [`crate::source::postgres`].
//!
//! And over a whole cluster that came back file by file: a server that nobody else reaches ([`scratch`]), and everything
//! that PostgreSQL can say of such a copy, from its checksums to the answers of queries ([`ladder`]).

mod client;
mod contents;
mod dsn;
pub mod extract;
mod fresh;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
pub mod ladder;
pub mod load;
pub mod programs;
pub mod scratch;
mod script;
mod selection;
pub mod swap;

pub(crate) use client::Client;
pub use contents::{ContentError, Contents, Entry};
pub use dsn::{Dsn, DsnError};
pub use fresh::{DumpRevival, FreshServer};
pub use selection::Selection;

use crate::source::command::CommandFailure;

/// Why something with PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The address cannot be used.
    #[error("the address of the server cannot be used")]
    Address(#[from] DsnError),
    /// No installation has the programs in a version that fits.
    #[error("{wanted} of PostgreSQL {at_least} or newer is needed, and there is {found}")]
    NoPrograms {
        /// The programs.
        wanted: String,
        /// The oldest major version that serves.
        at_least: u32,
        /// What is there instead.
        found: String,
        /// Whether a server is needed, not only clients.
        server: bool,
    },
    /// A program cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Nobody answers at the address, or not in time.
    #[error("the server at {address} does not answer")]
    Unreachable {
        /// The address, without password.
        address: String,
        /// What the client said.
        said: String,
    },
    /// The server does not let us in.
    #[error("the server at {address} does not let us in")]
    Denied {
        /// The address, without password.
        address: String,
        /// What it said.
        said: String,
    },
    /// The server has no such database.
    #[error("the server at {address} has no database {name:?}")]
    NoDatabase {
        /// The address, without password.
        address: String,
        /// The database.
        name: String,
    },
    /// A program failed.
    #[error("{program} {failure}")]
    Failed {
        /// The program.
        program: String,
        /// How.
        failure: CommandFailure,
        /// The end of what it said, without secrets that we know.
        said: String,
    },
    /// What a program answered cannot be understood.
    #[error("{program} answered what cannot be understood: {problem}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A dump is damaged, or of a kind that is not known.
    #[error("the dump {file} cannot be read")]
    Dump {
        /// Its name.
        file: String,
        /// What is wrong with it.
        #[source]
        source: ContentError,
    },
    /// A database of that name is there.
    #[error("there is a database {name:?} already")]
    Exists {
        /// The database.
        name: String,
    },
    /// Roles that own something in the dump are not on the server.
    #[error("roles are missing on the server: {}", names.join(", "))]
    MissingRoles {
        /// The roles.
        names: Vec<String>,
    },
    /// The dump does not hold what was chosen.
    #[error("the dump holds no {}", .0.join(", no "))]
    NotInDump(Vec<String>),
    /// Several databases are in the snapshot, and none was chosen.
    #[error("the snapshot holds {}, and which of them is meant is not clear", names.join(", "))]
    WhichDatabase {
        /// Those that are there.
        names: Vec<String>,
    },
    /// The snapshot does not hold the database.
    #[error("the snapshot holds no database {name:?}, but {}", names.join(", "))]
    NotInSnapshot {
        /// The database.
        name: String,
        /// Those that are there.
        names: Vec<String>,
    },
    /// A server of our own does not come up.
    #[error("a server to try the dump in does not start: {problem}")]
    Scratch {
        /// Why.
        problem: String,
        /// What it said.
        said: String,
    },
    /// A server over what was restored does not come up, or does not answer.
    #[error(transparent)]
    Server(scratch::ScratchError),
    /// An unfinished database could not be removed.
    #[error("the unfinished database {name:?} could not be removed")]
    Left {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<PostgresError>,
    },
}

impl From<scratch::ScratchError> for crate::Error {
    fn from(error: scratch::ScratchError) -> Self {
        match error {
            scratch::ScratchError::Cancelled => Self::Cancelled,
            error => PostgresError::Server(error).into(),
        }
    }
}

/// A name as it stands in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in SQL.
pub(crate) fn literal(text: &str) -> String {
    // A backslash is an ordinary character where `standard_conforming_strings` is on, which we see to.
    format!("'{}'", text.replace('\'', "''"))
}
