//! RabbitMQ with its HTTP API. Erlang's port mapper, which would outlive it and be shared with others of the machine, is
//! started beside it on a port of its own and ends with it.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A RabbitMQ. Ports: `amqp`, and `management`, its HTTP API for `guest` with the password `guest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RabbitMq;

impl Recipe for RabbitMq {
    fn peer(&self) -> &'static str {
        "rabbitmq"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port {
                    name: "amqp",
                    url: "amqp://guest:guest@{}/%2f",
                },
                Port::http("management"),
                Port {
                    name: "distribution",
                    url: "{}",
                },
                Port {
                    name: "mapper",
                    url: "{}",
                },
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let [amqp, management, distribution, mapper] =
            ["amqp", "management", "distribution", "mapper"].map(|port| place.port(port).to_string());
        let data = place.make_folder("data")?;
        let config = format!(
            "listeners.tcp.local = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             log.console = true\nlog.console.level = warning\nlog.file = false\n"
        );
        let config = place.write("rabbitmq.conf", &config)?;
        let plugins = place.write("enabled_plugins", "[rabbitmq_management].\n")?;
        let no_settings = place.write("rabbitmq-env.conf", "")?;
        let port_mapper = Program::new(program("epmd")?).args(["-address", "127.0.0.1", "-port", &mapper]);
        let server = Program::new(program("rabbitmq-server")?)
            .env("HOME", place.folder())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", &mapper)
            .env("RABBITMQ_NODENAME", format!("opsctl{amqp}@localhost"))
            .env("RABBITMQ_DIST_PORT", &distribution)
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("RABBITMQ_CONF_ENV_FILE", no_settings)
            .env("RABBITMQ_CONFIG_FILE", config)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_MNESIA_BASE", &data)
            .env("RABBITMQ_LOG_BASE", &data)
            .env("RABBITMQ_PID_FILE", place.folder().join("pid"));
        Ok(vec![port_mapper, server])
    }

    fn ready(&self) -> Ready {
        // The protocol's header; the answer is a frame of kind 1, a method, on channel 0.
        Ready::Talk {
            port: "amqp",
            say: b"AMQP\0\0\x09\x01",
            skip: 0,
            hear: b"\x01\0\0",
        }
    }
}
