//! TLS towards a dialled backend: the handshake after the dial, and the connection after that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::AlertDescription;
use tracing::warn;

use super::carrier::{Carrier, Refusal};
use super::dial_error::DialError;
use crate::address::Address;
use crate::pace::Pace;
use crate::relay::Records;
use crate::residue;
use crate::sys::socket::Socket;
use crate::tls::connect_error::{is_refusal, refusal, refusal_words};
use crate::tls::connector::{Connected, ConnectorSettings, Server, TlsConnector};
use crate::tls::{self, Keyed};
use crate::wire::Wire;

/// What all TLS connections of one backend share.
#[derive(Debug)]
pub(crate) struct Tls {
    backend: String,
    connector: TlsConnector,
    /// `None` for health checks: the change of the address's health is logged.
    complaint: Option<Pace>,
}

impl Tls {
    pub(crate) fn new(backend: &str, settings: &ConnectorSettings) -> Arc<Self> {
        Arc::new(Self {
            backend: backend.to_owned(),
            connector: TlsConnector::new(settings),
            complaint: Some(Pace::default()),
        })
    }

    /// For health checks: each handshake is a complete one, with a certificate that is verified.
    pub(crate) fn for_checks(backend: &str, settings: &ConnectorSettings) -> Arc<Self> {
        Arc::new(Self {
            backend: backend.to_owned(),
            connector: TlsConnector::without_sessions(settings),
            complaint: None,
        })
    }

    /// Performs the handshake over a socket that was just connected to `address`.
    pub(super) async fn secure(
        self: &Arc<Self>,
        address: &Address,
        socket: Socket,
    ) -> Result<(Secured, Server), DialError> {
        let connected = self.connect(address, socket).await;
        if let Err(DialError::Untrusted(error)) = &connected {
            self.complain(Some(address), error);
        }
        let (connected, server) = connected?;
        let secured = self.secured(connected);
        residue::wipe();
        Ok((secured?, server))
    }

    /// As [`Self::secure`], for the connection under a tunnel. Who dials the tunnel says why it failed.
    pub(super) async fn carry(
        &self,
        address: &Address,
        socket: Socket,
    ) -> Result<(Carrier, Refusal, Server), DialError> {
        let (connected, server) = self.connect(address, socket).await?;
        let (carrier, refusal) = Carrier::new(connected).map_err(DialError::Down)?;
        Ok((carrier, refusal, server))
    }

    async fn connect(
        &self,
        address: &Address,
        socket: Socket,
    ) -> Result<(Connected<Socket>, Server), DialError> {
        let connected = self.connector.connect(address, socket).await;
        residue::wipe();
        match connected {
            Ok(connected) => Ok(connected),
            Err(error) if error.is_about_trust() => Err(DialError::Untrusted(error.to_string())),
            Err(error) => Err(DialError::Down(io::Error::other(error))),
        }
    }

    // A function of its own, so that its stack can be wiped of secrets.
    #[inline(never)]
    fn secured(self: &Arc<Self>, connected: Connected<Socket>) -> Result<Secured, DialError> {
        let tls = Arc::clone(self);
        match connected {
            Connected::Stream(stream) => Ok(Secured::Stream(Box::new(SecureStream {
                stream,
                tls,
                is_refused: false,
            }))),
            Connected::Record(keyed) => {
                let Keyed { io, start } = *keyed;
                let records = Records::new(io, start);
                let records = records.map_err(|_| unknown_suite())?;
                Ok(Secured::Records(Box::new(SecureRecords { records, tls })))
            }
        }
    }

    fn complain_about_us(&self, alert: AlertDescription) {
        self.complain(None, &refusal_words(alert));
    }

    /// Logs that a side has refused the other one, at most once a second: every connection meets the same
    /// certificates and rules.
    fn complain(&self, address: Option<&Address>, error: &str) {
        if self.complaint.as_ref().is_some_and(Pace::is_due) {
            let address = address.map(tracing::field::display);
            warn!(
                backend = self.backend,
                address, error, "TLS with a backend failed: one side refuses the other"
            );
        }
    }
}

/// A connection to a backend after its handshake.
#[derive(Debug)]
pub(super) enum Secured {
    Records(Box<SecureRecords>),
    Stream(Box<SecureStream>),
}

fn unknown_suite() -> DialError {
    DialError::Down(io::Error::other(tls::unknown_suite()))
}

/// A connection to a backend after its handshake, with Vestibule's own record layer.
#[derive(Debug)]
pub(crate) struct SecureRecords {
    records: Records<Socket>,
    tls: Arc<Tls>,
}

impl SecureRecords {
    pub(crate) fn records(&mut self) -> &mut Records<Socket> {
        &mut self.records
    }

    pub(super) fn into_socket(self) -> Socket {
        self.records.into_io()
    }

    /// Like [`SecureStream::is_refused`], for a connection that has failed.
    pub(super) fn is_refused(&self) -> bool {
        let refusal = self.records.given_up().filter(|alert| is_refusal(*alert));
        if let Some(alert) = refusal {
            self.tls.complain_about_us(alert);
        }
        refusal.is_some()
    }
}

/// A connection to a backend after its handshake, with the records in rustls.
#[derive(Debug)]
pub(crate) struct SecureStream {
    stream: Box<TlsStream<Socket>>,
    tls: Arc<Tls>,
    is_refused: bool,
}

impl SecureStream {
    pub(super) fn into_socket(self) -> Socket {
        self.stream.into_inner().0
    }

    /// Whether the backend has refused our certificate. In TLS 1.3 it does so after the handshake.
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

impl AsyncRead for SecureStream {
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
            self.tls.complain_about_us(alert);
        }
        // rustls may have to answer what it has read, for example with new keys. That answer would
        // wait for the client's next bytes, while the backend may be waiting for exactly this
        // answer.
        if self.stream.get_ref().1.wants_write() {
            // If this fails, the next write fails as well.
            let _ = self.stream().poll_flush(cx);
        }
        read
    }
}

impl AsyncWrite for SecureStream {
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
        let closed = ready!(self.stream().poll_shutdown(cx));
        Poll::Ready(closed.map_err(|error| self.stream.get_ref().0.shutdown_error(error)))
    }
}
