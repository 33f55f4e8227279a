//! Jaeger, one process, with its traces on disk, so that they outlive a restart.

use std::{io, path::PathBuf};

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Jaeger. Ports: `otlp-grpc`, `otlp-http`, `query` (its HTTP API), and others that nobody here asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jaeger;

/// The name of each port here, and its flag.
const FLAGS: &[(&str, &str)] = &[
    ("otlp-grpc", "collector.otlp.grpc.host-port"),
    ("otlp-http", "collector.otlp.http.host-port"),
    ("query", "query.http-server.host-port"),
    ("query-grpc", "query.grpc-server.host-port"),
    ("admin", "admin.http.host-port"),
    ("collector-grpc", "collector.grpc-server.host-port"),
    ("collector-http", "collector.http-server.host-port"),
    ("sampling", "http-server.host-port"),
    ("compact", "processor.jaeger-compact.server-host-port"),
    ("binary", "processor.jaeger-binary.server-host-port"),
    ("zipkin", "processor.zipkin-compact.server-host-port"),
];

impl Recipe for Jaeger {
    fn peer(&self) -> &'static str {
        "jaeger"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port::http("otlp-grpc"),
                Port::http("otlp-http"),
                Port::http("query"),
                Port::http("query-grpc"),
                Port::http("admin"),
                Port::http("collector-grpc"),
                Port::http("collector-http"),
                Port::http("sampling"),
                Port::http("compact"),
                Port::http("binary"),
                Port::http("zipkin"),
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let [keys, values] = ["keys", "values"].map(|name| place.make_folder(name));
        let program = at_its_addresses(place)?
            .env("SPAN_STORAGE_TYPE", "badger")
            .args(["--badger.ephemeral=false", "--log-level=warn"])
            .arg(format!("--badger.directory-key={}", keys?.display()))
            .arg(format!("--badger.directory-value={}", values?.display()));
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "admin",
            path: "/",
        }
    }
}

/// A Jaeger that a configuration file tells everything but its addresses; it keeps traces in memory. Ports: as [`Jaeger`].
#[derive(Debug, Clone)]
pub struct JaegerFromFile(pub PathBuf);

impl Recipe for JaegerFromFile {
    fn peer(&self) -> &'static str {
        Jaeger.peer()
    }

    fn ports(&self) -> &'static [Port] {
        Jaeger.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let file = format!("--config-file={}", self.0.display());
        Ok(vec![
            at_its_addresses(place)?.env("SPAN_STORAGE_TYPE", "memory").arg(file),
        ])
    }

    fn ready(&self) -> Ready {
        Jaeger.ready()
    }
}

fn at_its_addresses(place: &Place) -> io::Result<Program> {
    let addresses = FLAGS
        .iter()
        .map(|(port, flag)| format!("--{flag}={}", place.address(port)));
    Ok(Program::new(program("jaeger")?).args(addresses))
}
