//! Limits of an HTTP server, with a real axum server on a loopback port and a real client.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt as _;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use resilience::axum::{DeadlineLayer, concurrency, deadline_in, limit, shed, shed_by};
use resilience::{AdaptiveLimit, AdaptiveSettings, By, Deadline, Priority, Rejected, ShedSettings, Shedder};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tower::{Layer as _, Service as _, ServiceExt as _};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn shedder(limit: usize) -> Shedder {
    let settings = ShedSettings {
        limit: Some(limit),
        retry_after: Duration::from_millis(2_500),
        ..ShedSettings::default()
    };
    Shedder::new("api", &settings).unwrap()
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn client() -> reqwest::Client {
    // A second installation is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.unwrap();
}

/// A handler that answers once the gate lets it.
fn held(gate: &Arc<Semaphore>) -> axum::routing::MethodRouter {
    let gate = Arc::clone(gate);
    get(move || {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            "done"
        }
    })
}

#[tokio::test]
async fn two_routes_and_all_connections_share_one_limiter() {
    let (shedder, gate) = (shedder(2), Arc::new(Semaphore::new(0)));
    let app = Router::new()
        .route("/a", held(&gate))
        .route("/b", held(&gate))
        .layer(shed_by(&shedder, |_: &Parts| Priority::Critical));
    let base = serve(app).await;
    let requests = ["/a", "/b"].map(|path| tokio::spawn(client().get(format!("{base}{path}")).send()));
    until(|| shedder.snapshot().in_flight == 2).await;
    for path in ["/a", "/b"] {
        let refused = client().get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], "3", "2.5 s are rounded up");
        assert_eq!(refused.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(refused.text().await.unwrap(), "too much to do at the moment\n");
    }
    gate.add_permits(2);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    }
    until(|| shedder.snapshot().in_flight == 0).await;
    assert_eq!(shedder.snapshot().shed["critical"], 2);
}

#[tokio::test]
async fn route_layers_made_of_one_policy_share_it_too() {
    let (shedder, gate) = (shedder(1), Arc::new(Semaphore::new(0)));
    let app = Router::new()
        .route("/a", held(&gate).route_layer(shed(&shedder)))
        .route("/b", held(&gate).route_layer(shed(&shedder)))
        .route("/free", get(async || "free"));
    let base = serve(app).await;
    let first = tokio::spawn(client().get(format!("{base}/a")).send());
    until(|| shedder.snapshot().in_flight == 1).await;
    let refused = client().get(format!("{base}/b")).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let free = client().get(format!("{base}/free")).send().await.unwrap();
    assert_eq!(free.status(), StatusCode::OK);
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_header_says_the_priority() {
    let (shedder, gate) = (shedder(10), Arc::new(Semaphore::new(0)));
    let app = Router::new().route("/", held(&gate)).layer(shed(&shedder));
    let base = serve(app).await;
    let send = |priority: Option<&'static str>| {
        let request = client().get(&base);
        tokio::spawn(match priority {
            Some(priority) => request.header("x-priority", priority).send(),
            None => request.send(),
        })
    };
    let _low: Vec<_> = (0..5).map(|_| send(Some("low"))).collect();
    until(|| shedder.snapshot().in_flight == 5).await;
    for text in ["low", "LOW", "3", "200"] {
        assert_eq!(send(Some(text)).await.unwrap().unwrap().status(), 503, "{text}");
    }
    // No header and one that cannot be read are normal: 8 of 10.
    let _normal = [None, Some("soon"), Some("normal")].map(send);
    until(|| shedder.snapshot().in_flight == 8).await;
    assert_eq!(send(None).await.unwrap().unwrap().status(), 503);
    let _above = [Some("high"), Some("0")].map(send);
    until(|| shedder.snapshot().in_flight == 10).await;
    assert_eq!(send(Some("critical")).await.unwrap().unwrap().status(), 503);
    let shed = shedder.snapshot().shed;
    assert_eq!(
        (shed["low"], shed["normal"], shed["high"], shed["critical"]),
        (4, 1, 0, 1)
    );
}

#[tokio::test]
async fn a_stream_keeps_its_place_until_it_ends() {
    let shedder = shedder(1);
    let (chunks, queue) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let queue = Arc::new(std::sync::Mutex::new(Some(queue)));
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                let queue = queue.lock().unwrap().take().unwrap();
                Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(queue))
            }),
        )
        .layer(shed(&shedder));
    let base = serve(app).await;
    let response = client().get(&base).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.bytes_stream();
    for chunk in ["one", "two"] {
        chunks.send(Ok(Bytes::from_static(chunk.as_bytes()))).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), chunk);
        assert_eq!(shedder.snapshot().in_flight, 1);
        assert_eq!(client().get(&base).send().await.unwrap().status(), 503);
    }
    drop(chunks);
    assert!(body.next().await.is_none());
    until(|| shedder.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_place_back() {
    let (shedder, gate) = (shedder(2), Arc::new(Semaphore::new(0)));
    let app = Router::new()
        .route("/handler", held(&gate))
        .route(
            "/body",
            get(async || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>())),
        )
        .layer(shed(&shedder));
    let base = serve(app).await;
    let waits = tokio::spawn(client().get(format!("{base}/handler")).send());
    let reads = client().get(format!("{base}/body")).send().await.unwrap();
    until(|| shedder.snapshot().in_flight == 2).await;
    waits.abort();
    until(|| shedder.snapshot().in_flight == 1).await;
    drop(reads);
    until(|| shedder.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn a_rate_limit_refuses_with_429_by_what_the_request_says() {
    let admit = |request: &Parts| match request.headers.get("x-client") {
        Some(client) if client == "greedy" => Err(Rejected {
            by: By::RateLimit,
            name: "clients".into(),
            retry_after: Some(Duration::from_secs(7)),
        }),
        _ => Ok(()),
    };
    let app = Router::new().route("/", get(async || "hello")).layer(limit(admit));
    let base = serve(app).await;
    assert_eq!(client().get(&base).send().await.unwrap().status(), 200);
    let refused = client().get(&base).header("x-client", "greedy").send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    assert_eq!(refused.text().await.unwrap(), "too many requests\n");
}

#[tokio::test]
async fn a_client_s_time_limit_is_the_handler_s_deadline() {
    let app = Router::new()
        .route(
            "/",
            get(async || match Deadline::current() {
                Some(deadline) => deadline.remaining().as_millis().to_string(),
                None => "none".to_owned(),
            }),
        )
        .layer(DeadlineLayer);
    let base = serve(app).await;
    assert_eq!(client().get(&base).send().await.unwrap().text().await.unwrap(), "none");
    let limited = client()
        .get(&base)
        .header("x-request-timeout-ms", "60000")
        .send()
        .await
        .unwrap();
    let left: u64 = limited.text().await.unwrap().parse().unwrap();
    assert!((30_000..=60_000).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn only_digits_are_a_time_limit() {
    for (text, millis) in [
        ("0", Some(0)),
        ("250", Some(250)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1s", None),
        ("99999999999999999999999", None),
    ] {
        let headers = [("x-request-timeout-ms".parse().unwrap(), text.parse().unwrap())];
        let deadline = deadline_in(&headers.into_iter().collect());
        assert_eq!(
            deadline.map(|deadline| deadline.remaining().as_millis()),
            millis,
            "{text:?}"
        );
    }
    let huge = [(
        "x-request-timeout-ms".parse().unwrap(),
        u64::MAX.to_string().parse().unwrap(),
    )];
    assert!(
        deadline_in(&huge.into_iter().collect()).is_some(),
        "and a huge one is never"
    );
}

/// What the layer does with one response of the handler, without a network.
async fn through(limiter: &AdaptiveLimit, status: u16) -> Response<()> {
    let mut service = concurrency(limiter).layer(tower::service_fn(move |_: Request<Body>| async move {
        tokio::time::advance(Duration::from_millis(10)).await;
        let answer = Response::builder().status(status).body(Body::from("text")).unwrap();
        Ok::<_, std::convert::Infallible>(answer)
    }));
    let response = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(Body::empty()))
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    assert_eq!(limiter.snapshot().in_flight, 1, "the body is still there");
    assert_eq!(body.collect().await.unwrap().to_bytes(), "text");
    assert_eq!(limiter.snapshot().in_flight, 0);
    Response::from_parts(parts, ())
}

#[tokio::test(start_paused = true)]
async fn the_limit_learns_from_the_head_of_the_response() {
    for (status, lowered) in [
        (200, false),
        (404, false),
        (429, false),
        (500, false),
        (503, true),
        (504, true),
    ] {
        let settings = AdaptiveSettings {
            initial: 100,
            ..AdaptiveSettings::default()
        };
        let limiter = AdaptiveLimit::new("api", settings).unwrap();
        assert_eq!(through(&limiter, status).await.status(), status);
        assert_eq!(limiter.snapshot().limit, if lowered { 90 } else { 100 }, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_further_in_is_no_overload_of_the_handler() {
    let settings = AdaptiveSettings {
        initial: 100,
        ..AdaptiveSettings::default()
    };
    let (outer, inner) = (AdaptiveLimit::new("outer", settings).unwrap(), shedder(1));
    let _place = inner.admit(Priority::Critical).unwrap();
    let service = concurrency(&outer).layer(shed(&inner).layer(tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
    })));
    tokio::time::advance(Duration::from_millis(10)).await;
    let refused = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.extensions().get::<Rejected>().unwrap().by, By::Shed);
    assert_eq!((outer.snapshot().limit, outer.snapshot().dropped), (100, 0));
}

#[tokio::test]
async fn the_last_frame_ends_the_stay_although_the_body_is_still_there() {
    let shedder = shedder(1);
    let service = shed(&shedder).layer(tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("text")))
    }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(shedder.snapshot().in_flight, 1);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "text");
    assert_eq!(shedder.snapshot().in_flight, 0);
    assert!(body.frame().await.is_none());
}
