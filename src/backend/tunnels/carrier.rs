//! The TLS connection under a tunnel.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::backend::secure::{SecureStream, Secured, Tls};
use crate::relay::RecordStream;
use crate::sys::either::one_of_streams;
use crate::sys::socket::Socket;
use crate::tls::connect_error::is_refusal;

/// A TLS connection after its handshake, as a stream of bytes.
pub(super) struct Carrier {
    io: Io,
    /// For complaints about our own record layer's connection; rustls's stream makes its own.
    tls: Option<Arc<Tls>>,
    refusal: Refusal,
}

enum Io {
    Records(Box<RecordStream<Socket>>),
    Stream(Box<SecureStream>),
}

one_of_streams!(Io { Records, Stream });

/// Whether the server has refused our certificate. In TLS 1.3 it says so after the handshake.
#[derive(Clone, Default)]
pub(super) struct Refusal(Arc<AtomicBool>);

impl Refusal {
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Carrier {
    pub(super) fn new(secured: Secured) -> (Self, Refusal) {
        let refusal = Refusal::default();
        let (io, tls) = match secured {
            Secured::Records(records) => {
                let (stream, tls) = records.into_stream();
                (Io::Records(Box::new(stream)), Some(tls))
            }
            Secured::Stream(stream) => (Io::Stream(stream), None),
        };
        let carrier = Self {
            io,
            tls,
            refusal: refusal.clone(),
        };
        (carrier, refusal)
    }

    /// Called after a failure.
    fn look_for_a_refusal(&self) {
        let has_come = match &self.io {
            Io::Records(stream) => match stream.given_up().filter(|alert| is_refusal(*alert)) {
                Some(alert) => {
                    let tls = self.tls.iter();
                    tls.for_each(|tls| tls.complain_about_us(alert));
                    true
                }
                None => false,
            },
            Io::Stream(stream) => stream.is_refused(),
        };
        self.refusal.0.fetch_or(has_come, Ordering::Relaxed);
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut Io> {
        Pin::new(&mut self.get_mut().io)
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.as_mut().io().poll_read(cx, buf);
        if let Poll::Ready(Err(_)) = &read {
            self.look_for_a_refusal();
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
