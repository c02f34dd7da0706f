//! TLS towards a dialled backend: the handshake that follows the dial, and the stream that is left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::dial::DialError;
use crate::address::Address;
use crate::identity::Identity;
use crate::pace::Pace;
use crate::residue;
use crate::sys::socket::Socket;
use crate::tls::connector::{Settings, TlsConnector, refusal};

/// What the connections to the addresses of one backend have in common.
#[derive(Debug)]
pub(crate) struct Tls {
    backend: String,
    connector: TlsConnector,
    complaint: Pace,
}

impl Tls {
    pub(crate) fn new(backend: &str, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            backend: backend.to_owned(),
            connector: TlsConnector::new(settings),
            complaint: Pace::default(),
        })
    }

    /// Performs the handshake over a socket that was just connected to `address`.
    pub(super) async fn secure(
        self: &Arc<Self>,
        address: &Address,
        socket: Socket,
    ) -> Result<(Box<Secure>, Box<Identity>), DialError> {
        let connected = self.connector.connect(address, socket).await;
        residue::wipe();
        match connected {
            Ok((stream, identity)) => {
                let secure = Secure {
                    stream,
                    tls: Arc::clone(self),
                    is_refused: false,
                };
                Ok((Box::new(secure), identity))
            }
            Err(error) if error.is_about_trust() => {
                self.complain(Some(address), &error.to_string());
                Err(DialError::Untrusted(error.to_string()))
            }
            Err(error) => Err(DialError::Down(io::Error::other(error))),
        }
    }

    /// Says at most once a second that a certificate was refused: every connection meets the same.
    fn complain(&self, address: Option<&Address>, error: &str) {
        if self.complaint.is_due() {
            let address = address.map(tracing::field::display);
            warn!(
                backend = self.backend,
                address, error, "TLS with a backend failed: certificate rejected"
            );
        }
    }
}

/// A connection to a backend, past its handshake.
#[derive(Debug)]
pub(crate) struct Secure {
    stream: Box<TlsStream<Socket>>,
    tls: Arc<Tls>,
    is_refused: bool,
}

impl Secure {
    pub(super) fn into_socket(self) -> Socket {
        self.stream.into_inner().0
    }

    /// Whether the backend has refused our certificate, which in TLS 1.3 it says after the handshake.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        self.stream.get_mut().0
    }

    fn stream(&mut self) -> Pin<&mut TlsStream<Socket>> {
        Pin::new(self.stream.as_mut())
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.stream().poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = refusal(error)
        {
            self.is_refused = true;
            let error = format!(
                "backend rejected our client certificate, or requires one \
             ({alert:?})"
            );
            self.tls.complain(None, &error);
        }
        // What rustls itself has to say to what it read, such as new keys, would wait for the
        // client's next bytes, and the backend may be waiting for just that.
        if self.stream.get_ref().1.wants_write() {
            // Should it fail, so does the next write.
            let _ = self.stream().poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.stream().poll_shutdown(cx)) {
            // It took everything and left; what a Unix socket refuses is our close_notify alone.
            // TCP would have taken that as well.
            Err(error)
                if error.kind() == io::ErrorKind::BrokenPipe
                    && self.stream.get_ref().0.was_read_out() =>
            {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
            closed => Poll::Ready(closed),
        }
    }
}
