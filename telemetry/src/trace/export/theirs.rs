//! The exporter of the crate opentelemetry-otlp, unmodified, for those who ask for it. It tells whether a request failed,
//! and hides what a success left out (partial success), how long to wait (`Retry-After`) and whether a failure is for
//! good: nothing is sent twice, what it calls done is counted as unknown, and what failed as dropped.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::{Protocol as TheirProtocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_otlp::{WithTonicConfig as _, tonic_types};
use opentelemetry_proto::tonic::common::v1 as wire;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::time::Instant;

use crate::InitError;
use crate::otlp::{Protocol, Target};
use crate::report::DropReason;
use crate::sink::account::Fate;
use crate::trace::finished::Finished;

/// Their exporter.
#[derive(Debug)]
pub(super) struct Theirs {
    exporter: SpanExporter,
    timeout: Duration,
}

impl Theirs {
    /// Needs a runtime.
    pub(super) fn new(target: &Target, resource: &Resource) -> Result<Self, InitError> {
        let otlp = |source: opentelemetry_otlp::ExporterBuildError| InitError::Otlp { source: source.into() };
        let mut exporter = match target.protocol {
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout)
                .with_metadata(tonic_types::metadata::MetadataMap::from_headers(target.headers.clone()))
                .build()
                .map_err(otlp)?,
            Protocol::HttpProtobuf => {
                crate::init_tls();
                let client = HttpClient::new(target)?;
                SpanExporter::builder()
                    .with_http()
                    .with_http_client(client)
                    .with_protocol(TheirProtocol::HttpBinary)
                    .with_endpoint(&target.endpoint)
                    .with_timeout(target.timeout)
                    .build()
                    .map_err(otlp)?
            }
        };
        let attributes = resource.attributes.iter().map(key_value);
        let resource = opentelemetry_sdk::Resource::builder_empty().with_attributes(attributes);
        exporter.set_resource(&resource.build());
        Ok(Self {
            exporter,
            timeout: target.timeout,
        })
    }

    /// Sends a batch once, not beyond `deadline`.
    pub(super) async fn send(&self, batch: &[Finished], deadline: Option<Instant>) -> Fate {
        let spans = batch.iter().filter_map(Finished::decode).map(data).collect();
        let limit = Instant::now() + self.timeout;
        let until = deadline.map_or(limit, |deadline| deadline.min(limit));
        match tokio::time::timeout_at(until, self.exporter.export(spans)).await {
            Ok(Ok(())) => Fate::Unknown,
            Ok(Err(_)) => Fate::Dropped(DropReason::Unreachable),
            Err(_) => Fate::Dropped(DropReason::Unanswered),
        }
    }
}

/// Their HTTP exporter wants a client; this is reqwest's, with our certificates.
#[derive(Debug)]
struct HttpClient {
    client: reqwest::Client,
    headers: http::HeaderMap,
}

impl HttpClient {
    fn new(target: &Target) -> Result<Self, InitError> {
        Ok(Self {
            client: crate::otlp::http_client(target)?,
            headers: target.headers.clone(),
        })
    }
}

#[tonic::async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(
        &self,
        mut request: http::Request<bytes::Bytes>,
    ) -> Result<http::Response<bytes::Bytes>, opentelemetry_http::HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let response = self.client.execute(request.try_into()?).await?;
        let mut answer = http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        Ok(answer.body(response.bytes().await?)?)
    }
}

/// A finished span as the SDK has it.
fn data(span: Span) -> SpanData {
    let failed = |status: &opentelemetry_proto::tonic::trace::v1::Status| match status.code() {
        status::StatusCode::Unset => Status::Unset,
        status::StatusCode::Ok => Status::Ok,
        status::StatusCode::Error => Status::error(status.message.clone()),
    };
    let mut events = SpanEvents::default();
    events.dropped_count = span.dropped_events_count;
    events.events = span.events.into_iter().map(event).collect();
    let mut links = SpanLinks::default();
    links.dropped_count = span.dropped_links_count;
    links.links = span.links.iter().map(link).collect();
    SpanData {
        span_context: context(&span.trace_id, &span.span_id, span.flags, &span.trace_state, false),
        parent_span_id: span_id(&span.parent_span_id),
        parent_span_is_remote: span.flags & 0x200 != 0,
        span_kind: match span::SpanKind::try_from(span.kind) {
            Ok(span::SpanKind::Server) => SpanKind::Server,
            Ok(span::SpanKind::Client) => SpanKind::Client,
            Ok(span::SpanKind::Producer) => SpanKind::Producer,
            Ok(span::SpanKind::Consumer) => SpanKind::Consumer,
            _ => SpanKind::Internal,
        },
        name: Cow::Owned(span.name),
        start_time: time(span.start_time_unix_nano),
        end_time: time(span.end_time_unix_nano),
        attributes: span.attributes.iter().map(key_value).collect(),
        dropped_attributes_count: span.dropped_attributes_count,
        events,
        links,
        status: span.status.as_ref().map_or(Status::Unset, failed),
        instrumentation_scope: InstrumentationScope::builder("telemetry")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn event(event: span::Event) -> Event {
    let attributes = event.attributes.iter().map(key_value).collect();
    Event::new(
        event.name,
        time(event.time_unix_nano),
        attributes,
        event.dropped_attributes_count,
    )
}

fn link(link: &span::Link) -> Link {
    let context = context(&link.trace_id, &link.span_id, link.flags, &link.trace_state, true);
    let attributes = link.attributes.iter().map(key_value).collect();
    Link::new(context, attributes, link.dropped_attributes_count)
}

fn context(trace: &[u8], span: &[u8], flags: u32, state: &str, is_remote: bool) -> SpanContext {
    let trace = trace.try_into().map_or(TraceId::INVALID, TraceId::from_bytes);
    let flags = TraceFlags::new((flags & 0xff) as u8);
    let state = state.parse::<TraceState>().unwrap_or_default();
    SpanContext::new(trace, span_id(span), flags, is_remote, state)
}

fn span_id(id: &[u8]) -> SpanId {
    id.try_into().map_or(SpanId::INVALID, SpanId::from_bytes)
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Our spans have these kinds of values and no others.
fn key_value(pair: &wire::KeyValue) -> KeyValue {
    use wire::any_value::Value as Wire;
    let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Wire::BoolValue(value)) => Value::Bool(*value),
        Some(Wire::IntValue(value)) => Value::I64(*value),
        Some(Wire::DoubleValue(value)) => Value::F64(*value),
        Some(Wire::StringValue(value)) => Value::String(value.clone().into()),
        _ => Value::String("".into()),
    };
    KeyValue::new(pair.key.clone(), value)
}
