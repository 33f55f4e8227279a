//! NATS over async-nats.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Cause, NatsCheck, Reason};
use peers::{Recipe, Server, servers};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, holds, until};

struct Nats;

impl Dependency for Nats {
    const PORT: &'static str = "nats";

    fn recipe() -> impl Recipe {
        servers::Nats::default().login("service", PASSWORD)
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        connect(address, PASSWORD).await
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(connect(address, WRONG).await)
    }

    async fn also(server: &Server, test: &str) {
        listeners(server, test).await;
    }
}

async fn connect(address: SocketAddr, password: &str) -> AnyCheck {
    let cause = Cause::new();
    let heard = cause.clone();
    let client = async_nats::ConnectOptions::with_user_and_password("service".to_owned(), password.to_owned())
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .event_callback(move |event| {
            heard.nats_event(&event);
            async {}
        })
        .connect(format!("nats://{address}"))
        .await
        .unwrap();
    Arc::new(NatsCheck::new(&client).explained_by(&cause))
}

/// One who listens to everything does not stand in for the server, nor is a request that nobody answers a pass.
async fn listeners(server: &Server, test: &str) {
    let options = || async_nats::ConnectOptions::with_user_and_password("service".to_owned(), PASSWORD.to_owned());
    let client = options().connect(server.url("nats")).await.unwrap();
    let asks = |subject: &str| -> AnyCheck { Arc::new(NatsCheck::new(&client).subject(subject)) };
    until(&asks("nobody.there"), test, Some(Reason::Protocol)).await;
    let _everything = client.subscribe(">").await.unwrap();
    let plain: AnyCheck = Arc::new(NatsCheck::new(&client));
    until(&plain, test, None).await;
    until(&asks("nobody.answers"), test, Some(Reason::Timeout)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_contract() {
    holds::<Nats>("nats_keeps_the_contract").await;
}
