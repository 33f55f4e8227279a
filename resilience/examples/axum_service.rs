//! An axum service that says no in time: `cargo run --example axum_service`. Every tenant has its rate, what matters less
//! goes first when there is too much to do, and the client's deadline holds for all that the handler calls. The clients
//! are part of the example.

use axum::{Router, routing::get};
use http::request::Parts;
use resilience::axum::{DeadlineLayer, limit, shed};
use resilience::{Deadline, KeyedRateLimit, KeyedRateLimitSettings, Priority, ShedSettings, Shedder};
use tokio::net::TcpListener;

/// Every policy that is called from here ends by the deadline.
async fn orders() -> String {
    let left = Deadline::current().map(Deadline::remaining);
    left.map_or("no hurry".to_owned(), |left| format!("{} s left", left.as_secs()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rate: KeyedRateLimitSettings = toml::from_str("limit = 3\nper = '1h'")?;
    let tenants = KeyedRateLimit::<String>::new("tenants", rate)?;
    let by_tenant = limit(move |request: &Parts| {
        let tenant = request.headers.get("x-tenant");
        tenants.try_acquire(tenant.and_then(|name| name.to_str().ok()).unwrap_or("nobody"))
    });
    let places: ShedSettings = toml::from_str("limit = 2")?;
    let shedder = Shedder::new("api", &places)?;

    let app = Router::new().route("/orders", get(orders));
    // The last layer is the outermost: who is over its rate takes no place from others.
    let app = app.layer(DeadlineLayer).layer(shed(&shedder)).layer(by_tenant);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    // reqwest asks for this, even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = |tenant, name, value| client.get(&url).header("x-tenant", tenant).header(name, value).send();
    let answer = ask("red", "x-request-timeout-ms", "3600900").await?;
    assert_eq!(answer.text().await?, "3600 s left");

    // Something big has one of two places. Low priorities may use but that one; others do not notice.
    let big = shedder.admit(Priority::Critical)?;
    assert_eq!(ask("red", "x-priority", "low").await?.status(), 503);
    assert_eq!(ask("red", "x-priority", "critical").await?.status(), 200);
    drop(big);

    // Red has had its three requests of this hour; blue has not.
    assert_eq!(ask("red", "x-priority", "critical").await?.status(), 429);
    assert_eq!(ask("blue", "x-priority", "low").await?.text().await?, "no hurry");
    assert_eq!(shedder.snapshot().shed["low"], 1);
    Ok(())
}
