//! Redis, which writes every change to its log, so that a restart loses none.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Redis. Port: `redis`.
#[derive(Debug, Clone, Default)]
pub struct Redis {
    password: Option<String>,
}

impl Redis {
    /// Asks for this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }
}

impl Recipe for Redis {
    fn peer(&self) -> &'static str {
        "redis"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[Port {
                name: "redis",
                url: "redis://{}",
            }]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let data = place.make_folder("data")?;
        let program = Program::new(program("redis-server")?)
            .args(["--bind", "127.0.0.1", "--port"])
            .arg(place.port("redis").to_string())
            .arg("--dir")
            .arg(data)
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        let password = self.password.iter().flat_map(|password| ["--requirepass", password]);
        Ok(vec![program.args(password)])
    }

    fn ready(&self) -> Ready {
        // Without the password it answers with an error, but it answers.
        let hear: &[u8] = if self.password.is_some() { b"-NOAUTH" } else { b"+PONG" };
        Ready::Talk {
            port: "redis",
            say: b"PING\r\n",
            skip: 0,
            hear,
        }
    }
}
