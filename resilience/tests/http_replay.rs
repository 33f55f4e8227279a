//! A body that can be sent again. The cases follow linkerd2-proxy's `linkerd/http/retry/src/replay/tests.rs`, written
//! afresh, and a few of our own: two attempts at one time, and attempts that were given up.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Collected, Full, StreamBody};
use resilience::http::{ReplayBody, ReplayError};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Frames = UnboundedReceiverStream<Result<Frame<Bytes>, std::io::Error>>;
type Stream = StreamBody<Frames>;

/// The sending half of a streamed body.
struct Sender(UnboundedSender<Result<Frame<Bytes>, std::io::Error>>);

impl Sender {
    fn data(&self, text: &'static str) {
        self.0
            .send(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
            .unwrap();
    }

    fn trailers(&self, trailers: HeaderMap) {
        self.0.send(Ok(Frame::trailers(trailers))).unwrap();
    }
}

fn streamed(cap: usize) -> (Sender, ReplayBody<Stream>, ReplayBody<Stream>) {
    let (sender, receiver) = unbounded_channel();
    let first = ReplayBody::stream_up_to(StreamBody::new(UnboundedReceiverStream::new(receiver)), cap);
    let replay = first.clone();
    (Sender(sender), first, replay)
}

fn trailers() -> HeaderMap {
    [("x-hello", "world"), ("x-foo", "bar")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<HeaderMap>()
}

async fn chunk(body: &mut ReplayBody<Stream>) -> Result<String, ReplayError> {
    let data = body.frame().await.unwrap()?.into_data().unwrap();
    Ok(String::from_utf8(data.to_vec()).unwrap())
}

/// Everything of a body, or why it broke off. What waits for ever fails: the paused clock runs when all else is idle.
async fn collect<B>(body: ReplayBody<B>) -> Result<Collected<Bytes>, ReplayError>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tokio::time::timeout(Duration::from_secs(1), body.collect())
        .await
        .unwrap()
}

/// Everything of a body: its data as text, and its trailers.
async fn read<B>(body: ReplayBody<B>) -> (String, Option<HeaderMap>)
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let all = collect(body).await.unwrap();
    let trailers = all.trailers().cloned();
    (String::from_utf8(all.to_bytes().to_vec()).unwrap(), trailers)
}

#[tokio::test(start_paused = true)]
async fn one_chunk_is_sent_again() {
    let (sender, first, replay) = streamed(64);
    sender.data("hello world");
    drop(sender);
    assert_eq!(read(first).await, ("hello world".into(), None));
    assert_eq!(read(replay).await, ("hello world".into(), None));
}

#[tokio::test(start_paused = true)]
async fn several_chunks_that_come_while_it_is_sent_are_sent_again() {
    let (sender, first, replay) = streamed(64);
    tokio::spawn(async move {
        for text in ["hello", " world", ", have lots", " of fun!"] {
            sender.data(text);
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(read(first).await.0, "hello world, have lots of fun!");
    assert_eq!(read(replay).await.0, "hello world, have lots of fun!");
}

#[tokio::test(start_paused = true)]
async fn trailers_are_sent_again() {
    let (sender, first, replay) = streamed(64);
    sender.data("hello world");
    sender.trailers(trailers());
    drop(sender);
    assert_eq!(read(first).await, ("hello world".into(), Some(trailers())));
    assert_eq!(read(replay).await, ("hello world".into(), Some(trailers())));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_trailers_alone() {
    let (sender, first, replay) = streamed(64);
    sender.trailers(trailers());
    drop(sender);
    assert_eq!(read(first).await, (String::new(), Some(trailers())));
    assert_eq!(read(replay).await, (String::new(), Some(trailers())));
}

#[tokio::test(start_paused = true)]
async fn a_clone_goes_on_where_the_first_stopped() {
    let (sender, mut first, replay) = streamed(64);
    sender.data("hello");
    assert_eq!(chunk(&mut first).await.unwrap(), "hello");
    sender.data(" world");
    assert_eq!(chunk(&mut first).await.unwrap(), " world");
    drop(first);
    assert!(replay.is_replayable());
    sender.data(", have fun");
    sender.trailers(HeaderMap::new());
    drop(sender);
    assert_eq!(
        read(replay).await,
        ("hello world, have fun".into(), Some(HeaderMap::new()))
    );
}

#[tokio::test(start_paused = true)]
async fn many_clones_send_the_whole() {
    let (sender, first, replay) = streamed(64);
    sender.data("hello");
    sender.data(" world");
    sender.trailers(trailers());
    drop(sender);
    for body in [first, replay.clone(), replay.clone(), replay] {
        assert_eq!(read(body).await, ("hello world".into(), Some(trailers())));
    }
}

#[tokio::test(start_paused = true)]
async fn clones_that_stop_early_leave_the_rest_to_the_next() {
    let (sender, mut first, mut second) = streamed(64);
    let third = second.clone();
    sender.data("hello");
    assert_eq!(chunk(&mut first).await.unwrap(), "hello");
    drop(first);
    sender.data(" world");
    assert_eq!(chunk(&mut second).await.unwrap(), "hello");
    assert_eq!(chunk(&mut second).await.unwrap(), " world");
    drop(second);
    sender.data("!");
    sender.trailers(trailers());
    drop(sender);
    assert_eq!(read(third).await, ("hello world!".into(), Some(trailers())));
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_was_never_sent_takes_nothing_along() {
    let (sender, first, replay) = streamed(64);
    sender.data("hello world");
    drop(sender);
    assert_eq!(read(first).await.0, "hello world");
    drop(replay.clone());
    assert_eq!(read(replay).await.0, "hello world");
}

#[test]
fn an_empty_body_has_ended_in_every_clone() {
    let first = ReplayBody::stream(Full::<Bytes>::default());
    let replay = first.clone();
    for body in [&first, &replay, &replay.clone()] {
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_replayable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_ended_when_it_has_sent_everything_and_not_before() {
    let mut first = ReplayBody::stream(Full::<Bytes>::from("hello world"));
    let mut replay = first.clone();
    assert!(!first.is_end_stream() && !replay.is_end_stream());
    first.frame().await.unwrap().unwrap();
    assert!(first.is_end_stream());
    assert!(!replay.is_end_stream());
    drop(first);
    assert!(!replay.is_end_stream());
    replay.frame().await.unwrap().unwrap();
    assert!(replay.is_end_stream());
    assert!(replay.frame().await.is_none());
    assert!(!replay.clone().is_end_stream(), "a clone begins at the start");
}

#[tokio::test(start_paused = true)]
async fn what_is_longer_than_the_cap_is_sent_once_and_whole() {
    let (sender, mut first, replay) = streamed(8);
    sender.data("aaaaaaaa");
    assert_eq!(chunk(&mut first).await.unwrap(), "aaaaaaaa");
    sender.data("bbbbbbbb");
    assert_eq!(chunk(&mut first).await.unwrap(), "bbbbbbbb");
    assert!(!replay.is_replayable());
    sender.data("cc");
    sender.trailers(trailers());
    drop(sender);
    assert_eq!(read(first).await, ("cc".into(), Some(trailers())));
    let error = collect(replay).await.unwrap_err();
    assert!(matches!(error, ReplayError::Gone), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_over_all_clones() {
    let (sender, mut first, mut second) = streamed(8);
    let third = second.clone();
    sender.data("aaaaaaaa");
    assert_eq!(chunk(&mut first).await.unwrap(), "aaaaaaaa");
    drop(first);
    sender.data("bbbbbbbb");
    assert_eq!(chunk(&mut second).await.unwrap(), "aaaaaaaa");
    assert_eq!(chunk(&mut second).await.unwrap(), "bbbbbbbb");
    drop(second);
    assert!(matches!(collect(third).await.unwrap_err(), ReplayError::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_too_long_still_goes_out_once() {
    for (size, replayable) in [(0, true), (8, true), (9, false)] {
        let first = ReplayBody::stream_up_to(Full::<Bytes>::from("x".repeat(size)), 8);
        let replay = first.clone();
        assert_eq!(first.is_replayable(), replayable, "{size}");
        assert_eq!(read(first).await.0.len(), size);
        assert_eq!(collect(replay).await.is_ok(), replayable, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_is_that_of_what_is_left_for_this_clone() {
    let (sender, mut first, replay) = streamed(64);
    sender.data("hello");
    assert_eq!((first.size_hint().lower(), first.size_hint().upper()), (0, None));
    chunk(&mut first).await.unwrap();
    assert_eq!((first.size_hint().lower(), replay.size_hint().lower()), (0, 5));
    drop(sender);
    assert!(first.frame().await.is_none());
    assert_eq!(
        (first.size_hint().exact(), replay.size_hint().exact()),
        (Some(0), Some(5))
    );

    let mut whole = ReplayBody::stream(Full::<Bytes>::from("hello"));
    assert_eq!(whole.size_hint().exact(), Some(5));
    whole.frame().await.unwrap().unwrap();
    assert_eq!(
        (whole.size_hint().exact(), whole.clone().size_hint().exact()),
        (Some(0), Some(5))
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_while_an_attempt_may_still_read_the_rest() {
    let (sender, mut first, replay) = streamed(64);
    assert!(replay.is_replayable());
    sender.data("hello");
    chunk(&mut first).await.unwrap();
    assert!(!replay.is_replayable(), "the transport holds the rest");
    drop(first);
    assert!(replay.is_replayable());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_failed_is_not_sent_again() {
    let (sender, mut first, replay) = streamed(64);
    sender.data("hello");
    chunk(&mut first).await.unwrap();
    sender.0.send(Err(std::io::Error::other("the disk is gone"))).unwrap();
    let error = first.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, ReplayError::Body(_)));
    assert_eq!(error.to_string(), "the body failed");
    drop(first);
    assert!(!replay.is_replayable());
    assert!(collect(replay).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn two_attempts_at_one_time_both_get_everything() {
    let (sender, first, second) = streamed(64);
    let (first, second) = (tokio::spawn(read(first)), tokio::spawn(read(second)));
    for text in ["a", "b", "c"] {
        tokio::task::yield_now().await;
        sender.data(text);
    }
    sender.trailers(trailers());
    drop(sender);
    assert_eq!(first.await.unwrap(), ("abc".into(), Some(trailers())));
    assert_eq!(second.await.unwrap(), ("abc".into(), Some(trailers())));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_while_it_waits_wakes_the_other() {
    let (sender, first, mut second) = streamed(64);
    let waits = tokio::spawn(first.collect());
    tokio::task::yield_now().await;
    // The stream now knows the second's waker alone.
    poll_fn(|context| {
        assert!(Pin::new(&mut second).poll_frame(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(second);
    tokio::task::yield_now().await;
    sender.data("a");
    drop(sender);
    // The limit is outside of the task: inside, its timer would wake the reader.
    let all = tokio::time::timeout(Duration::from_secs(1), waits).await.unwrap();
    assert_eq!(all.unwrap().unwrap().to_bytes(), "a");
}

#[tokio::test(start_paused = true)]
async fn bytes_in_memory_need_no_recording() {
    let body = ReplayBody::new("hello");
    for _ in 0..3 {
        assert_eq!(read(body.clone()).await, ("hello".into(), None));
    }
    let mut one: ReplayBody = "hello".into();
    assert_eq!(one.size_hint().exact(), Some(5));
    one.frame().await.unwrap().unwrap();
    assert!(one.is_end_stream() && one.frame().await.is_none());
    assert_eq!(one.size_hint().exact(), Some(0));
    assert!(ReplayBody::default().is_end_stream());
}
