//! [`ReplayBody`]: a request body that can be sent again. It decides nothing about retries; it says whether one is
//! possible.
//!
//! The idea is linkerd2-proxy's (`linkerd/http/retry/src/replay.rs`): keep what the first attempt has read, up to a
//! cap, and give it back when there is more. Here clones share the record itself, so that two attempts may read at one
//! time, as hedged ones do.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// The most that is kept of a streaming body, in bytes, unless told otherwise.
pub const REPLAY_CAP: usize = 64 * 1024;

/// A body whose clones send the same again: bytes in memory ([`ReplayBody::new`]), or a stream that is recorded while
/// the first attempt sends it ([`ReplayBody::stream`]).
///
/// A stream longer than the cap is sent once, whole; its clones then fail with [`ReplayError::Gone`].
pub struct ReplayBody<B = InMemory> {
    source: Source<B>,
    /// The frames of the source that this clone has sent.
    sent: usize,
    trailers_sent: bool,
    /// Which clone of a stream this is; 0 is the first.
    id: u64,
    /// The first poll of a stream makes a clone one of its readers.
    reads: bool,
}

enum Source<B> {
    Whole(Bytes),
    Stream(Arc<Mutex<Record<B>>>),
}

/// What all clones of a stream share.
struct Record<B> {
    chunks: Vec<Bytes>,
    bytes: usize,
    cap: usize,
    trailers: Option<HeaderMap>,
    /// What nobody has read yet; `None` once it has ended or failed.
    rest: Option<Pin<Box<B>>>,
    state: State,
    clones: u64,
    /// Clones that began to read and may go on.
    readers: Vec<u64>,
    /// Clones whose attempts are over.
    cut: Vec<u64>,
    waiting: Vec<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything that was read so far is in `chunks`.
    Recording,
    /// It is longer than the cap: one clone, the first that asks, gets the rest, and no other gets anything.
    TooLong { reader: Option<u64> },
    /// The stream itself failed.
    Failed,
    /// Everything is in `chunks`.
    Complete,
}

/// A stream that does not exist: the parameter of a [`ReplayBody`] that is bytes in memory.
#[derive(Debug, Clone, Copy)]
pub enum InMemory {}

/// Why a body could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// What was read before is no longer there: the body is longer than the cap, or another attempt has taken over.
    #[error("the body cannot be sent again")]
    Gone,
    /// The body itself failed.
    #[error("the body failed")]
    Body(#[source] Box<dyn StdError + Send + Sync>),
}

impl ReplayBody {
    /// A body of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Whole(bytes.into()), 0)
    }
}

impl<T: Into<Bytes>> From<T> for ReplayBody {
    fn from(bytes: T) -> Self {
        Self::new(bytes)
    }
}

impl<B> ReplayBody<B> {
    fn of(source: Source<B>, id: u64) -> Self {
        Self {
            source,
            sent: 0,
            trailers_sent: false,
            id,
            reads: false,
        }
    }

    /// Whether a clone made now could send everything: nothing was given back, and no attempt that may still go on is
    /// reading what nobody has read yet.
    pub fn is_replayable(&self) -> bool {
        match &self.source {
            Source::Whole(_) => true,
            Source::Stream(record) => {
                let record = lock(record);
                match record.state {
                    State::Complete => true,
                    State::Recording => record.readers.is_empty(),
                    State::TooLong { .. } | State::Failed => false,
                }
            }
        }
    }

    /// Which clone this is.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Stops clone `id` from reading what is not recorded yet: its attempt is over, and the rest waits for the next, or
    /// for the one beside it.
    pub(crate) fn cut(&self, id: u64) {
        if let Source::Stream(record) = &self.source {
            let mut record = lock(record);
            record.cut.push(id);
            record.readers.retain(|reader| *reader != id);
            record.wake();
        }
    }
}

impl<B: Body> ReplayBody<B> {
    /// Records up to [`REPLAY_CAP`] bytes of `body` while it is sent for the first time.
    pub fn stream(body: B) -> Self {
        Self::stream_up_to(body, REPLAY_CAP)
    }

    /// Records up to `cap` bytes of `body` while it is sent for the first time. Nothing is recorded when the body says
    /// that it is longer.
    pub fn stream_up_to(body: B, cap: usize) -> Self {
        if body.is_end_stream() {
            return Self::of(Source::Whole(Bytes::new()), 0);
        }
        let state = if body.size_hint().lower() > cap as u64 {
            State::TooLong { reader: None }
        } else {
            State::Recording
        };
        let record = Record {
            chunks: Vec::new(),
            bytes: 0,
            cap,
            trailers: None,
            rest: Some(Box::pin(body)),
            state,
            clones: 0,
            readers: Vec::new(),
            cut: Vec::new(),
            waiting: Vec::new(),
        };
        Self::of(Source::Stream(Arc::new(Mutex::new(record))), 0)
    }
}

fn lock<B>(record: &Mutex<Record<B>>) -> MutexGuard<'_, Record<B>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> Record<B> {
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Whether clone `id` may take what is not recorded yet.
    fn admits(&mut self, id: u64, reads: &mut bool) -> bool {
        let admitted = !self.cut.contains(&id)
            && match &mut self.state {
                State::Recording | State::Complete => true,
                State::TooLong { reader } => *reader.get_or_insert(id) == id,
                State::Failed => false,
            };
        if admitted && !*reads {
            *reads = true;
            self.readers.push(id);
        }
        admitted
    }
}

impl<B> Record<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Reads one frame of the rest for clone `id` and records it.
    fn read(&mut self, id: u64, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let Some(rest) = self.rest.as_mut() else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = rest.as_mut().poll_frame(context) else {
            if !self.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                self.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        };
        let ended = rest.is_end_stream();
        let frame = match frame {
            None => {
                self.end();
                None
            }
            Some(Err(error)) => {
                self.rest = None;
                self.state = State::Failed;
                Some(Err(ReplayError::Body(error.into())))
            }
            Some(Ok(frame)) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                self.keep(id, &frame);
                if ended {
                    self.end();
                }
                Some(Ok(frame))
            }
        };
        self.wake();
        Poll::Ready(frame)
    }

    fn keep(&mut self, id: u64, frame: &Frame<Bytes>) {
        if self.state != State::Recording {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.bytes = self.bytes.saturating_add(data.len());
            if self.bytes > self.cap {
                // Attempts may go on though they cannot be repeated; the memory is of no more use.
                self.chunks = Vec::new();
                self.state = State::TooLong { reader: Some(id) };
            } else {
                self.chunks.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn end(&mut self) {
        self.rest = None;
        if self.state == State::Recording {
            self.state = State::Complete;
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let this = &mut *self;
        let record = match &mut this.source {
            Source::Whole(bytes) => {
                let first = std::mem::replace(&mut this.sent, 1) == 0;
                return Poll::Ready((first && !bytes.is_empty()).then(|| Ok(Frame::data(bytes.clone()))));
            }
            Source::Stream(record) => Arc::clone(record),
        };
        let mut record = lock(&record);
        if !matches!(record.state, State::TooLong { .. }) {
            if let Some(chunk) = record.chunks.get(this.sent).cloned() {
                this.sent += 1;
                // From now on this clone counts as one that will want the rest.
                let _ = record.admits(this.id, &mut this.reads);
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if let (Some(trailers), false) = (&record.trailers, this.trailers_sent) {
                this.trailers_sent = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
            if record.state == State::Complete {
                return Poll::Ready(None);
            }
        }
        if !record.admits(this.id, &mut this.reads) {
            return Poll::Ready(Some(Err(ReplayError::Gone)));
        }
        let frame = record.read(this.id, context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            this.sent += usize::from(frame.is_data());
            this.trailers_sent |= frame.is_trailers();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => self.sent > 0 || bytes.is_empty(),
            Source::Stream(record) => {
                let record = lock(record);
                match record.state {
                    State::Complete => {
                        self.sent == record.chunks.len() && (self.trailers_sent || record.trailers.is_none())
                    }
                    State::TooLong { reader } => reader == Some(self.id) && record.rest.is_none(),
                    State::Recording | State::Failed => false,
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(_) if self.sent > 0 => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Stream(record) => {
                let record = lock(record);
                let recorded = record.chunks.iter().skip(self.sent).map(Bytes::len).sum::<usize>() as u64;
                let rest = record.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
                let mut hint = SizeHint::new();
                hint.set_lower(recorded.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(recorded.saturating_add(upper));
                }
                hint
            }
        }
    }
}

/// Sends the whole body again, from its start.
impl<B> Clone for ReplayBody<B> {
    fn clone(&self) -> Self {
        match &self.source {
            Source::Whole(bytes) => Self::of(Source::Whole(bytes.clone()), 0),
            Source::Stream(record) => {
                let mut guard = lock(record);
                guard.clones += 1;
                Self::of(Source::Stream(Arc::clone(record)), guard.clones)
            }
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        if let (Source::Stream(record), true) = (&self.source, self.reads) {
            let mut record = lock(record);
            record.readers.retain(|reader| *reader != self.id);
            // The stream knows only the last waker; another reader must poll it with its own.
            record.wake();
        }
    }
}

impl Default for ReplayBody {
    fn default() -> Self {
        Self::new(Bytes::new())
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ReplayBody");
        match &self.source {
            Source::Whole(bytes) => debug.field("bytes", &bytes.len()),
            Source::Stream(record) => debug.field("state", &lock(record).state),
        };
        debug.field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Body for InMemory {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match *self {}
    }
}
