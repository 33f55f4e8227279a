//! RabbitMQ over lapin, with the connect loop that an application has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Cause, RabbitCheck, Reason};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use peers::{Recipe, Server, servers};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::contract::{AnyCheck, Dependency, WRONG, ask, holds, reason_of, until};

struct RabbitMq;

impl Dependency for RabbitMq {
    const PORT: &'static str = "amqp";

    fn recipe() -> impl Recipe {
        servers::RabbitMq
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        check(address, "guest").0
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(check(address, WRONG).0)
    }
}

type Current = watch::Receiver<Option<Arc<Connection>>>;

/// The check over the connection in use, and that connection.
fn check(address: SocketAddr, password: &str) -> (AnyCheck, Current) {
    let (sender, current) = watch::channel(None);
    let cause = Cause::new();
    tokio::spawn(keep_connected(
        format!("amqp://guest:{password}@{address}/%2f"),
        sender,
        cause.clone(),
    ));
    let seen = current.clone();
    let check = RabbitCheck::new(move || seen.borrow().clone()).explained_by(&cause);
    (Arc::new(check), current)
}

/// Connects, and connects again when the connection is lost, until nobody wants it any more.
async fn keep_connected(url: String, current: watch::Sender<Option<Arc<Connection>>>, cause: Cause) {
    while !current.is_closed() {
        let connecting = timeout(
            Duration::from_secs(5),
            Connection::connect(&url, ConnectionProperties::default()),
        );
        match connecting.await {
            Ok(Ok(connection)) => {
                cause.clear();
                let connection = Arc::new(connection);
                current.send_replace(Some(Arc::clone(&connection)));
                while connection.status().connected() && !current.is_closed() {
                    sleep(Duration::from_millis(50)).await;
                }
                current.send_replace(None);
            }
            Ok(Err(error)) => cause.rabbitmq_error(error),
            Err(_) => cause.report(health::Failure::new(Reason::Timeout, "could not connect in time")),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    holds::<RabbitMq>("rabbitmq_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_looked_for_and_never_made_and_no_channel_stays_open() {
    let test = "a_queue_is_looked_for_and_never_made_and_no_channel_stays_open";
    let Some(server) = Server::start(servers::RabbitMq, test).await else {
        return;
    };
    let (plain, mut current) = check(server.address("amqp"), "guest");
    until(&plain, test, None).await;
    let connection = current.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let of_check = Arc::clone(&connection);
    let queue: AnyCheck = Arc::new(RabbitCheck::new(move || Some(Arc::clone(&of_check))).queue("orders"));
    for _ in 0..20 {
        assert_eq!(
            reason_of(&ask(&queue).await),
            Some(Reason::Protocol),
            "there is no such queue"
        );
    }
    server.pause();
    for _ in 0..3 {
        assert_eq!(reason_of(&ask(&queue).await), Some(Reason::Timeout));
    }
    server.resume();
    until(&queue, test, Some(Reason::Protocol)).await;
    let channel = connection.create_channel().await.unwrap();
    assert!(
        channel.id() <= 3,
        "channel {}: those before it are still open",
        channel.id()
    );
    let declared = channel.queue_declare("orders".into(), QueueDeclareOptions::default(), FieldTable::default());
    declared.await.unwrap();
    until(&queue, test, None).await;
}
