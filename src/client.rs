//! The client's side of a connection, with TLS or without, and the ways to end it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::deadline::Deadline;
use crate::sys::socket::Socket;
use crate::tls::TlsStream;

/// What the client sends and receives, in the clear.
#[derive(Debug)]
pub(crate) enum Client {
    Tls(Box<TlsStream<Socket>>),
    Plain(Socket),
}

impl Client {
    /// Ends the connection in order: `close_notify` where TLS is spoken, then as [`close`].
    pub(crate) async fn close(mut self) {
        // The shutdown waits for room in a socket that the client may never read from.
        let closing = Deadline::after(LINGER).bound(self.shutdown()).await;
        if matches!(closing, Ok(Ok(()))) {
            close(self.into_socket()).await;
        }
    }

    /// Ends the connection so that the client can tell it from an end.
    pub(crate) fn reset(self) {
        self.into_socket().reset();
    }

    /// Reads until the client has left for good; what it says meanwhile is added to `early`.
    ///
    /// A client that closed its side after saying something waits for its answer and has not
    /// left. One that closed without a word has. At most [`EARLY`] bytes are kept; behind them
    /// only a reset is noticed.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: what was read is in `early`.
    pub(crate) async fn left(&mut self, early: &mut Vec<u8>) {
        while early.len() < EARLY {
            early.reserve(EARLY_STEP.saturating_sub(early.capacity() - early.len()));
            let room = EARLY - early.len();
            match self.take(room as u64).read_buf(early).await {
                Ok(0) if early.is_empty() => return,
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.socket().gone().await;
    }

    /// Whether the connection is known to have failed, without reading from it.
    pub(crate) fn has_failed(&self) -> bool {
        self.socket().has_failed()
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(socket) => socket,
        }
    }

    fn into_socket(self) -> Socket {
        match self {
            Self::Tls(stream) => stream.into_inner().0,
            Self::Plain(socket) => socket,
        }
    }
}

/// Closes a socket so that what was sent last arrives.
///
/// A close with unread bytes makes the kernel send a reset, which may overtake the alert or the
/// answer; so the sending side is closed first, and what still comes is read, for a bounded time.
pub(crate) async fn close(mut socket: Socket) {
    let linger = async {
        socket.shutdown().await?;
        tokio::io::copy(
            &mut (&mut socket).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await
    };
    // Whatever it says, the socket is closed next.
    let _ = Deadline::after(LINGER).bound(linger).await;
}

/// How long an ended connection is kept for its last bytes: a round trip to anywhere, a
/// retransmission included.
const LINGER: Duration = Duration::from_secs(1);

/// How much is read meanwhile; a client that sends more than this has not understood the end.
const LINGER_BYTES: u64 = 256 * 1024;

/// What a client may say before a backend listens: enough for a request and its headers, and
/// with `limits.pending` at its default no more than 16 MiB for all.
const EARLY: usize = 16 * 1024;
const EARLY_STEP: usize = 1024;

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Client::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Client::Plain(socket) => {
                let $stream = Pin::new(socket);
                $call
            }
        }
    };
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.as_mut();
        let closed = delegate!(this, stream => stream.poll_shutdown(cx));
        match ready!(closed) {
            // It took everything and left; what a Unix socket refuses is our close_notify alone.
            // TCP would have taken that as well.
            Err(error)
                if error.kind() == io::ErrorKind::BrokenPipe && self.socket().was_read_out() =>
            {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
            closed => Poll::Ready(closed),
        }
    }
}
