//! HTTP requests under OpenTelemetry's stable names: `http_server_request_duration_seconds`, where the route is the
//! router's pattern and never the path that a caller sent, and `http_client_request_duration_seconds`.

use std::time::Duration;

use ::http::Method;
use axum::extract::MatchedPath;

use crate::metrics::memo::Memo;
use crate::metrics::{Exemplar, Histogram, Metrics};

/// Status that stands for a request whose future or body was dropped before its end.
pub(crate) const CLIENT_CLOSED: u16 = 499;

/// Series of one service's requests; one for each place where the layer was put on.
#[derive(Debug)]
pub(crate) struct HttpRed {
    metrics: Metrics,
    known: Memo<(Box<str>, &'static str, u16), Histogram>,
}

/// The pattern that a request matched.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// The router's.
    Matched(MatchedPath),
    /// None: the path came from outside and is not told.
    Unmatched,
}

impl Route {
    pub(crate) fn of<B>(request: &::http::Request<B>) -> Self {
        let matched = request.extensions().get::<MatchedPath>();
        matched.map_or(Self::Unmatched, |path| Self::Matched(path.clone()))
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Matched(path) => path.as_str(),
            Self::Unmatched => "_unmatched",
        }
    }
}

impl HttpRed {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            known: Memo::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A request ended.
    pub(crate) fn finish(
        &self,
        method: &'static str,
        route: &Route,
        status: u16,
        took: Duration,
        exemplar: Option<Exemplar>,
    ) {
        let route = route.as_str();
        let make = || {
            let status = status.to_string();
            let handle = catalogue::HTTP_SERVER_REQUEST_DURATION_SECONDS;
            self.metrics.histogram(handle, [method, route, &status])
        };
        let is = |key: &(Box<str>, &str, u16)| key.2 == status && key.1 == method && &*key.0 == route;
        let seconds = took.as_secs_f64();
        match self.known.get_or_make(is, || ((route.into(), method, status), make())) {
            Some(known) => known.observe_with(seconds, exemplar),
            None => make().observe_with(seconds, exemplar),
        }
    }
}

/// Series of one client's requests.
#[derive(Debug)]
pub(crate) struct HttpClientRed {
    metrics: Metrics,
    known: Memo<ClientKey, Histogram>,
}

#[derive(Debug, PartialEq)]
struct ClientKey {
    method: &'static str,
    host: Box<str>,
    status: Option<u16>,
    error: Box<str>,
}

impl HttpClientRed {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            known: Memo::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A request to `host` ended: with a status, or none, and with an error or an empty text.
    pub(crate) fn finish(
        &self,
        method: &'static str,
        host: &str,
        status: Option<u16>,
        error: &str,
        took: Duration,
        exemplar: Option<Exemplar>,
    ) {
        let make = || {
            let status = status.map(|status| status.to_string()).unwrap_or_default();
            let handle = catalogue::HTTP_CLIENT_REQUEST_DURATION_SECONDS;
            self.metrics.histogram(handle, [method, host, &status, error])
        };
        let is = |key: &ClientKey| {
            key.status == status && key.method == method && *key.host == *host && *key.error == *error
        };
        let key = || ClientKey {
            method,
            host: host.into(),
            status,
            error: error.into(),
        };
        let seconds = took.as_secs_f64();
        match self.known.get_or_make(is, || (key(), make())) {
            Some(known) => known.observe_with(seconds, exemplar),
            None => make().observe_with(seconds, exemplar),
        }
    }
}

/// The label of a method: those that HTTP knows, else `_OTHER`.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "PATCH" => "PATCH",
        _ => "_OTHER",
    }
}
