//! The TLS connection under a tunnel that we have opened.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::AlertDescription;

use crate::relay::{RecordStream, Records};
use crate::residue;
use crate::sys::either::one_of_streams;
use crate::sys::socket::Socket;
use crate::tls::connect_error::{is_refusal, refusal};
use crate::tls::connector::Connected;
use crate::tls::{self, Keyed};
use crate::wire::{Peer, Transmission};

/// A TLS connection after its handshake, as a stream of bytes. It remembers why it failed, which HTTP/2 does not pass
/// on.
pub(crate) struct Carrier {
    io: Io,
    refusal: Refusal,
}

enum Io {
    Records(Box<RecordStream<Socket>>),
    Stream(Box<TlsStream<Socket>>),
}

one_of_streams!(Io { Records, Stream });

/// The alert by which the server has refused our certificate. In TLS 1.3 it comes after the handshake.
pub(crate) type Refusal = Arc<OnceLock<AlertDescription>>;

impl Carrier {
    /// # Errors
    ///
    /// The record layer does not know the cipher suite of the keys.
    pub(crate) fn new(connected: Connected<Socket>) -> io::Result<(Self, Refusal)> {
        let io = Io::new(connected);
        residue::wipe();
        let refusal = Refusal::default();
        let carrier = Self {
            io: io?,
            refusal: Arc::clone(&refusal),
        };
        Ok((carrier, refusal))
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut Io> {
        Pin::new(&mut self.get_mut().io)
    }
}

impl Io {
    // A function of its own, so that its stack can be wiped of secrets.
    #[inline(never)]
    fn new(connected: Connected<Socket>) -> io::Result<Self> {
        match connected {
            Connected::Stream(stream) => Ok(Self::Stream(stream)),
            Connected::Record(keyed) => {
                let Keyed { io, start } = *keyed;
                let records = Records::new(io, start);
                let records = records.map_err(|_| io::Error::other(tls::unknown_suite()))?;
                Ok(Self::Records(Box::new(RecordStream::new(records))))
            }
        }
    }

    /// The alert by which the server has refused us, after a failure.
    fn refusal(&self, error: &io::Error) -> Option<AlertDescription> {
        match self {
            Self::Records(stream) => stream.given_up().filter(|alert| is_refusal(*alert)),
            Self::Stream(_) => refusal(error),
        }
    }
}

impl Peer for Carrier {
    fn transmission(&mut self) -> Option<Transmission> {
        match &mut self.io {
            Io::Records(stream) => stream.transmission(),
            Io::Stream(stream) => stream.get_mut().0.transmission(),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.as_mut().io().poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = self.io.refusal(error)
        {
            let _ = self.refusal.set(alert);
        }
        read
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
