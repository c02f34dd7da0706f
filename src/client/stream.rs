//! A client whose bytes come in the clear: TLS in rustls's hands, or none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::rustls::ProtocolVersion;

use crate::backend::Plain;
use crate::relay::record::{Heard, RecordStream, TrafficSecrets};
use crate::relay::stream::{Joint, poll_discard};
use crate::relay::{End, Relay};
use crate::sys::socket::Socket;
use crate::tls::TlsStream;
use crate::wire::{Peer, Transmission};

#[derive(Debug)]
pub(crate) struct Stream {
    inner: Inner,
    joint: Joint,
}

#[derive(Debug)]
enum Inner {
    Tls(Box<TlsStream<Socket>>),
    Plain(Socket),
}

impl Stream {
    pub(super) fn plain(mut socket: Socket) -> Self {
        if let Socket::Unix(stream) = &mut socket {
            // Where the kernel cannot, its close is an end whatever it was meant to be.
            let _ = stream.reset_on_close();
        }
        Self::new(Inner::Plain(socket))
    }

    pub(super) fn tls(stream: Box<TlsStream<Socket>>) -> Self {
        Self::new(Inner::Tls(stream))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner,
            joint: Joint::default(),
        }
    }

    /// Reads what the client says until it has ended or said `enough` bytes, and keeps it.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: what was heard stays in the stream.
    pub(super) async fn hear(&mut self, enough: usize) -> Heard {
        let Self { inner, joint } = self;
        loop {
            let early = joint.heard();
            let room = enough.saturating_sub(early.len());
            if room == 0 {
                return Heard::Words;
            }
            early.reserve(EARLY_STEP.saturating_sub(early.capacity() - early.len()));
            match (&mut *inner).take(room as u64).read_buf(early).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    joint.client_failed(error);
                    break;
                }
            }
        }
        match joint.heard().is_empty() {
            true => Heard::Nothing,
            false => Heard::Words,
        }
    }

    pub(super) async fn join(&mut self, backend: &mut Plain, relay: Relay<'_>) -> End {
        self.joint.join(&mut self.inner, backend, relay).await
    }

    pub(super) fn joint(&mut self) -> &mut Joint {
        &mut self.joint
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.inner, Inner::Plain(_))
    }

    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.inner.shutdown().await
    }

    /// Takes the records out of rustls's hands, for an alert that rustls has no call for.
    ///
    /// # Errors
    ///
    /// There is no TLS on this socket, or its keys are of no use.
    pub(super) fn into_record(self) -> Result<RecordStream<Socket>, Socket> {
        let (socket, connection) = match self.inner {
            Inner::Tls(stream) => stream.into_inner(),
            Inner::Plain(socket) => return Err(socket),
        };
        let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        // Only to say a last word: of secrets for the next keys there is no need.
        let traffic = is_tls13.then(TrafficSecrets::default);
        match connection.dangerous_extract_secrets() {
            Ok(secrets) => RecordStream::new(socket, &secrets, traffic, Vec::new()),
            Err(_) => Err(socket),
        }
    }

    pub(super) fn into_socket(self) -> Socket {
        match self.inner {
            Inner::Tls(stream) => stream.into_inner().0,
            Inner::Plain(socket) => socket,
        }
    }
}

impl Inner {
    fn socket(&self) -> &Socket {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(socket) => socket,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Inner::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Inner::Plain(socket) => {
                let $stream = Pin::new(socket);
                $call
            }
        }
    };
}

impl Peer for Inner {
    fn has_failed(&self) -> bool {
        self.socket().has_failed()
    }

    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Tls(stream) => stream.get_mut().0.transmission(),
            Self::Plain(socket) => socket.transmission(),
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tls(stream) => poll_discard(stream.get_mut().0, cx),
            Self::Plain(socket) => socket.poll_discard(cx),
        }
    }
}

impl AsyncRead for Inner {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = match self.get_mut() {
            Inner::Tls(stream) => stream,
            Inner::Plain(socket) => return Pin::new(socket).poll_read(cx, buf),
        };
        let read = Pin::new(stream.as_mut()).poll_read(cx, buf);
        // What rustls itself has to say to what it read, such as that there is no renegotiation,
        // would wait for the backend's next bytes, and the client may be waiting for just that.
        if stream.get_ref().1.wants_write() {
            // Should it fail, so does the next write.
            let _ = Pin::new(stream.as_mut()).poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for Inner {
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

const EARLY_STEP: usize = 1024;
