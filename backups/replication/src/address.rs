//! Where a server is and who we are to it: what libpq takes as `postgres://…` or as `key=value …`, so that one address
//! serves `psql`, `pg_dump` and us. Reads no environment and no file; passwords are shown to nobody.

mod passfile;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

pub(crate) use passfile::password_from;
use text::Settings;

/// Where no server is named: the folders of sockets of Debian and of PostgreSQL itself.
const FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// The port of PostgreSQL.
const PORT: u16 = 5432;
/// What does not need `%` in a part of a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a text is no address. None of its values is shown: any of them may be a password at a wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a URL nor `key=value …`.
    #[error("an address of PostgreSQL is postgres://user@host/database or key=value …; this one {0}")]
    Form(&'static str),
    /// A key that PostgreSQL does not know. It is not shown, as little as values are.
    #[error(
        "setting {place} in the address of PostgreSQL has a key that is not known; values with spaces stand in quotes"
    )]
    Unknown {
        /// The how many-th it is, user, password, hosts and database of a URL among them.
        place: usize,
    },
    /// We do not do what the key asks for.
    #[error("`{key}` in the address of PostgreSQL {why}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The value of a key is wrong.
    #[error("`{key}` in the address of PostgreSQL must be {what}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it should be.
        what: &'static str,
    },
}

/// One server: how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By TCP.
    Tcp {
        /// A name, or an address of IPv4 or IPv6. Certificates are held against it.
        name: String,
        /// Where to connect to instead of asking what the name stands for (`hostaddr`).
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// By a Unix socket in a folder: `.s.PGSQL.5432`.
    Unix {
        /// The folder.
        folder: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Host {
    /// The port, also of a socket.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }

    /// What `.pgpass` calls it: `localhost` for the usual folders of sockets.
    fn in_passfile(&self) -> String {
        match self {
            Self::Tcp { name, .. } => name.clone(),
            Self::Unix { folder, .. } if FOLDERS.iter().any(|usual| folder == Path::new(usual)) => "localhost".into(),
            Self::Unix { folder, .. } => folder.display().to_string(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}", folder.join(format!(".s.PGSQL.{port}")).display()),
        }
    }
}

/// How much TLS is asked for: libpq's `sslmode`. A Unix socket never has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server has it; whoever it is. The default, as everywhere in PostgreSQL: it protects from nobody who can
    /// change what is sent.
    #[default]
    Prefer,
    /// Always; whoever the server is.
    Require,
    /// Always, with a certificate that the authority signed.
    VerifyCa,
    /// Always, with a certificate that the authority signed for the host's name.
    VerifyFull,
}

impl SslMode {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Who vouches for servers: libpq's `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authority {
    /// Those that the system trusts.
    #[default]
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

/// Whether a password is bound to the server's certificate: libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Always: no other way of authentication is taken.
    Require,
}

/// Which of several servers is meant: libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The first one that answers.
    #[default]
    Any,
    /// The first one that is no standby (`primary`, `read-write`).
    Primary,
    /// The first one that is a standby (`standby`, `read-only`).
    Standby,
}

/// How TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    pub mode: SslMode,
    pub authority: Authority,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub binding: ChannelBinding,
}

/// Where a server is, and who we are to it. [`Display`](fmt::Display) and [`Debug`] show neither the password nor what
/// stands in `options`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    hosts: Vec<Host>,
    user: Option<String>,
    database: Option<String>,
    password: Option<Zeroizing<String>>,
    passfile: Option<PathBuf>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
    wanted: Wanted,
    tls: Tls,
}

impl Address {
    /// Reads an address.
    ///
    /// Keys: `host`, `hostaddr`, `port` (lists, tried in order), `user`, `dbname`, `password`, `passfile`, `sslmode`,
    /// `sslrootcert` (a file, or `system`), `sslcert`, `sslkey`, `channel_binding`, `connect_timeout` (seconds; 0 for
    /// none), `options`, `target_session_attrs`. Keys of libpq that change nothing for us are accepted; those that would
    /// be a promise that we do not keep, such as `sslcrl`, are refused.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Settings::parse(text)?.address()
    }

    /// The same with another password, which is used before the address's own and before its `passfile`.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        let password = Some(Zeroizing::new(password.to_owned()));
        Self { password, ..self }
    }

    /// The same with another database.
    #[must_use]
    pub fn with_database(self, database: &str) -> Self {
        let database = Some(database.to_owned());
        Self { database, ..self }
    }

    /// The same with these servers only, to ask one of them.
    #[must_use]
    pub fn with_hosts(self, hosts: Vec<Host>) -> Self {
        Self { hosts, ..self }
    }

    /// The servers, in the order in which they are tried; at least one.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The user; `None` is the one of the operating system that we are.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The database. Physical replication needs none.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The password that the address itself has. For clients of PostgreSQL that are told it in a file or by their
    /// environment; it must not be shown.
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.as_str())
    }

    /// The file of passwords (`.pgpass`) that is asked where the address has no password.
    pub fn passfile(&self) -> Option<&Path> {
        self.passfile.as_deref()
    }

    /// How much TLS is asked for.
    pub const fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// What libpq's programs are told of all this by their environment (`PGHOST`, `PGSSLMODE`, …), but for the password.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let list = |each: &dyn Fn(&Host) -> String| self.hosts.iter().map(each).collect::<Vec<_>>().join(",");
        let host = |host: &Host| match host {
            Host::Tcp { name, .. } => name.clone(),
            Host::Unix { folder, .. } => folder.display().to_string(),
        };
        let address = |host: &Host| match host {
            Host::Tcp { address, .. } => address.map(|address| address.to_string()).unwrap_or_default(),
            Host::Unix { .. } => String::new(),
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let addresses = list(&address);
        let binding = match self.tls.binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        };
        let wanted = match self.wanted {
            Wanted::Any => "any",
            // What libpq before version 14 knows, too.
            Wanted::Primary => "read-write",
            Wanted::Standby => "standby",
        };
        let authority = match &self.tls.authority {
            Authority::System => None,
            Authority::File(file) => Some(file.display().to_string()),
        };
        let timeout = self.connect_timeout.map(|timeout| timeout.as_secs().to_string());
        let variables = [
            ("PGHOST", Some(list(&host))),
            ("PGHOSTADDR", addresses.contains(|c| c != ',').then_some(addresses)),
            ("PGPORT", Some(list(&|host| host.port().to_string()))),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGPASSFILE", path(&self.passfile)),
            ("PGOPTIONS", self.options.clone()),
            ("PGCONNECT_TIMEOUT", timeout),
            ("PGTARGETSESSIONATTRS", Some(wanted.to_owned())),
            ("PGSSLMODE", Some(self.tls.mode.as_str().to_owned())),
            ("PGSSLROOTCERT", authority),
            ("PGSSLCERT", path(&self.tls.certificate)),
            ("PGSSLKEY", path(&self.tls.key)),
            ("PGCHANNELBINDING", Some(binding.to_owned())),
        ];
        let set = |(name, value): (_, Option<String>)| Some((name, value?));
        variables.into_iter().filter_map(set).collect()
    }

    pub(crate) const fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) const fn wanted(&self) -> Wanted {
        self.wanted
    }

    pub(crate) const fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    pub(crate) fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// A URL that says where, as whom and with how much TLS.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        f.write_str("postgres://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user))?;
        }
        for (index, host) in self.hosts.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match host {
                Host::Unix { folder, port } => write!(f, "{}:{port}", encoded(&folder.display().to_string()))?,
                Host::Tcp { name, port, .. } if name.contains(':') => {
                    write!(f, "[{}]:{port}", encoded(name).replace("%3A", ":"))?;
                }
                Host::Tcp { name, port, .. } => write!(f, "{}:{port}", encoded(name))?,
            }
        }
        write!(f, "/{}", encoded(self.database.as_deref().unwrap_or_default()))?;
        write!(f, "?sslmode={}", self.tls.mode.as_str())?;
        match &self.tls.authority {
            Authority::System => Ok(()),
            Authority::File(file) => write!(f, "&sslrootcert={}", encoded(&file.display().to_string())),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
