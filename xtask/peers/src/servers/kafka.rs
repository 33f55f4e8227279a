//! Kafka, one process that is broker and controller.

use std::io;

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Kafka. Port: `kafka`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kafka;

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
        let data = place.folder().join("data");
        let config = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{kafka},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{kafka}
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
