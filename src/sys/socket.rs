//! A connected stream socket, TCP or Unix: the two have one face here and differ only at the end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::facts::Endpoint;

/// A TCP or Unix stream.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Closes so that the peer can tell it from an end.
    ///
    /// TCP sends a reset and drops what was not sent. A Unix socket has no such thing: its peer
    /// sees a reset only if it left bytes unread here, and an end otherwise.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // Fails only where the peer has reset the connection already.
            let _ = stream.set_zero_linger();
        }
    }

    /// Resolves when the connection has failed: reset, or given up by the kernel.
    ///
    /// Reading tells as much, but a side that is not read (the other one is full) would hear of
    /// a reset only when the other one moves again.
    pub(crate) async fn failed(&self) {
        let readiness = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
        // An error here means that the runtime is going away, and with it the connection.
        drop(readiness);
    }

    /// Whether a peer that is gone had read all that it was sent.
    ///
    /// A Unix socket knows: it has an error pending if not. TCP does not, and says no.
    pub(crate) fn was_read_out(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(stream) => matches!(stream.take_error(), Ok(None)),
        }
    }

    pub(crate) fn local(&self) -> Option<Endpoint> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(Endpoint::Tcp),
            Self::Unix(stream) => unix_endpoint(stream.local_addr()),
        }
    }
}

fn unix_endpoint(address: io::Result<tokio::net::unix::SocketAddr>) -> Option<Endpoint> {
    Some(Endpoint::Unix(address.ok()?.as_pathname()?.to_owned()))
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Socket::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}
