//! TLS on the listeners: the handshake with a client, its facts, and the reasons for a failure.

pub(crate) mod certs;
pub(crate) mod chain;
pub(crate) mod client_auth;
pub(crate) mod connect_error;
pub(crate) mod connector;
mod first;
mod hello;
mod hkdf;
pub(crate) mod hosts;
pub(crate) mod identity;
mod key_log;
mod name;
pub(crate) mod ocsp;
pub(crate) mod pem;
mod pinned;
mod provider;
mod record;
pub(crate) mod revocation;
pub(crate) mod roots;
mod server_auth;
mod session;
mod sessions;
mod signed;
mod stream;
pub(crate) mod tickets;
pub(crate) mod time;
pub(crate) mod turns;
mod unbuffered;
pub(crate) mod words;
mod x509;

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, AlertDescription, CommonState, HandshakeKind, InvalidMessage, ProtocolVersion,
    ServerConfig, SupportedProtocolVersion,
};
pub(crate) use tokio_rustls::server::TlsStream;

use self::certs::Certificate;
use self::client_auth::ClientAuth;
pub(crate) use self::first::MOST_RECEIVED;
pub(crate) use self::hello::{Hello, Protocol};
use self::hosts::{Hosts, UnknownSni};
use self::provider::provider;
pub(crate) use self::record::Keyed;
use self::tickets::{Ring, TicketSecret};
use self::turns::in_turn;
use crate::deadline::Deadline;
use crate::facts::TlsFacts;
use crate::identity::Identity;
use crate::wire::Wire;

/// The TLS settings of a listener.
#[derive(Clone, Debug)]
pub(crate) struct AcceptorSettings {
    pub hosts: Arc<Hosts>,
    /// `None`: clients are not asked for a certificate.
    pub client_auth: Option<ClientAuth>,
    pub alpn: Alpn,
    pub min_version: MinVersion,
    pub tickets: Tickets,
    pub engine: Engine,
}

impl AcceptorSettings {
    /// Settings with this certificate, and defaults for the rest.
    pub(crate) fn with(certificate: Certificate) -> Self {
        Self {
            hosts: Arc::new(Hosts::new(vec![certificate], UnknownSni::First)),
            client_auth: None,
            alpn: Alpn::OfRoutes(Vec::new()),
            min_version: MinVersion::Tls12,
            tickets: Tickets::Rotate,
            engine: Engine::default(),
        }
    }
}

/// Who processes the TLS records after the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Vestibule's own record layer: the connection consists of its keys.
    #[default]
    Record,
    /// rustls: the connection is a stream.
    Stream,
}

/// The protocols offered, in order of preference, and what happens if the client offers none of
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// Configured on the listener: the handshake fails (RFC 7301 §3.2).
    Offered(Vec<String>),
    /// Collected from the routes: the handshake continues without ALPN.
    OfRoutes(Vec<String>),
}

/// The lowest TLS version that clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246) and TLS 1.3.
    Tls12,
    /// Only TLS 1.3 (RFC 8446).
    Tls13,
}

#[derive(Clone, Debug)]
pub(crate) enum Tickets {
    /// This process resumes its own sessions.
    Rotate,
    /// Every process with the secret resumes the sessions.
    Fleet(TicketSecret),
    /// No sessions are resumed; every handshake is a full one.
    None,
}

/// Performs handshakes for one listener.
#[derive(Clone, Debug)]
pub(crate) struct TlsAcceptor {
    hosts: Arc<Hosts>,
    client_auth: Option<ClientAuth>,
    alpn: Arc<Alpn>,
    /// For clients with which one of `alpn` was agreed on, in the same order.
    protocols: Arc<[Arc<ServerConfig>]>,
    /// For all other clients.
    general: Arc<ServerConfig>,
    engine: Engine,
}

/// A connection before its handshake.
pub(crate) struct Beginning<IO> {
    pub io: IO,
    /// What was read already, at most [`TlsAcceptor::reads_ahead`] bytes.
    pub received: Vec<u8>,
    /// The address that the client connected to, for clients without SNI.
    pub local: Option<IpAddr>,
}

impl TlsAcceptor {
    /// `secret` is the secret of this process, for tickets that only this process can decrypt.
    ///
    /// # Errors
    ///
    /// The system has no random bytes, or rustls refuses the configuration.
    pub(crate) fn new(
        settings: &AcceptorSettings,
        secret: &TicketSecret,
    ) -> Result<Self, rustls::Error> {
        let mut general = configure(settings, secret)?;
        let bytes = |name: &String| name.clone().into_bytes();
        let of = |name: &String| {
            let mut config = general.clone();
            config.alpn_protocols = vec![bytes(name)];
            Arc::new(config)
        };
        let protocols = settings.alpn.names().iter().map(of).collect();
        if let Alpn::Offered(names) = &settings.alpn {
            // Needed for the alert `no_application_protocol` (RFC 7301 §3.2).
            general.alpn_protocols = names.iter().map(bytes).collect();
        }
        Ok(Self {
            hosts: Arc::clone(&settings.hosts),
            client_auth: settings.client_auth.clone(),
            alpn: Arc::new(settings.alpn.clone()),
            protocols,
            general: Arc::new(general),
            engine: settings.engine,
        })
    }

    /// Performs the handshake within `deadline`.
    ///
    /// `admit` looks at the ClientHello, before any key exchange, and selects a protocol of
    /// [`Self::alpn`]. A client that it refuses gets the alert `access_denied`. If it selects none
    /// although the client offers protocols, the handshake fails where the listener has protocols
    /// of its own.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]. If an alert was sent, the error contains the stream, so that the
    /// alert can be given time to arrive.
    pub(crate) async fn accept_from<IO, R>(
        &self,
        beginning: Beginning<IO>,
        deadline: Deadline,
        admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
    ) -> Result<Secured<IO>, HandshakeError<IO, R>>
    where
        IO: Wire,
    {
        // Boxed: a future is copied whenever it is moved into another one, and these are large.
        let accepted = match self.engine {
            Engine::Stream => {
                let handshake = Box::pin(stream::accept(self, beginning, admit));
                deadline.bound(in_turn(handshake)).await
            }
            Engine::Record => {
                let handshake = Box::pin(record::accept(self, beginning, admit));
                deadline.bound(in_turn(handshake)).await
            }
        };
        accepted.unwrap_or(Err(HandshakeError::TimedOut))
    }

    /// How much may be read before the handshake begins; `None` if rustls must read the first bytes
    /// itself.
    pub(crate) fn reads_ahead(&self) -> Option<usize> {
        match self.engine {
            Engine::Record => Some(first::READ),
            Engine::Stream => None,
        }
    }

    pub(crate) fn alpn(&self) -> &Alpn {
        &self.alpn
    }

    /// Whether a handshake may give the client an identity.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.client_auth.is_some()
    }

    /// Whether a client with this certificate chain, or with none, would be admitted now. `since`
    /// is the time of its handshake.
    ///
    /// # Errors
    ///
    /// Why it would not be admitted.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        since: UnixTime,
    ) -> Result<(), rustls::Error> {
        match &self.client_auth {
            Some(client_auth) => client_auth.verify(chain, since),
            // A listener that asks for no certificate refuses none.
            None => Ok(()),
        }
    }
}

fn configure(
    settings: &AcceptorSettings,
    secret: &TicketSecret,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match &settings.client_auth {
        Some(client_auth) => builder.with_client_cert_verifier(client_auth.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::<Hosts>::clone(&settings.hosts));
    // The server's order decides, so that an audit knows the suite that is chosen.
    config.ignore_client_order = true;
    // Sessions are only in their tickets: the server stores nothing for clients.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let secret = match &settings.tickets {
        Tickets::Rotate => Some(secret),
        Tickets::Fleet(secret) => Some(secret),
        Tickets::None => None,
    };
    config.send_tls13_tickets = 0;
    if let Some(secret) = secret {
        let ring = Ring::new(secret.clone(), settings.client_auth.as_ref())?;
        config.ticketer = Arc::new(ring);
        // One ticket is enough for one resumption. The default of two costs clients that never
        // return a second record.
        config.send_tls13_tickets = 1;
    }
    config.enable_secret_extraction = true;
    if settings.engine == Engine::Record {
        config.key_log = Arc::new(key_log::Handover);
    }
    Ok(config)
}

/// A connection after its handshake.
pub(crate) struct Secured<IO> {
    pub facts: TlsFacts,
    pub peer: Option<Peer>,
    pub session: Session<IO>,
}

/// The identity and the certificates of a client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub identity: Identity,
    /// The client's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

pub(crate) enum Session<IO> {
    Stream(Box<TlsStream<IO>>),
    Record(Box<Keyed<IO>>),
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
            .and_then(|suite| suite.suite().as_str()),
        group: connection
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str()),
        sni: sni.map(Into::into),
        alpn: connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// The identity of the client after its handshake, also for a resumed session.
fn peer(connection: &CommonState) -> Option<Peer> {
    let chain = chain_of(connection);
    Some(Peer {
        // The verifier has checked that the certificate has an identity.
        identity: identity::identity(chain.first()?).ok()?,
        chain,
    })
}

/// The certificates that the peer sent, its own first.
fn chain_of(connection: &CommonState) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let owned = chain.iter().cloned().map(CertificateDer::into_owned);
    owned.collect()
}

/// Why the handshake failed. The first word says who is at fault.
#[derive(Debug)]
pub(crate) enum HandshakeError<IO, R> {
    /// The peer: its first bytes are not a TLS record.
    NotTls(IO),
    /// Both: there is no common protocol or parameter, or the peer violated the protocol.
    Failed(rustls::Error, IO),
    /// Vestibule: `admit` refused the client.
    Refused(R, IO),
    /// The peer: it closed the connection.
    Gone,
    /// The peer: it did not finish before the deadline.
    TimedOut,
}

/// Whether the first message does not belong to TLS.
fn is_not_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        )
    )
}

/// The alert for a client whose certificate is refused, the same as rustls sends in a handshake.
pub(crate) fn alert(cause: &rustls::Error) -> AlertDescription {
    match cause {
        rustls::Error::InvalidCertificate(error) => error.clone().into(),
        rustls::Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        _ => AlertDescription::HandshakeFailure,
    }
}

/// The error for a suite that the record layer does not support.
pub(crate) fn unknown_suite() -> rustls::Error {
    rustls::Error::General("the record layer does not know this cipher suite".into())
}
