//! Ports on the loopback interface: stable ones for front doors, remembered in `ports.json`; passing ones for instances;
//! and who has a taken one. It reserves nothing: a port found free may be taken a moment later, which callers survive.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state_dir::{StateDir, read_json, write_json};
use crate::{PlatformError, Result};

/// The file `ports.json`, schema `opsctl.ports/v1`: the ports once chosen for front doors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// `opsctl.ports/v1`.
    pub schema: String,
    /// By service.
    pub services: BTreeMap<String, FrontPorts>,
}

/// The stable ports of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontPorts {
    /// HTTP.
    pub http: Option<u16>,
    /// gRPC.
    pub grpc: Option<u16>,
}

/// Where front doors begin; below the ports that [`passing`] takes.
const FIRST_FRONT_PORT: u16 = 10_000;
/// How many projects start at a port of their own, and how far apart.
const BLOCKS: u64 = 500;
const BLOCK: u16 = 20;

impl Ports {
    /// Reads the file; none is an empty one.
    pub fn load(state: &StateDir) -> Result<Self> {
        Ok(read_json(&state.path("ports.json"))?.unwrap_or_else(|| Self {
            schema: "opsctl.ports/v1".to_owned(),
            services: BTreeMap::new(),
        }))
    }

    /// Writes the file.
    pub fn save(&self, state: &StateDir) -> Result<()> {
        write_json(&state.path("ports.json"), self, true)
    }

    /// The first port that is free and remembered for nobody. Each project begins at a place of its own, so that two of
    /// them that are up in turn, or come up at once, do not choose the same ports.
    pub fn choose(&self, state: &StateDir, also_taken: &[u16]) -> Result<u16> {
        let first = first_port(state.root());
        let remembered = |port: u16| {
            self.services
                .values()
                .any(|front| front.http == Some(port) || front.grpc == Some(port))
        };
        (first..u16::MAX)
            .chain(FIRST_FRONT_PORT..first)
            .find(|&port| !remembered(port) && !also_taken.contains(&port) && is_free(port))
            .ok_or(PlatformError::PortTaken {
                port: first,
                holder: None,
            })
    }
}

fn first_port(project: &Path) -> u16 {
    let mut hasher = DefaultHasher::new();
    project.hash(&mut hasher);
    // What is chosen is remembered, so it does not matter that another compiler may hash otherwise.
    let block = u16::try_from(hasher.finish() % BLOCKS).unwrap_or_default();
    FIRST_FRONT_PORT + block * BLOCK
}

/// A loopback address.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether the port can be listened on.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}

/// A free port for an instance. Taken from below the range of outgoing connections, whose ports come and go under load.
pub fn passing() -> Result<u16> {
    let low = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u16>().ok())
        .unwrap_or(32768);
    if low > 22_000 {
        for _ in 0..200 {
            let port = rand::random_range(20_000..low);
            if is_free(port) {
                return Ok(port);
            }
        }
    }
    let listener = TcpListener::bind(loopback(0)).and_then(|listener| listener.local_addr());
    match listener {
        Ok(addr) => Ok(addr.port()),
        Err(source) => Err(PlatformError::Unreachable {
            what: "a free loopback port".to_owned(),
            source: source.into(),
        }),
    }
}

/// Who listens on the port, as `name (pid N)`, if that can be seen: `/proc/net/tcp*` names the socket's inode, and the
/// process that has it open is ours or we are root.
pub fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let has_it = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
        });
        if has_it {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inodes of sockets that listen on `port` in a table such as `/proc/net/tcp` (proc_net_tcp.txt: column 2 local
/// address, 4 state where 0A is LISTEN, 10 inode).
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = columns.get(1)?.rsplit(':').next()?;
            let listens = *columns.get(3)? == "0A" && u16::from_str_radix(local, 16).ok()? == port;
            listens.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

/// That the port is taken, with its holder.
pub fn taken(port: u16) -> PlatformError {
    PlatformError::PortTaken {
        port,
        holder: holder(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_taken_port_is_found() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder(port).expect("our own socket is visible");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        assert!(!is_free(port));
    }
}
