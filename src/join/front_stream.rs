//! The TLS connection of a tunnel to a front.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::AlertDescription;

use crate::sys::socket::Socket;
use crate::tls::connect_error::refusal;

/// The alert by which a front has refused our certificate.
pub(super) type Refusal = Arc<OnceLock<AlertDescription>>;

/// Remembers why it failed, which HTTP/2 does not pass on.
pub(super) struct FrontStream {
    stream: Box<TlsStream<Socket>>,
    refusal: Refusal,
}

impl FrontStream {
    pub(super) fn new(stream: Box<TlsStream<Socket>>) -> (Self, Refusal) {
        let refusal = Refusal::default();
        let itself = Self {
            stream,
            refusal: Arc::clone(&refusal),
        };
        (itself, refusal)
    }

    fn stream(&mut self) -> Pin<&mut TlsStream<Socket>> {
        Pin::new(self.stream.as_mut())
    }
}

impl AsyncRead for FrontStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.stream().poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = refusal(error)
        {
            let _ = self.refusal.set(alert);
        }
        read
    }
}

impl AsyncWrite for FrontStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
