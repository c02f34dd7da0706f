//! TLS to dialled backends: the client's side of a handshake, and the identity of the server.

use std::sync::Arc;

use tokio_rustls::TlsConnector as Handshaker;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
pub(crate) use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::certs::Certificate;
use super::connect_error::ConnectError;
use super::identity::{BadCertificate, identity};
use super::roots::Roots;
use super::server_auth::ServerAuth;
use super::sessions::{Attempt, Sessions};
use super::turns::in_turn;
use super::{Engine, Keyed, chain_of, key_log, provider, record};
use crate::address::Address;
use crate::identity::{Identity, Rule};
use crate::wire::Wire;

/// The TLS settings for the addresses of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectorSettings {
    /// The name to expect in the certificate; `None` means the host of each address.
    pub server_name: Option<ServerName<'static>>,
    pub roots: Roots,
    /// Our client certificate.
    pub certificate: Option<Certificate>,
    pub alpn: Vec<String>,
    /// Identities that the server must have, beyond its name; empty allows every identity.
    pub allow: Vec<Rule>,
    pub engine: Engine,
}

/// Performs handshakes with the addresses of one backend.
#[derive(Debug)]
pub(crate) struct TlsConnector {
    config: ClientConfig,
    /// `None` if no session is resumed.
    sessions: Option<Arc<Sessions>>,
    server_name: Option<ServerName<'static>>,
    engine: Engine,
}

/// A connection after its handshake.
pub(crate) enum Connected<IO> {
    Stream(Box<TlsStream<IO>>),
    Record(Box<Keyed<IO>>),
}

/// What a server has shown in the handshake.
pub(crate) struct Server {
    pub identity: Box<Identity>,
    /// Whether it has agreed on one of the protocols (ALPN) that were offered.
    pub has_agreed: bool,
}

impl TlsConnector {
    pub(crate) fn new(settings: &ConnectorSettings) -> Self {
        Self::with_clock(settings, UnixTime::now)
    }

    /// Resumes no session, and leaves the records to rustls.
    pub(crate) fn without_sessions(settings: &ConnectorSettings) -> Self {
        let settings = ConnectorSettings {
            engine: Engine::Stream,
            ..settings.clone()
        };
        Self {
            sessions: None,
            ..Self::new(&settings)
        }
    }

    /// `clock` is the time at which sessions are verified again before they are resumed.
    fn with_clock(settings: &ConnectorSettings, clock: fn() -> UnixTime) -> Self {
        let verifier = Arc::new(ServerAuth::new(&settings.roots, &settings.allow));
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites for both")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let mut config = match &settings.certificate {
            Some(certificate) => builder.with_client_cert_resolver(certificate.client_resolver()),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = settings
            .alpn
            .iter()
            .map(|name| name.clone().into())
            .collect();
        if settings.engine == Engine::Record {
            config.enable_secret_extraction = true;
            config.key_log = Arc::new(key_log::Handover);
        }
        Self {
            config,
            sessions: Some(Arc::new(Sessions::new(verifier, clock))),
            server_name: settings.server_name.clone(),
            engine: settings.engine,
        }
    }

    /// Performs the handshake with the server at `address`.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]; the connection is closed then.
    pub(crate) async fn connect<IO>(
        &self,
        address: &Address,
        io: IO,
    ) -> Result<(Connected<IO>, Server), ConnectError>
    where
        IO: Wire,
    {
        let name = self.name_of(address)?;
        let attempt = self.sessions.as_ref().map(|it| Arc::new(Attempt::new(it)));
        let mut config = self.config.clone();
        config.resumption = match &attempt {
            Some(attempt) => Resumption::store(Arc::clone(attempt) as _),
            None => Resumption::disabled(),
        };
        let config = Arc::new(config);
        let server_name = name.clone();
        // Boxed as in `TlsAcceptor::accept`. The first step, which generates a key, is part of the
        // future.
        let (connected, chain, has_agreed) = match self.engine {
            Engine::Record => {
                let handshake = Box::pin(record::connect(config, server_name, io));
                let (keyed, chain, has_agreed) = in_turn(handshake).await?;
                (Connected::Record(Box::new(keyed)), chain, has_agreed)
            }
            Engine::Stream => {
                let handshaker = Handshaker::from(config);
                let handshake = Box::pin(async move { handshaker.connect(server_name, io).await });
                let stream = in_turn(handshake).await?;
                let chain = chain_of(stream.get_ref().1);
                let has_agreed = stream.get_ref().1.alpn_protocol().is_some();
                (Connected::Stream(Box::new(stream)), chain, has_agreed)
            }
        };
        let certificate = chain.first().ok_or(BadCertificate::Unreadable)?;
        let identity = identity(certificate)?;
        if let Some(attempt) = attempt {
            attempt.done(&name, &chain);
        }
        let identity = Box::new(identity);
        Ok((
            connected,
            Server {
                identity,
                has_agreed,
            },
        ))
    }

    fn name_of(&self, address: &Address) -> Result<ServerName<'static>, ConnectError> {
        match (&self.server_name, address) {
            (Some(name), _) => Some(name.clone()),
            (None, Address::Tcp { host, .. }) => server_name(host),
            (None, Address::Unix(_)) => None,
        }
        .ok_or(ConnectError::Nameless)
    }
}

/// A DNS name or an IP address, in the form that certificates have.
pub(crate) fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::{Duration, Instant};

    use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::rustls::{self, HandshakeKind, ServerConfig, SupportedProtocolVersion};

    use super::*;
    use crate::record::{Layer, Then};
    use crate::tls::turns::Rounds;

    /// An authority in PEM, and a TLS server with a certificate from it.
    fn server(version: &'static SupportedProtocolVersion) -> (String, tokio_rustls::TlsAcceptor) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = || KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let (key, mut params) = (
            key(),
            CertificateParams::new([NAME.to_owned()]).expect("DNS"),
        );
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a known version")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .expect("a pair");
        (authority.pem(), Arc::new(config).into())
    }

    fn versions_and_engines() -> [(&'static SupportedProtocolVersion, Engine); 4] {
        use Engine::{Record, Stream};
        [
            (&TLS12, Record),
            (&TLS13, Record),
            (&TLS12, Stream),
            (&TLS13, Stream),
        ]
    }

    fn connector(authority: &str, engine: Engine, clock: fn() -> UnixTime) -> TlsConnector {
        let settings = ConnectorSettings {
            server_name: server_name(NAME),
            roots: Roots::from_pem(authority.as_bytes()).expect("an authority"),
            certificate: None,
            alpn: Vec::new(),
            allow: Vec::new(),
            engine,
        };
        TlsConnector::with_clock(&settings, clock)
    }

    /// Performs a handshake and reads some payload, before which the tickets arrive.
    async fn handshake(
        connector: &TlsConnector,
        server: &tokio_rustls::TlsAcceptor,
    ) -> HandshakeKind {
        let (ours, theirs): (DuplexStream, DuplexStream) = duplex(1 << 16);
        let address = Address::Unix("/nowhere".into());
        let (connected, served) = tokio::join!(connector.connect(&address, ours), async {
            let mut stream = server.accept(theirs).await.expect("a handshake");
            stream.write_all(b"?").await.expect("open");
            stream.flush().await.expect("open");
            stream
        });
        match connected.expect("a handshake").0 {
            Connected::Stream(mut stream) => {
                stream.read_exact(&mut [0]).await.expect("a word");
            }
            Connected::Record(keyed) => hear_a_word(*keyed).await,
        }
        served.get_ref().1.handshake_kind().expect("done")
    }

    async fn hear_a_word(keyed: Keyed<DuplexStream>) {
        let Keyed { mut io, start } = keyed;
        let (mut layer, mut received) = Layer::new(start).expect("a suite that is known");
        loop {
            let answers = &mut Vec::new();
            let (opened, length) = layer.open_plain(&mut received, answers);
            assert_eq!(opened.then, Then::More);
            if length > 0 {
                return;
            }
            received.drain(..opened.rest);
            assert_ne!(io.read_buf(&mut received).await.expect("a pipe"), 0);
        }
    }

    #[tokio::test]
    async fn a_session_is_resumed_while_its_certificate_is_valid() {
        for (version, engine) in versions_and_engines() {
            let (authority, server) = server(version);
            let connector = connector(&authority, engine, UnixTime::now);
            let first = handshake(&connector, &server).await;
            assert_ne!(first, HandshakeKind::Resumed);
            for _ in 0..20 {
                let next = handshake(&connector, &server).await;
                assert_eq!(next, HandshakeKind::Resumed, "{version:?} {engine:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_expired_certificate_of_a_session_causes_a_full_handshake() {
        /// After the year 4096, when rcgen's certificates expire.
        fn late() -> UnixTime {
            UnixTime::since_unix_epoch(Duration::from_secs(100_000_000_000))
        }
        for (version, engine) in versions_and_engines() {
            let (authority, server) = server(version);
            let connector = connector(&authority, engine, late);
            for _ in 0..3 {
                // The handshake itself uses the real time, at which the certificate is valid.
                let kind = handshake(&connector, &server).await;
                assert_ne!(kind, HandshakeKind::Resumed, "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_handshake_waits_for_its_turn_on_a_worker() {
        for engine in [Engine::Record, Engine::Stream] {
            waits_for_its_turn(engine).await;
        }
    }

    async fn waits_for_its_turn(engine: Engine) {
        let (authority, _) = server(&TLS13);
        let connector = connector(&authority, engine, UnixTime::now);
        let (ours, mut theirs) = duplex(1 << 16);
        let address = Address::Unix("/nowhere".into());
        let rounds = Rounds::begin();
        let begun = Instant::now();
        let spent = async { while begun.elapsed() < Duration::from_millis(1) {} };
        let spent = Box::pin(spent);
        in_turn(spent).await;
        let mut connect = pin!(connector.connect(&address, ours));
        let mut hello = [0];
        let said = tokio::select! {
            biased;
            _ = &mut connect => panic!("nobody answers"),
            said = theirs.read(&mut hello) => Some(said),
            () = std::future::ready(()) => None,
        };
        assert!(said.is_none(), "it has not begun");
        // Handshakes take no turns outside of a worker.
        drop(rounds);
        tokio::select! {
            _ = connect => panic!("nobody answers"),
            said = theirs.read(&mut hello) => assert_eq!(said.expect("a hello"), 1),
        }
    }

    const NAME: &str = "api.internal";
}
