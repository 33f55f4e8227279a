//! Redis, which writes every change to its log, so that a restart loses none.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Redis. Port: `redis`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Redis;

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
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Talk {
            port: "redis",
            say: b"PING\r\n",
            skip: 0,
            hear: b"+PONG",
        }
    }
}
