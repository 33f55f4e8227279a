//! W3C `traceparent`, `tracestate` and `X-Correlation-ID`: read from and written to headers, strictly. Spans are made
//! by `server` and `client`, not here. Source: <https://www.w3.org/TR/trace-context/>.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// `traceparent`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `x-correlation-id`.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Longest `tracestate` that is passed on, in bytes.
const TRACESTATE_LIMIT: usize = 8 * 1024;

/// The id that goes with one request through all services: `[A-Za-z0-9._:-]{1,128}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationId(String);

impl CorrelationId {
    /// The id if it has the right form.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'));
        good.then(|| Self(text.to_owned()))
    }

    /// A new one (a UUID of version 7).
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id of the request that is being handled here, if any.
    pub fn current() -> Option<Self> {
        tracing::Span::current()
            .context()
            .get::<Self>()
            .cloned()
            .or_else(|| Context::map_current(|context| context.get::<Self>().cloned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was read from the headers of a request.
#[derive(Debug)]
pub struct Extracted {
    /// The caller's span (if its header is valid) and the correlation id (always).
    pub context: Context,
    /// The correlation id, the caller's or a new one.
    pub correlation_id: CorrelationId,
    /// Names of headers that were there and refused.
    pub refused: Vec<&'static str>,
}

/// Reads the caller's context. What is malformed is refused as a whole and a new trace begins.
pub fn extract(headers: &HeaderMap) -> Extracted {
    let mut refused = Vec::new();
    let mut context = Context::new();
    if headers.contains_key(TRACEPARENT) {
        match remote(headers) {
            Ok(remote) => context = context.with_remote_span_context(remote),
            Err(name) => refused.push(name),
        }
    }
    let correlation_id = match headers.get(CORRELATION_ID) {
        None => CorrelationId::generate(),
        Some(value) => value.to_str().ok().and_then(CorrelationId::parse).unwrap_or_else(|| {
            refused.push("correlation_id");
            CorrelationId::generate()
        }),
    };
    Extracted {
        context: context.with_value(correlation_id.clone()),
        correlation_id,
        refused,
    }
}

fn remote(headers: &HeaderMap) -> Result<SpanContext, &'static str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let parsed = match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().ok().and_then(traceparent),
        _ => None,
    };
    let (trace, span, flags) = parsed.ok_or("traceparent")?;
    let state = headers
        .get_all(TRACESTATE)
        .iter()
        .map(HeaderValue::to_str)
        .collect::<Result<Vec<_>, _>>()
        .map(|parts| parts.join(","))
        .ok()
        .filter(|text| text.len() <= TRACESTATE_LIMIT)
        .and_then(|text| text.parse::<TraceState>().ok())
        // A bad tracestate must not break the trace: it is left out (section 4.3 of the specification).
        .unwrap_or_default();
    Ok(SpanContext::new(trace, span, flags, true, state))
}

/// Parses `version-trace-span-flags` with exact lengths 2-32-16-2 in lower hex, ids not zero, version not `ff`. Later
/// versions may append fields.
pub(crate) fn traceparent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let bytes = text.as_bytes();
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
        return None;
    }
    let (version, trace, span, flags) = (&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..55]);
    if ![version, trace, span, flags].iter().all(|part| part.iter().all(hex)) || version == b"ff" {
        return None;
    }
    let longer = bytes.len() > 55;
    if longer && (version == b"00" || bytes[55] != b'-') {
        return None;
    }
    let trace = TraceId::from_hex(&text[3..35])
        .ok()
        .filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(&text[36..52])
        .ok()
        .filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(&text[53..55], 16).ok()?;
    Some((trace, span, TraceFlags::new(flags & 1)))
}

/// Writes the current span's context and correlation id into the headers of an outgoing request. Works with
/// `http::HeaderMap`s of axum, reqwest and hyper; for tonic see [`inject_metadata`].
pub fn inject(headers: &mut HeaderMap) {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() {
        let text = format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(TRACEPARENT, value);
        }
        let state = span.trace_state().header();
        if !state.is_empty()
            && let Ok(value) = HeaderValue::from_str(&state)
        {
            headers.insert(TRACESTATE, value);
        }
    }
    if let Some(id) = CorrelationId::current()
        && let Ok(value) = HeaderValue::from_str(id.as_str())
    {
        headers.insert(CORRELATION_ID, value);
    }
}

/// [`inject`] for tonic's metadata.
pub fn inject_metadata(metadata: &mut tonic::metadata::MetadataMap) {
    let mut headers = std::mem::take(metadata).into_headers();
    inject(&mut headers);
    *metadata = tonic::metadata::MetadataMap::from_headers(headers);
}

/// A tonic interceptor that does [`inject_metadata`]: `OrdersClient::with_interceptor(channel, telemetry::interceptor)`.
///
/// # Errors
/// Never; the type is tonic's.
pub fn interceptor<T>(mut request: tonic::Request<T>) -> Result<tonic::Request<T>, tonic::Status> {
    inject_metadata(request.metadata_mut());
    Ok(request)
}
