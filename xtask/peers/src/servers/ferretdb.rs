//! FerretDB: MongoDB's wire protocol, over SQLite files. It is no MongoDB, but its protocol is.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A FerretDB. Ports: `mongodb`, and `debug`, its own probes and metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct FerretDb;

impl Recipe for FerretDb {
    fn peer(&self) -> &'static str {
        "ferretdb"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port {
                    name: "mongodb",
                    url: "mongodb://{}/",
                },
                Port::http("debug"),
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let data = place.make_folder("data")?;
        let program = Program::new(program("ferretdb")?)
            .arg(format!("--listen-addr={}", place.address("mongodb")))
            .arg(format!("--debug-addr={}", place.address("debug")))
            .arg(format!("--sqlite-url=file:{}/", data.display()))
            .arg(format!("--state-dir={}", data.display()))
            .args(["--handler=sqlite", "--telemetry=disable", "--log-level=warn"]);
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "debug",
            path: "/debug/readyz",
        }
    }
}
