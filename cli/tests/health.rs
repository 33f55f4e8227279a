//! `opsctl health` through the real binary: what each answer means, against servers that give it, tonic's own health
//! server, TLS, and services on the local platform; and what a watcher is told when it changes.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use answers::{Answers, http};
use fixtures::tls;
use sandbox::{NOBODY, Ran, Sandbox, eventually, tiny_service};
use serde_json::Value;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

fn check(words: &[&str]) -> Ran {
    Sandbox::new().run(&[&["health", "check"], words].concat())
}

/// State, reason and detail of the only target.
fn only(ran: &Ran) -> (String, Option<String>, String) {
    let document = ran.json();
    assert_eq!(document["schema"], "opsctl.health/v1");
    let target = &document["targets"][0];
    let text = |key: &str| target[key].as_str().map(str::to_owned);
    (
        text("state").expect("a state"),
        text("reason"),
        text("detail").expect("a detail"),
    )
}

#[test]
fn an_http_answer_means_what_its_status_says() {
    let long = "x".repeat(1024 * 1024);
    for (answer, code, state, reason, detail) in [
        (http("200 OK", "", ""), 0, "healthy", None, "200"),
        (http("204 No Content", "", ""), 0, "healthy", None, "204"),
        (
            http("200 OK", "", r#"{"status":"pass"}"#),
            0,
            "healthy",
            None,
            "200 pass",
        ),
        (
            http("200 OK", "", r#"{"status":"warn"}"#),
            0,
            "degraded",
            None,
            "200 warn",
        ),
        (
            http("200 OK", "", &long),
            0,
            "healthy",
            None,
            "200 (a body of more than 64.0 KiB, not read)",
        ),
        (
            http("503 Service Unavailable", "", r#"{"status":"fail"}"#),
            4,
            "unhealthy",
            Some("status"),
            "503 fail",
        ),
        (
            http("404 Not Found", "", ""),
            4,
            "unhealthy",
            Some("status"),
            "404: nothing at this path",
        ),
        (
            http("401 Unauthorized", "", ""),
            4,
            "unhealthy",
            Some("status"),
            "401: not for everybody",
        ),
        (
            http("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
            4,
            "unhealthy",
            Some("redirect"),
            "302 to http://127.0.0.1:1/, not followed",
        ),
    ] {
        let server = Answers::always(answer);
        let ran = check(&[&server.url("/health/ready"), "--json"]).ended(code);
        let told = (state.to_owned(), reason.map(str::to_owned), detail.to_owned());
        assert_eq!(only(&ran), told);
        assert_eq!(server.asked().len(), 1);
        assert!(
            server.asked()[0].starts_with("get /health/ready http/1.1\r\n"),
            "{:?}",
            server.asked()
        );
    }
}

#[test]
fn no_answer_is_unreachable_and_says_why() {
    let hangs = Answers::start(|_| None);
    let garbage = Answers::always("SSH-2.0-x\r\n");
    let half = Answers::always("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    for (url, reason) in [
        (format!("http://{NOBODY}"), "refused"),
        (format!("grpc://{NOBODY}"), "refused"),
        (format!("tcp://{NOBODY}"), "refused"),
        (hangs.url(""), "timeout"),
        (hangs.url("").replace("http", "grpc"), "timeout"),
        (garbage.url(""), "protocol"),
        (half.url(""), "protocol"),
        (garbage.url("").replace("http", "grpc"), "protocol"),
        (garbage.url("").replace("http", "https"), "tls"),
        ("http://nobody.invalid".to_owned(), "dns"),
    ] {
        let ran = check(&[&url, "--timeout", "300ms", "--json"]).ended(7);
        let (state, told, detail) = only(&ran);
        assert_eq!(
            (state.as_str(), told.as_deref()),
            ("unreachable", Some(reason)),
            "{url}: {detail}"
        );
    }
}

#[test]
fn of_several_the_worst_counts_and_quiet_tells_only_what_is_wrong() {
    let good = Answers::always(http("200 OK", "", "")).url("/a");
    let bad = Answers::always(http("503 Service Unavailable", "", "")).url("/b");
    let gone = format!("http://{NOBODY}/c");
    assert!(check(&[&good, &good]).ended(0).stdout.lines().count() == 3);
    assert_eq!(check(&["-q", &good, &good]).ended(0).stdout, "");
    let told = check(&["-q", &good, &bad]).ended(4).stdout;
    assert!(told.contains(&bad) && !told.contains(&good), "{told}");
    check(&[&good, &gone, &bad]).ended(7);
}

#[test]
fn what_a_server_says_does_not_steer_the_terminal() {
    let server = Answers::always(http("503 No", "", "{\"status\":\"\\u001b[2Jgone\\nx\"}"));
    let told = check(&[&server.url("/")]).ended(4).stdout;
    assert!(told.contains(r"503 \u{1b}[2Jgone\nx"), "{told:?}");
}

#[test]
fn what_was_typed_does_not_steer_the_terminal_and_a_password_is_not_told() {
    let told = check(&["http://a\u{1b}[2J/", "--json"]).ended(2).stderr;
    assert!(told.contains(r"http://a\u001b[2J/"), "{told:?}");
    let told = check(&["http://a\u{1b}[2J/"]).ended(2).stderr;
    assert!(told.contains(r"`http://a\u{1b}[2J/` cannot be asked"), "{told:?}");
    for word in ["http://me:hunter2@h/", "htp://me:hunter2@h/", "me:hunter2@h:80"] {
        for more in [&[][..], &["--json"]] {
            let told = check(&[&[word], more].concat()).ended(2).stderr;
            assert!(told.contains("…@h") && !told.contains("hunter2"), "{told}");
        }
    }
}

/// tonic's own health server, which knows `orders` and everything (`""`).
struct Grpc {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    reporter: HealthReporter,
}

impl Grpc {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (reporter, service) = tonic_health::server::health_reporter();
        let address = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming),
            );
            address
        });
        let grpc = Self {
            runtime,
            address,
            reporter,
        };
        grpc.set("orders", ServingStatus::Serving);
        grpc
    }

    fn set(&self, service: &str, status: ServingStatus) {
        self.runtime.block_on(self.reporter.set_service_status(service, status));
    }

    fn url(&self, service: &str) -> String {
        format!("grpc://{}{service}", self.address)
    }
}

#[test]
fn a_grpc_answer_means_what_the_protocol_says() {
    let server = Grpc::start();
    assert_eq!(only(&check(&[&server.url(""), "--json"]).ended(0)).2, "SERVING");
    check(&[&server.url("/orders")]).ended(0);
    server.set("orders", ServingStatus::NotServing);
    let ran = check(&[&server.url("/orders"), "--json"]).ended(4);
    assert_eq!(only(&ran).1.as_deref(), Some("not_serving"));
    let ran = check(&[&server.url("/ordres"), "--json"]).ended(4);
    assert_eq!(
        only(&ran),
        (
            "unhealthy".to_owned(),
            Some("service_unknown".to_owned()),
            "it knows no service `ordres`".to_owned()
        )
    );
    let ran = check(&[&server.url(""), "--group", "live", "--json"]).ended(4);
    assert_eq!(only(&ran).2, "it knows no service `liveness`");
    // It speaks HTTP/2 alone.
    check(&[&format!("http://{}/", server.address)]).ended(7);
}

#[test]
fn a_grpc_server_without_health_says_so() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    });
    let ran = check(&[&format!("grpc://{address}"), "--json"]).ended(4);
    assert_eq!(only(&ran).2, "it does not offer grpc.health.v1.Health");
}

/// A server with the certificate of `localhost`, for one protocol.
fn secured(runtime: &tokio::runtime::Runtime, ip: &str, alpn: &str) -> SocketAddr {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(tls::CERTIFICATE).expect("a certificate")],
            PrivateKeyDer::from_pem_file(tls::KEY).expect("a key"),
        )
        .expect("a pair");
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (_, service) = tonic_health::server::health_reporter();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((ip, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let grpc = hyper_util::service::TowerToHyperService::new(tonic::service::Routes::new(service));
        let plain = hyper::service::service_fn(async |_| {
            Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        });
        let speaks_grpc = alpn == "h2";
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, grpc) = (acceptor.clone(), grpc.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    if speaks_grpc {
                        let executor = hyper_util::rt::TokioExecutor::new();
                        let builder = hyper::server::conn::http2::Builder::new(executor);
                        let _ = builder.serve_connection(stream, grpc).await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(stream, plain)
                            .await;
                    }
                });
            }
        });
        address
    })
}

#[test]
fn https_and_grpcs_want_a_certificate_that_this_machine_trusts() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (http, grpc) = (
        secured(&runtime, "127.0.0.1", "http/1.1"),
        secured(&runtime, "127.0.0.1", "h2"),
    );
    let asked = |url: &str, trusted: &str| {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(&["health", "check", "--json", url]);
        Ran::of(command.env("SSL_CERT_FILE", trusted).output().expect("opsctl starts"))
    };
    for url in [
        format!("https://localhost:{}/", http.port()),
        format!("grpcs://localhost:{}", grpc.port()),
    ] {
        asked(&url, tls::AUTHORITY).ended(0);
        // Another one is trusted.
        assert_eq!(only(&asked(&url, tls::CERTIFICATE).ended(7)).1.as_deref(), Some("tls"));
    }
    // The name is not in the certificate.
    let elsewhere = secured(&runtime, "127.0.0.2", "http/1.1");
    let ran = asked(&format!("https://{elsewhere}/"), tls::AUTHORITY).ended(7);
    assert_eq!(only(&ran).1.as_deref(), Some("tls"));
}

/// `shop` of two instances, and `other`, which is not up and has no health question.
fn services() -> Sandbox {
    let sandbox = Sandbox::new();
    let tiny = tiny_service().display().to_string();
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\n[service.shop]\nhealth = {{ http = \"/healthz\" }}\n\
             local = {{ command = [{tiny:?}], replicas = 2 }}\n[service.other]\nlocal = {{ command = [{tiny:?}] }}\n"
        ),
    );
    sandbox
}

#[test]
fn a_service_is_asked_at_every_instance() {
    let sandbox = services();
    sandbox.run(&["health", "check", "shop", "--json"]).ended(7);
    sandbox.run(&["up", "shop"]).ended(0);
    let targets = |words: &[&str], code: i32| -> Vec<Value> {
        let ran = sandbox
            .run(&[&["health", "check", "--json"], words].concat())
            .ended(code);
        ran.json()["targets"].as_array().expect("targets").clone()
    };
    let shop = targets(&["shop"], 0);
    let instances: Vec<_> = shop.iter().map(|target| target["instance"].as_str()).collect();
    assert_eq!(instances, [Some("shop-1"), Some("shop-2")]);
    assert!(
        shop[0]["address"]
            .as_str()
            .is_some_and(|address| address.ends_with("/healthz"))
    );
    assert!(shop[0]["latency_seconds"].as_f64().is_some_and(|latency| latency > 0.0));
    let live = targets(&["shop", "--group", "live"], 0);
    assert!(
        live[0]["address"]
            .as_str()
            .is_some_and(|address| address.ends_with("/health/live"))
    );
    let all = targets(&[], 7);
    assert_eq!(
        (all.len(), &all[0]["service"], &all[0]["reason"]),
        (3, &"other".into(), &"not_running".into())
    );
    sandbox.run(&["up", "other"]).ended(0);
    assert_eq!(targets(&["other"], 0)[0]["protocol"], "tcp");
    sandbox.run(&["health", "check", "-q"]).ended(0);
    sandbox
        .run(&["health", "check", "shpo"])
        .ended(2)
        .says("did you mean `shop`?");
}

/// A watcher under way, and what it says line by line.
struct Watcher {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watcher {
    fn start(sandbox: &Sandbox, words: &[&str]) -> Self {
        let mut command = sandbox.command(&[&["health", "watch"], words].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("opsctl starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn says(&self, text: &str) -> String {
        let line = self.lines.recv_timeout(std::time::Duration::from_secs(20));
        let line = line.unwrap_or_else(|_| panic!("nothing was said, expected {text}"));
        assert!(line.contains(text), "{text:?} is not in {line:?}");
        line
    }

    #[track_caller]
    fn stops(mut self, signal: &str) -> i32 {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
        self.child.wait().expect("it ends").code().expect("a code")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watcher_is_told_each_change_once() {
    let status = Arc::new(AtomicU16::new(200));
    let said = Arc::clone(&status);
    let server = Answers::start(move |_| Some(http(&format!("{} x", said.load(Ordering::SeqCst)), "", "")));
    let sandbox = Sandbox::new();
    let url = server.url("/x");
    let watcher = Watcher::start(&sandbox, &[&url, "--interval", "50ms"]);
    watcher.says(&format!("{url}  http  healthy  200"));
    let asked = server.asked().len();
    eventually("more questions", || server.asked().len() > asked + 3);
    status.store(503, Ordering::SeqCst);
    watcher.says("healthy -> unhealthy  503");
    status.store(200, Ordering::SeqCst);
    watcher.says("unhealthy -> healthy  200");
    assert!(watcher.lines.try_recv().is_err(), "no change, no line");
    assert_eq!(watcher.stops("-INT"), 130);
}

#[test]
fn a_grpc_watcher_is_told_at_once() {
    let server = Grpc::start();
    let sandbox = Sandbox::new();
    // Nothing is asked again within the test: what comes was pushed.
    let watcher = Watcher::start(&sandbox, &[&server.url("/orders"), "--interval", "1h", "--json"]);
    let change = |text: &str| -> Value { serde_json::from_str(&watcher.says(text)).expect("JSON") };
    let first = change("SERVING");
    assert_eq!(
        (&first["schema"], &first["state"]),
        (&"opsctl.health_change/v1".into(), &"healthy".into())
    );
    assert_eq!(first["before"], Value::Null);
    server.set("orders", ServingStatus::NotServing);
    let second = change("NOT_SERVING");
    assert_eq!(
        (&second["before"], &second["state"]),
        (&"healthy".into(), &"unhealthy".into())
    );
    server.set("orders", ServingStatus::Serving);
    change("SERVING");
    // The server is killed: the connection ends, or pings stay without an answer.
    drop(server);
    change("unreachable");
    assert_eq!(watcher.stops("-TERM"), 143);
}

#[test]
fn a_watcher_follows_instances_that_restart() {
    let sandbox = services();
    sandbox.run(&["up", "shop"]).ended(0);
    let watcher = Watcher::start(&sandbox, &["shop", "--interval", "50ms"]);
    watcher.says("http  healthy  200");
    watcher.says("http  healthy  200");
    let status = sandbox.run(&["status", "--json"]).json();
    let pid = status["services"][0]["instances"][0]["pid"]
        .as_u64()
        .expect("a pid")
        .to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .expect("kill")
            .success()
    );
    watcher.says("shop-1  ");
    let back = std::iter::from_fn(|| watcher.lines.recv_timeout(std::time::Duration::from_secs(20)).ok());
    let back = back.take(5).find(|line| line.contains("-> healthy"));
    assert!(back.is_some_and(|line| line.contains("shop-1")), "it came back");
}

#[test]
fn a_watch_ends_by_itself_with_the_code_of_a_check() {
    let good = Answers::always(http("200 OK", "", "")).url("/");
    let bad = Answers::always(http("503 No", "", "")).url("/");
    let sandbox = Sandbox::new();
    sandbox.run(&["health", "watch", &good, "--for", "200ms"]).ended(0);
    sandbox
        .run(&["health", "watch", &good, &bad, "--for", "200ms"])
        .ended(4);
}
