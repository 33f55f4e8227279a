//! Temporal, by the gRPC health that its frontend serves.

use std::net::SocketAddr;
use std::sync::Arc;

use health::{GrpcCheck, Reason};
use peers::{Recipe, Server, servers};
use tonic::transport::{Channel, Endpoint};

use crate::contract::{AnyCheck, Dependency, ask, holds, reason_of};

struct Temporal;

impl Dependency for Temporal {
    const PORT: &'static str = "grpc";

    fn recipe() -> impl Recipe {
        servers::Temporal
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        Arc::new(GrpcCheck::temporal(channel(address)))
    }

    async fn also(server: &Server, _test: &str) {
        let unknown: AnyCheck = Arc::new(GrpcCheck::new(channel(server.address("grpc")), "no.such.Service"));
        assert_eq!(reason_of(&ask(&unknown).await), Some(Reason::Protocol));
    }
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporal_keeps_the_contract() {
    holds::<Temporal>("temporal_keeps_the_contract").await;
}
