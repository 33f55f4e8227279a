//! The HTTP check against every kind of answer, and none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use health::{HttpCheck, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{ask, told};

/// Serves `app` for the rest of the test; its address.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn check(base: &str, path: &str) -> HttpCheck {
    HttpCheck::get(&format!("{base}{path}")).unwrap()
}

#[tokio::test]
async fn answers_are_told_by_their_status() {
    let app = Router::new()
        .route("/good", get(|| async { "ok" }))
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .route("/status/400", get(|| async { StatusCode::BAD_REQUEST }))
        .route("/status/401", get(|| async { StatusCode::UNAUTHORIZED }))
        .route("/status/403", get(|| async { StatusCode::FORBIDDEN }))
        .route("/status/500", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/status/503", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/hangs", get(std::future::pending::<()>));
    let base = serve(app).await;
    for (path, expected) in [
        ("/good", "pass"),
        ("/empty", "pass"),
        ("/status/400", "fail protocol"),
        ("/status/401", "fail auth"),
        ("/status/403", "fail auth"),
        ("/status/404", "fail protocol"),
        ("/status/500", "fail protocol"),
        ("/status/503", "fail protocol"),
        ("/hangs", "fail timeout"),
    ] {
        assert_eq!(told(&check(&base, path)).await, expected, "{path}");
    }
    let asked_for = check(&base, "/status/403").expect(StatusCode::FORBIDDEN);
    assert_eq!(told(&asked_for).await, "pass");
    let other = check(&base, "/good").expect(StatusCode::NO_CONTENT);
    assert_eq!(told(&other).await, "fail protocol");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let hits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&hits);
    let app = Router::new()
        .route("/moved", get(|| async { Redirect::temporary("/target") }))
        .route(
            "/target",
            get(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
        );
    let base = serve(app).await;
    assert_eq!(told(&check(&base, "/moved")).await, "fail protocol");
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_limits_us_is_left_alone_as_long_as_it_asks() {
    let hits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&hits);
    let limited = move || async move {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
        }
        StatusCode::OK.into_response()
    };
    let base = serve(Router::new().route("/", get(limited))).await;
    let check = check(&base, "/");
    let began = Instant::now();
    loop {
        let answer = told(&check).await;
        if answer == "pass" {
            break;
        }
        assert_eq!(answer, "warn saturated");
        assert_eq!(
            hits.load(Ordering::SeqCst),
            1,
            "asked again after {:?}",
            began.elapsed()
        );
        assert!(began.elapsed() < Duration::from_secs(20), "never asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(hits.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_is_read_where_asked_for_and_never_without_end() {
    let endless = || async {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("0123456789abcdef".repeat(64)));
        Response::new(Body::from_stream(chunks))
    };
    let app = Router::new()
        .route("/endless", get(endless))
        .route("/status", get(|| async { r#"{"status":"pass"}"# }));
    let base = serve(app).await;
    assert_eq!(
        told(&check(&base, "/endless")).await,
        "pass",
        "the body is nobody's business"
    );
    assert_eq!(told(&check(&base, "/endless").contains("pass")).await, "fail protocol");
    assert_eq!(
        told(&check(&base, "/status").contains(r#""status":"pass""#)).await,
        "pass"
    );
    assert_eq!(told(&check(&base, "/status").contains("fail")).await, "fail protocol");
}

#[tokio::test]
async fn what_is_no_http_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers = ["SSH-2.0-OpenSSH_9.2\r\n", ""];
    let server = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let check = HttpCheck::get(&format!("http://{address}/")).unwrap();
    assert_eq!(told(&check).await, "fail protocol", "another protocol");
    assert_eq!(told(&check).await, "fail refused", "hung up");
    server.await.unwrap();
    assert_eq!(told(&check).await, "fail refused", "nothing listens");
}

#[tokio::test]
async fn addresses_that_are_none_are_refused_and_not_repeated() {
    for wrong in [
        "ftp://x/",
        "https://x/",
        "/health",
        "http://",
        "http://user:secret@x/",
        "",
        "http://a b/",
    ] {
        let failure = HttpCheck::get(wrong).unwrap_err();
        assert_eq!(failure.reason, Reason::Protocol, "{wrong}");
        assert!(!failure.detail.contains("secret"), "{}", failure.detail);
    }
    let unknown = HttpCheck::get("http://no-such-host.invalid/").unwrap();
    let outcome = told(&unknown).await;
    // A resolver that does not answer at all is as good an answer, where there is no network.
    assert!(
        ["fail dns", "fail timeout"].contains(&outcome.as_str()),
        "{outcome}: {:?}",
        ask(&unknown).await
    );
}
