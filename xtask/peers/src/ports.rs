//! Loopback ports that no other test of this machine is given at the same time.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{linux::net::SocketAddrExt, unix::net},
};

/// Below the ports that the system gives to outgoing connections, so that a server that is down for a while finds its
/// port again.
const RANGE: std::ops::Range<u16> = 21_000..32_000;
/// How many ports are looked at before giving up.
const ATTEMPTS: u32 = 10_000;

/// A port that a server listens on.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// What it is called here.
    pub name: &'static str,
    /// How a client is told of it; `{}` stands for address and port.
    pub url: &'static str,
}

impl Port {
    /// A port for plain HTTP.
    pub const fn http(name: &'static str) -> Self {
        Self { name, url: "http://{}" }
    }
}

/// One number that is ours while the value lives.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub port: Port,
    pub number: u16,
    /// A socket whose name says the number. The name is free again when this process ends, however it ends.
    _claim: net::UnixListener,
}

impl Reserved {
    /// Finds a number on which nobody listens.
    pub fn choose(port: Port) -> io::Result<Self> {
        for attempt in 0..ATTEMPTS {
            let random = RandomState::new().hash_one(attempt);
            let number = RANGE.start + (random % RANGE.len() as u64) as u16;
            let claim = net::SocketAddr::from_abstract_name(format!("opsctl-peers-port-{number}"))?;
            let Ok(claim) = net::UnixListener::bind_addr(&claim) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    port,
                    number,
                    _claim: claim,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port on the loopback address",
        ))
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port.url.replace("{}", &self.address().to_string()))
    }
}
