//! The built-in checks against real peers.

use health::{DiskCheck, HttpCheck, Outcome, Reason};

#[tokio::test]
async fn the_http_check_tells_answers_from_silence() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new()
        .route("/good", axum::routing::get(|| async { "" }))
        .route(
            "/private",
            axum::routing::get(|| async { axum::http::StatusCode::FORBIDDEN }),
        );
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let reason = async |path: &str| {
        let check = HttpCheck::get(&format!("http://127.0.0.1:{port}{path}")).unwrap();
        match health::Check::run(&check).await {
            Outcome::Pass => None,
            Outcome::Warn(failure) | Outcome::Fail(failure) => Some(failure.reason),
        }
    };
    assert_eq!(reason("/good").await, None);
    assert_eq!(reason("/private").await, Some(Reason::Auth));
    assert_eq!(reason("/nothing").await, Some(Reason::Protocol));
    server.abort();
    let _ = server.await;
    assert_eq!(reason("/good").await, Some(Reason::Refused));
    assert!(HttpCheck::get("ftp://x").is_err());
}

#[tokio::test]
async fn the_disk_check_asks_for_what_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let ask = async |bytes| health::Check::run(&DiskCheck::new(folder.path(), bytes)).await;
    assert!(matches!(ask(1).await, Outcome::Pass));
    assert!(matches!(ask(u64::MAX).await, Outcome::Fail(failure) if failure.reason == Reason::Saturated));
}
