//! Faults that make a release bad on purpose, so that canaries and drills have something to find: a share of requests
//! fails, all are delayed. Not the fault injection of a running service (that is the proxy's): these last as long as the
//! process.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{Request, Response, StatusCode};
use rand::Rng as _;
use tower_layer::Layer;
use tower_service::Service;

use crate::problem::Problem;

/// What goes wrong. The default: nothing. Text form: `errors=2%,latency=50ms`, either part, any order, empty for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fault {
    /// Share of requests that fail, 0 to 1.
    pub errors: f64,
    /// Added to every request, also to those that fail.
    pub latency: Duration,
}

/// A fault that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// A part that is not `name=value`.
    #[error("`{0}` is not of the form errors=2% or latency=50ms")]
    Form(String),
    /// A name that is neither `errors` nor `latency`.
    #[error("`{0}` is no fault: it is errors or latency")]
    Name(String),
    /// A name that stands there twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A share that is none.
    #[error("errors={0} is no share: it is a number with a percent sign, between 0% and 100%, such as 2%")]
    Share(String),
    /// A time that is none, or longer than a minute.
    #[error("latency={0} is no time: it is at most 1m, such as 50ms or 1s")]
    Time(String),
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (mut errors, mut latency) = (None, None);
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| FaultError::Form(part.to_owned()))?;
            let twice = match name.trim() {
                "errors" => errors.replace(share(value.trim())?).is_some(),
                "latency" => latency.replace(time(value.trim())?).is_some(),
                other => return Err(FaultError::Name(other.to_owned())),
            };
            if twice {
                return Err(FaultError::Twice(name.trim().to_owned()));
            }
        }
        Ok(Self {
            errors: errors.unwrap_or(0.0),
            latency: latency.unwrap_or(Duration::ZERO),
        })
    }
}

fn share(text: &str) -> Result<f64, FaultError> {
    text.strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .map(|percent| percent / 100.0)
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| FaultError::Share(text.to_owned()))
}

fn time(text: &str) -> Result<Duration, FaultError> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| *time <= Duration::from_mins(1))
        .ok_or_else(|| FaultError::Time(text.to_owned()))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.errors > 0.0 {
            parts.push(format!("errors={}%", self.errors * 100.0));
        }
        if !self.latency.is_zero() {
            parts.push(format!("latency={}", humantime::format_duration(self.latency)));
        }
        f.write_str(&parts.join(","))
    }
}

impl Fault {
    /// Decides about one request: true when it is to fail.
    fn strikes(self) -> bool {
        self.errors > 0.0 && rand::rng().random_bool(self.errors)
    }

    /// Waits as long as the fault wants.
    async fn delay(self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    /// Decides about one piece of work that is no request: waits, then says whether it is to fail.
    pub async fn befall(self) -> bool {
        self.delay().await;
        self.strikes()
    }

    /// The layer for HTTP routes: a failing request is answered 500 and does not reach its handler.
    pub fn http(self) -> FaultLayer {
        FaultLayer {
            fault: self,
            refuse: || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "injected", REASON).into_response(),
        }
    }

    /// The layer for gRPC routes: a failing call is answered INTERNAL and does not reach its handler.
    pub fn grpc(self) -> FaultLayer {
        FaultLayer {
            fault: self,
            refuse: || tonic::Status::internal(REASON).into_http(),
        }
    }
}

const REASON: &str = "this build was started with --fault";

/// Applies a [`Fault`] to requests, except to probes and metrics (paths of `health`, `/metrics`, `grpc.health.v1`).
#[derive(Debug, Clone, Copy)]
pub struct FaultLayer {
    fault: Fault,
    refuse: fn() -> Response<Body>,
}

impl<S> Layer<S> for FaultLayer {
    type Service = FaultService<S>;

    fn layer(&self, inner: S) -> FaultService<S> {
        FaultService { inner, layer: *self }
    }
}

/// The service that [`FaultLayer`] makes.
#[derive(Debug, Clone)]
pub struct FaultService<S> {
    inner: S,
    layer: FaultLayer,
}

impl<S, B> Service<Request<B>> for FaultService<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = self.layer;
        if layer.fault == Fault::default() || is_spared(request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        // The clone has not been asked whether it is ready; the original has.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            layer.fault.delay().await;
            if layer.fault.strikes() {
                return Ok((layer.refuse)());
            }
            inner.call(request).await
        })
    }
}

/// Paths that must tell the truth.
fn is_spared(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/health" | "/metrics")
        || path.starts_with("/health/")
        || path.starts_with("/grpc.health.v1.Health/")
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn the_text_form_is_read_and_written() {
        for (text, errors, latency_ms) in [
            ("", 0.0, 0),
            ("errors=2%,latency=50ms", 0.02, 50),
            (" latency = 1s , errors = 0.5% ", 0.005, 1000),
            ("errors=100%", 1.0, 0),
            ("latency=0s", 0.0, 0),
        ] {
            let fault: Fault = text.parse().unwrap();
            assert!((fault.errors - errors).abs() < 1e-12, "{text}");
            assert_eq!(fault.latency, Duration::from_millis(latency_ms), "{text}");
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault, "{text}");
        }
    }

    #[test]
    fn every_mistake_has_its_own_words() {
        for (text, error) in [
            ("errors", FaultError::Form("errors".into())),
            ("error=2%", FaultError::Name("error".into())),
            ("errors=1%,errors=2%", FaultError::Twice("errors".into())),
            ("errors=2", FaultError::Share("2".into())),
            ("errors=101%", FaultError::Share("101%".into())),
            ("errors=-1%", FaultError::Share("-1%".into())),
            ("errors=NaN%", FaultError::Share("NaN%".into())),
            ("latency=fast", FaultError::Time("fast".into())),
            ("latency=2h", FaultError::Time("2h".into())),
        ] {
            assert_eq!(text.parse::<Fault>().unwrap_err(), error, "{text}");
        }
    }

    fn app(fault: Fault) -> Router {
        let ok = || async { "ok" };
        Router::new()
            .route("/orders", get(ok))
            .route("/metrics", get(ok))
            .route("/health/ready", get(ok))
            .route("/healthz", get(ok))
            .layer(fault.http())
    }

    async fn status(app: &Router, path: &str) -> StatusCode {
        app.clone()
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap()
            .status()
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_but_probes_are_late_and_fail() {
        let app = app("errors=100%,latency=50ms".parse().unwrap());
        for path in ["/metrics", "/health/ready", "/healthz"] {
            let before = Instant::now();
            assert_eq!(status(&app, path).await, StatusCode::OK, "{path}");
            assert_eq!(before.elapsed(), Duration::ZERO, "{path}");
        }
        let before = Instant::now();
        assert_eq!(status(&app, "/orders").await, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(before.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn the_share_of_errors_is_the_one_asked_for() {
        let app = app("errors=20%".parse().unwrap());
        let mut failed = 0;
        for _ in 0..5000 {
            failed += u32::from(status(&app, "/orders").await == StatusCode::INTERNAL_SERVER_ERROR);
        }
        // 1000 expected, standard deviation 28: outside of six of them once in 500 million runs.
        assert!((830..=1170).contains(&failed), "{failed} of 5000");
    }

    #[tokio::test]
    async fn a_failing_call_says_internal_as_grpc_does() {
        let app = Router::new().route("/p.S/M", get(|| async { "ok" })).layer(
            Fault {
                errors: 1.0,
                ..Fault::default()
            }
            .grpc(),
        );
        let request = Request::get("/p.S/M").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "13");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
}
