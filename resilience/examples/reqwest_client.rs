//! A reqwest client whose requests outlast a server that is not well: `cargo run --example reqwest_client`. The server
//! is part of the example: it fails twice before it answers.

use std::time::Duration;

use resilience::reqwest::Client;
use resilience::{Deadline, Pipeline, Retry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // reqwest asks for this, even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    tokio::spawn(serve(listener));

    let backoff = Retry::default().backoff(Duration::from_millis(10), Duration::from_millis(100));
    let policy = Pipeline::standard("orders")
        .attempt_timeout(Duration::from_secs(1))
        .total_timeout(Duration::from_secs(5))
        .retry(backoff)
        .build()?;
    let client = Client::new(reqwest::Client::builder().no_proxy(), policy.clone())?;

    // A GET may be repeated: the third attempt brings the answer.
    let response = client.send(client.plain().get(&url)).await?;
    assert_eq!(
        (response.status().as_u16(), response.text().await?.as_str()),
        (200, "ok")
    );

    // A POST is sent once, unless it carries an Idempotency-Key: the 503 is the answer.
    let response = client.send(client.plain().post(&url)).await?;
    assert_eq!(response.status(), 503);

    // Work for a caller who waits 2 s more never takes longer, whatever the policy allows.
    let deadline = Deadline::after(Duration::from_secs(2));
    let response = deadline.scope(client.send(client.plain().get(&url))).await?;
    assert_eq!(response.text().await?, "ok");

    // 503, 503, 200; 503; 503, 200. A 200 is a success when its body has been read.
    let calls = policy.snapshot().breaker.ok_or("no breaker")?.calls;
    assert_eq!((calls.success, calls.failure), (2, 4));
    Ok(())
}

/// Answers one request a connection: 503 twice, then 200, and again.
async fn serve(listener: TcpListener) -> std::io::Result<()> {
    for number in 1.. {
        let (mut socket, _) = listener.accept().await?;
        let _ = socket.read(&mut [0; 4096]).await?;
        let status = if number % 3 == 0 { "200 OK" } else { "503 Sorry" };
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        socket.write_all(text.as_bytes()).await?;
    }
    Ok(())
}
