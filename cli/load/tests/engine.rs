//! The engine against real servers that behave, stall, dribble, break and vanish. Its codec and its schedule are tested
//! beside them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opsctl_load::{
    Failure, FailureKind, Fixed, LoadError, Outcome, Plan, Progress, Rate, Request, RequestSource, Silent, Snapshot,
    Summary, Target, run,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A server that does the same to every connection, after it has read a request's head.
async fn server<F: Future<Output = ()> + Send + 'static>(
    mut serve: impl FnMut(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// Answers each request with the same bytes, in pieces.
async fn answers(pieces: &'static [&'static str], close: bool) -> SocketAddr {
    server(move |mut stream| async move {
        while head(&mut stream).await.is_some() {
            for piece in pieces {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if close {
                return;
            }
        }
    })
    .await
}

/// Reads to the end of a request's head.
async fn head(stream: &mut TcpStream) -> Option<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.ok()?);
    }
    Some(())
}

/// Whether two documents are the same, but for the last digit of a fraction, which JSON is read without.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| alike(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        _ => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() <= 1e-12 * one.abs(),
            _ => one == other,
        },
    }
}

/// Waits until `holds` holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn plan(addr: SocketAddr, rate: &str, millis: u64) -> Plan {
    let target: Target = format!("http://{addr}/").parse().expect("target");
    let rate: Rate = rate.parse().expect("rate");
    let source = Arc::new(Fixed(Request::get("/").expect("request")));
    Plan::new(target, rate, Duration::from_millis(millis), source)
}

async fn go(plan: Plan) -> Summary {
    let summary = run(plan, Arc::new(Silent), CancellationToken::new())
        .await
        .expect("ran");
    assert!(summary.identity_holds(), "{summary:?}");
    summary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_gets_every_request_once_and_the_source_hears_of_each() {
    struct Orders {
        created: AtomicU64,
        sequence: Mutex<Vec<u64>>,
    }
    impl RequestSource for Orders {
        fn request(&self, seq: u64) -> Request {
            Request::post_json("/orders", format!("{{\"n\":{seq}}}")).expect("request")
        }
        fn capture_body_bytes(&self) -> usize {
            64
        }
        fn observe(&self, seq: u64, outcome: &Outcome<'_>) {
            let Outcome::Completed(response) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(response.body, format!("{{\"n\":{seq}}}").as_bytes(), "its own answer");
            assert!(response.response_time >= response.service_time);
            self.created.fetch_add(u64::from(response.status == 201), SeqCst);
            self.sequence.lock().expect("lock").push(seq);
        }
    }
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let addr = server(move |stream| {
        let counter = Arc::clone(&counter);
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let n = counter.fetch_add(1, SeqCst);
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                let mut response = hyper::Response::new(Full::<Bytes>::new(body));
                *response.status_mut() =
                    hyper::StatusCode::from_u16(if n.is_multiple_of(4) { 500 } else { 201 }).expect("status");
                Ok::<_, hyper::Error>(response)
            }
        });
        async move {
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let source = Arc::new(Orders {
        created: AtomicU64::new(0),
        sequence: Mutex::default(),
    });
    let mut plan = plan(addr, "400/s", 1500);
    plan.source = Arc::clone(&source) as Arc<dyn RequestSource>;
    let summary = go(plan).await;
    assert_eq!(
        (summary.scheduled, summary.completed, summary.succeeded),
        (600, 600, 450)
    );
    assert_eq!(
        summary.statuses.iter().map(|(s, n)| (*s, *n)).collect::<Vec<_>>(),
        [(201, 450), (500, 150)]
    );
    assert_eq!((source.created.load(SeqCst), seen.load(SeqCst)), (450, 600));
    let mut sequence = source.sequence.lock().expect("lock").clone();
    sequence.sort_unstable();
    assert_eq!(sequence, (0..600).collect::<Vec<_>>());
    assert_eq!(
        summary.seconds.iter().map(|s| s.scheduled).collect::<Vec<_>>(),
        [400, 200]
    );
    assert_eq!(
        (
            summary.errors.len(),
            summary.errors[0].message.as_str(),
            summary.errors[0].count
        ),
        (1, "status 500", 150)
    );
    assert!((summary.error_ratio() - 0.25).abs() < 1e-9);
    assert!(summary.connections_opened < 256, "connections are used again");

    let text = serde_json::to_string(&summary).expect("JSON");
    assert!(text.starts_with("{\"schema\":\"opsctl.load/v1\""), "{text}");
    let read = serde_json::from_str::<Summary>(&text).expect("reads back");
    let value = |summary: &Summary| serde_json::to_value(summary).expect("JSON");
    assert!(alike(&value(&read), &value(&summary)), "{read:?}\n{summary:?}");
    assert!(
        summary
            .rows()
            .iter()
            .any(|(label, value)| label == "scheduled" && value == "600")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_the_response_times_of_all_that_were_due_in_it() {
    /// Says how many arrivals came due.
    struct Due(watch::Sender<u64>);
    impl Progress for Due {
        fn update(&self, snapshot: &Snapshot) {
            self.0.send_replace(snapshot.scheduled);
        }
    }
    // The server answers at once, but for one stall that lasts until many have come due in it. One connection: every
    // arrival waits behind it.
    let (due, scheduled) = watch::channel(0);
    let (tell, told) = std::sync::mpsc::channel();
    let served = Arc::new(AtomicU64::new(0));
    let addr = server(move |mut stream| {
        let (served, mut scheduled, tell) = (Arc::clone(&served), scheduled.clone(), tell.clone());
        async move {
            while head(&mut stream).await.is_some() {
                if served.fetch_add(1, SeqCst) == 100 {
                    let began = tokio::time::Instant::now();
                    scheduled.wait_for(|due| *due >= 150).await.expect("the run goes on");
                    tell.send(began.elapsed().as_secs_f64()).expect("awaited");
                }
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    })
    .await;
    let mut plan = plan(addr, "100/s", 4000);
    plan.connections = 1;
    let summary = run(plan, Arc::new(Due(due)), CancellationToken::new())
        .await
        .expect("ran");
    assert!(summary.identity_holds(), "{summary:?}");
    assert_eq!((summary.scheduled, summary.completed), (400, 400));
    // In a stall of S seconds 100 S arrivals were due, and waited 0 to S: of four hundred, forty waited longer than
    // S - 0.4 s. Coordinated omission would hide all but one of them.
    let stall = told.try_recv().expect("it stalled");
    assert!(stall > 0.45, "fifty arrivals at 100/s: {stall}");
    let p90 = summary.response.p90_seconds;
    let expected = stall - 0.4;
    assert!(
        (p90 - expected).abs() < 0.25,
        "p90 of the response time: {p90}, not {expected}"
    );
    assert!(summary.service.p99_seconds < stall / 2.0, "{:?}", summary.service);
    assert!(summary.response.max_seconds >= stall - 0.01, "{:?}", summary.response);
}

#[tokio::test]
async fn every_way_of_framing_a_response_is_understood() {
    for (pieces, close) in [
        (
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "he", "llo"][..],
            false,
        ),
        (
            &[
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r",
                "\nhe\r\n3\r\nll",
                "o\r\n0\r\n\r\n",
            ],
            false,
        ),
        (&["HTTP/1.1 200 OK\r\n\r\nhello"], true),
        (
            &[
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            ],
            true,
        ),
    ] {
        let summary = go(plan(answers(pieces, close).await, "100/s", 200)).await;
        assert_eq!(
            (summary.completed, summary.succeeded, summary.body_bytes),
            (20, 20, 100),
            "{pieces:?}: {summary:?}"
        );
        if close {
            assert!(summary.connections_opened >= 20, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        listener.local_addr().expect("address")
    };
    let resets = server(|mut stream| async move {
        head(&mut stream).await;
        stream.set_zero_linger().expect("linger");
    })
    .await;
    let silent = server(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    for (addr, kind) in [
        (nobody, FailureKind::ConnectRefused),
        (resets, FailureKind::Reset),
        (silent, FailureKind::TimedOut),
        (answers(&[""], true).await, FailureKind::ClosedEarly),
        (
            answers(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"], true).await,
            FailureKind::ClosedEarly,
        ),
        (
            answers(
                &["HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"],
                true,
            )
            .await,
            FailureKind::Protocol,
        ),
        (
            answers(&["220 smtp.example ESMTP\r\n"], true).await,
            FailureKind::Protocol,
        ),
    ] {
        let mut plan = plan(addr, "100/s", 200);
        plan.timeouts.response = Duration::from_millis(150);
        let summary = go(plan).await;
        assert_eq!((summary.scheduled, summary.failed), (20, 20), "{kind:?}: {summary:?}");
        assert_eq!(
            summary.failures.iter().collect::<Vec<_>>(),
            [(&kind, &20)],
            "{summary:?}"
        );
        assert_eq!(
            (summary.errors.len(), summary.errors[0].kind),
            (1, Some(kind)),
            "{summary:?}"
        );
    }
}

#[tokio::test]
async fn a_server_too_slow_for_the_rate_makes_arrivals_drop_and_none_vanish() {
    // A service time is what this is about: each connection is given one answer in 100 ms.
    let addr = server(|mut stream| async move {
        let mut answers = tokio::time::interval(Duration::from_millis(100));
        while head(&mut stream).await.is_some() {
            answers.tick().await;
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .is_err()
            {
                return;
            }
        }
    })
    .await;
    // Two connections serve twenty a second of the two hundred.
    let mut plan = plan(addr, "200/s", 1000);
    plan.connections = 2;
    plan.timeouts.response = Duration::from_millis(300);
    let summary = go(plan).await;
    assert_eq!((summary.scheduled, summary.failed), (200, 0), "{summary:?}");
    assert!(summary.dropped > 100 && summary.completed > 10, "{summary:?}");
    assert_eq!(summary.connections_opened, 2);
    assert!(summary.error_ratio() > 0.5);
}

#[tokio::test]
async fn cancelled_in_the_middle_the_accounts_still_balance() {
    struct Watcher(Mutex<Vec<Snapshot>>);
    impl Progress for Watcher {
        fn update(&self, snapshot: &Snapshot) {
            self.0.lock().expect("lock").push(*snapshot);
        }
    }
    struct Ends(AtomicU64, Request);
    impl RequestSource for Ends {
        fn request(&self, _seq: u64) -> Request {
            self.1.clone()
        }
        fn observe(&self, _seq: u64, outcome: &Outcome<'_>) {
            let ended = matches!(
                outcome,
                Outcome::Dropped
                    | Outcome::Failed(Failure {
                        kind: FailureKind::Interrupted,
                        ..
                    })
            );
            assert!(ended, "{outcome:?}");
            self.0.fetch_add(1, SeqCst);
        }
    }
    let silent = server(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let source = Arc::new(Ends(AtomicU64::new(0), Request::get("/").expect("request")));
    let mut plan = plan(silent, "100/s", 60_000);
    plan.source = Arc::clone(&source) as Arc<dyn RequestSource>;
    plan.connections = 5;
    let cancel = CancellationToken::new();
    let watcher = Arc::new(Watcher(Mutex::default()));
    let running = tokio::spawn(run(plan, Arc::clone(&watcher) as Arc<dyn Progress>, cancel.clone()));
    until("progress is told", || !watcher.0.lock().expect("lock").is_empty()).await;
    cancel.cancel();
    let summary = running.await.expect("no panic").expect("summed up");
    assert!(summary.cancelled && summary.identity_holds(), "{summary:?}");
    assert_eq!(summary.failures.get(&FailureKind::Interrupted), Some(&5), "{summary:?}");
    assert_eq!(summary.dropped, summary.scheduled - 5);
    assert!(summary.scheduled >= 100 && summary.scheduled < 6000, "{summary:?}");
    assert_eq!(source.0.load(SeqCst), summary.scheduled, "the source heard of each");
    let last = *watcher.0.lock().expect("lock").last().expect("told");
    assert_eq!((last.in_flight, last.scheduled), (0, summary.scheduled));
}

#[tokio::test]
async fn dropping_the_run_stops_it() {
    /// A connection that is open.
    struct Open(Arc<AtomicU64>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let (open, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (connections, requests) = (Arc::clone(&open), Arc::clone(&seen));
    let addr = server(move |mut stream| {
        connections.fetch_add(1, SeqCst);
        let (guard, requests) = (Open(Arc::clone(&connections)), Arc::clone(&requests));
        async move {
            let _guard = guard;
            while head(&mut stream).await.is_some() {
                requests.fetch_add(1, SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    tokio::select! {
        ended = run(plan(addr, "200/s", 60_000), Arc::new(Silent), CancellationToken::new()) => panic!("{ended:?}"),
        () = until("requests come", || seen.load(SeqCst) >= 20) => {}
    }
    // The minute's other requests would need a connection.
    until("its connections are closed", || open.load(SeqCst) == 0).await;
    assert!(seen.load(SeqCst) < 12_000);
}

#[tokio::test]
async fn a_plan_that_cannot_run_is_refused() {
    let addr = "127.0.0.1:9".parse().expect("address");
    let mut none = plan(addr, "1/s", 100);
    none.connections = 0;
    let mut hasty = plan(addr, "1/s", 100);
    hasty.timeouts.connect = Duration::ZERO;
    for bad in [none, hasty, plan(addr, "1/s", 0)] {
        let refused = run(bad, Arc::new(Silent), CancellationToken::new()).await;
        assert!(matches!(refused, Err(LoadError::InvalidPlan(_))), "{refused:?}");
    }
    let mut lost = plan(addr, "1/s", 100);
    lost.target = "http://no-such-host.invalid/".parse().expect("target");
    let refused = run(lost, Arc::new(Silent), CancellationToken::new()).await;
    assert!(matches!(refused, Err(LoadError::Resolve { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_that_cannot_keep_up_says_so() {
    /// Needs twenty milliseconds of the generator's thread for each request, of the five that there are.
    struct Slow(Request);
    impl RequestSource for Slow {
        fn request(&self, _seq: u64) -> Request {
            let started = tokio::time::Instant::now();
            while started.elapsed() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            self.0.clone()
        }
    }
    let addr = answers(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], false).await;
    let mut slow = plan(addr, "200/s", 500);
    slow.source = Arc::new(Slow(Request::get("/").expect("request")));
    let summary = go(slow).await;
    assert!(
        summary.generator.bound && !summary.generator.reasons.is_empty(),
        "{:?}",
        summary.generator
    );
    assert_eq!(summary.scheduled, 100, "late is not lost");
    assert!(summary.rows().iter().any(|(label, _)| label == "generator-bound"));
}
