//! OTLP, the protocol of OpenTelemetry collectors: one request with an encoded message, and what the collector answered,
//! exactly. Over HTTP with protobuf or over gRPC. What is sent, and what becomes of it after an answer, is the matter of
//! the signals' exporters. Source: <https://opentelemetry.io/docs/specs/otlp/>.

mod answer;
mod grpc;
mod http;
mod settings;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use answer::Answer;
#[cfg(feature = "opentelemetry-otlp")]
pub(crate) use http::client as http_client;
pub use settings::{Client, Compression, OtlpSettings, OtlpSignal, Protocol};
pub(crate) use settings::{Signal, Target};

use crate::InitError;

/// Makes a client as a thread will later, and throws it away: what is wrong with its settings is told at the start.
pub(crate) fn probe<T>(make: impl FnOnce() -> Result<T, InitError>) -> Result<(), InitError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| InitError::Thread { source })?;
    let inside = runtime.enter();
    let made = make().map(drop);
    drop(inside);
    runtime.shutdown_background();
    made
}

/// Sends messages of one signal to one collector.
#[derive(Debug)]
pub(crate) struct Transport {
    wire: Wire,
    timeout: Duration,
}

#[derive(Debug)]
enum Wire {
    Http(http::Http),
    Grpc(Box<grpc::Grpc>),
}

impl Transport {
    /// Connects when it first sends. Call it inside of a runtime, and send in the same.
    pub(crate) fn new(target: &Target) -> Result<Self, InitError> {
        let wire = match target.protocol {
            Protocol::HttpProtobuf => Wire::Http(http::Http::new(target)?),
            Protocol::Grpc => Wire::Grpc(Box::new(grpc::Grpc::new(target)?)),
        };
        Ok(Self {
            wire,
            timeout: target.timeout,
        })
    }

    /// Sends one encoded `Export…ServiceRequest` and waits for the answer, not longer than the export's time-out and not
    /// beyond `deadline`. Without an answer nothing is known of it, and it may have arrived: that is `Later`.
    pub(crate) async fn send(&self, message: Bytes, deadline: Option<Instant>) -> Answer {
        let limit = Instant::now() + self.timeout;
        let until = deadline.map_or(limit, |deadline| deadline.min(limit));
        let sent = async {
            match &self.wire {
                Wire::Http(http) => http.send(message).await,
                Wire::Grpc(grpc) => grpc.send(message).await,
            }
        };
        match tokio::time::timeout_at(until, sent).await {
            Ok(answer) => answer,
            Err(_) => Answer::Later {
                after: None,
                why: "no answer in time".to_owned(),
            },
        }
    }
}
