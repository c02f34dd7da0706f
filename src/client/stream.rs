//! A client whose stream yields plaintext: TLS with rustls's record layer, or no TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::ProtocolVersion;

use super::transport::Transport;
use crate::record::{Start, TrafficSecrets};
use crate::relay::{Records, poll_discard};
use crate::sys::socket::Socket;
use crate::tls::TlsStream;
use crate::tunnel::TunnelStream;
use crate::wire::{Keep, Lend, Peer, Places, Transmission, Wire, poll_read_first};

#[derive(Debug)]
pub(crate) enum Stream {
    Tls(Box<TlsStream<Transport>>),
    Plain(Transport),
}

impl Stream {
    pub(super) fn plain(mut transport: Transport) -> Self {
        if let Transport::Socket(Socket::Unix(stream)) = &mut transport {
            // If the kernel does not support this, its close looks like a clean end.
            let _ = stream.reset_on_close();
        }
        Self::Plain(transport)
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Takes the records over from rustls, to send an alert for which rustls has no function.
    ///
    /// # Errors
    ///
    /// There is no TLS on this stream, or its keys cannot be extracted.
    pub(super) fn into_records(self) -> Result<Records<Transport>, Transport> {
        let (transport, connection) = match self {
            Self::Tls(stream) => stream.into_inner(),
            Self::Plain(transport) => return Err(transport),
        };
        let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        // Only an alert is sent, so secrets for a key update are not needed.
        let traffic = is_tls13.then(TrafficSecrets::default);
        match connection.dangerous_extract_secrets() {
            Ok(secrets) => Records::new(transport, Start::of_server(secrets, traffic, Vec::new())),
            Err(_) => Err(transport),
        }
    }

    pub(super) fn into_transport(self) -> Transport {
        match self {
            Self::Tls(stream) => stream.into_inner().0,
            Self::Plain(transport) => transport,
        }
    }

    /// The stream of a tunnel, if it is one.
    pub(super) fn tunnelled(&mut self) -> Option<&mut TunnelStream> {
        match self {
            Self::Plain(Transport::Tunnel(stream)) => Some(stream),
            Self::Plain(_) | Self::Tls(_) => None,
        }
    }

    fn transport(&self) -> &Transport {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(transport) => transport,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Stream::Plain(transport) => {
                let $stream = Pin::new(transport);
                $call
            }
        }
    };
}

impl Peer for Stream {
    fn has_failed(&self) -> bool {
        self.transport().has_failed()
    }

    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Tls(stream) => stream.get_mut().0.transmission(),
            Self::Plain(transport) => transport.transmission(),
        }
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(_) => poll_read_first(self, cx, places),
            Self::Plain(transport) => transport.poll_read_vectored(cx, places),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(transport) => transport.poll_room(cx),
            Self::Tls(_) => Poll::Ready(()),
        }
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        if let Self::Plain(transport) = self {
            transport.poll_absorb(cx);
        }
    }

    fn lender(&mut self) -> Option<&mut dyn Lend> {
        match self {
            Self::Plain(transport) => transport.lender(),
            Self::Tls(_) => None,
        }
    }

    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        match self {
            Self::Plain(transport) => transport.keeper(),
            Self::Tls(_) => None,
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => poll_discard(stream.get_mut().0, cx),
            Self::Plain(transport) => transport.poll_discard(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = match self.get_mut() {
            Stream::Tls(stream) => stream,
            Stream::Plain(transport) => return Pin::new(transport).poll_read(cx, buf),
        };
        let read = Pin::new(stream.as_mut()).poll_read(cx, buf);
        // rustls may have an answer to what it read, such as a refusal of renegotiation. The answer
        // would wait for the next bytes of the backend, while the client may wait for the answer. So
        // flush it now.
        if stream.get_ref().1.wants_write() {
            // If this fails, the next write fails too.
            let _ = Pin::new(stream.as_mut()).poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for Stream {
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
        Poll::Ready(ready!(closed).map_err(|error| self.transport().shutdown_error(error)))
    }
}
