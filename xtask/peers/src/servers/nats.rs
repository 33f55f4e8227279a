//! NATS with JetStream, which keeps its streams in files.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A NATS server. Ports: `nats`, and `monitor`, its HTTP API.
#[derive(Debug, Clone, Default)]
pub struct Nats {
    login: Option<(String, String)>,
}

impl Nats {
    /// Asks for this user and password.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }
}

impl Recipe for Nats {
    fn peer(&self) -> &'static str {
        "nats"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port {
                    name: "nats",
                    url: "nats://{}",
                },
                Port::http("monitor"),
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let [nats, monitor] = ["nats", "monitor"].map(|port| place.port(port).to_string());
        let program = Program::new(program("nats-server")?)
            .args(["-a", "127.0.0.1", "-p", &nats, "-m", &monitor, "-js", "-sd"])
            .arg(place.make_folder("data")?);
        let login = self
            .login
            .iter()
            .flat_map(|(user, password)| ["--user", user, "--pass", password]);
        Ok(vec![program.args(login)])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "monitor",
            path: "/healthz",
        }
    }
}
