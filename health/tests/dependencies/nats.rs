//! NATS over async-nats.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Cause, NatsCheck};
use peers::{Place, Port, Program, Ready, Recipe, Server, servers};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, holds, until};

/// A NATS server with a user.
struct WithUser;

impl Recipe for WithUser {
    fn peer(&self) -> &'static str {
        servers::Nats.peer()
    }

    fn ports(&self) -> &'static [Port] {
        servers::Nats.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let user = ["--user", "service", "--pass", PASSWORD];
        let programs = servers::Nats.prepare(place)?;
        Ok(programs.into_iter().map(|program| program.args(user)).collect())
    }

    fn ready(&self) -> Ready {
        servers::Nats.ready()
    }
}

struct Nats;

impl Dependency for Nats {
    const PORT: &'static str = "nats";

    fn recipe() -> impl Recipe {
        WithUser
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        connect(address, PASSWORD).await
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(connect(address, WRONG).await)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_contract() {
    holds::<Nats>("nats_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_listens_to_everything_does_not_stand_in_for_the_server() {
    let test = "one_who_listens_to_everything_does_not_stand_in_for_the_server";
    let Some(server) = Server::start(servers::Nats, test).await else {
        return;
    };
    let client = async_nats::connect(server.url("nats")).await.unwrap();
    let _everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let check: AnyCheck = Arc::new(NatsCheck::new(&client));
    until(&check, test, None).await;
    let nobody: AnyCheck =
        Arc::new(NatsCheck::new(&async_nats::connect(server.url("nats")).await.unwrap()).subject("a.b"));
    // The listener never answers.
    until(&nobody, test, Some(health::Reason::Timeout)).await;
}
