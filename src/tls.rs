//! The TLS side of a listener: one handshake, its facts, and why it failed.

pub(crate) mod certs;
pub(crate) mod connector;
pub(crate) mod identity;
mod record;
pub(crate) mod roots;
mod stream;

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, CommonState, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig,
    SupportedProtocolVersion,
};
pub(crate) use tokio_rustls::server::TlsStream;

use self::certs::Certificate;
pub(crate) use self::record::Keyed;
use crate::deadline::Deadline;
use crate::facts::TlsFacts;
use crate::wire::Wire;

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub certificate: Certificate,
    pub alpn: Alpn,
    pub min_version: MinVersion,
    pub tickets: Tickets,
    pub engine: Engine,
}

/// Who has the records once the handshake is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Engine {
    /// We: the connection is its keys.
    #[default]
    Record,
    /// rustls: the connection is a stream.
    Stream,
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
    engine: Engine,
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
        if settings.engine == Engine::Record {
            config.enable_secret_extraction = true;
            config.key_log = Arc::new(record::Handover);
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
            engine: settings.engine,
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
    ) -> Result<(Secured<IO>, T), HandshakeError<IO, R>>
    where
        IO: Wire,
    {
        // Boxed, since a future is copied each time it is put into another one, and these are long.
        let accepted = match self.engine {
            Engine::Stream => {
                let handshake = Box::pin(stream::accept(self, io, admit));
                deadline.bound(handshake).await
            }
            Engine::Record => {
                let handshake = Box::pin(record::accept(self, io, admit));
                deadline.bound(handshake).await
            }
        };
        accepted.unwrap_or(Err(HandshakeError::TimedOut))
    }

    fn hello<'a>(&'a self, hello: ClientHello<'a>) -> Hello<'a> {
        Hello {
            hello,
            offered: &self.config.alpn_protocols,
        }
    }

    fn config_for(&self, hello: &Hello<'_>) -> Arc<ServerConfig> {
        Arc::clone(match &self.without_alpn {
            Some(without_alpn) if hello.alpn().is_none() => without_alpn,
            _ => &self.config,
        })
    }
}

/// A connection past its handshake.
pub(crate) struct Secured<IO> {
    pub facts: TlsFacts,
    pub session: Session<IO>,
}

pub(crate) enum Session<IO> {
    Stream(Box<TlsStream<IO>>),
    Record(Box<Keyed<IO>>),
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
fn facts(connection: &CommonState, sni: Option<&str>) -> TlsFacts {
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
        sni: sni.map(str::to_owned),
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

/// Whether a first message was none of TLS's.
fn is_not_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        )
    )
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

/// What a suite that only rustls knows makes of a handshake.
pub(crate) fn unknown_suite() -> rustls::Error {
    rustls::Error::General("the record layer does not know this cipher suite".into())
}
