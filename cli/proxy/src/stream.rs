//! A TCP stream that hyper owns and others may look at. Not buffered and not encrypted.
//!
//! The pool peeks at a connection before it sends on it, and a reset fault sets the linger option of a connection
//! that hyper is serving; both need the socket beside hyper. Reading clears the readiness after a short read, as
//! tokio's own stream does, and so saves one system call a message.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The stream that does the reading and writing; the socket closes when it is dropped.
pub(crate) struct SharedStream {
    socket: Arc<TcpStream>,
    /// Bytes that were read before and come first.
    prefix: Bytes,
}

/// A look at the stream from beside; does not keep it open.
#[derive(Clone)]
pub(crate) struct Glance(Weak<TcpStream>);

impl SharedStream {
    pub(crate) fn new(socket: TcpStream, prefix: Bytes) -> (Self, Glance) {
        let socket = Arc::new(socket);
        let glance = Glance(Arc::downgrade(&socket));
        (Self { socket, prefix }, glance)
    }
}

impl Glance {
    /// Whether the peer has neither closed nor reset the connection nor sent anything unasked.
    pub(crate) fn is_quiet(&self) -> bool {
        use rustix::net::RecvFlags;
        let Some(socket) = self.0.upgrade() else {
            return false;
        };
        let mut byte = [0_u8; 1];
        let peeked = rustix::net::recv(&*socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_on_close(&self) {
        if let Some(socket) = self.0.upgrade() {
            // A socket that refuses is gone already.
            let _ = socket.set_zero_linger();
        }
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let take = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..take]);
            self.prefix.advance(take);
            return Poll::Ready(Ok(()));
        }
        let socket = &*self.socket;
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let room = buf.remaining();
            let mut result = None;
            // Returning WouldBlock is how the readiness is cleared; it belongs to the event seen here, so an edge
            // that comes meanwhile is not lost.
            let _ = socket.try_io(Interest::READABLE, || match socket.try_read_buf(buf) {
                Ok(read) => {
                    result = Some(Ok(()));
                    if cfg!(target_os = "linux") && read > 0 && read < room {
                        Err(io::ErrorKind::WouldBlock.into())
                    } else {
                        Ok(())
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                Err(error) => {
                    result = Some(Err(error));
                    Ok(())
                }
            });
            if let Some(result) = result {
                return Poll::Ready(result);
            }
        }
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
