//! A deterministic handshake, with the same keys every time.
//!
//! rustls's connections cannot be cloned. But if nothing in a handshake is random, the same handshake
//! can be repeated: one connection continues, and the other one gives its keys away.

use std::cell::RefCell;
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, cipher_suite};
use tokio_rustls::rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ExtractedSecrets,
    KeyLog, NamedGroup, ServerConfig, ServerConnection, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use super::cipher::{HEADER, RecordCipher, Version};
use crate::record::Role;

/// The ends of one connection after its handshake.
pub(super) struct Session {
    pub version: Version,
    pub role: Role,
    /// The other end, which sends.
    pub peer: Connection,
    pub reference: Connection,
    /// The keys that the reference has, too.
    pub extracted: ExtractedSecrets,
    /// Empty in TLS 1.2.
    pub secrets: Secrets,
    /// A message that the peer may send after its handshake, without a record header.
    pub message: Vec<u8>,
}

/// The first traffic secrets (RFC 8446 §7.1).
#[derive(Clone, Default)]
pub(super) struct Secrets {
    pub client: Vec<u8>,
    pub server: Vec<u8>,
}

impl Session {
    /// A session with one of [`SUITES`], in either role.
    pub(super) fn new(suite: usize, role: Role) -> Self {
        CONFIGURATIONS.with(|configurations| {
            let (version, client, server) = &configurations[suite % SUITES];
            Self::between(*version, role, client, server)
        })
    }

    fn between(
        version: Version,
        role: Role,
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> Self {
        CAPTURED.take();
        let of = |role| -> Connection {
            match role {
                Role::Server => ServerConnection::new(Arc::clone(server))
                    .expect("a server")
                    .into(),
                Role::Client => {
                    let name = ServerName::try_from("localhost").expect("a name");
                    ClientConnection::new(Arc::clone(client), name)
                        .expect("a client")
                        .into()
                }
            }
        };
        let (other, (mut reference, mut ours)) = match role {
            Role::Server => (Role::Client, (of(role), of(role))),
            Role::Client => (Role::Server, (of(role), of(role))),
        };
        let mut peer = of(other);
        let mut hello = Vec::new();
        while peer.is_handshaking() || reference.is_handshaking() || peer.wants_write() {
            let flight = said(&mut peer);
            if hello.is_empty() {
                hello = flight.get(HEADER..).unwrap_or_default().to_vec();
            }
            give(&mut reference, &flight);
            give(&mut ours, &flight);
            let answer = said(&mut reference);
            let same = said(&mut ours);
            assert_eq!(answer, same, "a handshake with something random in it");
            give(&mut peer, &answer);
        }
        let secrets = match version {
            Version::Tls12 => Secrets::default(),
            Version::Tls13 => CAPTURED.take(),
        };
        let message = match (role, version) {
            (Role::Server, _) => hello,
            (Role::Client, Version::Tls12) => HELLO_REQUEST.to_vec(),
            (Role::Client, Version::Tls13) => TICKET.to_vec(),
        };
        let extracted = ours.dangerous_extract_secrets();
        Self {
            version,
            role,
            peer,
            reference,
            extracted: extracted.expect("they are enabled"),
            secrets,
            message,
        }
    }

    /// The cipher for the records of the peer.
    pub(super) fn upwards(&self) -> RecordCipher {
        RecordCipher::new(
            self.version,
            &self.extracted.rx,
            self.secrets.of(self.other()),
        )
    }

    /// The cipher for our records.
    pub(super) fn downwards(&self) -> RecordCipher {
        RecordCipher::new(self.version, &self.extracted.tx, self.secrets.of(self.role))
    }

    fn other(&self) -> Role {
        match self.role {
            Role::Server => Role::Client,
            Role::Client => Role::Server,
        }
    }
}

impl Secrets {
    /// The secret with which the side in this role seals.
    fn of(&self, role: Role) -> &[u8] {
        match role {
            Role::Server => &self.server,
            Role::Client => &self.client,
        }
    }
}

/// The bytes that a connection has to send.
fn said(connection: &mut Connection) -> Vec<u8> {
    let mut said = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut said).expect("a Vec takes all");
    }
    said
}

fn give(connection: &mut Connection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes).expect("a slice");
        connection.process_new_packets().expect("a handshake");
    }
}

/// HelloRequest (RFC 5246 §7.4.1.1).
const HELLO_REQUEST: [u8; 4] = [0, 0, 0, 0];

/// NewSessionTicket (RFC 8446 §4.6.1): a lifetime, an age, a nonce, a ticket and no extensions.
const TICKET: [u8; 20] = [
    4, 0, 0, 16, 0, 0, 28, 32, 1, 2, 3, 4, 1, 0, 0, 2, 7, 7, 0, 0,
];

pub(super) const SUITES: usize = 6;

type Configurations = Vec<(Version, Arc<ClientConfig>, Arc<ServerConfig>)>;

thread_local! {
    static CONFIGURATIONS: Configurations = configurations();
    static CAPTURED: RefCell<Secrets> = RefCell::default();
}

fn configurations() -> Configurations {
    let suites: [(Version, SupportedCipherSuite); SUITES] = [
        (Version::Tls13, cipher_suite::TLS13_AES_128_GCM_SHA256),
        (Version::Tls13, cipher_suite::TLS13_AES_256_GCM_SHA384),
        (Version::Tls13, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
        (
            Version::Tls12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
        (
            Version::Tls12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ),
        (
            Version::Tls12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ];
    Vec::from(suites.map(|(version, suite)| {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![suite],
            kx_groups: vec![&Fixed],
            secure_random: &Fixed,
            ..aws_lc_rs::default_provider()
        });
        let (client, server) = (client(&provider, version), server(&provider, version));
        (version, Arc::new(client), Arc::new(server))
    }))
}

fn client(provider: &Arc<CryptoProvider>, version: Version) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[protocol(version)])
        .expect("the provider speaks both")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fixed))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Fixed);
    config
}

fn server(provider: &Arc<CryptoProvider>, version: Version) -> ServerConfig {
    let certificate = CertifiedKey::new(vec![CertificateDer::from(vec![0])], Arc::new(Fixed));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[protocol(version)])
        .expect("the provider speaks both")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Fixed);
    config
}

fn protocol(version: Version) -> &'static SupportedProtocolVersion {
    match version {
        Version::Tls12 => &TLS12,
        Version::Tls13 => &TLS13,
    }
}

/// Replaces everything that would be random or slow.
#[derive(Clone, Copy, Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        buf.fill(0x5a);
        Ok(())
    }
}

impl SupportedKxGroup for Fixed {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Fixed {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[0x5a; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[0x5a; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl SigningKey for Fixed {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Fixed {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![0x5a; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl ServerCertVerifier for Fixed {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl KeyLog for Fixed {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        CAPTURED.with_borrow_mut(|secrets| match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets.client = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => secrets.server = secret.to_vec(),
            _ => {}
        });
    }
}
