//! Redis over its connection manager, alone and as a cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Reason, RedisCheck};
use peers::{Place, Port, Program, Ready, Recipe, Server, servers};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, ask, holds, reason_of, until};

/// A Redis with arguments of ours.
struct With {
    arguments: &'static [&'static str],
    ready: Ready,
}

impl Recipe for With {
    fn peer(&self) -> &'static str {
        servers::Redis.peer()
    }

    fn ports(&self) -> &'static [Port] {
        servers::Redis.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let programs = servers::Redis.prepare(place)?;
        Ok(programs
            .into_iter()
            .map(|program| program.args(self.arguments))
            .collect())
    }

    fn ready(&self) -> Ready {
        self.ready
    }
}

struct Redis;

impl Dependency for Redis {
    const PORT: &'static str = "redis";

    fn recipe() -> impl Recipe {
        With {
            arguments: &["--requirepass", PASSWORD],
            ready: Ready::Talk {
                port: "redis",
                say: b"AUTH correct-horse\r\n",
                skip: 0,
                hear: b"+OK",
            },
        }
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        Arc::new(RedisCheck::new(&manager(&format!("redis://:{PASSWORD}@{address}"))))
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(Arc::new(RedisCheck::new(&manager(&format!(
            "redis://:{WRONG}@{address}"
        )))))
    }
}

fn manager(url: &str) -> ConnectionManager {
    let client = redis::Client::open(url).unwrap();
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(100))
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_connection_timeout(Some(Duration::from_secs(5)));
    ConnectionManager::new_lazy_with_config(client, config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_contract() {
    holds::<Redis>("redis_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_passes_once_it_serves_all_slots() {
    let test = "a_redis_cluster_passes_once_it_serves_all_slots";
    let recipe = With {
        arguments: &["--cluster-enabled", "yes"],
        ready: servers::Redis.ready(),
    };
    let Some(server) = Server::start(recipe, test).await else {
        return;
    };
    let manager = manager(&server.url("redis"));
    let check: AnyCheck = Arc::new(RedisCheck::new(&manager).cluster());
    assert_eq!(reason_of(&ask(&check).await), Some(Reason::Protocol), "no slots");
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("ADDSLOTSRANGE").arg(0).arg(16_383);
    let () = slots.query_async(&mut manager.clone()).await.unwrap();
    until(&check, test, None).await;
}
