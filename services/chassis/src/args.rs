//! What every reference service is told, by flags or by the environment of the local platform. Nothing is done with it
//! here. The admin listener is not among it: `telemetry` reads `ADMIN_ADDR` itself; nor is the database's URL, which is a
//! secret and so no flag.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::database::Place;
use crate::fault::Fault;
use crate::start::Misconfigured;

/// Flags that all reference services share: flatten it into the service's own arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to answer HTTP [default: 127.0.0.1 and the service's own port]
    #[arg(long, env = "HTTP_ADDR", value_name = "IP:PORT")]
    pub http_addr: Option<SocketAddr>,
    /// Where to answer gRPC [default: 127.0.0.1 and the service's own port]
    #[arg(long, env = "GRPC_ADDR", value_name = "IP:PORT")]
    pub grpc_addr: Option<SocketAddr>,
    /// Folder of the service's files, shared by its instances; not used for what is in the database DATABASE_URL
    #[arg(long, env = "DATA_DIR", value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// What this build calls itself: told in the response header x-service-version
    #[arg(long, env = "SERVICE_VERSION", value_name = "VERSION", default_value = "dev", value_parser = version_label)]
    pub version_label: String,
    /// Behave badly, as a bad release would: a share of requests fails, all are slow
    #[arg(
        long,
        env = "SERVICE_FAULT",
        value_name = "errors=2%,latency=50ms",
        default_value = ""
    )]
    pub fault: Fault,
}

/// The ports of a service that is told none.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// HTTP.
    pub http: u16,
    /// gRPC.
    pub grpc: u16,
}

impl Args {
    /// Where `service` keeps what it stores: `DATABASE_URL`, or a file in `DATA_DIR`.
    pub fn place(&self, service: &str) -> Result<Place, Misconfigured> {
        let file = self.data_dir.join(format!("{service}.db"));
        Place::read(service, file, |name| std::env::var_os(name))
    }

    /// Where to answer HTTP and gRPC.
    pub fn addresses(&self, ports: Ports) -> (SocketAddr, SocketAddr) {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        (
            self.http_addr.unwrap_or(local(ports.http)),
            self.grpc_addr.unwrap_or(local(ports.grpc)),
        )
    }
}

/// Refuses what cannot stand in a header or would be unreadable in a table.
fn version_label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a version is 1 to 128 printable ASCII characters without spaces".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        chassis: Args,
    }

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Arguments::try_parse_from(std::iter::once("service").chain(arguments.iter().copied())).map(|all| all.chassis)
    }

    #[test]
    fn addresses_fall_back_to_the_services_own_ports() {
        let args = parse(&["--grpc-addr", "0.0.0.0:7"]).unwrap();
        let (http, grpc) = args.addresses(Ports { http: 8082, grpc: 9082 });
        assert_eq!(http, "127.0.0.1:8082".parse().unwrap());
        assert_eq!(grpc, "0.0.0.0:7".parse().unwrap());
    }

    #[test]
    fn a_version_that_no_header_could_carry_is_refused() {
        for bad in ["", "two words", "line\nbreak", "é"] {
            assert!(parse(&["--version-label", bad]).is_err(), "{bad:?}");
        }
        assert_eq!(
            parse(&["--version-label", "v2.1-rc.1+build"]).unwrap().version_label,
            "v2.1-rc.1+build"
        );
    }

    #[test]
    fn a_wrong_fault_is_told_with_its_reason() {
        let error = parse(&["--fault", "errors=200%"]).unwrap_err().to_string();
        assert!(error.contains("between 0% and 100%"), "{error}");
    }
}
