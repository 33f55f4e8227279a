//! Kafka, one process that is broker and controller.

use std::{io, net::SocketAddr};

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Kafka. Port: `kafka`.
#[derive(Debug, Clone, Default)]
pub struct Kafka {
    advertised: Option<SocketAddr>,
}

impl Kafka {
    /// Tells clients to come to this address, where something hands on to the real one.
    #[must_use]
    pub fn advertised(mut self, address: SocketAddr) -> Self {
        self.advertised = Some(address);
        self
    }
}

/// Any sixteen bytes in base64.
const CLUSTER: &str = "b3BzY3RsLXBlZXJzLWthZg";

impl Recipe for Kafka {
    fn peer(&self) -> &'static str {
        "kafka"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port {
                    name: "kafka",
                    url: "{}",
                },
                Port {
                    name: "controller",
                    url: "{}",
                },
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let [kafka, controller] = ["kafka", "controller"].map(|port| place.address(port));
        let advertised = self.advertised.unwrap_or(kafka);
        let data = place.folder().join("data");
        let config = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{kafka},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
",
            data.display()
        );
        let config = place.write("server.properties", &config)?;
        let kafka = program("kafka")?;
        let format = Program::new(&kafka).args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]);
        place.run(&format.arg(&config))?;
        Ok(vec![Program::new(kafka).arg("kafka.Kafka").arg(config)])
    }

    fn ready(&self) -> Ready {
        // ApiVersions, version 0, with a number that the answer repeats after its length.
        Ready::Talk {
            port: "kafka",
            say: b"\0\0\0\x0a\0\x12\0\0opsc\xff\xff",
            skip: 4,
            hear: b"opsc",
        }
    }
}
