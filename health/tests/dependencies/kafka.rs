//! Kafka over rdkafka's consumer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Cause, Heartbeat, KafkaCheck, Reason};
use peers::{Recipe, Server, servers};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use tokio::time::Instant;

use crate::contract::{AnyCheck, Dependency, ask, holds, reason_of, until};

struct Kafka;

impl Dependency for Kafka {
    const PORT: &'static str = "kafka";
    /// A broker tells its clients where it is.
    const RELAYS: bool = false;

    fn recipe() -> impl Recipe {
        servers::Kafka::default()
    }

    async fn prepare(server: &Server) {
        let admin: AdminClient<DefaultClientContext> = config(server.address("kafka")).create().unwrap();
        let topic = NewTopic::new("orders", 3, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made[0].as_ref().unwrap();
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        check(address, "orders")
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

fn config(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("group.id", "service")
        .set("reconnect.backoff.max.ms", "500");
    config
}

fn check(address: SocketAddr, topic: &str) -> AnyCheck {
    let cause = Cause::new();
    let consumer: BaseConsumer<Heard> = config(address).create_with_context(Heard(cause.clone())).unwrap();
    let metadata = move |topic: &str, within: Duration| consumer.fetch_metadata(Some(topic), within);
    Arc::new(KafkaCheck::new(topic, metadata).explained_by(&cause))
}

/// A topic is looked for and never made, though the broker makes those that a producer or consumer asks for.
async fn topics(address: SocketAddr, test: &str) {
    let nothing = check(address, "nothing");
    for _ in 0..5 {
        until(&nothing, test, Some(Reason::Protocol)).await;
    }
    let consumer: BaseConsumer = config(address).create().unwrap();
    let all = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let topics = all.topics().iter().map(MetadataTopic::name);
    let topics: Vec<&str> = topics.filter(|name| !name.starts_with("__")).collect();
    assert_eq!(topics, ["orders"], "{test}: made by asking");
}

/// Brokers that answer are not enough: the consumer has to poll.
async fn polls(address: SocketAddr, test: &str) {
    let consumer: BaseConsumer = config(address).create().unwrap();
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
