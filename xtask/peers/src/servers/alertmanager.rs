//! Alertmanager, alone: no gossip with others.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// An Alertmanager. Port: `http`.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    configuration: String,
}

impl Default for Alertmanager {
    /// Takes every alert and tells nobody.
    fn default() -> Self {
        Self::new("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    }
}

impl Alertmanager {
    /// With a configuration in Alertmanager's YAML.
    pub fn new(yaml: impl Into<String>) -> Self {
        Self {
            configuration: yaml.into(),
        }
    }
}

impl Recipe for Alertmanager {
    fn peer(&self) -> &'static str {
        "alertmanager"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("http")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let config = place.write("alertmanager.yaml", &self.configuration)?;
        let program = Program::new(program("alertmanager")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", place.folder().join("data").display()))
            .arg(format!("--web.listen-address={}", place.address("http")))
            .args(["--cluster.listen-address=", "--log.level=warn"]);
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "http",
            path: "/-/ready",
        }
    }
}
