//! How a hop is steered: the faults' part of the control protocol over TCP, for who shows the token.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use opsctl_proxy_control::{Fault, FaultKind, Refusal, RefusalCode};
use tokio::net::TcpListener;

use super::{EXHAUSTED_PAUSE, Shared};
use crate::control::{Answer, MAX_REQUEST_BYTES, invalid, ok, parse, refused, response, same};
use crate::table::{check_fault, refusal};

/// Serves it until dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control could not accept");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a control connection ended");
            }
        });
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    // Whether it lives may be asked by whoever runs it.
    if request.method() == Method::GET && request.uri().path() == "/healthz" {
        return response(StatusCode::OK, "text/plain", "ok\n".into());
    }
    if !shows(&request, &shared.token) {
        return response(
            StatusCode::UNAUTHORIZED,
            "text/plain",
            "the token is missing or wrong\n".into(),
        );
    }
    route(shared, request).await.unwrap_or_else(|refusal| refused(&refusal))
}

/// Whether the request has the token. Takes as long for a token that is almost right as for any other.
fn shows(request: &Request<Incoming>, token: &str) -> bool {
    let header = request.headers().get(header::AUTHORIZATION);
    let Some(shown) = header.and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")) else {
        return false;
    };
    let differ = shown.iter().zip(token.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    !token.is_empty() && shown.len() == token.len() && differ == 0
}

fn failed(why: String) -> Refusal {
    refusal(RefusalCode::Failed, why)
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let body = Limited::new(body, MAX_REQUEST_BYTES)
        .collect()
        .await
        .map_err(|error| invalid(format!("the request cannot be read: {error}")))?
        .to_bytes();
    Ok(match (&head.method, &segments[..]) {
        (&Method::GET, ["v1", "status"]) => ok(&shared.status),
        (&Method::GET, ["v1", "counters"]) => ok(&shared.counters()),
        (&Method::GET, ["v1", "faults"]) => ok(&shared.faults.list(tokio::time::Instant::now())),
        (&Method::PUT, ["v1", "faults", id]) => {
            let fault: Fault = parse(&body)?;
            same("id", id, &fault.id)?;
            check_fault(&fault)?;
            if matches!(fault.kind, FaultKind::Error { .. }) {
                return Err(invalid(
                    "a hop reads nothing of what it passes on: it has no error to answer with",
                ));
            }
            if fault.version.is_some() {
                return Err(invalid("a hop knows no versions"));
            }
            shared.put(fault);
            ok(&())
        }
        (&Method::POST, ["v1", "sessions", "end"]) => match &shared.end_sessions {
            Some(end) => ok(&end().await.map_err(failed)?),
            None => return Err(invalid("it knows no database whose sessions it could end")),
        },
        (&Method::DELETE, ["v1", "faults", id]) => {
            shared.faults.remove(id);
            ok(&())
        }
        (method, _) => return Err(invalid(format!("{method} {path} is not part of the protocol"))),
    })
}
