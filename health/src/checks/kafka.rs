//! Kafka through the application's own client: the metadata of one topic. It never produces, and never asks for all topics
//! of a cluster that may have thousands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::Asking;
use super::cause::Cause;
use super::single_flight::SingleFlight;
use crate::check::{Check, Failure, Outcome, Reason};
use crate::live::{Beat, Heartbeat};

type AskMetadata = dyn Fn(&str, Duration) -> KafkaResult<Metadata> + Send + Sync;

/// Asks the brokers for one topic. Fails without an answer, on an unknown topic, and when no partition has a leader; warns
/// when some have none.
pub struct KafkaCheck {
    topic: String,
    metadata: Arc<AskMetadata>,
    within: Duration,
    polled: Option<Heartbeat>,
    cause: Cause,
    flight: SingleFlight,
}

impl fmt::Debug for KafkaCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaCheck")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaCheck {
    /// Asks for `topic` with the application's consumer or producer:
    /// `KafkaCheck::new("orders", move |topic, within| consumer.fetch_metadata(Some(topic), within))`.
    ///
    /// The call blocks, on a thread of its own, one at a time.
    pub fn new(
        topic: impl Into<String>,
        metadata: impl Fn(&str, Duration) -> KafkaResult<Metadata> + Send + Sync + 'static,
    ) -> Self {
        Self {
            topic: topic.into(),
            metadata: Arc::new(metadata),
            within: Duration::from_millis(800),
            polled: None,
            cause: Cause::default(),
            flight: SingleFlight::default(),
        }
    }

    /// How long the client waits for an answer. Default 800 ms; keep it below the check's timeout.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Fails, `stale`, when the consumer's loop did not beat for too long: brokers that answer say nothing of a consumer
    /// that no longer polls. Beat after every poll, also an empty one.
    #[must_use]
    pub fn polled(mut self, heartbeat: &Heartbeat) -> Self {
        self.polled = Some(heartbeat.clone());
        self
    }

    /// Says why no broker answers, from what [`Cause::kafka_error`] has heard.
    #[must_use]
    pub fn explained_by(mut self, cause: &Cause) -> Self {
        self.cause = cause.clone();
        self
    }
}

impl Check for KafkaCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move {
            if self.polled.as_ref().is_some_and(|beat| beat.check() == Beat::Dead) {
                return Outcome::Fail(Failure::new(Reason::Stale, "the consumer does not poll"));
            }
            let (metadata, topic, within) = (Arc::clone(&self.metadata), self.topic.clone(), self.within);
            let answer = self.flight.ask(move || match metadata(&topic, within) {
                Ok(metadata) => judge(&metadata, &topic),
                Err(error) => Outcome::Fail(failure(error)),
            });
            match answer.await {
                // The client's call just says that no broker was there, or was there in time.
                Outcome::Fail(failure) if matches!(failure.reason, Reason::Refused | Reason::Timeout) => {
                    Outcome::Fail(self.cause.failure().unwrap_or(failure))
                }
                other => {
                    self.cause.clear();
                    other
                }
            }
        })
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}

fn judge(metadata: &Metadata, topic: &str) -> Outcome {
    let wrong = |detail: String| Failure::new(Reason::Protocol, detail);
    let Some(told) = metadata.topics().iter().find(|told| told.name() == topic) else {
        return Outcome::Fail(wrong("the topic is not in the answer".to_owned()));
    };
    if let Some(error) = told.error() {
        return Outcome::Fail(failure(KafkaError::MetadataFetch(error.into())));
    }
    let partitions = told.partitions();
    let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
    let detail = format!("{leaderless} of {} partitions have no leader", partitions.len());
    if leaderless == partitions.len() {
        Outcome::Fail(wrong(detail))
    } else if leaderless > 0 {
        Outcome::Warn(wrong(detail))
    } else {
        Outcome::Pass
    }
}

impl Cause {
    /// Takes an error of the client: call it in `ClientContext::error`. The client tells its errors while it is polled. A
    /// passing check clears it.
    pub fn kafka_error(&self, error: &KafkaError) {
        let failure = failure(error.clone());
        // After the first reason comes "all brokers are down", which explains nothing.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.report(failure);
        }
    }
}

fn failure(error: KafkaError) -> Failure {
    use RDKafkaErrorCode as Code;
    let reason = match error.rdkafka_error_code() {
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown) => Reason::Refused,
        Some(Code::OperationTimedOut | Code::RequestTimedOut) => Reason::Timeout,
        Some(Code::Resolve) => Reason::Dns,
        Some(Code::SSL) => Reason::Tls,
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed,
        ) => Reason::Auth,
        _ => Reason::Protocol,
    };
    Failure::new(reason, error.to_string())
}
