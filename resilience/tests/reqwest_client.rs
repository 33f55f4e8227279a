//! reqwest under a pipeline, against a socket that answers as it is told. The matrix follows reqwest-middleware's
//! `reqwest-retry/tests/all/retry.rs`, written afresh.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use resilience::reqwest::Client;
use resilience::{Breaker, Deadline, Error, Jitter, Pipeline, PipelineBuilder, Retry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Reply {
    /// Answers and closes.
    Status(u16),
    /// Answers with a header.
    With(u16, &'static str),
    /// Stops in the middle of the status line.
    Incomplete,
    /// Resets the connection after the request was read.
    Reset,
    /// Never answers.
    Silence,
    /// Headers and half of the body, then nothing.
    HalfABody,
    /// Headers and half of the body, then the connection is closed.
    BrokenBody,
    /// A body and a header.
    Body,
}

struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<String>>,
}

impl Server {
    /// Answers the requests in turn, the last way for ever.
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, last) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (replies, count, text) = (replies.to_vec(), Arc::clone(&requests), Arc::clone(&last));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let reply = replies[number.min(replies.len() - 1)];
                tokio::spawn(answer(socket, reply, Arc::clone(&text)));
            }
        });
        Self {
            address,
            requests,
            last,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The last request, as text.
    fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

async fn answer(mut socket: TcpStream, reply: Reply, last: Arc<std::sync::Mutex<String>>) {
    let mut seen = Vec::new();
    while !is_whole(&seen) {
        if socket.read_buf(&mut seen).await.unwrap() == 0 {
            break;
        }
    }
    *last.lock().unwrap() = String::from_utf8(seen).unwrap();
    let text = match reply {
        Reply::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Reply::With(status, header) => {
            format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n{header}\r\n\r\n")
        }
        Reply::Incomplete => "HTTP/1.1".to_owned(),
        Reply::Reset => {
            socket.set_zero_linger().unwrap();
            return;
        }
        Reply::Silence => return std::future::pending().await,
        Reply::BrokenBody => "HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhalf!".to_owned(),
        Reply::Body => "HTTP/1.1 200 X\r\ncontent-length: 5\r\nx-own: 1\r\n\r\nhello".to_owned(),
        Reply::HalfABody => {
            socket
                .write_all(b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhalf!")
                .await
                .unwrap();
            return std::future::pending().await;
        }
    };
    socket.write_all(text.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
}

/// Whether a request has come to its end: the headers, and as much body as they say.
fn is_whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn quick() -> PipelineBuilder {
    let retry = Retry::default()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .jitter(Jitter::None)
        .without_budget();
    Pipeline::standard("test").retry(retry)
}

fn client(policy: PipelineBuilder) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(reqwest::Client::builder().no_proxy(), policy.build().unwrap()).unwrap()
}

#[tokio::test]
async fn statuses_are_sent_again_or_not() {
    let again = [408, 425, 429, 500, 502, 503, 504];
    let once = [
        200, 201, 204, 206, 300, 304, 400, 401, 403, 404, 405, 409, 410, 412, 413, 418, 422, 428, 431, 451, 501, 505,
        507, 508, 511,
    ];
    let client = client(quick().without_breaker());
    for (statuses, requests) in [(&again[..], 2), (&once[..], 1)] {
        for status in statuses {
            let server = Server::start(&[Reply::Status(*status), Reply::Status(299)]).await;
            let response = client.send(client.plain().get(server.url())).await.unwrap();
            let wanted = if requests == 2 { 299 } else { *status };
            assert_eq!(
                (response.status().as_u16(), server.requests()),
                (wanted, requests),
                "{status}"
            );
        }
    }
}

#[tokio::test]
async fn the_last_answer_is_the_answer() {
    let server = Server::start(&[Reply::Status(503)]).await;
    let client = client(quick());
    let request = client.plain().get(server.url());
    // A call may go to another thread.
    let response = tokio::spawn(async move { client.send(request).await });
    assert_eq!(
        (response.await.unwrap().unwrap().status().as_u16(), server.requests()),
        (503, 3)
    );
}

#[tokio::test]
async fn broken_answers_are_asked_for_again_when_that_is_safe() {
    let client = client(quick());
    for reply in [Reply::Incomplete, Reply::Reset] {
        let server = Server::start(&[reply, reply, Reply::Status(200)]).await;
        let response = client.send(client.plain().get(server.url())).await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests()), (200, 3));

        let server = Server::start(&[reply, Reply::Status(200)]).await;
        let error = client.send(client.plain().post(server.url())).await.unwrap_err();
        assert!(matches!(error, Error::Inner(_)), "{error}");
        assert_eq!(server.requests(), 1, "a POST may have been done");

        let server = Server::start(&[reply, Reply::Status(200)]).await;
        let post = client.plain().post(server.url()).header("idempotency-key", "k");
        assert_eq!(client.send(post.body("x")).await.unwrap().status(), 200);
        assert!(server.last().ends_with("\r\n\r\nx"), "the body too: {}", server.last());
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_for_a_post_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let client = client(quick());
    let error = client.send(client.plain().post(url).body("x")).await.unwrap_err();
    assert!(error.into_inner().unwrap().is_connect());
    let retries = client.policy().snapshot().retry.unwrap().retries;
    assert!(retries.contains(&("not_sent", 2)), "{retries:?}");
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_given_up_and_made_again() {
    let server = Server::start(&[Reply::Silence, Reply::Status(200)]).await;
    let client = client(quick().attempt_timeout(Duration::from_millis(100)));
    let response = client.send(client.plain().get(server.url())).await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests()), (200, 2));
    let server = Server::start(&[Reply::Silence, Reply::Status(200)]).await;
    let error = client.send(client.plain().post(server.url())).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_says_when() {
    let client = client(quick());
    for status in [429, 503] {
        let server = Server::start(&[Reply::With(status, "retry-after: 0"), Reply::Status(200)]).await;
        let post = client.plain().post(server.url());
        let response = client.send(post).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), server.requests()),
            (200, 2),
            "it did not do the work"
        );
    }
}

#[tokio::test]
async fn a_wait_that_ends_after_the_deadline_is_not_begun() {
    let client = client(
        quick()
            .attempt_timeout(Duration::from_secs(2))
            .total_timeout(Duration::from_secs(2)),
    );
    for header in ["retry-after: 3600", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT"] {
        let server = Server::start(&[Reply::With(503, header)]).await;
        let began = Instant::now();
        let response = client.send(client.plain().get(server.url())).await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests()), (503, 1));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_stream_is_sent_once_and_whole() {
    let client = client(quick());
    let body = || {
        let chunks = ["hel", "lo"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        reqwest::Body::wrap_stream(futures::stream::iter(chunks))
    };
    let server = Server::start(&[Reply::Status(200)]).await;
    let put = client.plain().put(server.url()).body(body());
    assert_eq!(client.send(put).await.unwrap().status(), 200);
    assert!(
        server.last().contains("hel") && server.last().contains("lo"),
        "{}",
        server.last()
    );
    for reply in [Reply::Status(503), Reply::With(503, "retry-after: 0")] {
        let server = Server::start(&[reply, Reply::Status(200)]).await;
        let put = client.plain().put(server.url()).body(body());
        let response = client.send(put).await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests()), (503, 1));
    }
}

#[tokio::test]
async fn every_attempt_says_how_long_it_may_take() {
    let server = Server::start(&[Reply::Status(503), Reply::Status(200)]).await;
    let client = client(quick().attempt_timeout(Duration::from_secs(7)));
    client.send(client.plain().get(server.url())).await.unwrap();
    let said = |text: &str| -> Option<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("x-request-timeout-ms: "))?;
        line.parse().ok()
    };
    let millis = said(&server.last()).unwrap();
    assert!((5000..=7000).contains(&millis), "{millis}");
    let silent = client.clone().without_timeout_header();
    silent.send(silent.plain().get(server.url())).await.unwrap();
    assert_eq!(said(&server.last()), None);
}

/// Successes, failures, cancelled and ignored calls.
fn counts(client: &Client) -> [u64; 4] {
    let calls = client.policy().breaker().unwrap().snapshot().calls;
    [calls.success, calls.failure, calls.cancelled, calls.ignored]
}

#[tokio::test]
async fn a_body_that_stops_ends_with_the_deadline_of_the_call_or_the_caller() {
    let short = Duration::from_millis(600);
    let long = Duration::from_secs(60);
    for (policy, callers) in [
        (quick().attempt_timeout(short / 2).total_timeout(short), long),
        (quick(), short),
        (Pipeline::builder("test").breaker(Breaker::builder("test")), short),
    ] {
        let server = Server::start(&[Reply::HalfABody]).await;
        let client = client(policy);
        let began = Instant::now();
        let response = Deadline::after(callers)
            .scope(client.send(client.plain().get(server.url())))
            .await;
        let error = response.unwrap().bytes().await.unwrap_err();
        assert!(error.is_timeout() && began.elapsed() >= short, "{error:?}");
        assert_eq!((counts(&client), server.requests()), ([0, 1, 0, 0], 1));
    }
}

#[tokio::test]
async fn an_answer_counts_once_by_the_end_of_its_body() {
    let server = Server::start(&[Reply::Body]).await;
    let client = client(quick().bulkhead(1, 0));
    let send = || client.send(client.plain().get(server.url()));
    let places = || client.policy().snapshot().bulkhead.unwrap().in_flight;
    let response = send().await.unwrap();
    assert_eq!((counts(&client), places()), ([0; 4], 1));
    // It is as reqwest made it.
    assert_eq!(response.url().as_str(), server.url());
    assert_eq!(
        (response.content_length(), &response.headers()["x-own"]),
        (Some(5), &"1".parse().unwrap())
    );
    assert_eq!(response.remote_addr(), Some(server.address));
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!((counts(&client), places()), ([1, 0, 0, 0], 0));
    drop(send().await.unwrap());
    assert_eq!((counts(&client), places()), ([2, 0, 0, 0], 0), "nobody wants the body");

    for (reply, wanted) in [
        (Reply::Status(200), [1, 0, 0, 0]),
        (Reply::Status(404), [0, 0, 0, 1]),
        (Reply::Status(501), [0, 1, 0, 0]),
        (Reply::BrokenBody, [0, 1, 0, 0]),
    ] {
        let server = Server::start(&[reply]).await;
        let client = self::client(quick());
        let response = client.send(client.plain().get(server.url())).await.unwrap();
        let failed = response.bytes().await.is_err();
        assert_eq!((counts(&client), server.requests()), (wanted, 1), "{failed}");
    }
}

#[tokio::test]
async fn what_makes_no_request_says_nothing_of_the_server() {
    let client = client(quick());
    assert!(client.send(client.plain().get("nonsense")).await.is_err());
    let counts = client.policy().breaker().unwrap().snapshot();
    assert_eq!(counts.calls.failure, 0);
}

/// An HTTP/2 server that refuses the first `refused` streams and answers the others; counts both.
async fn refusing(refused: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if count.fetch_add(1, Ordering::SeqCst) < refused {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        respond.send_response(http::Response::new(()), true).unwrap();
                    }
                }
            });
        }
    });
    (url, requests)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_at_once_and_counts_as_no_retry() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    let retries = |client: &Client| -> u64 {
        let retries = client.policy().snapshot().retry.unwrap().retries;
        retries.iter().map(|(_, count)| count).sum()
    };
    for (refused, requests, counted) in [(1, 2, 0), (2, 3, 1), (3, 4, 2)] {
        let (url, seen) = refusing(refused).await;
        let client = Client::new(builder(), quick().build().unwrap()).unwrap();
        let response = client.send(client.plain().post(url).body("x")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!((seen.load(Ordering::SeqCst), retries(&client)), (requests, counted));
    }
    let (url, seen) = refusing(usize::MAX).await;
    let client = Client::new(builder(), quick().without_retry().build().unwrap()).unwrap();
    let error = client.send(client.plain().post(url).body("x")).await.unwrap_err();
    assert_eq!(resilience::http::error_kind(&error), resilience::Kind::NotSent);
    assert_eq!(seen.load(Ordering::SeqCst), 2, "reqwest itself retries nothing");
}
