//! One connection of the load engine: opens, sends one request after the other, and says how each ended. Decides
//! nothing about when requests are sent.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::codec::{DecodeError, Decoder, encode};
use crate::engine::{Job, Shared, Slot};
use crate::request::{Failure, FailureKind};

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Buffers that live as long as the connection's task.
#[derive(Default)]
struct Buffers {
    out: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
}

/// Serves `first` and then whatever comes, reopening when the peer closes, until there is nothing to do and nothing
/// to keep open.
pub(super) async fn serve(shared: Rc<Shared>, first: Job) {
    let slot = Rc::new(Slot::default());
    let mut buffers = Buffers::default();
    let mut job = Some(first);
    while let Some(next) = job.take() {
        job = match open(&shared).await {
            Ok(stream) => converse(&shared, &slot, stream, next, &mut buffers).await,
            Err(failure) => {
                let now = Instant::now();
                next.failed(&failure, now);
                shared.next_job(now)
            }
        };
    }
    shared.state.borrow_mut().open -= 1;
}

async fn open(shared: &Shared) -> Result<TcpStream, Failure> {
    let index = shared.next_address.get();
    shared.next_address.set(index.wrapping_add(1));
    let address = shared.addresses[index % shared.addresses.len()];
    let failure = |kind: FailureKind, message: String| Failure { kind, message };
    let connecting = tokio::time::timeout(shared.plan.timeouts.connect, TcpStream::connect(address));
    let stream = match connecting.await {
        Err(_) => {
            return Err(failure(
                FailureKind::ConnectTimedOut,
                format!("connecting to {address} timed out"),
            ));
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(failure(
                FailureKind::ConnectRefused,
                format!("{address} refused the connection"),
            ));
        }
        Ok(Err(error)) => {
            return Err(failure(
                FailureKind::ConnectFailed,
                format!("connecting to {address}: {error}"),
            ));
        }
        Ok(Ok(stream)) => stream,
    };
    // Without it, small requests wait for acknowledgements; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    shared.state.borrow_mut().recorder.connections_opened += 1;
    Ok(stream)
}

/// Serves jobs on one connection. Gives back a job that needs a new connection, or none when there is none.
async fn converse(
    shared: &Rc<Shared>,
    slot: &Rc<Slot>,
    mut stream: TcpStream,
    first: Job,
    buffers: &mut Buffers,
) -> Option<Job> {
    let mut job = first;
    loop {
        let sent = Instant::now();
        let request = shared.plan.source.request(job.seq);
        buffers.out.clear();
        encode(&request, shared.plan.target.authority(), &mut buffers.out);
        let capture = shared.plan.source.capture_body_bytes();
        let mut decoder = Decoder::new(&request.method, capture, std::mem::take(&mut buffers.body));
        let exchange = exchange(&mut stream, &buffers.out, &mut buffers.input, &mut decoder);
        let result = tokio::time::timeout(shared.plan.timeouts.response, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(Failure {
                    kind: FailureKind::TimedOut,
                    message: format!("no whole response within {:?}", shared.plan.timeouts.response),
                })
            });
        let now = Instant::now();
        let reusable = match &result {
            Ok(clean) => *clean && decoder.keep_alive(),
            Err(_) => false,
        };
        match &result {
            Ok(_) => job.completed(decoder.status(), decoder.body(), decoder.body_bytes(), sent, now),
            Err(failure) => job.failed(failure, now),
        }
        buffers.body = decoder.into_buffer();
        let next = shared.next_job(now);
        if !reusable {
            return next;
        }
        job = match next {
            Some(next) => next,
            None => match idle(shared, slot, &stream).await {
                Idle::Job(next) => next,
                Idle::Closed(next) => return next,
            },
        };
    }
}

/// Sends and receives. `Ok(true)` when the connection holds nothing beyond the response.
async fn exchange(
    stream: &mut TcpStream,
    out: &[u8],
    input: &mut Vec<u8>,
    decoder: &mut Decoder,
) -> Result<bool, Failure> {
    input.clear();
    // A server may answer and close before it has read a whole body; its answer counts, so a failed write is only
    // the end when nothing can be read either.
    let written = stream.write_all(out).await;
    let mut used = 0;
    loop {
        if input.len() == used {
            input.clear();
            used = 0;
        } else if used > 0 {
            input.drain(..used);
            used = 0;
        }
        input.reserve(READ_BYTES);
        match stream.read_buf(input).await {
            Ok(0) => {
                decoder.end().map_err(|error| undecodable(error, decoder))?;
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) => return Err(broken(&written.err().unwrap_or(error))),
        }
        used += decoder
            .push(&input[used..])
            .map_err(|error| undecodable(error, decoder))?;
        if decoder.is_done() {
            return Ok(written.is_ok() && used == input.len());
        }
    }
}

enum Idle {
    Job(Job),
    /// The peer closed, or spoke unasked.
    Closed(Option<Job>),
}

/// Waits for a job, and notices when the peer closes meanwhile.
async fn idle(shared: &Shared, slot: &Rc<Slot>, stream: &TcpStream) -> Idle {
    shared.state.borrow_mut().idle.push(Rc::clone(slot));
    loop {
        tokio::select! {
            biased;
            () = slot.filled.notified() => {
                if let Some(job) = slot.job.borrow_mut().take() {
                    return Idle::Job(job);
                }
            }
            _ = stream.readable() => {
                let mut byte = [0];
                if let Err(error) = stream.try_read(&mut byte)
                    && error.kind() == io::ErrorKind::WouldBlock
                {
                    continue;
                }
                shared.state.borrow_mut().idle.retain(|other| !Rc::ptr_eq(other, slot));
                let job = slot.job.borrow_mut().take();
                return Idle::Closed(job);
            }
        }
    }
}

fn undecodable(error: DecodeError, decoder: &Decoder) -> Failure {
    match error {
        DecodeError::Malformed(reason) => Failure {
            kind: FailureKind::Protocol,
            message: reason.to_owned(),
        },
        DecodeError::ClosedEarly => Failure {
            kind: FailureKind::ClosedEarly,
            message: if decoder.status() == 0 {
                "the connection was closed before the response began".to_owned()
            } else {
                "the connection was closed within the response".to_owned()
            },
        },
    }
}

fn broken(error: &io::Error) -> Failure {
    let (kind, message) = match error.kind() {
        io::ErrorKind::ConnectionReset => (FailureKind::Reset, "the connection was reset".to_owned()),
        io::ErrorKind::BrokenPipe => (
            FailureKind::ClosedEarly,
            "the connection was closed before the request was sent".to_owned(),
        ),
        _ => (FailureKind::Reset, format!("the connection broke: {error}")),
    };
    Failure { kind, message }
}
