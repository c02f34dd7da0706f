//! TLS on either side of a proxy through rustls's unbuffered API, which works on the connection's
//! buffers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup,
    ServerConfig, SignatureScheme,
};

use crate::buffer::Buffer;
use crate::task::{Certificate, Groups, Host, Sessions, Task, Tls};

/// A little more than a record with the overhead of TLS.
const RECORD: usize = 16 * 1024 + 512;

/// The configuration of a lane of clients: one version, one cipher, one group, and its own last
/// session.
///
/// None means no TLS.
pub(crate) fn offer(task: &Task) -> Result<Option<Arc<ClientConfig>>> {
    offer_as(task, None)
}

/// The same for a client that asks for a host.
pub(crate) fn offer_to(task: &Task, host: Option<&Host>) -> Result<Option<Arc<ClientConfig>>> {
    match host {
        Some(host) => offer_of(task, &host.certificate, None),
        None => offer(task),
    }
}

/// The same for a client with a certificate.
pub(crate) fn offer_as(
    task: &Task,
    own: Option<&Certificate>,
) -> Result<Option<Arc<ClientConfig>>> {
    offer_of(task, &task.certificate, own)
}

fn offer_of(
    task: &Task,
    certificate: &Path,
    own: Option<&Certificate>,
) -> Result<Option<Arc<ClientConfig>>> {
    let (suite, version) = match task.tls {
        Tls::None => return Ok(None),
        Tls::V12 => (
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            &rustls::version::TLS12,
        ),
        Tls::V13 => (
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            &rustls::version::TLS13,
        ),
    };
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        // In TLS 1.2 the groups also say which certificates are supported, so P-256 must be listed.
        // The handshake is checked for X25519 afterwards.
        kx_groups: match task.tls {
            Tls::V12 => vec![kx_group::X25519, kx_group::SECP256R1],
            _ if task.groups == Groups::Hybrid => {
                vec![kx_group::X25519MLKEM768, kx_group::X25519]
            }
            _ => vec![kx_group::X25519],
        },
        ..aws_lc_rs::default_provider()
    });
    let pem =
        fs::read(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
    let verifier = ExpectedCertificate {
        leaf: CertificateDer::from_pem_slice(&pem).context("the certificate")?,
        provider: Arc::clone(&provider),
        signature_checked: AtomicBool::new(false),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(Certificate { chain, key }) => {
            let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    if task.tunnels > 0 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    config.resumption = match task.sessions {
        Sessions::Forgotten => Resumption::disabled(),
        Sessions::Resumed => Resumption::in_memory_sessions(8),
    };
    Ok(Some(Arc::new(config)))
}

/// The configuration of a backend with TLS: the same as [`offer`], with resumable sessions.
pub(crate) fn serve(certificate: &Certificate) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let chain = CertificateDer::pem_file_iter(&certificate.chain)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// The common part of rustls's unbuffered connections.
pub(crate) trait Unbuffered {
    /// The data of this kind of connection.
    type Data;

    /// Processes received bytes.
    fn look<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn look<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn look<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

/// One connection's TLS.
pub(crate) struct Session<C = UnbufferedClientConnection> {
    connection: C,
    established: bool,
    closed_by_peer: bool,
}

impl Session {
    /// A client session that has not sent anything yet.
    pub(crate) fn new(config: &Arc<ClientConfig>) -> Result<Self> {
        Self::with("localhost", config)
    }

    /// The same, with a host.
    pub(crate) fn with(host: &str, config: &Arc<ClientConfig>) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Self {
            connection: UnbufferedClientConnection::new(Arc::clone(config), name)?,
            established: false,
            closed_by_peer: false,
        })
    }
}

impl Session<UnbufferedServerConnection> {
    /// A server session that has not received anything yet.
    pub(crate) fn accept(config: &Arc<ServerConfig>) -> Result<Self> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(config))?,
            established: false,
            closed_by_peer: false,
        })
    }
}

impl<C: Unbuffered> Session<C> {
    /// Whether data can be sent.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the peer has sent close_notify.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// Processes received bytes, adds answers to `outgoing`, and passes the payload to `sink`.
    pub(crate) fn process(
        &mut self,
        incoming: &mut Buffer,
        outgoing: &mut Buffer,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.connection.look(incoming.filled());
            let more = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        sink(record?.payload)?;
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut room = RECORD;
                    let written = loop {
                        match data.encode(outgoing.room(room)) {
                            Ok(written) => break written,
                            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
                            Err(error) => return Err(error.into()),
                        }
                    };
                    outgoing.add(written);
                    true
                }
                ConnectionState::TransmitTlsData(data) => {
                    // It is in `outgoing`, before everything that comes later.
                    data.done();
                    true
                }
                ConnectionState::PeerClosed => {
                    self.closed_by_peer = true;
                    true
                }
                ConnectionState::WriteTraffic(_) => {
                    self.established = true;
                    false
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => false,
                state => bail!("rustls is in a state without meaning here: {state:?}"),
            };
            incoming.consume(discard);
            if !more {
                return Ok(());
            }
        }
    }

    /// Seals `bytes` and appends them to `outgoing`.
    pub(crate) fn seal(
        &mut self,
        bytes: &[u8],
        incoming: &mut Buffer,
        outgoing: &mut Buffer,
    ) -> Result<()> {
        let room = outgoing.room(bytes.len() + (bytes.len() / 16_384 + 1) * 256);
        match self.connection.look(incoming.filled()).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let sealed = traffic
                    .encrypt(bytes, room)
                    .map_err(|error| anyhow!("{error}"))?;
                outgoing.add(sealed);
                Ok(())
            }
            state => bail!("nothing can be sent in this state: {state:?}"),
        }
    }

    /// Appends close_notify.
    pub(crate) fn close(&mut self, incoming: &mut Buffer, outgoing: &mut Buffer) -> Result<()> {
        match self.connection.look(incoming.filled()).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let sealed = traffic
                    .queue_close_notify(outgoing.room(RECORD))
                    .map_err(|error| anyhow!("{error}"))?;
                outgoing.add(sealed);
                Ok(())
            }
            state => bail!("nothing can be closed in this state: {state:?}"),
        }
    }
}

impl Session {
    /// The key exchange: one of those that were offered.
    pub(crate) fn group(&self) -> Option<NamedGroup> {
        let group = self.connection.negotiated_key_exchange_group();
        group.map(|group| group.name())
    }

    /// The kind of the handshake; an error if it did not match `tls`.
    pub(crate) fn handshake(&self, tls: Tls) -> Result<HandshakeKind> {
        let suite = self
            .connection
            .negotiated_cipher_suite()
            .map(|suite| suite.suite());
        let wanted = match tls {
            Tls::V12 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            Tls::V13 | Tls::None => CipherSuite::TLS13_AES_128_GCM_SHA256,
        };
        ensure!(
            suite == Some(wanted),
            "the cipher is {suite:?}, not {wanted:?}"
        );
        let kind = self
            .connection
            .handshake_kind()
            .context("the handshake is not over")?;
        let group = self.group();
        // TLS 1.2 resumes a session without a key exchange.
        if kind != HandshakeKind::Resumed || tls == Tls::V13 {
            ensure!(
                matches!(group, Some(NamedGroup::X25519 | NamedGroup::X25519MLKEM768)),
                "the key exchange is {group:?}"
            );
        }
        Ok(kind)
    }
}

/// Accepts exactly one certificate.
///
/// The signature of the handshake is verified once for each lane. That proves that the proxy has
/// the key, and without further checks the clients cost less CPU than any proxy.
#[derive(Debug)]
struct ExpectedCertificate {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    signature_checked: AtomicBool,
}

impl ExpectedCertificate {
    fn signature(
        &self,
        check: impl FnOnce() -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.signature_checked.load(Ordering::Relaxed) {
            check()?;
            self.signature_checked.store(true, Ordering::Relaxed);
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for ExpectedCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *leaf != self.leaf {
            return Err(Error::General(
                "the proxy has shown another certificate".into(),
            ));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signature(|| verify_tls12_signature(message, leaf, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signature(|| verify_tls13_signature(message, leaf, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
