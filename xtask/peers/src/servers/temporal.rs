//! Temporal's development server, without its web pages, with its data in one file.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Temporal. Ports: `grpc`, and `http`, its HTTP API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Temporal;

impl Recipe for Temporal {
    fn peer(&self) -> &'static str {
        "temporal"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("grpc"), Port::http("http"), Port::http("metrics")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let [grpc, http, metrics] = ["grpc", "http", "metrics"].map(|port| place.port(port).to_string());
        let program = Program::new(program("temporal")?)
            .env("HOME", place.folder())
            .args([
                "server",
                "start-dev",
                "--headless",
                "--ip",
                "127.0.0.1",
                "--log-level",
                "warn",
            ])
            .args(["--port", &grpc, "--http-port", &http, "--metrics-port", &metrics])
            .arg("--db-filename")
            .arg(place.folder().join("temporal.db"));
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "http",
            path: "/api/v1/namespaces/default",
        }
    }
}
