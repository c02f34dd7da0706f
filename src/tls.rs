//! The TLS side of a listener: one handshake, its facts, and why it failed.

pub(crate) mod certs;

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{Acceptor, ClientHello, NoServerSessionStorage};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
pub(crate) use tokio_rustls::server::TlsStream;

use self::certs::Certificate;
use crate::deadline::Deadline;
use crate::facts::TlsFacts;

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub certificate: Certificate,
    pub alpn: Alpn,
    pub min_version: MinVersion,
    pub tickets: Tickets,
}

/// The protocols offered, in order of preference, and what if a client names none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// Configured: the handshake fails (RFC 7301 §3.2).
    Offered(Vec<String>),
    /// Those that the routes name: a route that names none takes the client without ALPN.
    OfRoutes(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MinVersion {
    Tls12,
    Tls13,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tickets {
    /// Sessions are resumed; the keys rotate every six hours and are valid for two periods.
    Rotate,
    /// Every handshake is a full one.
    None,
}

/// Performs handshakes for one listener.
#[derive(Clone, Debug)]
pub(crate) struct TlsAcceptor {
    config: Arc<ServerConfig>,
    /// For a client that names none of the routes' protocols.
    without_alpn: Option<Arc<ServerConfig>>,
}

impl TlsAcceptor {
    /// # Errors
    ///
    /// The certificate and key cannot be used together.
    pub(crate) fn new(settings: &Settings) -> Result<Self, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(settings.certificate.resolver());
        match settings.tickets {
            Tickets::Rotate => {
                config.ticketer = aws_lc_rs::Ticketer::new()?;
                // One ticket serves one resumption; the usual two cost a client that never
                // comes back a second record.
                config.send_tls13_tickets = 1;
            }
            Tickets::None => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        let (protocols, without_alpn) = match &settings.alpn {
            Alpn::Offered(protocols) => (protocols, None),
            Alpn::OfRoutes(protocols) => (protocols, Some(Arc::new(config.clone()))),
        };
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect();
        Ok(Self {
            config: Arc::new(config),
            without_alpn,
        })
    }

    /// Performs the handshake within `deadline`.
    ///
    /// `admit` decides from the ClientHello, before any key exchange; a client that it refuses
    /// gets the alert `access_denied`.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]. Where an alert was sent, the stream is given back, so that the
    /// alert can be given time to arrive.
    pub(crate) async fn accept<IO, T, R>(
        &self,
        io: IO,
        deadline: Deadline,
        admit: impl FnOnce(&Hello<'_>) -> Result<T, R>,
    ) -> Result<(TlsStream<IO>, T), HandshakeError<IO, R>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        deadline
            .bound(self.handshake(io, admit))
            .await
            .unwrap_or(Err(HandshakeError::TimedOut))
    }

    async fn handshake<IO, T, R>(
        &self,
        io: IO,
        admit: impl FnOnce(&Hello<'_>) -> Result<T, R>,
    ) -> Result<(TlsStream<IO>, T), HandshakeError<IO, R>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), io);
        let start = match (&mut acceptor).await {
            Ok(start) => start,
            Err(error) => {
                // The acceptor has sent its alert by now.
                return Err(match (tls_error(&error), acceptor.take_io()) {
                    (
                        Some(rustls::Error::InvalidMessage(
                            InvalidMessage::InvalidContentType
                            | InvalidMessage::UnknownProtocolVersion,
                        )),
                        Some(io),
                    ) => HandshakeError::NotTls(io),
                    (Some(cause), Some(io)) => HandshakeError::Failed(cause, io),
                    _ => HandshakeError::Gone,
                });
            }
        };
        let hello = Hello {
            hello: start.client_hello(),
            offered: &self.config.alpn_protocols,
        };
        let admitted = match admit(&hello) {
            Ok(admitted) => admitted,
            Err(reason) => {
                let mut io = start.io;
                // If the alert cannot be sent the client is gone, and the refusal stands.
                let _ = io.write_all(&ACCESS_DENIED).await;
                return Err(HandshakeError::Refused(reason, io));
            }
        };
        let config = match &self.without_alpn {
            Some(without_alpn) if hello.alpn().is_none() => without_alpn,
            _ => &self.config,
        };
        let config = Arc::clone(config);
        match start.into_stream(config).into_fallible().await {
            Ok(stream) => Ok((stream, admitted)),
            Err((error, io)) => Err(match tls_error(&error) {
                Some(cause) => HandshakeError::Failed(cause, io),
                None => HandshakeError::Gone,
            }),
        }
    }
}

/// What the client said first.
pub(crate) struct Hello<'a> {
    hello: ClientHello<'a>,
    offered: &'a [Vec<u8>],
}

impl Hello<'_> {
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.hello.server_name()
    }

    /// The protocol that the handshake will agree on: the first of ours that the client names,
    /// as rustls chooses it (RFC 7301 §3.2).
    pub(crate) fn alpn(&self) -> Option<&str> {
        let theirs: Vec<&[u8]> = self.hello.alpn()?.collect();
        let agreed = self
            .offered
            .iter()
            .find(|ours| theirs.contains(&ours.as_slice()))?;
        std::str::from_utf8(agreed).ok()
    }
}

/// The facts of a finished handshake.
pub(crate) fn facts(connection: &ServerConnection) -> TlsFacts {
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str().map(str::to_owned)),
        group: connection
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str().map(str::to_owned)),
        sni: connection.server_name().map(str::to_owned),
        alpn: connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum HandshakeError<IO, R> {
    /// The peer: its first bytes are no TLS record.
    NotTls(IO),
    /// Both: nothing could be agreed on, or the peer broke the protocol.
    Failed(rustls::Error, IO),
    /// Us: `admit` said no.
    Refused(R, IO),
    /// The peer: it left.
    Gone,
    /// The peer: it was too slow.
    TimedOut,
}

/// `None` when it is the stream that failed.
fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<rustls::Error>() {
        Some(cause) => Some(cause.clone()),
        // A message that outgrows rustls's buffer is an error in words alone, of a kind that no
        // socket has.
        None if error.kind() == io::ErrorKind::InvalidData => {
            Some(rustls::Error::General(inner.to_string()))
        }
        None => None,
    }
}

/// rustls's defaults, with the hybrid post-quantum group first.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

/// A fatal `access_denied` as a record of its own (RFC 8446 §6.2): before the ServerHello alerts
/// are sent in the clear, and rustls has no call to send one.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
