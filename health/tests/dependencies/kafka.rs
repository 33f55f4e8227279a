//! Kafka over rdkafka's consumer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use health::{Cause, Heartbeat, KafkaCheck, Reason};
use peers::{Place, Port, Program, Ready, Recipe, Server, servers};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use tokio::time::Instant;

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, ask, holds, reason_of, until};

/// A Kafka that asks its clients who they are.
struct WithUser(servers::Kafka);

impl Recipe for WithUser {
    fn peer(&self) -> &'static str {
        self.0.peer()
    }

    fn ports(&self) -> &'static [Port] {
        self.0.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let programs = self.0.prepare(place)?;
        let file = place.folder().join("server.properties");
        let plain = fs::read_to_string(&file)?;
        let asking = plain.replace("PLAINTEXT:PLAINTEXT\n", "PLAINTEXT:SASL_PLAINTEXT\n");
        let login = format!(
            "inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
username=\"broker\" password=\"b\" user_broker=\"b\" user_service=\"{PASSWORD}\";
"
        );
        fs::write(file, asking + &login)?;
        Ok(programs)
    }

    fn ready(&self) -> Ready {
        self.0.ready()
    }
}

struct Kafka;

impl Dependency for Kafka {
    const PORT: &'static str = "kafka";
    /// A broker tells its clients where it is.
    const RELAYS: bool = false;

    fn recipe() -> impl Recipe {
        WithUser(servers::Kafka::default())
    }

    async fn prepare(server: &Server) {
        let admin: AdminClient<DefaultClientContext> = config(server.address("kafka"), PASSWORD).create().unwrap();
        let topic = NewTopic::new("orders", 3, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made[0].as_ref().unwrap();
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        check(address, PASSWORD, "orders")
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(check(address, WRONG, "orders"))
    }

    async fn also(server: &Server, test: &str) {
        topics(server.address("kafka"), test).await;
        polls(server.address("kafka"), test).await;
    }
}

/// Passes on what the client says of its brokers.
struct Heard(Cause);

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, _reason: &str) {
        self.0.kafka_error(&error);
    }

    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
}

impl ConsumerContext for Heard {}

fn config(address: SocketAddr, password: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("group.id", "service")
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", "service")
        .set("sasl.password", password)
        .set("reconnect.backoff.max.ms", "500");
    config
}

fn check(address: SocketAddr, password: &str, topic: &str) -> AnyCheck {
    let cause = Cause::new();
    let heard = Heard(cause.clone());
    let consumer: BaseConsumer<Heard> = config(address, password).create_with_context(heard).unwrap();
    let consumer = Arc::new(consumer);
    keep_polling(&consumer);
    let metadata = move |topic: &str, within: Duration| consumer.fetch_metadata(Some(topic), within);
    Arc::new(KafkaCheck::new(topic, metadata).explained_by(&cause))
}

/// What an application's consumer does; the client says what is wrong while it is polled.
fn keep_polling(consumer: &Arc<BaseConsumer<Heard>>) {
    let consumer = Arc::downgrade(consumer);
    std::thread::spawn(move || {
        while let Some(consumer) = consumer.upgrade() {
            let _ = consumer.poll(Duration::from_millis(50));
        }
    });
}

/// A topic is looked for and never made, though the broker makes those that a producer or consumer asks for.
async fn topics(address: SocketAddr, test: &str) {
    let nothing = check(address, PASSWORD, "nothing");
    for _ in 0..5 {
        until(&nothing, test, Some(Reason::Protocol)).await;
    }
    let consumer: BaseConsumer = config(address, PASSWORD).create().unwrap();
    let all = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let topics = all.topics().iter().map(MetadataTopic::name);
    let topics: Vec<&str> = topics.filter(|name| !name.starts_with("__")).collect();
    assert_eq!(topics, ["orders"], "{test}: made by asking");
}

/// Brokers that answer are not enough: the consumer has to poll.
async fn polls(address: SocketAddr, test: &str) {
    let consumer: BaseConsumer = config(address, PASSWORD).create().unwrap();
    let polls = Heartbeat::new(Duration::from_millis(300));
    let metadata = move |topic: &str, within: Duration| consumer.fetch_metadata(Some(topic), within);
    let polled: AnyCheck = Arc::new(KafkaCheck::new("orders", metadata).polled(&polls));
    until(&polled, test, Some(Reason::Stale)).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        polls.beat();
        let outcome = ask(&polled).await;
        if reason_of(&outcome).is_none() {
            break;
        }
        assert!(Instant::now() < deadline, "{test}: polls, and yet {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    holds::<Kafka>("kafka_keeps_the_contract").await;
}
