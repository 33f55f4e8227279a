//! The control socket: HTTP/1.1 with JSON on a Unix socket, as `opsctl-proxy-control` describes it. Not the work that
//! a request asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use opsctl_proxy_control::{Document, Refusal, RefusalCode, RouteConfig, SCHEMA, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

use crate::metrics;
use crate::table::{Table, refusal};

/// The largest request that is read.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What the control socket serves.
pub(crate) struct Control {
    pub(crate) table: Mutex<Table>,
    /// The status, but for the revision.
    pub(crate) status: Status,
}

/// Serves the socket until dropped.
pub(crate) async fn serve(listener: UnixListener, control: Arc<Control>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(&control)));
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket could not accept");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, control: Arc<Control>) {
    let service = hyper::service::service_fn(move |request| {
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(control.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a control connection ended");
    }
}

pub(crate) type Answer = Response<Full<Bytes>>;

impl Control {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.route(request).await {
            Ok(answer) => answer,
            Err(refusal) => refused(&refusal),
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        // Read before the lock is taken: a slow caller keeps nobody else waiting.
        let body = Limited::new(body, MAX_REQUEST_BYTES)
            .collect()
            .await
            .map_err(|error| invalid(format!("the request cannot be read: {error}")))?
            .to_bytes();
        let mut table = self.table.lock().await;
        let get = head.method == Method::GET;
        let put = head.method == Method::PUT;
        let post = head.method == Method::POST;
        let delete = head.method == Method::DELETE;
        Ok(match segments[..] {
            ["metrics"] if get => text(metrics::render(table.live())),
            ["v1", "status"] if get => ok(&Status {
                revision: table.revision,
                ..self.status.clone()
            }),
            ["v1", "routes"] if get => ok(&table.routes()),
            ["v1", "routes", service] if put => {
                let config: RouteConfig = parse(&body)?;
                same("service", service, &config.service)?;
                ok(&table.put_route(config).await?)
            }
            ["v1", "routes", service] if delete => ok(&table.delete_route(service).await?),
            ["v1", "routes", service, "backends"] if put => ok(&table.set_backends(service, parse(&body)?).await?),
            ["v1", "routes", service, "hold"] if put => ok(&table.set_hold(service, parse(&body)?).await?),
            ["v1", "routes", service, "weight"] if get => ok(&table.weight(service)?),
            ["v1", "routes", service, "weight"] if post => ok(&table.change_weight(service, parse(&body)?).await?),
            ["v1", "routes", service, "weight", "renew"] if post => ok(&table.renew_weight(service, &parse(&body)?)?),
            ["v1", "routes", service, "faults"] if get => ok(&table.faults(service)?),
            ["v1", "routes", service, "counters"] if get => ok(&table.counters(service)?),
            ["v1", "faults", id] if put => {
                let fault: opsctl_proxy_control::Fault = parse(&body)?;
                same("id", id, &fault.id)?;
                ok(&table.put_fault(fault)?)
            }
            ["v1", "faults", id] if delete => {
                table.delete_fault(id);
                ok(&())
            }
            _ => {
                let unknown = format!("{} {path} is not part of the protocol", head.method);
                return Err(invalid(unknown));
            }
        })
    }
}

/// A refusal as an answer.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal.code {
        RefusalCode::Conflict | RefusalCode::PortTaken => StatusCode::CONFLICT,
        RefusalCode::UnknownService => StatusCode::NOT_FOUND,
        RefusalCode::Invalid => StatusCode::BAD_REQUEST,
        RefusalCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    document(status, refusal)
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let document: Document<serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| invalid(format!("not a control document: {error}")))?;
    if document.schema != SCHEMA {
        return Err(invalid(format!("schema {:?} instead of {SCHEMA:?}", document.schema)));
    }
    serde_json::from_value(document.data).map_err(|error| invalid(error.to_string()))
}

pub(crate) fn same(what: &str, path: &str, body: &str) -> Result<(), Refusal> {
    if path == body {
        Ok(())
    } else {
        Err(invalid(format!(
            "the {what} is {path} in the path and {body} in the body"
        )))
    }
}

pub(crate) fn ok<T: Serialize>(data: &T) -> Answer {
    document(StatusCode::OK, data)
}

pub(crate) fn document<T: Serialize>(status: StatusCode, data: &T) -> Answer {
    let (status, body) = match serde_json::to_vec(&Document::new(data)) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    };
    response(status, "application/json", body.into())
}

fn text(body: String) -> Answer {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response(StatusCode::OK, kind, body.into())
}

pub(crate) fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    refusal(RefusalCode::Invalid, message)
}
