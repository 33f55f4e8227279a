//! Serving one listener until the drain has let it. axum and tonic wait at the end for every connection that is open;
//! this waits for those that have a request in flight, whatever the client does (hyperium/hyper#4170: a client that never
//! finishes HTTP/2's preface, or never answers its last ping, keeps hyper's graceful shutdown waiting for ever).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Phase, reached};

/// How long a connection without a request in flight may say nothing, once it was asked to end, before it is cut.
const SILENCE: Duration = Duration::from_secs(1);
/// How many times in [`SILENCE`] it is looked at.
const LOOKS: u32 = 5;

/// How long, at most, clients whom the system had let in by the end are still accepted, and how long one that has said
/// nothing yet may take to its first word. Closing the listener, or their connection, would reset what they have sent.
const LAST_CALL: Duration = Duration::from_millis(200);
/// When nobody came for so long, nobody waits.
const NOBODY: Duration = Duration::from_millis(20);

/// See [`Lifecycle::serve`](super::Lifecycle::serve).
pub(crate) async fn serve<L>(mut listener: L, app: Router, mut phase: watch::Receiver<Phase>)
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = reached(&mut phase, Phase::StopAccepting) => break,
            (io, peer) = listener.accept() => {
                connections.spawn(connection(io, ConnectInfo(peer), app.clone(), phase.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    let last_call = async {
        while let Ok((io, peer)) = tokio::time::timeout(NOBODY, listener.accept()).await {
            connections.spawn(connection(io, ConnectInfo(peer), app.clone(), phase.clone()));
        }
    };
    let _ = tokio::time::timeout(LAST_CALL, last_call).await;
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
async fn connection<Io, A>(io: Io, peer: ConnectInfo<A>, app: Router, mut phase: watch::Receiver<Phase>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Clone + Send + Sync + 'static,
{
    let load = Arc::new(Load::default());
    let service = Counted {
        app: TowerToHyperService::new(app),
        peer,
        load: Arc::clone(&load),
        phase: phase.clone(),
    };
    let io = TokioIo::new(Watched {
        io,
        load: Arc::clone(&load),
    });
    let builder = Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let told_to_end = async {
        reached(&mut phase, Phase::StopAccepting).await;
        load.first_word().await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told_to_end => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended,
            () = load.silence() => return,
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Load {
    /// Requests whose answer is not written yet.
    requests: AtomicUsize,
    /// Something is left to be written, and the client does not take it.
    stuck: AtomicBool,
    /// Counts reads and writes that moved something.
    moves: AtomicU64,
}

impl Load {
    /// Ends when the connection has had nothing to do for [`SILENCE`].
    async fn silence(&self) {
        let mut silent = 0;
        let mut moves = self.moves.load(Ordering::Relaxed);
        while silent < LOOKS {
            tokio::time::sleep(SILENCE / LOOKS).await;
            let now = self.moves.load(Ordering::Relaxed);
            let busy = self.requests.load(Ordering::Acquire) > 0 || self.stuck.load(Ordering::Relaxed) || now != moves;
            silent = if busy { 0 } else { silent + 1 };
            moves = now;
        }
    }

    /// Ends when something came or went, and after [`LAST_CALL`] in any case.
    async fn first_word(&self) {
        let spoken = async {
            while self.moves.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(NOBODY).await;
            }
        };
        let _ = tokio::time::timeout(LAST_CALL, spoken).await;
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }
}

/// A request from its arrival until its answer is written or given up.
#[derive(Debug)]
struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The application, counting its requests.
struct Counted<A> {
    app: TowerToHyperService<Router>,
    peer: ConnectInfo<A>,
    load: Arc<Load>,
    phase: watch::Receiver<Phase>,
}

impl<A: Clone + Send + Sync + 'static> Service<Request<Incoming>> for Counted<A> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.load.begin();
        let keeps_alive = request.version() < Version::HTTP_2;
        request.extensions_mut().insert(self.peer.clone());
        let (answer, phase) = (self.app.call(request), self.phase.clone());
        Box::pin(async move {
            let mut response = answer.await?;
            if keeps_alive && *phase.borrow() >= Phase::Draining {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response.map(|body| Answer {
                body,
                _in_flight: in_flight,
            }))
        })
    }
}

/// A response's body, in flight until it is dropped.
struct Answer {
    body: Body,
    _in_flight: InFlight,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's stream, watched for what moves.
struct Watched<Io> {
    io: Io,
    load: Arc<Load>,
}

impl<Io> Watched<Io> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.load.stuck.store(result.is_pending(), Ordering::Relaxed);
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.load.moves.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buf))?;
        if buf.filled().len() > before {
            self.load.moves.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
