//! One request under a watch that ends it when nothing moves any more, and many attempts at it under a policy.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use resilience::{Breaker, Budget, Error, Pipeline, Retry, Safety, Verdict};
use tokio::time::{Instant, sleep};

use super::client::{Clients, Link};
use super::failure::{Failed, Kind};
use super::options::Patience;
use super::timestamp;

/// The most that the system keeps of what is sent: the usual `tcp_wmem`.
const HELD_AT_MOST: u64 = 4 << 20;
/// Bytes a second of a line that is slow and not dead.
const SLOWEST: f64 = (32 << 10) as f64;

/// Looks at one request: when something moved last, and what time the service says it is.
#[derive(Clone)]
pub(super) struct Watch {
    seen: Arc<Seen>,
}

struct Seen {
    idle: Duration,
    begun: Instant,
    /// Milliseconds after `begun`.
    moved: AtomicU64,
    /// Bytes of the body that the system took, until the answer comes: it may still hold them.
    taken: AtomicU64,
    date: Mutex<Option<Timestamp>>,
}

impl Watch {
    pub(super) fn new(idle: Duration) -> Self {
        let seen = Seen {
            idle,
            begun: Instant::now(),
            moved: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            date: Mutex::default(),
        };
        Self { seen: Arc::new(seen) }
    }

    /// The service's clock, if it has answered.
    pub(super) fn date(&self) -> Option<Timestamp> {
        *self.seen.date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self) {
        let now = u64::try_from(self.seen.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.moved.store(now, Ordering::Relaxed);
    }

    fn still_for(&self) -> Duration {
        let moved = Duration::from_millis(self.seen.moved.load(Ordering::Relaxed));
        self.seen.begun.elapsed().saturating_sub(moved)
    }

    /// How long nothing may be seen to move. What the system took to send it moves unseen.
    fn limit(&self) -> Duration {
        let unseen = self.seen.taken.load(Ordering::Relaxed).min(HELD_AT_MOST);
        self.seen.idle + Duration::from_secs_f64(unseen as f64 / SLOWEST)
    }

    /// Awaits something for as long as bytes move.
    pub(super) async fn over<T>(&self, work: impl Future<Output = T>) -> Result<T, Failed> {
        let mut work = std::pin::pin!(work);
        loop {
            let (idle, still) = (self.limit(), self.still_for());
            if still >= idle {
                return Err(Failed::new(
                    Kind::Silent,
                    format!("nothing was heard for {} s", idle.as_secs_f64()),
                ));
            }
            tokio::select! {
                biased;
                done = &mut work => {
                    self.moves();
                    return Ok(done);
                }
                () = sleep(idle.saturating_sub(still)) => {}
            }
        }
    }

    /// Awaits the answer to a request.
    pub(super) async fn sent<T, E>(
        &self,
        link: &Link,
        sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failed>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match self.over(sending).await? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failed {
                date: self.date(),
                generation: link.generation,
                ..Failed::read(&error)
            }),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "Watch"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.moves();
        let body = context.request_mut().take_body();
        let length = body.content_length();
        let body = match length {
            Some(length) if length > 0 => SdkBody::from_body_1_x(Watched {
                body: Box::pin(body),
                piece: Bytes::new(),
                left: length,
                watch: self.clone(),
            }),
            _ => body,
        };
        *context.request_mut().body_mut() = body;
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.moves();
        self.seen.taken.store(0, Ordering::Relaxed);
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        *self.seen.date.lock().unwrap_or_else(PoisonError::into_inner) = date.as_ref().and_then(timestamp);
        Ok(())
    }
}

/// A request's body in pieces: that one is taken means that those before are on their way.
struct Watched {
    body: Pin<Box<SdkBody>>,
    piece: Bytes,
    left: u64,
    watch: Watch,
}

/// What is handed to the connection at once.
const PIECE: usize = 64 << 10;

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.watch.moves();
        if self.piece.is_empty() {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let length = self.piece.len().min(PIECE);
        let piece = self.piece.split_to(length);
        self.left = self.left.saturating_sub(length as u64);
        self.watch.seen.taken.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// When a request is made again. One for a store: what fails for one request keeps others back too.
pub(super) struct Policy {
    pipeline: OnceLock<Result<Pipeline, String>>,
    patience: Patience,
}

impl Policy {
    pub(super) fn new(patience: &Patience) -> Self {
        Self {
            pipeline: OnceLock::new(),
            patience: *patience,
        }
    }

    fn build(&self) -> Result<Pipeline, String> {
        // A backup would rather be late than fail: as many retries as requests, and some more.
        let budget = Budget::new(1.0, 10.0);
        let told = |error: resilience::BuildError| error.to_string();
        let retry = Retry::default()
            .max(self.patience.retries)
            .backoff(self.patience.first_wait, self.patience.longest_wait)
            .budget(budget);
        let breaker = Breaker::builder("s3")
            .failure_ratio(0.9)
            .min_calls(30)
            .window(Duration::from_secs(30))
            .open(Duration::from_secs(2), Duration::from_secs(20));
        Pipeline::builder("s3")
            .retry(retry)
            .breaker(breaker)
            .build()
            .map_err(told)
    }

    /// Attempts `operation` until it succeeds or makes no sense any more. Credentials that expired are fetched again once.
    pub(super) async fn run<T, F, Fut>(&self, clients: &Clients, mut operation: F) -> Result<T, Failed>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T, Failed>> + Send,
        T: Send,
    {
        let pipeline = self.pipeline.get_or_init(|| self.build());
        let pipeline = pipeline.as_ref().map_err(|said| Failed::new(Kind::Other, said))?;
        let classify = |result: Result<&T, &Failed>| match result {
            Ok(_) => Verdict::Success,
            Err(failed) => failed.verdict(),
        };
        let (mut refreshed, begun, made) = (false, Instant::now(), AtomicU64::new(0));
        let mut last = Failed::new(Kind::Busy, "nothing succeeded lately, so it is left alone for a while");
        loop {
            let attempts = pipeline.call_with(Safety::Idempotent, &classify, |_| {
                made.fetch_add(1, Ordering::Relaxed);
                operation()
            });
            match attempts.await {
                Ok(value) => return Ok(value),
                Err(Error::Inner(failed)) if failed.kind == Kind::Expired && !refreshed => {
                    refreshed = true;
                    clients.forget(failed.generation).await;
                }
                // The breaker opened after one attempt or another of ours.
                Err(Error::Inner(failed)) if failed.leaves_doubt() && is_kept_back(pipeline) => last = failed,
                Err(Error::Inner(mut failed)) => {
                    if failed.leaves_doubt() {
                        let (made, time) = (made.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
                        failed.said = format!("{} (attempt {made}, after {time:.1} s)", failed.said);
                    }
                    return Err(failed);
                }
                Err(Error::Rejected(rejected)) if begun.elapsed() < self.patience.closed => {
                    sleep(rejected.retry_after.unwrap_or(Duration::from_secs(1))).await;
                }
                Err(Error::Rejected(_) | Error::Timeout { .. }) => return Err(last),
            }
        }
    }
}

/// Whether the breaker lets nothing through.
fn is_kept_back(pipeline: &Pipeline) -> bool {
    let breaker = pipeline.breaker();
    breaker.is_some_and(|breaker| breaker.state() == resilience::State::Open)
}
