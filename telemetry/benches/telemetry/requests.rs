//! The RED middleware around a handler that answers at once, beside the handler alone. There is no subscriber: what its
//! span costs is the spans' row.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use measure::{Candidate, finish};
use telemetry::{HttpLayer, Metrics};
use tower::ServiceExt as _;
use tower_layer::Layer as _;
use tower_service::Service;

const REQUEST: &str = "request and its RED metrics";

pub fn candidates() -> Vec<Candidate> {
    vec![
        request("telemetry", || {
            HttpLayer::on(&Metrics::new()).metrics_only().layer(Handler)
        }),
        request("the handler alone", || Handler),
    ]
}

/// One request with its whole answer.
fn request<S, B>(who: &'static str, service: fn() -> S) -> Candidate
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body + 'static,
{
    let matched = matched();
    Candidate::new(REQUEST, who, move || {
        let mut service = service();
        let matched = matched.clone();
        move || {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = Uri::from_static("/orders/4711");
            request.extensions_mut().insert(matched.clone());
            let answer = finish(service.call(request)).unwrap_or_else(|never| match never {});
            let _ = finish(answer.into_body().collect());
        }
    })
}

/// What a router says of a request's route; only a router can make one.
fn matched() -> MatchedPath {
    let (sender, receiver) = std::sync::mpsc::channel();
    let route = move |path: MatchedPath| {
        let _ = sender.send(path);
        std::future::ready(())
    };
    let router = axum::Router::new().route("/orders/{id}", axum::routing::get(route));
    let request = Request::get("/orders/4711").body(Body::empty()).expect("a request");
    let _ = finish(router.oneshot(request));
    receiver.recv().expect("the router has called its handler")
}

#[derive(Clone, Copy)]
struct Handler;

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}
