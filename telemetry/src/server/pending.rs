//! One request under way: what is known of it so far, and its figures at its end. When that is, is told by `response`.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;
use tracing::Span;

use super::Red;
use crate::metrics::Exemplar;
use crate::red::grpc::GrpcCall;
use crate::red::http::{CLIENT_CLOSED, Route};

/// Writes the request's metrics exactly once, also when it is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    red: Arc<Red>,
    span: Span,
    started: Instant,
    what: What,
    done: bool,
}

/// What kind of request it is, and how it ended.
#[derive(Debug)]
pub(super) enum What {
    Http {
        method: &'static str,
        route: Route,
        status: Option<u16>,
    },
    Grpc {
        call: GrpcCall,
        code: Option<u16>,
    },
}

impl Pending {
    pub(super) fn begin(red: &Arc<Red>, what: What, span: Span) -> Self {
        Self {
            red: Arc::clone(red),
            span,
            started: Instant::now(),
            what,
            done: false,
        }
    }

    /// The response begins; true when it is over with that, since nobody will read its body.
    pub(super) fn response_head(&mut self, status: u16, headers: &HeaderMap) -> bool {
        match &mut self.what {
            What::Http {
                method, status: seen, ..
            } => {
                *seen = Some(status);
                *method == "HEAD" || matches!(status, 204 | 304)
            }
            // A reply of headers alone carries its status there.
            What::Grpc { code, .. } => {
                *code = grpc_status(headers);
                false
            }
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let What::Grpc { code, .. } = &mut self.what {
            *code = grpc_status(trailers).or(*code);
        }
    }

    /// The request ended; `whole` says that the body was sent to its end.
    pub(super) fn finish(&mut self, whole: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let took = self.started.elapsed();
        let exemplars = self.red.metrics().has_exemplars();
        let exemplar = if exemplars { Exemplar::of(&self.span) } else { None };
        match (&self.what, &*self.red) {
            (What::Http { method, route, status }, Red::Http(red)) => {
                let status = status.filter(|_| whole).unwrap_or(CLIENT_CLOSED);
                if !self.span.is_disabled() {
                    self.span.record("http.response.status_code", status);
                    if status >= 500 {
                        self.span.record("otel.status_code", "ERROR");
                    }
                }
                red.finish(method, route, status, took, exemplar);
            }
            (What::Grpc { call, code }, Red::Grpc(red)) => {
                // The end of the body without a status is a broken reply (UNKNOWN); no end is CANCELLED.
                let code = code.unwrap_or(if whole { 2 } else { 1 });
                if !self.span.is_disabled() {
                    self.span.record("rpc.grpc.status_code", code);
                    if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
                        self.span.record("otel.status_code", "ERROR");
                    }
                }
                red.finish(call, code, took, exemplar);
            }
            // Both are made by the same layer.
            (What::Http { .. }, Red::Grpc(_)) | (What::Grpc { .. }, Red::Http(_)) => {}
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.finish(false);
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
