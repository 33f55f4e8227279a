//! How long an instance may take until its response begins. Not how long the response may go on: streams are not cut.
//!
//! The time runs while it is the instance's turn. While the proxy waits for more of the request's body, it is the
//! client's, so a slow upload is not cut either. The caller's own `grpc-timeout` runs from the request's arrival.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

/// In [`Turn`]: it is the client's.
const CLIENT: u64 = u64::MAX;

/// The limits on one request.
pub(crate) struct Patience {
    /// From the instance's turn to its response; none without a limit.
    limit: Option<Duration>,
    /// When the caller gives up.
    call_ends: Option<Instant>,
    /// None for a request without a body.
    turn: Option<Arc<Turn>>,
}

/// A request's body on its way to an instance.
pub(crate) struct RequestBody {
    body: Incoming,
    turn: Option<Arc<Turn>>,
}

/// Whose turn it is while a request's body is under way.
struct Turn {
    started: Instant,
    /// Milliseconds after `started` since when it has been the instance's; or [`CLIENT`].
    instance_since: AtomicU64,
}

impl Patience {
    /// The limits on a request that came at `started`, and its body, whose progress they follow.
    pub(crate) fn new(
        limit: Option<Duration>,
        headers: &HeaderMap,
        grpc: bool,
        body: Incoming,
        started: Instant,
    ) -> (Self, RequestBody) {
        let turn = (limit.is_some() && !body.is_end_stream()).then(|| Arc::new(Turn::new(started)));
        let patience = Self {
            limit,
            call_ends: grpc
                .then(|| grpc_timeout(headers))
                .flatten()
                .map(|timeout| started + timeout),
            turn: turn.clone(),
        };
        (patience, RequestBody { body, turn })
    }

    /// What `work` gives; none when the instance took too long over it.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let begun = Instant::now();
        let mut work = pin!(work);
        let Some(mut due) = self.due(begun, begun) else {
            return Some(work.await);
        };
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return Some(done),
                () = tokio::time::sleep_until(due) => {}
            }
            // Meanwhile it may have been the client's turn.
            let now = Instant::now();
            due = self.due(begun, now).filter(|due| *due > now)?;
        }
    }

    /// When an attempt that began at `begun` has taken too long, as it looks `now`.
    fn due(&self, begun: Instant, now: Instant) -> Option<Instant> {
        let own = self.limit.map(|limit| {
            let since = match &self.turn {
                None => begun,
                Some(turn) => turn.instance_since().unwrap_or(now).max(begun),
            };
            since + limit
        });
        own.into_iter().chain(self.call_ends).min()
    }
}

impl Turn {
    fn new(started: Instant) -> Self {
        Self {
            started,
            instance_since: AtomicU64::new(0),
        }
    }

    fn pass_to(&self, client: bool) {
        let since = if client {
            CLIENT
        } else {
            self.started.elapsed().as_millis() as u64
        };
        self.instance_since.store(since, Relaxed);
    }

    /// None while it is the client's.
    fn instance_since(&self) -> Option<Instant> {
        let since = self.instance_since.load(Relaxed);
        (since != CLIENT).then(|| self.started + Duration::from_millis(since))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(turn) = &self.turn {
            turn.pass_to(frame.is_pending());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long the caller waits, from the `grpc-timeout` header: at most eight digits and a unit, as gRPC over HTTP/2 says.
/// A value that is no such thing is none: the instance will say what it thinks of it.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_callers_timeout_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).expect("value"));
            assert_eq!(grpc_timeout(&headers), expected, "{text:?}");
        }
    }

    async fn taken(patience: &Patience, work: impl Future<Output = ()>) -> (bool, Duration) {
        let started = Instant::now();
        let done = patience.wait(work).await.is_some();
        (done, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_limit_ends_the_wait() {
        let patience = |limit, call: Option<u64>| Patience {
            limit,
            call_ends: call.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            turn: None,
        };
        let never = || std::future::pending::<()>();
        assert_eq!(taken(&patience(Some(LIMIT), None), never()).await, (false, LIMIT));
        let shorter = patience(Some(LIMIT), Some(3));
        assert_eq!(taken(&shorter, never()).await, (false, Duration::from_secs(3)));
        let longer = patience(Some(LIMIT), Some(30));
        assert_eq!(taken(&longer, never()).await, (false, LIMIT));
        let callers_own = patience(None, Some(3));
        assert_eq!(taken(&callers_own, never()).await, (false, Duration::from_secs(3)));
        let hour = tokio::time::sleep(Duration::from_hours(1));
        assert_eq!(
            taken(&patience(None, None), hour).await,
            (true, Duration::from_hours(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_only_while_it_is_the_instances_turn() {
        let turn = Arc::new(Turn::new(Instant::now()));
        let patience = Patience {
            limit: Some(LIMIT),
            call_ends: None,
            turn: Some(Arc::clone(&turn)),
        };
        let upload = async {
            turn.pass_to(true);
            tokio::time::sleep(LIMIT * 7 / 2).await;
            turn.pass_to(false);
            std::future::pending::<()>().await;
        };
        let (done, after) = taken(&patience, upload).await;
        // Looked at once a limit while it is the client's turn, so it may end up to a limit late.
        assert!(!done && after >= LIMIT * 9 / 2 && after <= LIMIT * 11 / 2, "{after:?}");
    }
}
