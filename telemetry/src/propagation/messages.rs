//! Spans of messages: a PRODUCER span for what is sent, a CONSUMER span for what is received, as a child of the sender's
//! span for one message and with links for a batch, which has many senders. The broker's client is not known here, only
//! its headers. Source: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.
//!
//! ```
//! use telemetry::propagation::messages::{self, Channel};
//! # use tracing::Instrument as _;
//! # async fn publish(_: &[u8], _: Vec<(String, Vec<u8>)>) {}
//! # async fn handle(_: &[u8]) {}
//! # async fn example(message: (Vec<(String, Vec<u8>)>, Vec<u8>)) {
//! const ORDERS: Channel = Channel { system: "kafka", destination: "orders" };
//!
//! let mut headers = Vec::new();
//! let span = messages::send(ORDERS, &mut headers);
//! publish(b"{}", headers).instrument(span).await;
//!
//! let (headers, body) = message;
//! let span = messages::process(ORDERS, &headers);
//! handle(&body).instrument(span).await;
//! # }
//! ```

use tracing::Span;
use tracing::field::Empty;

use super::{Extracted, ReadHeaders, WriteHeaders, extract, inject_span};
use crate::trace::SpanExt as _;

/// Where messages go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel<'a> {
    /// `kafka`, `nats`, `rabbitmq`, `aws_sqs`: `messaging.system`.
    pub system: &'a str,
    /// Topic, subject or queue, by the name that has few values: `messaging.destination.name`.
    pub destination: &'a str,
}

/// A span as the semantic conventions have those of messages.
macro_rules! message_span {
    ($channel:expr, $operation:literal, $kind:literal $(, parent: $parent:expr)?) => {
        tracing::info_span!(
            target: crate::SPAN_TARGET,
            $(parent: $parent,)?
            "message",
            otel.name = format_args!(concat!($operation, " {}"), $channel.destination),
            otel.kind = $kind,
            messaging.system = $channel.system,
            messaging.destination.name = $channel.destination,
            messaging.operation.name = $operation,
            messaging.operation.type = $operation,
            messaging.batch.message_count = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        )
    };
}

/// A PRODUCER span for one message, whose headers get its context. The span is to hold while the broker is asked.
pub fn send(channel: Channel<'_>, headers: &mut (impl WriteHeaders + ?Sized)) -> Span {
    let span = message_span!(channel, "send", "producer");
    inject_span(&span, headers);
    span
}

/// A CONSUMER span for the handling of one message, in the trace of its sender and with its correlation id.
pub fn process(channel: Channel<'_>, headers: &(impl ReadHeaders + ?Sized)) -> Span {
    process_extracted(channel, &extract(headers))
}

/// The same where the headers were read before.
pub fn process_extracted(channel: Channel<'_>, sender: &Extracted) -> Span {
    sender.scope(|| message_span!(channel, "process", "consumer", parent: None))
}

/// A CONSUMER span for a batch, linked to the sender of each message: it is in a trace of its own, or of whatever runs
/// here already.
pub fn receive<'a, H>(channel: Channel<'_>, batch: impl IntoIterator<Item = &'a H>) -> Span
where
    H: ReadHeaders + ?Sized + 'a,
{
    let span = message_span!(channel, "receive", "consumer");
    let mut messages = 0_u64;
    for headers in batch {
        messages += 1;
        if let Some(parent) = extract(headers).parent {
            span.add_link(parent);
        }
    }
    span.record("messaging.batch.message_count", messages);
    span
}
