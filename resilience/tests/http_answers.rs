//! Answers over HTTP count once, by the end of their bodies; and what the peer never took is sent again at once. Bodies
//! come over channels in memory, under a paused clock. Some cases are in the spirit of failsafe-go's
//! `failsafehttp/client_test.go` and of linkerd2-proxy's `linkerd/app/outbound/src/http/logical/tests/timeouts.rs`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::future::{Future, poll_fn};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use resilience::http::{HttpBody, HttpLayer, HttpService, ReplayBody};
use resilience::{Breaker, BreakerCounts, Deadline, HedgeSettings, Jitter, Pipeline, PipelineBuilder, Retry, State};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, advance};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _};

type Chunk = io::Result<Frame<Bytes>>;
type Answer = StreamBody<UnboundedReceiverStream<Chunk>>;
type Wire = BoxCloneSyncService<Request<ReplayBody<Empty<Bytes>>>, Response<Answer>, io::Error>;

/// A service whose answers have this status and a body that the test sends.
struct Fixture {
    client: HttpService<Wire>,
    policy: Pipeline,
    answers: UnboundedReceiver<UnboundedSender<Chunk>>,
}

impl Fixture {
    fn start(status: u16, policy: PipelineBuilder) -> Self {
        Self::with(status, policy, |layer| layer)
    }

    fn with(status: u16, policy: PipelineBuilder, layer: impl FnOnce(HttpLayer) -> HttpLayer) -> Self {
        let policy = policy.build().unwrap();
        let (begun, answers) = unbounded_channel();
        let service = tower::service_fn(move |_| {
            let (sender, receiver) = unbounded_channel();
            begun.send(sender).unwrap();
            let mut response = Response::new(StreamBody::new(UnboundedReceiverStream::new(receiver)));
            *response.status_mut() = status.try_into().unwrap();
            async { Ok(response) }
        });
        let client = layer(HttpLayer::new(policy.clone())).layer(BoxCloneSyncService::new(service));
        Self {
            client,
            policy,
            answers,
        }
    }

    /// The body of an answer, and what feeds it.
    async fn call(&mut self) -> (HttpBody<Answer>, UnboundedSender<Chunk>) {
        let request = Request::get("/").body(Empty::new()).unwrap();
        let response = sendable(self.client.clone().oneshot(request)).await.unwrap();
        (response.into_body(), self.answers.recv().await.unwrap())
    }

    fn breaker(&self) -> &Breaker {
        self.policy.breaker().unwrap()
    }

    fn outcomes(&self) -> BreakerCounts {
        self.breaker().snapshot().calls
    }
}

/// Calls may go to other threads, though nothing in them is boxed.
fn sendable<F: Future + Send>(call: F) -> F {
    call
}

fn quick() -> PipelineBuilder {
    let retry = Retry::default().jitter(Jitter::None).without_budget();
    Pipeline::standard("test").retry(retry)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[expect(clippy::unnecessary_wraps, reason = "as the channel carries it")]
fn data(text: &'static str) -> Chunk {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn only(set: impl FnOnce(&mut BreakerCounts)) -> BreakerCounts {
    let mut counts = BreakerCounts::default();
    set(&mut counts);
    counts
}

#[tokio::test(start_paused = true)]
async fn a_body_read_to_its_end_is_a_success() {
    let mut fixture = Fixture::start(200, quick());
    let (body, sender) = fixture.call().await;
    assert_eq!(fixture.outcomes(), BreakerCounts::default(), "not yet");
    sender.send(data("hel")).unwrap();
    sender.send(data("lo")).unwrap();
    drop(sender);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(fixture.outcomes(), only(|counts| counts.success = 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure_and_not_asked_for_again() {
    let mut fixture = Fixture::start(200, quick());
    let (body, sender) = fixture.call().await;
    sender.send(data("hel")).unwrap();
    sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    assert!(body.collect().await.is_err());
    assert_eq!(fixture.outcomes(), only(|counts| counts.failure = 1));
    assert!(fixture.answers.try_recv().is_err(), "one request");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_a_success_one_that_somebody_waits_for_is_not() {
    let mut fixture = Fixture::start(200, quick());
    // Never looked at; and left after a part, before the rest was asked for.
    drop(fixture.call().await);
    assert_eq!(fixture.outcomes(), only(|counts| counts.success = 1));
    let (mut body, sender) = fixture.call().await;
    sender.send(data("hel")).unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(fixture.outcomes(), only(|counts| counts.success = 2));
    // The caller gives up while the rest is awaited.
    let (body, _sender) = fixture.call().await;
    assert!(tokio::time::timeout(secs(1), body.collect()).await.is_err());
    let wanted = only(|counts| (counts.success, counts.cancelled) = (2, 1));
    assert_eq!(fixture.outcomes(), wanted);
}

#[tokio::test(start_paused = true)]
async fn other_answers_count_by_their_status() {
    for (status, wanted) in [
        (404, only(|counts| counts.ignored = 1)),
        (501, only(|counts| counts.failure = 1)),
        (503, only(|counts| counts.failure = 1)),
    ] {
        let mut fixture = Fixture::start(status, quick().without_retry());
        let (body, sender) = fixture.call().await;
        assert_eq!(fixture.outcomes(), wanted, "{status}");
        sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        assert!(body.collect().await.is_err());
        assert_eq!(fixture.outcomes(), wanted, "{status}: it has counted already");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_with_the_whole_call() {
    // Limits of an attempt, of the call, of the body and of the caller; when the body is cut off.
    for (attempt, total, own, caller, end) in [(1, 5, 60, 60, 5), (5, 5, 60, 60, 5), (1, 5, 2, 60, 2), (1, 5, 60, 3, 3)]
    {
        let policy = quick().attempt_timeout(secs(attempt)).total_timeout(secs(total));
        let mut fixture = Fixture::with(200, policy, |layer| layer.body_timeout(secs(own)));
        let began = Instant::now();
        let (body, _sender) = Deadline::after(secs(caller)).scope(fixture.call()).await;
        let error = body.collect().await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), end, "{error:?}");
        assert_eq!(fixture.outcomes(), only(|counts| counts.failure = 1));
    }
    let policy = Pipeline::builder("test").breaker(Breaker::builder("test"));
    let mut fixture = Fixture::start(200, policy);
    let (body, sender) = fixture.call().await;
    advance(secs(86_400)).await;
    drop(sender);
    body.collect().await.unwrap();
    assert_eq!(fixture.outcomes(), only(|counts| counts.success = 1));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_timed_to_the_end_of_the_body() {
    for (time, wanted) in [
        (1, only(|counts| counts.success = 1)),
        (3, only(|counts| counts.slow = 1)),
    ] {
        let breaker = Breaker::builder("test").slow_calls(secs(2), 1.0);
        let mut fixture = Fixture::start(200, quick().breaker(breaker));
        let (body, sender) = fixture.call().await;
        advance(secs(time)).await;
        drop(sender);
        body.collect().await.unwrap();
        assert_eq!(fixture.outcomes(), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_bulkhead_is_kept_until_the_body_ends() {
    let mut fixture = Fixture::start(200, quick().bulkhead(2, 0));
    let (body, sender) = fixture.call().await;
    let other = fixture.call().await;
    let places = |fixture: &Fixture| fixture.policy.snapshot().bulkhead.unwrap().in_flight;
    assert_eq!(places(&fixture), 2);
    drop(other);
    assert_eq!(places(&fixture), 1);
    drop(sender);
    body.collect().await.unwrap();
    assert_eq!(places(&fixture), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_holds_its_place_until_the_body_ends() {
    for (end, state) in [
        (None, State::Closed),
        (Some(io::ErrorKind::ConnectionReset), State::Open),
    ] {
        let breaker = Breaker::builder("test").min_calls(1).half_open(1, secs(30));
        let mut fixture = Fixture::start(200, quick().breaker(breaker));
        let (body, sender) = fixture.call().await;
        sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        body.collect().await.unwrap_err();
        assert_eq!(fixture.breaker().state(), State::Open);
        advance(secs(10)).await;
        let (body, sender) = fixture.call().await;
        assert_eq!(fixture.breaker().state(), State::HalfOpen, "the headers decide nothing");
        let request = Request::get("/").body(Empty::new()).unwrap();
        let refused = fixture.client.clone().oneshot(request).await;
        assert!(refused.unwrap_err().is_rejected());
        if let Some(kind) = end {
            sender.send(Err(kind.into())).unwrap();
        }
        drop(sender);
        let _ = body.collect().await;
        assert_eq!(fixture.breaker().state(), state);
    }
}

/// failsafe-go's clients read the body of the winner after the losers were cancelled.
#[tokio::test(start_paused = true)]
async fn the_winner_of_a_race_is_read_to_its_end_and_counts_once() {
    let policy = quick().hedge(HedgeSettings::default()).bulkhead(5, 0).build().unwrap();
    let number = Arc::new(Mutex::new(0));
    let service = tower::service_fn(move |_: Request<ReplayBody<Empty<Bytes>>>| {
        let number = Arc::clone(&number);
        async move {
            *number.lock().unwrap() += 1;
            if *number.lock().unwrap() == 1 {
                std::future::pending::<()>().await;
            }
            let chunks = [data("hel"), data("lo")];
            Ok::<_, io::Error>(Response::new(StreamBody::new(futures::stream::iter(chunks))))
        }
    });
    let client = HttpLayer::new(policy.clone()).layer(service);
    let request = Request::get("/").body(Empty::new()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 1);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 0);
    let calls = policy.breaker().unwrap().snapshot().calls;
    assert_eq!((calls.success, calls.failure, calls.ignored), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_takes_nothing_from_the_one_beside_it() {
    let policy = quick().hedge(HedgeSettings::default()).build().unwrap();
    let number = Arc::new(Mutex::new(0));
    let (sender, receiver) = unbounded_channel::<Chunk>();
    let upload = sender.clone();
    let attempts = Arc::clone(&number);
    let service = tower::service_fn(move |mut request: Request<ReplayBody<_>>| {
        *number.lock().unwrap() += 1;
        let first = *number.lock().unwrap() == 1;
        let upload = upload.clone();
        async move {
            let begin = request.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            if first {
                // Fails while the other one is in the middle of the body.
                tokio::time::sleep(secs(5)).await;
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            tokio::time::sleep(secs(6)).await;
            upload.send(data("lo")).unwrap();
            let rest = request.body_mut().frame().await.unwrap();
            let rest = rest.map_err(io::Error::other)?.into_data().unwrap();
            Ok(Response::new(StreamBody::new(futures::stream::iter(
                [begin, rest].map(|part| Ok::<_, io::Error>(Frame::data(part))),
            ))))
        }
    });
    sender.send(data("hel")).unwrap();
    let client = HttpLayer::new(policy).layer(service);
    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
    let response = client.oneshot(Request::put("/").body(body).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(*attempts.lock().unwrap(), 2, "no third one was needed");
}

/// A client of one HTTP/2 connection to a server that refuses so many streams, then answers with what it was sent.
async fn refusing(refused: usize, policy: &Pipeline) -> (usize, Result<String, String>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(theirs).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            *count.lock().unwrap() += 1;
            if *count.lock().unwrap() <= refused {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            tokio::spawn(async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(chunk)) = body.data().await {
                    stream.send_data(chunk, false).unwrap();
                }
                stream.send_data(Bytes::new(), true).unwrap();
            });
        }
    });
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await;
    let (sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    let service = tower::service_fn(move |request: Request<ReplayBody<_>>| {
        let mut sender = sender.clone();
        async move {
            poll_fn(|context| sender.poll_ready(context)).await?;
            sender.send_request(request).await
        }
    });
    let client = HttpLayer::new(policy.clone()).layer(service);
    let body = StreamBody::new(futures::stream::iter([data("hel"), data("lo")]));
    let response = client
        .oneshot(Request::post("http://server/").body(body).unwrap())
        .await;
    let answer = match response {
        Ok(response) => {
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            Ok(String::from_utf8(bytes.to_vec()).unwrap())
        }
        Err(error) => Err(error.to_string()),
    };
    let seen = *seen.lock().unwrap();
    (seen, answer)
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_sent_again_whole_and_counts_as_no_retry() {
    let hello = || Ok("hello".to_owned());
    for (refused, requests, counted) in [(0, 1, 0), (1, 2, 0), (2, 3, 1), (3, 4, 2)] {
        let policy = quick().build().unwrap();
        assert_eq!(refusing(refused, &policy).await, (requests, hello()));
        let retries = policy.snapshot().retry.unwrap().retries;
        assert!(retries.contains(&("not_sent", counted)), "{retries:?}");
        let calls = policy.breaker().unwrap().snapshot().calls;
        let wanted = only(|counts| (counts.success, counts.failure) = (1, counted));
        assert_eq!(calls, wanted);
    }
    let policy = quick().without_retry().build().unwrap();
    let (requests, answer) = refusing(usize::MAX, &policy).await;
    assert!(answer.is_err());
    assert_eq!(requests, 2, "once, not for ever");
}
