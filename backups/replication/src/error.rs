//! Why a server was not asked, or what it answered instead.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::AddressError;
use crate::lsn::Malformed;
use crate::version::ServerVersion;

/// What a server says when something is wrong, in its own words. Nothing in them moves a cursor, and none is longer than
/// some thousand characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub severity: String,
    /// The SQLSTATE: five characters.
    pub code: String,
    /// What.
    pub message: String,
    /// More of it; empty where there is none.
    pub detail: String,
    /// What to do, in the server's opinion; empty where it has none.
    pub hint: String,
    /// What it was doing; empty where it does not say.
    pub context: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        for (name, words) in [("detail", &self.detail), ("hint", &self.hint)] {
            if !words.is_empty() {
                write!(f, "; {name}: {words}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// Why a connection was not made, or came to its end. Passwords are never in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("the address of PostgreSQL cannot be used")]
    Address(#[from] AddressError),
    /// Nobody answers there.
    #[error("PostgreSQL at {at} cannot be reached")]
    Unreachable {
        /// The server.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("PostgreSQL at {at} did not {what} within {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The server.
        at: String,
        /// What it should have done: "let us in".
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// None of several servers could be used. The last one's error is the source.
    #[error("none of the servers can be used: {}", .others.join("; "))]
    NoServer {
        /// What was wrong with the others, in the order in which they were tried.
        others: Vec<String>,
        /// What was wrong with the last one.
        #[source]
        last: Box<Error>,
    },
    /// The server is a standby where a primary is wanted, or the other way round.
    #[error("PostgreSQL at {at} is {is}, and the address asks for {wanted}")]
    OtherRole {
        /// The server.
        at: String,
        /// What it is: "a standby".
        is: &'static str,
        /// What is wanted.
        wanted: &'static str,
    },
    /// A file that the address names cannot be used.
    #[error("{what} {} cannot be used", .path.display())]
    File {
        /// What it is: "the certificate".
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not speak TLS, and the address asks for it.
    #[error("PostgreSQL at {at} does not speak TLS, which the address asks for")]
    NoTls {
        /// The server.
        at: String,
    },
    /// TLS failed: the certificate is not who the address names, or not signed by whom it trusts.
    #[error("TLS with PostgreSQL at {at} failed")]
    Tls {
        /// The server.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server asks for a password and there is none.
    #[error("PostgreSQL at {at} asks for the password of {user:?}, and there is none")]
    NoPassword {
        /// The server.
        at: String,
        /// The user.
        user: String,
    },
    /// Authentication in a way that we do not do, or not here.
    #[error("PostgreSQL at {at} asks for authentication by {method}, {why}")]
    Method {
        /// The server.
        at: String,
        /// What it asks for.
        method: String,
        /// Why not.
        why: &'static str,
    },
    /// The server does not prove that it knows the password, or its part of the exchange is wrong.
    #[error("PostgreSQL at {at} did not prove that it knows the password of {user:?}")]
    Impostor {
        /// The server.
        at: String,
        /// The user.
        user: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system does not tell who we are, and the address names no user.
    #[error("the address of PostgreSQL names no user, and the one that this process runs as has no name")]
    NoUser,
    /// The server refuses, in its own words.
    #[error("PostgreSQL at {at} refuses {doing}: {source}")]
    Server {
        /// The server.
        at: String,
        /// What it was asked for: "BASE_BACKUP".
        doing: &'static str,
        /// Its words.
        source: Box<ServerError>,
    },
    /// The connection broke.
    #[error("the connection to PostgreSQL at {at} broke during {doing}")]
    Broken {
        /// The server.
        at: String,
        /// What it was asked for.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server shuts down, after it sent all that was to be sent.
    #[error("PostgreSQL at {at} shuts down")]
    Stopped {
        /// The server.
        at: String,
    },
    /// It answered with what is not the protocol, or not in its order.
    #[error("{at} does not answer as PostgreSQL does during {doing}: {what}")]
    Protocol {
        /// The server.
        at: String,
        /// What it was asked for.
        doing: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Something in an answer is not what it should be.
    #[error("{at} answers with something that is wrong")]
    Answer {
        /// The server.
        at: String,
        /// What.
        #[source]
        source: Malformed,
    },
    /// This version of the server cannot do it.
    #[error("PostgreSQL {version} at {at} cannot {what}; it takes version {since}")]
    Unsupported {
        /// The server.
        at: String,
        /// Its version.
        version: ServerVersion,
        /// What it cannot do.
        what: &'static str,
        /// The first major version that can.
        since: u32,
    },
}

impl Error {
    /// The SQLSTATE of the server's refusal; `None` if it did not refuse.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.code.as_str())
    }

    /// What the server said; `None` if it did not refuse.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::NoServer { last, .. } => last.server(),
            _ => None,
        }
    }

    /// Whether the server is not there, or just now does not take connections: worth another try later. Not whether
    /// something that it was told is wrong.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } | Self::Stopped { .. } => true,
            // While it starts, recovers or goes down, was ended by an administrator, or has no place for another.
            Self::Server { source, .. } => matches!(
                source.code.as_str(),
                "57P01" | "57P02" | "57P03" | "53300" | "08000" | "08001" | "08003" | "08004" | "08006"
            ),
            Self::NoServer { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }

    /// Whether what was asked for is not there any more: the slot lost its log, or the segment was removed. Never worth
    /// another try: what is missing is a gap.
    ///
    /// A missing segment is `58P01` (undefined file) always; a slot that was invalidated is `55000` (not in prerequisite
    /// state), which says other things as well, so that the words are looked at too.
    pub fn is_removed(&self) -> bool {
        self.server().is_some_and(|error| match error.code.as_str() {
            "58P01" => true,
            "55000" => ["can no longer", "invalidated", "obsolete"]
                .iter()
                .any(|words| error.message.contains(words)),
            _ => false,
        })
    }

    /// Whether somebody else reads from the slot.
    pub fn slot_in_use(&self) -> bool {
        self.sqlstate() == Some("55006")
    }

    /// Whether the slot, or whatever else was named, does not exist.
    pub fn is_missing(&self) -> bool {
        self.sqlstate() == Some("42704")
    }

    /// Whether the slot, or whatever else was to be made, exists.
    pub fn exists(&self) -> bool {
        self.sqlstate() == Some("42710")
    }

    /// Whether the server does not let us in: wrong user, password or certificate, or no right to replicate.
    pub fn is_authentication(&self) -> bool {
        match self {
            Self::NoPassword { .. } | Self::Method { .. } | Self::Impostor { .. } | Self::NoUser => true,
            Self::NoServer { last, .. } => last.is_authentication(),
            _ => matches!(self.sqlstate(), Some("28000" | "28P01" | "42501")),
        }
    }
}
