//! The network of the node: a bridge that gives it an address of its own, and the bridge that CNI hangs pods on.

use std::{fs, io, path::Path};

use super::{
    machine::{run, set},
    tables,
};

/// The node's address. Programs on the host listen on it for pods; nothing outside of this machine reaches it.
pub(super) const ADDRESS: &str = "10.250.0.1";
/// Where pods have their addresses.
pub(super) const PODS: &str = "10.244.0.0/16";
/// Where services have their addresses, which no link has.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The bridge that has the node's address. A kubelet refuses a loopback address.
const NODE_BRIDGE: &str = "opsctl0";
/// The bridge that pods hang on.
pub(super) const PODS_BRIDGE: &str = "opsctl-pods";

/// Makes the node's bridge, and lets packets of services pass between pods.
pub(super) fn make() -> io::Result<()> {
    ip(&["link", "add", NODE_BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", NODE_BRIDGE])?;
    ip(&["link", "set", NODE_BRIDGE, "up"])?;
    set("net/ipv4/ip_forward", "1")?;
    set("net/bridge/bridge-nf-call-iptables", "1")?;
    tables::refuse_strays(SERVICES)
}

/// Whether a link of the cluster is there.
pub(super) fn exists() -> bool {
    [NODE_BRIDGE, PODS_BRIDGE].iter().any(|name| link(name).exists())
}

/// Removes both bridges and what hangs on them.
pub(super) fn remove() -> io::Result<()> {
    let ports = fs::read_dir(link(PODS_BRIDGE).join("brif"))
        .into_iter()
        .flatten()
        .flatten();
    for port in ports {
        // Its other end goes with the pod's namespace, and takes it along.
        let _ = ip(&["link", "delete", &port.file_name().to_string_lossy()]);
    }
    for name in [NODE_BRIDGE, PODS_BRIDGE] {
        if link(name).exists() {
            ip(&["link", "delete", name])?;
        }
    }
    Ok(())
}

fn link(name: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(name)
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    run("ip", arguments, "").map(drop)
}
