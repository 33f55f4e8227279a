//! The answers that the proxy gives itself. Short plain text for HTTP; for gRPC, trailers-only responses, which its
//! clients understand where they would only see "unknown" in a plain 503.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use opsctl_proxy_control::Hold;

use crate::body::ProxyBody;

/// Statuses of gRPC.
const DEADLINE_EXCEEDED: u16 = 4;
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;

/// The service is held.
pub(crate) fn held(hold: &Hold, grpc: bool) -> Response<ProxyBody> {
    let message = format!("held: {}", hold.reason);
    let mut response = unavailable(StatusCode::SERVICE_UNAVAILABLE, &message, grpc);
    response
        .headers_mut()
        .insert(RETRY_AFTER, hold.retry_after_seconds.into());
    response
}

/// No instance is ready, or none can be reached.
pub(crate) fn no_instance(service: &str, grpc: bool) -> Response<ProxyBody> {
    let message = format!("no instance of {service} is ready");
    let mut response = unavailable(StatusCode::SERVICE_UNAVAILABLE, &message, grpc);
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

/// The instance took the request and its connection broke.
pub(crate) fn lost(grpc: bool) -> Response<ProxyBody> {
    let message = "the instance closed the connection before it answered";
    unavailable(StatusCode::BAD_GATEWAY, message, grpc)
}

/// The instance did not begin to answer in time.
pub(crate) fn too_late(grpc: bool) -> Response<ProxyBody> {
    let message = "the instance did not begin to answer in time";
    if grpc {
        trailers_only(DEADLINE_EXCEEDED, message)
    } else {
        text(StatusCode::GATEWAY_TIMEOUT, message)
    }
}

/// A fault answers.
pub(crate) fn fault(status: StatusCode, grpc: bool) -> Response<ProxyBody> {
    unavailable(status, "injected fault", grpc)
}

/// The request asks for something that the proxy does not do.
pub(crate) fn refused(status: StatusCode, message: &str, grpc: bool) -> Response<ProxyBody> {
    if grpc {
        trailers_only(UNIMPLEMENTED, message)
    } else {
        text(status, message)
    }
}

fn unavailable(status: StatusCode, message: &str, grpc: bool) -> Response<ProxyBody> {
    if grpc {
        trailers_only(UNAVAILABLE, message)
    } else {
        text(status, message)
    }
}

fn text(status: StatusCode, message: &str) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::local(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// "Trailers-Only" of the gRPC protocol over HTTP/2: the status stands in the one block of headers.
fn trailers_only(status: u16, message: &str) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::local(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", status.into());
    // grpc-message is percent-encoded; what is not printable ASCII is left out here.
    let plain: String = message
        .chars()
        .filter(|c| (c.is_ascii_graphic() || *c == ' ') && *c != '%')
        .collect();
    if let Ok(message) = HeaderValue::from_str(&plain) {
        headers.insert("grpc-message", message);
    }
    response
}
