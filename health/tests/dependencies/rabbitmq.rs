//! RabbitMQ over lapin, with the connect loop that an application has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use health::{Cause, Outcome, RabbitCheck, Reason};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use peers::{Place, Port, Program, Ready, Recipe, Server, http, servers};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

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

    async fn also(server: &Server, test: &str) {
        queues(server, test).await;
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

/// A queue is looked for and never made, and no channel stays open.
async fn queues(server: &Server, test: &str) {
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
    let before = connection.create_channel().await.unwrap();
    server.pause();
    for _ in 0..3 {
        assert_eq!(reason_of(&ask(&queue).await), Some(Reason::Timeout));
    }
    // Numbers are given in turn: however often it asked in vain, it opened one channel.
    let late = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.create_channel().await }
    });
    server.resume();
    let late = late.await.unwrap().unwrap();
    assert_eq!(
        late.id(),
        before.id() + 2,
        "{test}: channels opened while the broker hung"
    );
    for channel in [before, late] {
        channel.close(200, "done".into()).await.unwrap();
    }
    until(&queue, test, Some(Reason::Protocol)).await;

    let ours = connection.create_channel().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The list also holds what the checks of the suite have open at this moment.
        let open = open_channels(server).await;
        if open == [ours.id()] {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{test}: channels {open:?} instead of {} alone",
            ours.id()
        );
        sleep(Duration::from_millis(200)).await;
    }
    let declared = ours.queue_declare("orders".into(), QueueDeclareOptions::default(), FieldTable::default());
    declared.await.unwrap();
    until(&queue, test, None).await;
}

/// Numbers of the channels that the broker says are open.
async fn open_channels(server: &Server) -> Vec<u16> {
    let headers = [("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")];
    let answer = http::send(server.address("management"), "GET", "/api/channels", &headers, "")
        .await
        .unwrap();
    let channels = answer.json();
    let numbers = channels
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| channel["number"].as_u64().unwrap() as u16);
    numbers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    holds::<RabbitMq>("rabbitmq_keeps_the_contract").await;
}

/// A RabbitMQ that has too little memory from the start.
struct Full;

impl Recipe for Full {
    fn peer(&self) -> &'static str {
        servers::RabbitMq.peer()
    }

    fn ports(&self) -> &'static [Port] {
        servers::RabbitMq.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let programs = servers::RabbitMq.prepare(place)?;
        let file = place.folder().join("rabbitmq.conf");
        let config = fs::read_to_string(&file)?;
        fs::write(file, config + "vm_memory_high_watermark.absolute = 1MB\n")?;
        Ok(programs)
    }

    fn ready(&self) -> Ready {
        servers::RabbitMq.ready()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_blocks_its_publishers_is_a_warning() {
    let test = "a_broker_that_blocks_its_publishers_is_a_warning";
    let Some(server) = Server::start(Full, test).await else {
        return;
    };
    let (check, mut current) = check(server.address("amqp"), "guest");
    until(&check, test, None).await;
    let connection = current.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let channel = connection.create_channel().await.unwrap();
    // The broker says so to who publishes.
    let published = channel.basic_publish(
        "".into(),
        "nobody".into(),
        BasicPublishOptions::default(),
        b"",
        BasicProperties::default(),
    );
    published.await.unwrap();
    until(&check, test, Some(Reason::Saturated)).await;
    let outcome = ask(&check).await;
    assert!(matches!(outcome, Outcome::Warn(_)), "{outcome:?}");
}
