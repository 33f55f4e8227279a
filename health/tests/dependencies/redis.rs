//! Redis over its connection manager, alone and as a cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Reason, RedisCheck};
use peers::{Place, Port, Program, Ready, Recipe, Server, servers};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, ask, holds, reason_of, until};

struct Redis;

impl Dependency for Redis {
    const PORT: &'static str = "redis";

    fn recipe() -> impl Recipe {
        servers::Redis::default().password(PASSWORD)
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

/// A Redis that is a cluster by itself.
struct Cluster(servers::Redis);

impl Recipe for Cluster {
    fn peer(&self) -> &'static str {
        self.0.peer()
    }

    fn ports(&self) -> &'static [Port] {
        self.0.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let programs = self.0.prepare(place)?.into_iter();
        Ok(programs
            .map(|program| program.args(["--cluster-enabled", "yes"]))
            .collect())
    }

    fn ready(&self) -> Ready {
        self.0.ready()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_passes_once_it_serves_all_slots() {
    let test = "a_redis_cluster_passes_once_it_serves_all_slots";
    let recipe = Cluster(servers::Redis::default());
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
