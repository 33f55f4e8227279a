//! What a server is sent, which of its answers are taken, and that nobody is told what lets us in: over real sockets.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use endpoint::{Access, Answer, Endpoint, EndpointError, Method, StatusCode};
use fixtures::liar::Liar;
use fixtures::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SECRET: &str = "hunter2";

fn open(url: &str) -> Endpoint {
    Endpoint::new("Teapot", url, Access::Open, None).unwrap()
}

fn basic() -> Access {
    Access::Basic {
        username: "reader".to_owned(),
        password: SECRET.to_owned(),
    }
}

async fn get(endpoint: &Endpoint) -> Result<Answer, EndpointError> {
    endpoint.ask(Method::GET, endpoint.url("api")).answer().await
}

/// A server that answers everybody with these bytes, then with the last of them again and again until nobody listens.
/// It keeps what it hears.
async fn server(says: &'static [u8]) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heard: Arc<Mutex<String>> = Arc::default();
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            told.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]));
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1));
                let _ = stream.write_all(says).await;
                while says.is_empty() || stream.write_all(&says[says.len() - 1..]).await.is_ok() {
                    tick.tick().await;
                }
            });
        }
    });
    (address, heard)
}

/// Everything that an error says, with its causes, and how it is debugged.
fn all_words(error: &EndpointError) -> String {
    let mut words = format!("{error:?} {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        words = format!("{words}: {source}");
        cause = source.source();
    }
    words
}

#[test]
fn an_address_is_a_folder_without_user_and_question() {
    for (given, address, path) in [
        ("http://host", "http://host", "http://host/api/v1/x?y=1"),
        ("http://host:9090/", "http://host:9090", "http://host:9090/api/v1/x?y=1"),
        (
            "https://host/prefix",
            "https://host/prefix",
            "https://host/prefix/api/v1/x?y=1",
        ),
        (
            "https://me:hunter2@host/a/b/?x=1#y",
            "https://host/a/b",
            "https://host/a/b/api/v1/x?y=1",
        ),
        (
            "http://host/a%20b",
            "http://host/a%20b",
            "http://host/a%20b/api/v1/x?y=1",
        ),
    ] {
        let endpoint = open(given);
        assert_eq!(endpoint.address(), address);
        assert_eq!(endpoint.url("api/v1/x?y=1").as_str(), path);
    }
    for path in ["//evil/x", "http://evil/x", "/../../x", "\\\\evil", "?@evil", "#@evil"] {
        let url = open("http://host/prefix").url(path);
        assert_eq!(url.host_str(), Some("host"), "{path} is {url}");
    }
    for wrong in [
        "",
        "host:9090",
        "ftp://me:hunter2@host",
        "http://",
        "file:///etc/passwd",
    ] {
        let error = Endpoint::new("Teapot", wrong, Access::Open, None).unwrap_err();
        assert!(matches!(error, EndpointError::Address("Teapot")), "{wrong}: {error:?}");
        assert!(!all_words(&error).contains(SECRET));
    }
}

#[tokio::test]
async fn the_server_alone_is_told_who_asks() {
    let bearer = Access::Bearer(format!(" {SECRET}\n"));
    let cases = [
        ("", Access::Open, None, "to answer without credentials"),
        ("", bearer.clone(), Some("Bearer hunter2"), "the token"),
        (
            "",
            basic(),
            Some("Basic cmVhZGVyOmh1bnRlcjI="),
            "the user and the password",
        ),
        (
            "me:p%40ss%2B@",
            Access::Open,
            Some("Basic bWU6cEBzcys="),
            "the user and the password",
        ),
        ("me:other@", bearer, Some("Bearer hunter2"), "the token"),
    ];
    for (user, access, expected, refused) in cases {
        let (address, heard) = server(b"HTTP/1.1 401 No\r\nContent-Length: 7\r\n\r\nhunter2").await;
        let shown = format!("{access:?}");
        let endpoint = Endpoint::new("Teapot", &address.replace("//", &format!("//{user}")), access, None).unwrap();
        let error = get(&endpoint).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Teapot at {address} refuses {refused} (HTTP 401)")
        );
        let heard = heard.lock().unwrap();
        let header = heard.lines().find_map(|line| line.strip_prefix("authorization: "));
        assert_eq!(header, expected);
        for secret in ["hunter2", "p@ss", "p%40ss", "cmVhZGVyOmh1bnRlcjI", "bWU6cEBzcys"] {
            let words = format!("{} {endpoint:?} {shown}", all_words(&error));
            assert!(!words.contains(secret), "{words}");
        }
    }
    let broken = Access::Bearer("two\nlines".to_owned());
    let error = Endpoint::new("Teapot", "http://host", broken, None).unwrap_err();
    assert!(matches!(error, EndpointError::Client { .. }), "{error:?}");
}

/// A server may say again what it was sent, and anything else that a terminal should not be told.
#[test]
fn of_foreign_words_the_beginning_is_shown_without_secrets() {
    let endpoint = Endpoint::new("Teapot", "http://host", basic(), None).unwrap();
    let echo = "no \u{1b}[2J for hunter2\nBasic cmVhZGVyOmh1bnRlcjI=";
    let shown = "no  [2J for … Basic …";
    let error = endpoint.refused(StatusCode::NOT_FOUND, echo);
    assert_eq!(
        error.to_string(),
        format!("Teapot at http://host refuses (HTTP 404): {shown}")
    );
    let error = endpoint.foreign(echo);
    assert_eq!(error.to_string(), "http://host does not answer as Teapot does");
    assert_eq!(error.source().unwrap().to_string(), shown);
    let error = endpoint.refused(StatusCode::BAD_GATEWAY, "");
    assert_eq!(error.to_string(), "Teapot at http://host failed (HTTP 502)");
    assert!(endpoint.visible(&"long ".repeat(1000)).len() <= 300);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let head = format!(
        "HTTP/1.1 307 Moved\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let (address, _) = server(Box::leak(head.into_boxed_str()).as_bytes()).await;
    let endpoint = Endpoint::new("Teapot", &address, basic(), None).unwrap();
    let error = get(&endpoint).await.unwrap_err();
    assert!(
        matches!(
            error,
            EndpointError::Redirected {
                status: StatusCode::TEMPORARY_REDIRECT,
                ..
            }
        ),
        "{error:?}"
    );
    let came = tokio::time::timeout(Duration::from_millis(100), elsewhere.accept()).await;
    assert!(came.is_err(), "somebody came");
}

#[tokio::test]
async fn an_answer_is_taken_up_to_its_limit() {
    let liar = Liar::start();
    liar.says(&[b'x'; 1000]);
    let answer = get(&open(liar.address()).largest(1000)).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 1000));
    assert_eq!(answer.headers["content-length"], "1000");
    let error = get(&open(liar.address()).largest(999)).await.unwrap_err();
    assert!(matches!(error, EndpointError::TooLarge { limit: 999, .. }), "{error:?}");
    // What the caller makes of it is the caller's matter.
    liar.says(b"503 later");
    let answer = get(&open(liar.address())).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (503, &b"later"[..]));
}

#[tokio::test]
async fn forms_and_documents_are_sent_as_what_they_are() {
    let says = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let (address, heard) = server(says).await;
    let endpoint = open(&address);
    let ask = |path| endpoint.ask(Method::POST, endpoint.url(path));
    ask("form")
        .form(&[("query", "a=\"b&c\""), ("x", "é")])
        .answer()
        .await
        .unwrap();
    ask("json").json(&serde_json::json!({ "a": 1 })).answer().await.unwrap();
    let heard = heard.lock().unwrap();
    for expected in [
        "POST /form HTTP",
        "content-type: application/x-www-form-urlencoded",
        "query=a%3D%22b%26c%22&x=%C3%A9",
        "POST /json HTTP",
        "content-type: application/json",
        "{\"a\":1}",
    ] {
        assert!(heard.contains(expected), "{expected} is not in {heard}");
    }
}

/// It never answers, or byte by byte: the clock that is waited for runs ahead.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_or_trickles_is_left() {
    for says in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"] {
        for (limit, seconds) in [(None, 10), (Some(3), 3)] {
            let (address, _) = server(says).await;
            let mut endpoint = open(&address);
            if let Some(limit) = limit {
                endpoint = endpoint.limit(Duration::from_secs(limit));
            }
            let error = get(&endpoint).await.unwrap_err();
            assert!(error.is_unreachable());
            assert_eq!(
                error.to_string(),
                format!("Teapot at {address} took longer than {seconds} s")
            );
        }
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let error = get(&open("http://127.0.0.1:1/x")).await.unwrap_err();
    assert!(
        matches!(error, EndpointError::Unreachable { .. }) && error.is_unreachable(),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "Teapot at http://127.0.0.1:1/x cannot be reached");
    assert!(all_words(&error).contains("refused"), "{error:?}");
}

/// A server with the certificate of `localhost`.
async fn secured() -> String {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, crypto};

    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(tls::CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_file(tls::KEY).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let address = secured().await;
    let authority = std::fs::read(tls::AUTHORITY).unwrap();
    let endpoint = Endpoint::new("Teapot", &address, Access::Open, Some(&authority)).unwrap();
    assert_eq!(get(&endpoint).await.unwrap().body, b"ok");
    let error = get(&open(&address)).await.unwrap_err();
    assert!(matches!(error, EndpointError::Unreachable { .. }), "{error:?}");
    for none in [
        &b""[..],
        b"nonsense",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = Endpoint::new("Teapot", &address, Access::Open, Some(none)).unwrap_err();
        assert!(matches!(error, EndpointError::Client { .. }), "{error:?}");
    }
}

#[test]
fn a_mounted_secret_is_a_token_or_a_user_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let access = || format!("{:?}", Access::of_folder(folder.path()).unwrap());
    assert_eq!(access(), "Open");
    std::fs::write(folder.path().join("username"), "reader").unwrap();
    assert_eq!(access(), "Open", "half of it is nothing");
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    assert_eq!(access(), "Basic");
    std::fs::write(folder.path().join("token"), "t0ken\n").unwrap();
    let Access::Bearer(token) = Access::of_folder(folder.path()).unwrap() else {
        panic!("a token");
    };
    assert_eq!(token, "t0ken");
}
