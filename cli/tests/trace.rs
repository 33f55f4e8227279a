//! `opsctl trace` and `opsctl logs --trace` through the real binary: over files as services write them, over a real Loki
//! and a real Jaeger, over answers in Tempo's form, and of a real order through the reference services.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/services.rs"]
mod services;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use answers::{Answers, http, json};
use peers::{Server, servers};
use sandbox::{NOBODY, Ran, Sandbox, eventually};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";
/// 2026-03-14T09:26:53.123Z in microseconds.
const START: i64 = 1_773_480_413_123_000;

/// A span in OTLP/JSON; times in microseconds from [`START`].
fn span(id: &str, parent: &str, name: &str, kind: u8, start: i64, duration: i64) -> Value {
    json!({
        "traceId": TRACE, "spanId": id.repeat(16), "parentSpanId": parent.repeat(16), "name": name, "kind": kind,
        "startTimeUnixNano": ((START + start) * 1000).to_string(),
        "endTimeUnixNano": ((START + start + duration) * 1000).to_string(),
        "attributes": [], "status": {},
    })
}

fn failed(mut span: Value, message: &str) -> Value {
    span["status"] = json!({ "code": 2, "message": message });
    span
}

/// What a service writes, a line of its span file.
fn export(service: &str, spans: &[Value]) -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
        "scopeSpans": [{ "spans": spans }],
    }] })
}

/// One request: orders asks identity, then payments, which fails; payments' clock is 200 µs behind.
fn request() -> [(&'static str, Value); 2] {
    let orders = [
        span("a", "", "POST /orders", 2, 0, 12_400),
        span("b", "a", "identity.v1.Identity/Verify", 3, 300, 1900),
        failed(
            span("c", "a", "payments.v1.Payments/Charge", 3, 2500, 9000),
            "card refused",
        ),
    ];
    let payments = [
        failed(
            span("d", "c", "payments.v1.Payments/Charge", 2, 2300, 8500),
            "card \u{1b}[2J\nrefused",
        ),
        span("e", "d", "INSERT payments", 3, 3000, 4000),
        span("9", "8", "late", 1, 11_000, 100),
    ];
    [
        ("orders", export("orders", &orders)),
        ("payments", export("payments", &payments)),
    ]
}

fn line(message: &str, level: &str, second: u8, span: &str, more: &Value) -> String {
    let mut line = json!({
        "timestamp": format!("2026-03-14T09:26:{second}.125Z"), "level": level, "message": message,
        "service": "x", "trace_id": TRACE, "span_id": span.repeat(16),
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        line[key] = value.clone();
    }
    line.to_string()
}

/// A folder with that request in its files, the older half of payments' log rotated away.
fn files() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\n[service.orders]\nlocal = { command = [\"x\"] }\n[service.payments]\nlocal = { command = [\"x\"] }\n",
    );
    for (service, spans) in request() {
        sandbox.write(
            &format!(".opsctl/logs/{service}/{service}-1.spans.jsonl"),
            &format!("{spans}\n"),
        );
    }
    let placed = line(
        "order \u{1b}[31mplaced",
        "INFO",
        53,
        "a",
        &json!({ "correlation_id": "corr-1" }),
    );
    sandbox.write(
        ".opsctl/logs/orders/orders-1.log",
        &format!(
            "started\n{placed}\n{}\n",
            json!({ "correlation_id": "corr-12", "trace_id": OTHER })
        ),
    );
    sandbox.write(
        ".opsctl/logs/payments/payments-1.log.1",
        &format!("{}\n", line("card refused", "ERROR", 54, "d", &json!({}))),
    );
    sandbox.write(".opsctl/logs/payments/payments-1.log", "INFO nothing of it\n");
    fs::set_permissions(sandbox.path(".opsctl"), fs::Permissions::from_mode(0o700)).expect("our own folder");
    sandbox
}

#[test]
fn a_trace_is_a_tree() {
    let ran = files().run(&["trace", TRACE]).ended(0);
    insta::assert_snapshot!("tree", ran.stdout);
    assert!(
        ran.stderr
            .contains("the clock of payments is at least 200 µs behind that of orders"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_correlation_id_finds_the_trace_and_the_lines_stand_in_their_spans() {
    let ran = files().run(&["trace", "corr-1", "--logs"]).ended(0);
    insta::assert_snapshot!("tree_with_lines", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "what services say steers no terminal");
}

#[test]
fn the_document_has_everything() {
    let document = files().run(&["trace", TRACE, "--json", "--logs"]).ended(0).json();
    assert_eq!(document["schema"], "opsctl.trace/v1");
    let trace = &document["traces"][0];
    assert_eq!(trace["trace_id"], TRACE);
    assert_eq!(trace["started_at"], "2026-03-14T09:26:53.123Z");
    assert_eq!(trace["duration_seconds"], 0.0124);
    assert_eq!(trace["services"], json!(["orders", "payments"]));
    assert_eq!(trace["errors"], 2);
    assert_eq!(trace["missing_spans"], json!(["8888888888888888"]));
    assert_eq!(
        trace["clock_skew"],
        json!([{ "caller": "orders", "called": "payments", "at_least_seconds": 0.0002 }])
    );
    assert_eq!(trace["truncated"], false);
    let spans = trace["spans"].as_array().expect("spans");
    assert_eq!(spans.len(), 6);
    assert_eq!(spans[0]["kind"], "server");
    assert_eq!(spans[3]["parent_span_id"], "aaaaaaaaaaaaaaaa");
    assert_eq!(spans[3]["status"], "error");
    assert_eq!(spans[3]["instance"], "orders-1", "the file says whose it is");
    assert_eq!(trace["lines"].as_array().expect("lines").len(), 2);
}

/// Service or instance, and message, of each line.
fn messages(ran: &Ran) -> Vec<String> {
    let lines = ran.stdout.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["schema"], "opsctl.log/v1");
        let said: Value = event["text"]
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        format!(
            "{}: {}",
            event["service"].as_str().expect("a service"),
            said["message"].as_str().unwrap_or("-")
        )
    });
    lines.collect()
}

#[test]
fn the_lines_of_a_request_are_found_in_every_part_of_every_log() {
    let sandbox = files();
    let both = ["orders: order \u{1b}[31mplaced", "payments: card refused"];
    for id in [TRACE, "corr-1", &format!("00-{TRACE}-00f067aa0ba902b7-01")] {
        assert_eq!(
            messages(&sandbox.run(&["logs", "--trace", id, "--json"]).ended(0)),
            both,
            "{id}"
        );
    }
    assert_eq!(
        messages(&sandbox.run(&["logs", "payments", "--trace", TRACE, "--json"]).ended(0)),
        both[1..]
    );
    let of_one = sandbox
        .run(&["logs", "--instance", "orders-1", "--trace", TRACE, "--json"])
        .ended(0);
    assert_eq!(messages(&of_one), both[..1]);
    let text = sandbox.run(&["logs", "--trace", TRACE]).ended(0).stdout;
    assert!(text.starts_with("orders-1  {") && !text.contains('\u{1b}'), "{text:?}");
    sandbox.run(&["logs", "--trace", TRACE, "--since", "1h"]).ended(4);
}

#[test]
fn what_is_not_there_is_a_no_and_says_what_to_do() {
    let sandbox = files();
    sandbox
        .run(&["trace", &OTHER.replace('0', "1")])
        .ended(4)
        .says("there is no trace of the trace id")
        .says("found no line with it");
    // Its line is there, its spans are not.
    sandbox
        .run(&["trace", OTHER])
        .ended(4)
        .says("1 line has it: it was not sampled")
        .says(&format!("opsctl logs --trace {OTHER}"));
    sandbox
        .run(&["logs", "--trace", "corr-2"])
        .ended(4)
        .says("no line has the correlation id `corr-2`")
        .says("not older than what is kept?");
    // Only who looked at a part is told to look further back.
    sandbox
        .run(&["logs", "--trace", "corr-2", "--since", "1h"])
        .ended(4)
        .says("`--since 7d` looks a week back");
    sandbox
        .run(&["logs", "ordres", "--trace", "corr-1"])
        .ended(2)
        .says("did you mean `orders`?");
    for bad in ["a b", "x\"}", "a/../b", &"0".repeat(32)] {
        sandbox.run(&["trace", bad]).ended(2);
        sandbox.run(&["logs", "--trace", bad]).ended(2);
    }
}

#[test]
fn thousands_of_spans_are_cut_off_with_a_word() {
    let sandbox = files();
    let many: Vec<Value> = (0..3000)
        .map(|n: i64| {
            let mut span = span("f", "a", &format!("step {n}"), 1, n, 1);
            span["spanId"] = format!("{:016x}", 0x1000 + n).into();
            span
        })
        .collect();
    let many = export("orders", &many);
    sandbox.write(
        ".opsctl/logs/orders/orders-2.spans.jsonl",
        &format!("{many}\nno json\n{many}\n"),
    );
    let ran = sandbox
        .run(&["trace", TRACE])
        .ended(0)
        .says("1000 of 3006 spans are shown");
    assert!(ran.stdout.lines().count() < 1020);
    let all = sandbox.run(&["trace", TRACE, "--limit", "0"]).ended(0);
    assert!(all.stdout.contains("step 2999") && !all.stderr.contains("are shown"));
}

/// A sandbox whose environment names servers.
fn configured(keys: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.production]\nplatform = \"kubernetes\"\n{keys}\n[service.orders]\n[service.payments]\n"
        ),
    );
    sandbox
}

/// Pushes lines, newest last, a second apart and a minute old.
async fn push(loki: &Server, tenant: Option<&str>, service: &str, lines: &[String]) {
    let now = jiff::Timestamp::now().as_nanosecond() - 60_000_000_000;
    let values: Vec<Value> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| json!([(now + index as i128 * 1_000_000_000).to_string(), line]))
        .collect();
    let body = json!({ "streams": [{ "stream": { "service": service, "env": "test" }, "values": values }] });
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(tenant.map(|tenant| ("X-Scope-OrgID", tenant)));
    let path = "/loki/api/v1/push";
    let answer = peers::http::send(loki.address("http"), "POST", path, &headers, &body.to_string()).await;
    assert_eq!(answer.expect("an answer").status, 204);
}

fn wait_for(sandbox: &Sandbox, words: &[&str]) -> Ran {
    let mut last = None;
    eventually(&words.join(" "), || {
        let ran = sandbox.run(words);
        let found = ran.code == 0;
        last = Some(ran);
        found
    });
    last.expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_from_a_real_loki() {
    let Some(loki) = Server::start(servers::Loki::default().with_tenants(), "lines_come_from_a_real_loki").await else {
        return;
    };
    let keys = |tenant: &str| {
        format!(
            "loki = {{ url = {:?}, tenant = {tenant:?} }}\ntraces = \"http://127.0.0.1:1\"",
            loki.url("http")
        )
    };
    let sandbox = configured(&keys("shop"));
    let now = |message: &str, more: Value| {
        let mut line: Value = json!({ "level": "INFO", "message": message });
        for (key, value) in more.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        line.to_string()
    };
    let orders = [
        now("placed", json!({ "correlation_id": "corr.1", "trace_id": TRACE })),
        now("another", json!({ "correlation_id": "corrx1", "trace_id": OTHER })),
        now("longer", json!({ "correlation_id": "corr.12" })),
    ];
    push(&loki, Some("shop"), "orders", &orders).await;
    push(
        &loki,
        Some("shop"),
        "payments",
        &[now("charged", json!({ "trace_id": TRACE }))],
    )
    .await;
    push(
        &loki,
        Some("else"),
        "orders",
        &[now("not ours", json!({ "trace_id": TRACE }))],
    )
    .await;

    let mut found = messages(&wait_for(&sandbox, &["logs", "--trace", TRACE, "--json"]));
    found.sort();
    assert_eq!(found, ["orders: placed", "payments: charged"]);
    // The dot is no wildcard, the longer id another one, and the trace's lines come along.
    let mut found = messages(&sandbox.run(&["logs", "--trace", "corr.1", "--json"]).ended(0));
    found.sort();
    assert_eq!(found, ["orders: placed", "payments: charged"]);
    let found = messages(&sandbox.run(&["logs", "payments", "--trace", TRACE, "--json"]).ended(0));
    assert_eq!(found, ["payments: charged"]);
    sandbox
        .run(&["logs", "--trace", TRACE, "--since", "1s"])
        .ended(4)
        .says("Loki at http://");
    let nobody = configured(&keys("nobody"));
    nobody.run(&["logs", "--trace", TRACE]).ended(4);
    // Without a tenant Loki lets nobody in.
    let without = configured(&format!(
        "loki = {:?}\ntraces = \"http://127.0.0.1:1\"",
        loki.url("http")
    ));
    without
        .run(&["logs", "--trace", TRACE])
        .ended(2)
        .says("does not let us in");
    drop(loki);
    sandbox
        .run(&["logs", "--trace", TRACE])
        .ended(7)
        .says("does not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_come_from_a_real_jaeger() {
    let Some(jaeger) = Server::start(servers::Jaeger, "spans_come_from_a_real_jaeger").await else {
        return;
    };
    for (_, export) in request() {
        let (address, spans) = (jaeger.address("otlp-http"), export.to_string());
        let answer = peers::http::post(address, "/v1/traces", "application/json", &spans).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let sandbox = configured(&format!(
        "loki = \"http://127.0.0.1:1\"\ntraces = {:?}",
        jaeger.url("query")
    ));
    eventually("both services", || {
        let ran = sandbox.run(&["trace", TRACE, "--json"]);
        ran.code == 0 && ran.json()["traces"][0]["services"] == json!(["orders", "payments"])
    });
    let (there, here) = (
        sandbox.run(&["trace", TRACE]).ended(0),
        files().run(&["trace", TRACE]).ended(0),
    );
    assert_eq!(there.stdout, here.stdout, "the same trace looks the same");
    // Nothing there: the lines are asked, and their server is not there.
    sandbox
        .run(&["trace", OTHER])
        .ended(7)
        .says("Loki at http://127.0.0.1:1 does not answer");
}

/// Tempo cannot be had as a program to test with: this is the form that its API pages show for `/api/traces/{id}`
/// (`batches`, ids in base64, names of enums), and for `/api/v2/traces/{id}` (`trace.resourceSpans`).
#[test]
fn spans_come_from_answers_in_the_form_of_tempo() {
    let base64 = |hex: &str| {
        use base64::Engine as _;
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hexadecimal digits"))
            .collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let mut batches = Vec::new();
    for (_, export) in request() {
        let mut batch = export["resourceSpans"][0].clone();
        for span in batch["scopeSpans"][0]["spans"].as_array_mut().expect("spans") {
            for key in ["traceId", "spanId", "parentSpanId"] {
                span[key] = base64(span[key].as_str().expect("an id")).into();
            }
            let kinds = ["", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT"];
            span["kind"] = kinds[span["kind"].as_u64().expect("a kind") as usize].into();
            if span["status"]["code"] == 2 {
                span["status"]["code"] = "STATUS_CODE_ERROR".into();
            }
        }
        batches.push(batch);
    }
    let here = files().run(&["trace", TRACE]).ended(0);
    for answer in [
        json!({ "batches": batches }),
        json!({ "trace": { "resourceSpans": batches } }),
    ] {
        let tempo = Answers::start(move |first| {
            Some(if first.contains(TRACE) {
                json(&answer)
            } else {
                http("404 Not Found", "", "trace not found")
            })
        });
        let sandbox = configured(&format!(
            "loki = \"http://127.0.0.1:1\"\ntraces = {:?}",
            tempo.url("/tempo/")
        ));
        let there = sandbox.run(&["trace", TRACE]).ended(0);
        assert_eq!(there.stdout, here.stdout, "the same trace looks the same");
        assert!(tempo.asked()[0].starts_with(&format!("get /tempo/api/traces/{TRACE} http/1.1\r\n")));
    }
}

#[test]
fn what_lets_us_in_is_sent_to_that_server_alone() {
    let elsewhere = Answers::always(json(&json!({ "batches": [] })));
    let redirect = http(
        "302 Found",
        &format!("location: {}\r\n", elsewhere.url("/api/traces/x")),
        "",
    );
    let server = Answers::always(redirect);
    let keys = |more: &str| {
        format!(
            "loki = \"http://127.0.0.1:1\"\ntraces = {{ url = {:?}, {more} }}",
            server.url("")
        )
    };
    let sandbox = configured(&keys("token = { file = \"token\" }, tenant = \"shop\""));
    sandbox.write("token", "t0ps3cret\n");
    fs::set_permissions(sandbox.path("token"), fs::Permissions::from_mode(0o600)).expect("our own file");
    let ran = sandbox
        .run(&["trace", TRACE])
        .ended(2)
        .says("sends us elsewhere, which is not followed");
    assert!(!format!("{ran:?}").contains("t0ps3cret"));
    assert!(
        server.asked()[0].contains("authorization: bearer t0ps3cret\r\n"),
        "{:?}",
        server.asked()
    );
    assert!(server.asked()[0].contains("x-scope-orgid: shop\r\n"));
    assert!(elsewhere.asked().is_empty());
    let sandbox = configured(&keys("user = \"me\", password = { env = \"PASSWORD\" }"));
    let mut command = sandbox.command(&["trace", TRACE]);
    Ran::of(command.env("PASSWORD", "pw").output().expect("opsctl starts")).ended(2);
    assert!(
        server.asked()[1].contains("authorization: basic bwu6chc=\r\n"),
        "{:?}",
        server.asked()
    );
    sandbox
        .run(&["trace", TRACE])
        .ended(2)
        .says("the environment variable `PASSWORD` is empty or absent");
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_told() {
    let refused = format!("http://{NOBODY}");
    let answers = [
        (
            http("503 Service Unavailable", "", "too \u{1b}[31mbusy"),
            7,
            r"503 Service Unavailable: too \u{1b}[31mbusy",
        ),
        (http("429 Too Many Requests", "", ""), 7, "cannot answer now"),
        (http("401 Unauthorized", "", ""), 2, "does not let us in"),
        (http("400 Bad Request", "", "parse error"), 1, "parse error"),
        (http("200 OK", "", "<html>"), 1, "cannot be understood"),
        (json(&json!({ "status": "ok" })), 2, "answers"),
    ];
    for (answer, code, says) in answers {
        let url = Answers::always(answer).url("");
        let sandbox = configured(&format!("loki = {url:?}\ntraces = {url:?}"));
        sandbox.run(&["trace", TRACE]).ended(code).says(says);
        sandbox.run(&["logs", "--trace", TRACE]).ended(code).says(says);
    }
    let sandbox = configured(&format!("loki = {refused:?}\ntraces = {refused:?}"));
    sandbox.run(&["trace", TRACE]).ended(7).says("does not answer");
    sandbox
        .run(&["logs", "--trace", TRACE])
        .ended(7)
        .says("does not answer");
}

#[test]
fn the_keys_of_an_environment_are_checked() {
    for (keys, says) in [
        ("loki = \"loki:3100\"", "expected http:// or https://"),
        ("loki = \"http://me:hunter2@loki\"", "a password is never written here"),
        ("loki = { tenant = \"a\" }", "needs `url`"),
        (
            "loki = { url = \"http://l\", lable = \"app\" }",
            "did you mean `label`?",
        ),
        (
            "loki = { url = \"http://l\", label = \"a\\\"b\" }",
            "is no name of a label",
        ),
        (
            "traces = { url = \"http://t\", token = \"hunter2\" }",
            "a secret is never written here",
        ),
        (
            "traces = { url = \"http://t\", user = \"me\" }",
            "`user` and `password`",
        ),
        ("traces = 5", "expected a string"),
    ] {
        let ran = configured(keys).run(&["config", "check"]).ended(2).says(says);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    // Without a Loki the pods are asked, and nobody has said where they are.
    configured("")
        .run(&["logs", "--trace", TRACE])
        .ended(2)
        .says("does not say on which clusters it is");
    let by_variable = configured("");
    let mut command = by_variable.command(&["logs", "--trace", TRACE]);
    command
        .env("OPSCTL_LOKI", "http://127.0.0.1:1")
        .env("OPSCTL_TRACES", "http://127.0.0.1:1");
    Ran::of(command.output().expect("opsctl starts")).ended(7);
}

/// `identity`, `payments`, `notifications` and `orders`, up.
fn shop() -> Sandbox {
    services::programs();
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\n[defaults.service]\nhealth = { http = \"/health/ready\", grpc = \"\" }\n\
         [service.identity]\nlocal = { command = [\"identity\"] }\n\
         [service.payments]\nlocal = { command = [\"payments\"] }\n\
         [service.notifications]\nlocal = { command = [\"notifications\"] }\n\
         [service.orders]\ndepends_on = [\"identity\", \"payments\", \"notifications\"]\n\
         local = { command = [\"orders\"], replicas = 2 }\n",
    );
    sandbox.run(&["up"]).ended(0);
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_order_is_found_by_the_id_of_its_answer() {
    let sandbox = shop();
    let checked = sandbox.run(&["health", "check", "--json"]).ended(0).json();
    let targets = checked["targets"].as_array().expect("targets");
    let asked = |protocol: &str| targets.iter().filter(|target| target["protocol"] == protocol).count();
    assert_eq!((asked("http"), asked("grpc")), (5, 5), "{checked:#}");

    let status = sandbox.run(&["status", "--json"]).json();
    let front = |service: &str| {
        let services = status["services"].as_array().expect("services");
        let found = services.iter().find(|known| known["name"] == service);
        let address = found.and_then(|found| found["front"]["http"].as_str());
        format!("http://{}", address.expect("an address"))
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client");
    let credentials = json!({ "email": "visitor@example.org", "password": "correct horse battery" });
    let post = |url: String, body: Value| client.post(url).json(&body);
    let identity = front("identity");
    post(format!("{identity}/register"), credentials.clone())
        .send()
        .await
        .expect("registered");
    let login = post(format!("{identity}/login"), credentials)
        .send()
        .await
        .expect("signed in");
    let login: Value = login.json().await.expect("JSON");
    let order = json!({
        "items": [{ "sku": "book", "quantity": 1, "unit_price_cents": 1200 }],
        "currency": "EUR", "address": "1 Harbour Street",
    });
    let placed = post(format!("{}/orders", front("orders")), order)
        .bearer_auth(login["access_token"].as_str().expect("a token"))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("x-correlation-id", "order-of-a-test")
        .send()
        .await
        .expect("an answer");
    assert_eq!(placed.status(), 201);
    assert_eq!(placed.headers()["x-correlation-id"], "order-of-a-test");

    // The saga, payments and notifications come after the answer.
    let trace = || sandbox.run(&["trace", TRACE, "--json"]);
    let all = json!(["notifications", "orders", "payments"]);
    eventually("spans of all three", || {
        let ran = trace();
        ran.code == 0 && ran.json()["traces"][0]["services"] == all
    });
    let trace = trace().json()["traces"][0].clone();
    let spans = trace["spans"].as_array().expect("spans");
    let named = |service: &str, name: &str| {
        let found = spans
            .iter()
            .find(|span| span["service"] == service && span["name"] == name);
        found.unwrap_or_else(|| panic!("`{name}` of {service} in {spans:#?}"))
    };
    // The client's own span is nowhere: it is named as missing, and all hangs together under it.
    assert_eq!(trace["missing_spans"], json!(["00f067aa0ba902b7"]));
    let placed = named("orders", "POST /orders");
    assert_eq!(placed["parent_span_id"], "00f067aa0ba902b7");
    let below = |service: &str, name: &str, parent: &Value| {
        let found = spans.iter().find(|span| {
            span["service"] == service && span["name"] == name && span["parent_span_id"] == parent["span_id"]
        });
        found.unwrap_or_else(|| panic!("`{name}` of {service} below {parent:#} in {spans:#?}"))
    };
    below("orders", "INSERT orders", placed);
    let saga = below("orders", "saga", placed);
    let charge = below("orders", "opsctl.payments.v1.Payments/ProcessPayment", saga);
    let charged = below("payments", "opsctl.payments.v1.Payments/ProcessPayment", charge);
    assert_eq!(
        (&charge["kind"], &charged["kind"]),
        (&json!("client"), &json!("server"))
    );
    below("payments", "INSERT charges", charged);

    let lines = sandbox.run(&["logs", "--trace", "order-of-a-test", "--json"]).ended(0);
    let said = messages(&lines);
    for expected in [
        "orders: order placed",
        "payments: payment charged",
        "orders: step done",
        "orders: order is final",
    ] {
        assert!(said.contains(&expected.to_owned()), "{expected:?} in {said:#?}");
    }
    let tree = sandbox.run(&["trace", "order-of-a-test", "--logs"]).ended(0).stdout;
    assert!(tree.contains("INFO step done"), "{tree}");
}
