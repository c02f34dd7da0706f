//! The TLS side of a listener: one handshake, its facts, and why it failed.

pub(crate) mod certs;
pub(crate) mod chain;
pub(crate) mod client_auth;
pub(crate) mod connect_error;
pub(crate) mod connector;
mod first;
mod hello;
pub(crate) mod hosts;
pub(crate) mod identity;
mod key_log;
mod name;
pub(crate) mod ocsp;
pub(crate) mod pem;
mod pinned;
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

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
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
pub(crate) use self::record::Keyed;
use self::tickets::{Ring, TicketSecret};
use self::turns::in_turn;
use crate::deadline::Deadline;
use crate::facts::TlsFacts;
use crate::identity::Identity;
use crate::wire::Wire;

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub(crate) struct AcceptorSettings {
    pub hosts: Arc<Hosts>,
    /// `None`: clients are not asked for certificates.
    pub client_auth: Option<ClientAuth>,
    pub alpn: Alpn,
    pub min_version: MinVersion,
    pub tickets: Tickets,
    pub engine: Engine,
}

impl AcceptorSettings {
    /// With what is the default for the rest.
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

/// The lowest version of TLS that clients may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MinVersion {
    /// TLS 1.2, and higher versions.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

#[derive(Clone, Debug)]
pub(crate) enum Tickets {
    /// Sessions are resumed, by this process.
    Rotate,
    /// By every process that has the secret.
    Fleet(TicketSecret),
    /// Every handshake is a full one.
    None,
}

/// Performs handshakes for one listener.
#[derive(Clone, Debug)]
pub(crate) struct TlsAcceptor {
    hosts: Arc<Hosts>,
    client_auth: Option<ClientAuth>,
    alpn: Arc<Alpn>,
    /// For clients that come to speak one of `alpn`, in its order.
    protocols: Arc<[Arc<ServerConfig>]>,
    /// For the others.
    general: Arc<ServerConfig>,
    engine: Engine,
    /// Where the client connected, for one that asks for no name.
    local: Option<IpAddr>,
}

impl TlsAcceptor {
    /// `secret` is the process's, for tickets that no other is to open.
    ///
    /// # Errors
    ///
    /// There are no random bytes, or rustls cannot be configured so.
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
            // For the alert that there is no protocol in common (RFC 7301 §3.2).
            general.alpn_protocols = names.iter().map(bytes).collect();
        }
        Ok(Self {
            hosts: Arc::clone(&settings.hosts),
            client_auth: settings.client_auth.clone(),
            alpn: Arc::new(settings.alpn.clone()),
            protocols,
            general: Arc::new(general),
            engine: settings.engine,
            local: None,
        })
    }

    /// Performs the handshake within `deadline`.
    ///
    /// `admit` decides from the ClientHello, before any key exchange, which protocol of
    /// [`Self::alpn`] it is to be; a client that it refuses gets the alert `access_denied`. Without
    /// one, a client that names protocols is told that there is none where the listener has its own.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]. Where an alert was sent, the stream is given back, so that the
    /// alert can be given time to arrive.
    pub(crate) async fn accept<IO, R>(
        &self,
        io: IO,
        deadline: Deadline,
        admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
    ) -> Result<Secured<IO>, HandshakeError<IO, R>>
    where
        IO: Wire,
    {
        // Boxed, since a future is copied each time it is put into another one, and these are long.
        let accepted = match self.engine {
            Engine::Stream => {
                let handshake = Box::pin(stream::accept(self, io, admit));
                deadline.bound(in_turn(handshake)).await
            }
            Engine::Record => {
                let handshake = Box::pin(record::accept(self, io, admit));
                deadline.bound(in_turn(handshake)).await
            }
        };
        accepted.unwrap_or(Err(HandshakeError::TimedOut))
    }

    /// The same, for clients that connected to this address, if there is a certificate for it.
    pub(crate) fn at(&self, local: Option<IpAddr>) -> Option<Self> {
        let _ = self.hosts.at(local?)?;
        Some(Self {
            local,
            ..self.clone()
        })
    }

    pub(crate) fn alpn(&self) -> &Alpn {
        &self.alpn
    }

    /// Whether clients may come to have an identity.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.client_auth.is_some()
    }

    /// Whether a client with this certificate chain, or with none, would be let in; `since` is when
    /// it was.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        since: UnixTime,
    ) -> Result<(), rustls::Error> {
        match &self.client_auth {
            Some(client_auth) => client_auth.verify(chain, since),
            // Nobody is asked, so nobody is turned away for what they have.
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
    // Ours, of which an auditor can be sure.
    config.ignore_client_order = true;
    // Sessions are in their tickets, whatever a client can do: nothing is stored for anyone.
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
        // One ticket serves one resumption; the usual two cost a client that never comes back a
        // second record.
        config.send_tls13_tickets = 1;
    }
    config.enable_secret_extraction = true;
    if settings.engine == Engine::Record {
        config.key_log = Arc::new(key_log::Handover);
    }
    Ok(config)
}

/// A connection past its handshake.
pub(crate) struct Secured<IO> {
    pub facts: TlsFacts,
    pub peer: Option<Peer>,
    pub session: Session<IO>,
}

/// A client that has a certificate.
#[derive(Debug)]
pub(crate) struct Peer {
    pub identity: Identity,
    /// Its own certificate first.
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

/// Who the client of a finished handshake is, also of one that was resumed.
fn peer(connection: &CommonState) -> Option<Peer> {
    let chain = chain_of(connection);
    Some(Peer {
        // It was verified that there is one.
        identity: identity::identity(chain.first()?).ok()?,
        chain,
    })
}

/// The certificates that the peer has shown, its own first.
fn chain_of(connection: &CommonState) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let owned = chain.iter().cloned().map(CertificateDer::into_owned);
    owned.collect()
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

/// rustls's defaults, with the hybrid post-quantum group first, and of the suites, which are all strong,
/// AES-128 first: what costs both sides least.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::*;
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

/// What a client is told whose certificate is no good, as rustls says it in a handshake.
pub(crate) fn alert(cause: &rustls::Error) -> AlertDescription {
    match cause {
        rustls::Error::InvalidCertificate(error) => error.clone().into(),
        rustls::Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        _ => AlertDescription::HandshakeFailure,
    }
}

/// What a suite that only rustls knows makes of a handshake.
pub(crate) fn unknown_suite() -> rustls::Error {
    rustls::Error::General("the record layer does not know this cipher suite".into())
}
