//! The HTTP layer around a service in memory: bodies, deadlines, and what is never sent twice.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use resilience::http::{BodyError, HttpLayer, ReplayBody, deadline_in};
use resilience::{Deadline, Error, Jitter, Pipeline, PipelineBuilder, Retry};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt as _};

fn quick() -> PipelineBuilder {
    let retry = Retry::default()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .jitter(Jitter::None)
        .without_budget();
    Pipeline::standard("test").retry(retry).without_breaker()
}

/// What a request brought: its body as text, or why it broke off; and the time it announced.
type Seen = Arc<Mutex<Vec<(Result<String, String>, Option<Duration>)>>>;

type Server<B> = BoxCloneService<Request<ReplayBody<B>>, Response<Empty<Bytes>>, std::io::Error>;

/// Reads each request to its end and answers with these statuses in turn.
fn server<B>(statuses: &'static [u16]) -> (Seen, Server<B>)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let service = tower::service_fn(move |request: Request<ReplayBody<B>>| {
        let log = Arc::clone(&log);
        async move {
            let announced = deadline_in(request.headers()).map(Deadline::remaining);
            let body = request.into_body().collect().await;
            let body = body.map(|all| String::from_utf8(all.to_bytes().to_vec()).unwrap());
            let failed = body.is_err();
            let mut log = log.lock().unwrap();
            log.push((body.map_err(|error| error.to_string()), announced));
            if failed {
                return Err(std::io::Error::other("the request broke off"));
            }
            let mut response = Response::new(Empty::new());
            *response.status_mut() = statuses[(log.len() - 1).min(statuses.len() - 1)].try_into().unwrap();
            Ok(response)
        }
    });
    (seen, BoxCloneService::new(service))
}

fn bodies(seen: &Seen) -> Vec<String> {
    let seen = seen.lock().unwrap();
    seen.iter()
        .map(|(body, _)| body.clone().unwrap_or_else(|error| error))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_again_as_it_was() {
    let (seen, service) = server(&[503, 503, 200]);
    let client = HttpLayer::new(quick().build().unwrap());
    let chunks = ["hel", "lo"].map(|text| Ok::<_, std::io::Error>(Frame::data(Bytes::from(text))));
    let request = Request::put("/")
        .body(StreamBody::new(futures::stream::iter(chunks)))
        .unwrap();
    let response = ServiceBuilder::new()
        .layer(client)
        .service(service)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(bodies(&seen), ["hello", "hello", "hello"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_to_keep_is_sent_once_and_the_answer_stands() {
    for (cap, requests) in [(5, 2), (4, 1)] {
        let (seen, service) = server(&[503, 200]);
        let client = HttpLayer::new(quick().build().unwrap()).replay_up_to(cap);
        let request = Request::put("/").body(Full::<Bytes>::from("hello")).unwrap();
        let response = ServiceBuilder::new()
            .layer(client)
            .service(service)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), if requests == 1 { 503 } else { 200 });
        assert_eq!(bodies(&seen), vec!["hello"; requests]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_is_sent_once() {
    let (seen, service) = server(&[503, 200]);
    let client = HttpLayer::new(quick().build().unwrap());
    let request = Request::post("/").body(Full::<Bytes>::from("hello")).unwrap();
    let response = ServiceBuilder::new()
        .layer(client)
        .service(service)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), bodies(&seen).len()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_the_request_is_the_answer() {
    // The transport goes on to read the request, so nobody else can.
    let (sender, receiver) = unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let transport = Arc::clone(&kept);
    let service = tower::service_fn(move |mut request: Request<ReplayBody<_>>| {
        let transport = Arc::clone(&transport);
        async move {
            request
                .body_mut()
                .frame()
                .await
                .unwrap()
                .map_err(std::io::Error::other)?;
            transport.lock().unwrap().push(request);
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, std::io::Error>(response)
        }
    });
    sender.send(Ok(Frame::data("hel".into()))).unwrap();
    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
    let client = HttpLayer::new(quick().build().unwrap());
    let request = Request::put("/").body(body).unwrap();
    let response = ServiceBuilder::new()
        .layer(client)
        .service(service)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), kept.lock().unwrap().len()), (503, 1));
    sender.send(Ok(Frame::data("lo".into()))).unwrap();
    let mut request = kept.lock().unwrap().pop().unwrap();
    let rest = request.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(rest.into_data().unwrap(), "lo", "the upload goes on beside the answer");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_cut_off_in_the_middle_leaves_the_rest_to_the_next() {
    let (sender, receiver) = unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let transport = Arc::clone(&kept);
    let service = tower::service_fn(move |mut request: Request<ReplayBody<_>>| {
        let transport = Arc::clone(&transport);
        async move {
            let first = transport.lock().unwrap().is_empty();
            if first {
                // Hangs, and its connection keeps the body after the attempt is over.
                request
                    .body_mut()
                    .frame()
                    .await
                    .unwrap()
                    .map_err(std::io::Error::other)?;
                transport.lock().unwrap().push(request);
                std::future::pending::<()>().await;
                unreachable!();
            }
            let all = request.into_body().collect().await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(Response::new(Full::new(all.to_bytes())))
        }
    });
    sender.send(Ok(Frame::data("hel".into()))).unwrap();
    sender.send(Ok(Frame::data("lo".into()))).unwrap();
    drop(sender);
    let policy = quick().attempt_timeout(Duration::from_secs(1)).build().unwrap();
    let request = Request::put("/")
        .body(StreamBody::new(UnboundedReceiverStream::new(receiver)))
        .unwrap();
    let client = ServiceBuilder::new().layer(HttpLayer::new(policy)).service(service);
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    let mut old = kept.lock().unwrap().pop().unwrap();
    while let Some(frame) = old.body_mut().frame().await {
        assert!(frame.is_ok(), "what is recorded may be read, and it is recorded whole");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_reads_no_further() {
    let (sender, receiver) = unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let transport = Arc::clone(&kept);
    let service = tower::service_fn(move |mut request: Request<ReplayBody<_>>| {
        let transport = Arc::clone(&transport);
        let number = transport.lock().unwrap().len();
        async move {
            let frame = request.body_mut().frame().await.unwrap();
            let data = frame.map_err(std::io::Error::other)?.into_data().unwrap();
            // Whatever becomes of the attempt, its connection keeps the body.
            transport.lock().unwrap().push(request);
            if number == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            }
            Ok(Response::new(Full::new(data)))
        }
    });
    sender.send(Ok(Frame::data("hello".into()))).unwrap();
    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
    let layer = HttpLayer::new(quick().build().unwrap()).replay_up_to(6);
    let client = ServiceBuilder::new().layer(layer).service(service);
    let response = client.oneshot(Request::put("/").body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    sender.send(Ok(Frame::data(" world".into()))).unwrap();
    let mut second = kept.lock().unwrap().pop().unwrap();
    let mut first = kept.lock().unwrap().pop().unwrap();
    assert!(
        first.body_mut().frame().await.unwrap().is_err(),
        "the rest is not its own"
    );
    let rest = second.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(rest.into_data().unwrap(), " world");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_announces_the_time_it_has_left() {
    let (seen, service) = server(&[503, 503, 200]);
    let retry = Retry::default()
        .backoff(Duration::from_secs(2), Duration::from_secs(2))
        .jitter(Jitter::None);
    let policy = quick()
        .retry(retry)
        .attempt_timeout(Duration::from_secs(4))
        .total_timeout(Duration::from_secs(6))
        .build()
        .unwrap();
    let client = ServiceBuilder::new().layer(HttpLayer::new(policy)).service(service);
    client
        .oneshot(Request::get("/").body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let announced: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, announced)| announced.unwrap().as_secs_f64().round())
        .collect();
    assert_eq!(announced, [4.0, 4.0, 2.0], "the third is bounded by the total");

    let (seen, service) = server(&[200]);
    let layer = HttpLayer::new(quick().build().unwrap()).without_timeout_header();
    let client = ServiceBuilder::new().layer(layer).service(service);
    client
        .oneshot(Request::get("/").body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(seen.lock().unwrap()[0].1, None);
}

/// A response body that never ends, with a chunk every second.
struct Drip(tokio::time::Interval);

impl Body for Drip {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_tick(context).map(|_| Some(Ok(Frame::data("drop".into()))))
    }
}

/// How long the body of a response lasts, and what ends it.
async fn drip(layer: HttpLayer) -> (u64, BodyError) {
    let service = tower::service_fn(|_: Request<ReplayBody<Empty<Bytes>>>| async {
        let drip = Drip(tokio::time::interval(Duration::from_secs(1)));
        Ok::<_, std::io::Error>(Response::new(drip))
    });
    let client = ServiceBuilder::new().layer(layer).service(service);
    let response = client
        .oneshot(Request::get("/").body(Empty::new()).unwrap())
        .await
        .unwrap();
    let (began, mut body) = (Instant::now(), response.into_body());
    loop {
        if let Err(error) = body.frame().await.unwrap() {
            assert!(body.frame().await.is_none(), "nothing comes after the error");
            return (began.elapsed().as_secs(), error);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_ended() {
    let layer = || HttpLayer::new(quick().build().unwrap());
    let (after, error) = drip(layer().body_timeout(Duration::from_millis(5500))).await;
    assert!(after == 5 && matches!(error, BodyError::Timeout), "{after} {error}");
    // The caller's deadline holds for the body too, and the earlier one counts.
    let deadline = Deadline::after(Duration::from_millis(3500));
    let (after, _) = deadline
        .scope(drip(layer().body_timeout(Duration::from_secs(60))))
        .await;
    assert_eq!(after, 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_is_an_error_of_the_request_and_not_tried_again() {
    let (seen, service) = server(&[200]);
    let broken = futures::stream::iter([Err::<Frame<Bytes>, _>(std::io::Error::other("the disk is gone"))]);
    let client = ServiceBuilder::new()
        .layer(HttpLayer::new(quick().build().unwrap()))
        .service(service);
    let error = client
        .oneshot(Request::put("/").body(StreamBody::new(broken)).unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Inner(_)));
    assert_eq!(bodies(&seen), ["the body failed"]);
}
