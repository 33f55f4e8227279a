//! How a connection begins: to which server, with or without TLS, and who we are.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use zeroize::Zeroizing;

use crate::address::{Address, ChannelBinding, Host, SslMode, Wanted, password_from};
use crate::error::Error;
use crate::frame::{Fields, Message};
use crate::tls;
use crate::wire::Wire;

/// How long a server has to let us in, if the address says nothing.
const LIMIT: Duration = Duration::from_secs(15);
/// A connection on which nothing comes is asked for after this long, this often, so many times: a machine that went away
/// is noticed within a minute.
const KEEP_IDLE: Duration = Duration::from_secs(30);
const KEEP_EACH: Duration = Duration::from_secs(10);
const KEEP_TIMES: u32 = 3;
/// `SSLRequest`, in place of a version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Version 3.0, which every server from 7.4 on speaks.
const VERSION: u32 = 3 << 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Physical replication.
    Replication,
    /// SQL.
    Sql,
}

/// Connects to the first of the address's servers that can be used. Returns the address with that one alone.
pub(crate) async fn open(address: &Address, application: &str, mode: Mode) -> Result<(Wire, Address), Error> {
    let user = match address.user() {
        Some(user) => user.to_owned(),
        None => own_name().ok_or(Error::NoUser)?,
    };
    let mut failed: Vec<Error> = Vec::new();
    for host in address.hosts() {
        let limit = address
            .connect_timeout()
            .map_or(Some(LIMIT), |limit| (!limit.is_zero()).then_some(limit));
        let at = host.to_string();
        let start = Start {
            address,
            host,
            user: &user,
            application,
            mode,
            at: &at,
        };
        let opened = match limit {
            None => start.open().await,
            Some(limit) => tokio::time::timeout(limit, start.open()).await.unwrap_or_else(|_| {
                let (at, what) = (at.clone(), "let us in");
                Err(Error::TimedOut { at, what, limit })
            }),
        };
        match opened {
            Ok(wire) => return Ok((wire, address.clone().with_hosts(vec![host.clone()]))),
            // Others will not know it better, and a wrong password that is tried often locks its user out.
            Err(error) if error.is_authentication() => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    match (failed.pop(), failed.is_empty()) {
        (Some(last), true) => Err(last),
        (Some(last), false) => Err(Error::NoServer {
            others: failed.iter().map(told).collect(),
            last: Box::new(last),
        }),
        // An address has a server.
        (None, _) => Err(Error::NoUser),
    }
}

/// What the server asks for: a question for who we are.
fn authentication(wire: &Wire, message: Message) -> Result<Fields, Error> {
    match message.kind {
        b'R' => Ok(Fields(message.body)),
        // A server that does not know a part of the protocol says so; 3.0 has no such part.
        _ => Err(wire.unexpected(&message, "a question for who we are")),
    }
}

/// An error with its reasons, on one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        // A refusal says its reason itself.
        if !text.contains(&reason.to_string()) {
            text = format!("{text}: {reason}");
        }
        source = reason.source();
    }
    text
}

/// The name of the user that this process runs as.
fn own_name() -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut rows = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.find(|row| row.get(2) == Some(&id.as_str()))
        .map(|row| row[0].to_owned())
}

/// One server that is tried.
struct Start<'a> {
    address: &'a Address,
    host: &'a Host,
    user: &'a str,
    application: &'a str,
    mode: Mode,
    at: &'a str,
}

/// What came of TLS.
struct Secured {
    wire: Wire,
    tls: bool,
    /// What a password can be bound to.
    end_point: Option<Vec<u8>>,
}

impl Start<'_> {
    async fn open(&self) -> Result<Wire, Error> {
        let secured = match self.host {
            Host::Unix { folder, port } => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|source| self.unreachable(source))?;
                Secured {
                    wire: Wire::new(Box::new(stream), self.at.to_owned()),
                    tls: false,
                    end_point: None,
                }
            }
            Host::Tcp { name, address, port } => {
                let stream = self
                    .tcp(name, *address, *port)
                    .await
                    .map_err(|source| self.unreachable(source))?;
                self.secure(stream, name).await?
            }
        };
        let mut wire = self.authenticate(secured).await?;
        self.role(&mut wire).await?;
        Ok(wire)
    }

    fn unreachable(&self, source: io::Error) -> Error {
        let at = self.at.to_owned();
        Error::Unreachable { at, source }
    }

    async fn tcp(&self, name: &str, address: Option<std::net::IpAddr>, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match address {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => lookup_host((name, port)).await?.collect(),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEP_IDLE)?;
                    rustix::net::sockopt::set_tcp_keepintvl(&stream, KEEP_EACH)?;
                    rustix::net::sockopt::set_tcp_keepcnt(&stream, KEEP_TIMES)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// TLS, as the address wants it. Whoever can change what is sent can answer that there is none: that is what
    /// `require` and more are for.
    async fn secure(&self, mut stream: TcpStream, name: &str) -> Result<Secured, Error> {
        let tls = self.address.tls();
        let plain = |stream| Secured {
            wire: Wire::new(Box::new(stream), self.at.to_owned()),
            tls: false,
            end_point: None,
        };
        if tls.mode == SslMode::Disable {
            return Ok(plain(stream));
        }
        // One byte is read and no more: what follows it belongs to TLS, and nothing that was slipped in before counts.
        let asked = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_u8().await
        };
        let broken = |source| Error::Broken {
            at: self.at.to_owned(),
            doing: "the question for TLS",
            source,
        };
        match asked.await.map_err(broken)? {
            b'S' => {
                let stream = tls::connect(stream, name, tls, self.at).await?;
                let end_point = tls::end_point(&stream);
                Ok(Secured {
                    wire: Wire::new(Box::new(stream), self.at.to_owned()),
                    tls: true,
                    end_point,
                })
            }
            b'N' if tls.mode == SslMode::Prefer => Ok(plain(stream)),
            b'N' => Err(Error::NoTls { at: self.at.to_owned() }),
            _ => Err(Error::Protocol {
                at: self.at.to_owned(),
                doing: "the question for TLS",
                what: "an answer that is neither yes nor no".to_owned(),
            }),
        }
    }

    fn password(&self) -> Result<Zeroizing<String>, Error> {
        if let Some(password) = self.address.password() {
            return Ok(Zeroizing::new(password.to_owned()));
        }
        let found = match self.address.passfile() {
            None => None,
            Some(file) => {
                let database = match self.mode {
                    Mode::Replication => "replication",
                    Mode::Sql => self.address.database().unwrap_or(self.user),
                };
                let found = password_from(file, self.host, database, self.user);
                found.map_err(|source| Error::File {
                    what: "the file of passwords",
                    path: file.to_owned(),
                    source,
                })?
            }
        };
        found.ok_or_else(|| Error::NoPassword {
            at: self.at.to_owned(),
            user: self.user.to_owned(),
        })
    }

    fn method(&self, method: impl Into<String>, why: &'static str) -> Error {
        Error::Method {
            at: self.at.to_owned(),
            method: method.into(),
            why,
        }
    }

    fn impostor(&self, source: io::Error) -> Error {
        Error::Impostor {
            at: self.at.to_owned(),
            user: self.user.to_owned(),
            source,
        }
    }

    async fn authenticate(&self, secured: Secured) -> Result<Wire, Error> {
        let Secured {
            mut wire,
            tls,
            end_point,
        } = secured;
        let database = match self.mode {
            Mode::Replication => None,
            Mode::Sql => self.address.database(),
        };
        let parameters = [
            ("user", Some(self.user)),
            ("database", database),
            ("replication", (self.mode == Mode::Replication).then_some("true")),
            ("client_encoding", (self.mode == Mode::Sql).then_some("UTF8")),
            ("application_name", Some(self.application)),
            ("options", self.address.options()),
        ];
        wire.put(None, |body| {
            body.put_u32(VERSION);
            for (name, value) in parameters {
                // A zero byte would end the value: an address has none, and what calls us is ours.
                if let Some(value) = value.filter(|value| !value.contains('\0')) {
                    body.put_slice(name.as_bytes());
                    body.put_u8(0);
                    body.put_slice(value.as_bytes());
                    body.put_u8(0);
                }
            }
            body.put_u8(0);
        });
        wire.flush().await?;
        // Whether the server proved that it knows the password, and with which certificate.
        let mut bound = false;
        loop {
            let message = wire.answered().await?;
            let mut fields = authentication(&wire, message)?;
            match fields.i32().map_err(|wrong| wire.wrong(wrong))? {
                0 => break,
                3 if !tls => {
                    let why = "which would show it to everybody on the way; that takes TLS";
                    return Err(self.method("a plain password", why));
                }
                3 => {
                    let password = self.password()?;
                    self.say(&mut wire, password.as_bytes()).await?;
                }
                5 => {
                    let salt = fields.bytes(4).map_err(|wrong| wire.wrong(wrong))?;
                    let salt: [u8; 4] = salt[..].try_into().unwrap_or_default();
                    let password = self.password()?;
                    let hash = Zeroizing::new(md5_hash(self.user.as_bytes(), password.as_bytes(), salt));
                    self.say(&mut wire, hash.as_bytes()).await?;
                }
                10 => bound = self.scram(&mut wire, fields, tls, end_point.as_deref()).await?,
                code => {
                    let names = [
                        (2, "Kerberos"),
                        (6, "SCM credentials"),
                        (7, "GSSAPI"),
                        (8, "GSSAPI"),
                        (9, "SSPI"),
                    ];
                    let name = names
                        .iter()
                        .find(|(known, _)| *known == code)
                        .map(|(_, name)| (*name).to_owned());
                    let name = name.unwrap_or_else(|| format!("a method of number {code}"));
                    return Err(self.method(name, "which this client does not do"));
                }
            }
        }
        if self.address.tls().binding == ChannelBinding::Require && !bound {
            let why = "and the address asks for a password that is bound to the certificate";
            return Err(self.method("something else than SCRAM-SHA-256-PLUS", why));
        }
        let mut keyed = false;
        loop {
            let message = wire.answered().await?;
            match message.kind {
                // What would cancel a query of ours.
                b'K' if !keyed => keyed = true,
                b'Z' => return Ok(wire),
                _ => return Err(wire.unexpected(&message, "the end of the start")),
            }
        }
    }

    /// Sends a password, or its hash.
    async fn say(&self, wire: &mut Wire, password: &[u8]) -> Result<(), Error> {
        if self.address.tls().binding == ChannelBinding::Require {
            let why = "and the address asks for a password that is bound to the certificate";
            return Err(self.method("a password", why));
        }
        wire.put(Some(b'p'), |body| {
            body.put_slice(password);
            body.put_u8(0);
        });
        wire.flush().await
    }

    /// SCRAM (RFC 5802, 7677). Whether the exchange was bound to the server's certificate.
    async fn scram(
        &self,
        wire: &mut Wire,
        mut offered: Fields,
        tls: bool,
        end_point: Option<&[u8]>,
    ) -> Result<bool, Error> {
        let (mut plus, mut plain) = (false, false);
        loop {
            let name = offered.text().map_err(|wrong| wire.wrong(wrong))?;
            match &name[..] {
                b"" => break,
                name if name == SCRAM_SHA_256_PLUS.as_bytes() => plus = true,
                name if name == SCRAM_SHA_256.as_bytes() => plain = true,
                _ => {}
            }
        }
        let wish = self.address.tls().binding;
        let end_point = end_point.filter(|_| tls && wish != ChannelBinding::Disable);
        let (name, binding) = match end_point {
            Some(end_point) if plus => {
                let binding = sasl::ChannelBinding::tls_server_end_point(end_point.to_vec());
                (SCRAM_SHA_256_PLUS, binding)
            }
            _ if wish == ChannelBinding::Require => {
                let why = "and the address asks for a password that is bound to the certificate";
                return Err(self.method("SCRAM without channel binding", why));
            }
            // It says that we could: a server that could as well then knows that somebody stands between.
            Some(_) if plain => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None if plain => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
            _ => return Err(self.method("SASL of another kind", "which this client does not do")),
        };
        let bound = name == SCRAM_SHA_256_PLUS;
        let password = self.password()?;
        let mut exchange = ScramSha256::new(password.as_bytes(), binding);
        wire.put(Some(b'p'), |body| {
            body.put_slice(name.as_bytes());
            body.put_u8(0);
            body.put_u32(exchange.message().len() as u32);
            body.put_slice(exchange.message());
        });
        wire.flush().await?;
        let challenge = self.step(wire, 11).await?;
        exchange.update(&challenge).map_err(|source| self.impostor(source))?;
        wire.put(Some(b'p'), |body| body.put_slice(exchange.message()));
        wire.flush().await?;
        // Only who knows the password, or what is derived from it, can say this.
        let proof = self.step(wire, 12).await?;
        exchange.finish(&proof).map_err(|source| self.impostor(source))?;
        Ok(bound)
    }

    /// The server's part of the exchange; nothing else may come at its place, least of all that all is well.
    async fn step(&self, wire: &mut Wire, wanted: i32) -> Result<Bytes, Error> {
        let message = wire.answered().await?;
        let mut fields = authentication(wire, message)?;
        match fields.i32() {
            Ok(code) if code == wanted => Ok(fields.0),
            _ => Err(self.impostor(io::Error::other("it goes on without the proof"))),
        }
    }

    /// Whether the server is the primary or a standby, where that matters.
    async fn role(&self, wire: &mut Wire) -> Result<(), Error> {
        let wanted = match self.address.wanted() {
            Wanted::Any => return Ok(()),
            Wanted::Primary => false,
            Wanted::Standby => true,
        };
        let standby = if let Some(standby) = wire.standby {
            standby
        } else {
            // Servers before version 14 do not say it by themselves.
            let row = wire
                .query_one("the question for its role", "SHOW transaction_read_only")
                .await?;
            wire.text(&row, 0)?.as_deref() == Some("on")
        };
        if standby == wanted {
            return Ok(());
        }
        let name = |standby| if standby { "a standby" } else { "a primary" };
        Err(Error::OtherRole {
            at: self.at.to_owned(),
            is: name(standby),
            wanted: name(wanted),
        })
    }
}
