//! A span that ended, encoded: what waits in the queues of the exporters. Encoding it where it ends makes a queue's bound
//! exact, and a request is then put together without looking into its spans.

use std::collections::VecDeque;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;

use crate::sink::queue::{Item, Severity};

/// One span. Clones share.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    encoded: Bytes,
    failed: bool,
}

impl Finished {
    pub(crate) fn new(span: &Span) -> Self {
        let status = span.status.as_ref().map_or(0, |status| status.code);
        Self {
            encoded: span.encode_to_vec().into(),
            failed: status == StatusCode::Error as i32,
        }
    }

    /// The span again.
    pub(crate) fn decode(&self) -> Option<Span> {
        Span::decode(self.encoded.clone()).ok()
    }
}

/// Spans that wait in a queue.
pub(crate) type Spans = VecDeque<(u64, Finished)>;

impl Item for Finished {
    fn bytes(&self) -> usize {
        self.encoded.len() + size_of::<Self>()
    }

    /// Of a queue that is full, what failed stays longest.
    fn severity(&self) -> Severity {
        if self.failed { Severity::Error } else { Severity::Info }
    }
}

/// What made the spans. `telemetry` does not tell libraries apart: their targets are on the spans' events.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "telemetry".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// `ExportTraceServiceRequest` with these spans.
pub(crate) fn request(resource: &Resource, spans: &[Finished]) -> Bytes {
    let of_scope = ScopeSpans {
        scope: Some(scope()),
        spans: spans.iter().map(|span| span.encoded.clone()).collect(),
    };
    let of_resource = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![of_scope],
    };
    Request {
        resource_spans: vec![of_resource],
    }
    .encode_to_vec()
    .into()
}

// The messages of the protocol with the spans as bytes: on the wire, a message inside of another is just that.

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    //! The request is the one that the protocol's own types make.

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

    use super::*;
    use crate::trace::recording::text;

    #[test]
    fn it_is_what_the_types_of_the_protocol_encode() {
        let resource = Resource {
            attributes: vec![text("service.name", "orders")],
            ..Resource::default()
        };
        let spans: Vec<Span> = (0..3_u8)
            .map(|number| Span {
                trace_id: vec![number; 16],
                name: format!("span {number}"),
                attributes: vec![text("key", "value")],
                ..Span::default()
            })
            .collect();
        let finished: Vec<_> = spans.iter().map(Finished::new).collect();
        assert_eq!(finished[1].decode().as_ref(), Some(&spans[1]));
        let theirs = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        };
        assert_eq!(request(&resource, &finished), theirs.encode_to_vec());
    }
}
