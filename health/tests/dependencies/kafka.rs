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

use crate::contract::{AnyCheck, Dependency, ask, holds, reason_of, until};

struct Kafka;

impl Dependency for Kafka {
    const PORT: &'static str = "kafka";
    /// A broker tells its clients where it is.
    const RELAYS: bool = false;

    fn recipe() -> impl Recipe {
        servers::Kafka
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    holds::<Kafka>("kafka_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_looked_for_and_never_made_and_a_consumer_has_to_poll() {
    let test = "a_topic_is_looked_for_and_never_made_and_a_consumer_has_to_poll";
    let Some(server) = Server::start(servers::Kafka, test).await else {
        return;
    };
    let address = server.address("kafka");
    let nothing = check(address, "nothing");
    until(&nothing, test, Some(Reason::Protocol)).await;
    for _ in 0..5 {
        let outcome = ask(&nothing).await;
        assert_eq!(reason_of(&outcome), Some(Reason::Protocol), "{outcome:?}");
    }
    let consumer: BaseConsumer = config(address).create().unwrap();
    let all = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let topics: Vec<&str> = all.topics().iter().map(|topic| topic.name()).collect();
    assert!(topics.is_empty(), "made by asking: {topics:?}");

    Kafka::prepare(&server).await;
    let polls = Heartbeat::new(Duration::from_millis(300));
    let of_consumer = move |topic: &str, within: Duration| consumer.fetch_metadata(Some(topic), within);
    let polled: AnyCheck = Arc::new(KafkaCheck::new("orders", of_consumer).polled(&polls));
    until(&polled, test, Some(Reason::Stale)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        polls.beat();
        if reason_of(&ask(&polled).await).is_none() {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "a consumer that polls does not pass"
        );
    }
}
