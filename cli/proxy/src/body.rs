//! The response body on its way to the client: passes frames on, notices the end, lets faults act on what is under
//! way. Holds back at most a few frames, so a slow client slows the instance.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::client::ClientConnection;
use crate::counters::Flight;
use crate::fault::{Delay, Terminal};
use crate::route::Version;
use crate::upstream::Lease;

/// The most frames that a latency fault holds for one response.
const DELAYED_FRAMES: usize = 64;

/// A response body: made here, or an instance's.
pub(crate) enum ProxyBody {
    Local(Option<Bytes>),
    Instance(Box<Tracked>),
}

/// Why a response broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the instance's response broke off")]
    Instance(#[source] hyper::Error),
    #[error("an injected fault ended the response")]
    Fault,
}

impl ProxyBody {
    pub(crate) fn local(bytes: Bytes) -> Self {
        Self::Local((!bytes.is_empty()).then_some(bytes))
    }
}

/// An instance's response body and all that must happen when it ends.
pub(crate) struct Tracked {
    body: Incoming,
    /// None once counted.
    flight: Option<Flight>,
    lease: Option<Lease>,
    client: Arc<ClientConnection>,
    version: Arc<Version>,
    /// Whether the headers alone already made it an error.
    error: bool,
    /// A gRPC response whose status is still to come.
    status_due: bool,
    /// The newest fault that was looked at.
    seen: u64,
    delay: Option<Line>,
    /// Wakes when a fault is put; made only while waiting.
    changed: Option<Pin<Box<OwnedNotified>>>,
    swallowed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What [`Tracked::new`] is made of.
pub(crate) struct Parts {
    pub(crate) body: Incoming,
    pub(crate) flight: Flight,
    pub(crate) lease: Option<Lease>,
    pub(crate) version: Arc<Version>,
    pub(crate) error: bool,
    pub(crate) status_due: bool,
    pub(crate) seen: u64,
    pub(crate) delay: Option<Delay>,
}

/// Frames that wait for their time: a longer line, on which frames do not wait for each other.
struct Line {
    delay: Delay,
    waiting: VecDeque<(Instant, Frame<Bytes>)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Frames that came while the headers were delayed are late enough.
    caught_up: bool,
    ended: bool,
}

impl Line {
    fn new(delay: Delay, caught_up: bool) -> Self {
        Self {
            delay,
            waiting: VecDeque::new(),
            timer: None,
            caught_up,
            ended: false,
        }
    }
}

impl Tracked {
    pub(crate) fn new(client: Arc<ClientConnection>, parts: Parts) -> Self {
        let Parts {
            body,
            flight,
            lease,
            version,
            error,
            status_due,
            seen,
            delay,
        } = parts;
        let mut tracked = Self {
            body,
            flight: Some(flight),
            lease,
            client,
            version,
            error,
            status_due,
            seen,
            delay: delay.map(|delay| Line::new(delay, false)),
            changed: None,
            swallowed: None,
        };
        if tracked.body.is_end_stream() {
            tracked.end();
        }
        tracked
    }

    /// The last byte is on its way to the client: counts, and returns the connection.
    fn end(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.finish(self.error || self.status_due);
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back(&self.client.route, Instant::now());
        }
        self.changed = None;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.status_due {
            self.status_due = false;
            self.error = grpc_error(trailers);
        }
    }

    /// Lets the faults act that were put since the request came. Whether the response may go on now.
    fn faults(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let faults = &self.client.route.faults;
        loop {
            if let Some(swallowed) = &mut self.swallowed {
                std::task::ready!(swallowed.as_mut().poll(cx));
                self.swallowed = None;
                if let Some(flight) = &mut self.flight {
                    flight.swallowed(false);
                }
            }
            let newest = faults.newest();
            if newest == self.seen {
                return Poll::Ready(Ok(()));
            }
            let hit = faults.draw(&self.version.name, self.seen, Instant::now());
            self.seen = newest;
            if let Some(delay) = hit.delay {
                self.delay.get_or_insert_with(|| Line::new(delay, true)).delay = delay;
            }
            match hit.terminal {
                None => {}
                Some(Terminal::Error(_)) => {
                    self.error = true;
                    self.end();
                    return Poll::Ready(Err(BodyError::Fault));
                }
                Some(Terminal::Reset) => {
                    self.error = true;
                    self.end();
                    self.client.reset_now();
                    return Poll::Pending;
                }
                Some(Terminal::Blackhole(ended)) => {
                    self.swallowed = Some(Box::pin(ended.cancelled_owned()));
                    if let Some(flight) = &mut self.flight {
                        flight.swallowed(true);
                    }
                }
            }
        }
    }

    /// The next frame from the instance; counts the end as soon as it is known.
    fn poll_instance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.error = true;
                // The connection is broken or in the middle of a message: not to be used again.
                self.lease = None;
                self.end();
                Poll::Ready(Some(Err(BodyError::Instance(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_delayed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut line) = self.delay.take() else {
            return self.poll_instance(cx);
        };
        while !line.ended && line.waiting.len() < DELAYED_FRAMES {
            match self.poll_instance(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let now = Instant::now();
                    let due = if line.caught_up { now + line.delay.draw() } else { now };
                    let due = line.waiting.back().map_or(due, |(last, _)| due.max(*last));
                    line.waiting.push_back((due, frame));
                    line.ended = self.body.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => line.ended = true,
                Poll::Pending => {
                    line.caught_up = true;
                    break;
                }
            }
        }
        let answer = Self::poll_line(&mut line, cx);
        self.delay = Some(line);
        answer.map(|frame| frame.map(Ok))
    }

    fn poll_line(line: &mut Line, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some((due, _)) = line.waiting.front() else {
            return if line.ended { Poll::Ready(None) } else { Poll::Pending };
        };
        let due = *due;
        if Instant::now() < due {
            let timer = line
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            timer.as_mut().reset(due);
            std::task::ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(line.waiting.pop_front().map(|(_, frame)| frame))
    }

    /// Makes sure that a fault put from now on wakes this task.
    fn listen(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let changed = self
                .changed
                .get_or_insert_with(|| Box::pin(Arc::clone(self.client.route.faults.changed()).notified_owned()));
            match changed.as_mut().poll(cx) {
                Poll::Ready(()) => self.changed = None,
                Poll::Pending => return self.client.route.faults.newest() == self.seen,
            }
        }
    }

    fn is_end(&self) -> bool {
        match &self.delay {
            None => self.body.is_end_stream(),
            Some(line) => line.waiting.is_empty() && (line.ended || self.body.is_end_stream()),
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let tracked = match &mut *self {
            Self::Local(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Instance(tracked) => tracked,
        };
        loop {
            match tracked.faults(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            }
            match tracked.poll_delayed(cx) {
                Poll::Pending => {
                    if tracked.listen(cx) {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(frame) => {
                    if frame.is_none() || (matches!(frame, Some(Ok(_))) && tracked.is_end()) {
                        tracked.end();
                    }
                    return Poll::Ready(frame);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Instance(tracked) => tracked.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Instance(tracked) if tracked.delay.is_none() => tracked.body.size_hint(),
            Self::Instance(_) => SizeHint::default(),
        }
    }
}

/// Whether the gRPC status in these headers or trailers is the service's failure: UNKNOWN, DEADLINE_EXCEEDED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, or none that can be read.
pub(crate) fn grpc_error(headers: &HeaderMap) -> bool {
    let status = headers.get("grpc-status").map(http::HeaderValue::as_bytes);
    !matches!(
        status,
        Some(b"0" | b"1" | b"3" | b"5" | b"6" | b"7" | b"8" | b"9" | b"10" | b"11" | b"16")
    )
}
