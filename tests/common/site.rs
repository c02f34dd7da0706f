//! A proxy in client mode, with plaintext and TLS clients in front of it, and the test as the TLS
//! backend behind it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs,
};
use tokio_rustls::server::TlsStream;

use super::authority::Authority;
use super::backend::Backend;
use super::client::{Front, Socket};
use super::soon;
use super::vestibule::{Relay, Vestibule};

/// Certificates from the authority `ca`: `api`, for the name `api.internal`, and `us`.
pub fn certificates() -> Arc<TempDir> {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let authority = Authority::new(directory.path(), "ca");
    authority.issue("api", &["api.internal", API]);
    authority.issue("us", &["spiffe://corp/ns/prod/sa/us"]);
    directory
}

/// The identity in the certificate `api`.
pub const API: &str = "spiffe://corp/ns/prod/sa/api";

/// The configuration for a backend with the certificate `api`.
pub const TLS: &str = "[backend.tls]\nserver_name = \"api.internal\"\nca = \"ca.pem\"\n";

/// Listeners for plaintext clients.
pub const IN_THE_CLEAR: &str = "[[listener]]\nname = \"clear\"\naddress = \"127.0.0.1:0\"\n\
    [[listener]]\nname = \"clear-unix\"\naddress = \"unix:{dir}/clear.sock\"\n";

/// The kind of the backend's listener.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Tcp,
    Unix,
}

/// The backend's side of a connection.
pub type Server = TlsStream<Socket>;

/// A client, with TLS or without.
pub trait Peer: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Peer for T {}

/// Where a client connects.
#[derive(Clone, Debug)]
pub enum Door {
    Tls(Front),
    Clear(Front),
}

impl Door {
    pub async fn enter(&self) -> Box<dyn Peer> {
        match self {
            Self::Tls(front) => Box::new(front.connect().await.expect("a handshake")),
            Self::Clear(front) => Box::new(front.socket().await.expect("a listener")),
        }
    }
}

pub struct Site {
    pub vestibule: Vestibule,
    pub backend: Backend,
    pub acceptor: TlsAcceptor,
}

impl Site {
    /// `more` is appended to the configuration of the backend `app`, which has a name and a CA.
    pub async fn new(relay: Relay, kind: Kind, acceptor: ServerConfig, more: &str) -> Self {
        Self::start(certificates(), relay, kind, acceptor, more).await
    }

    pub async fn start(
        directory: Arc<TempDir>,
        relay: Relay,
        kind: Kind,
        acceptor: ServerConfig,
        more: &str,
    ) -> Self {
        let backend = match kind {
            Kind::Tcp => Backend::tcp().await,
            Kind::Unix => Backend::unix(&directory.path().join("backend.sock")),
        };
        let config = format!(
            "{}{IN_THE_CLEAR}[[backend]]\nname = \"app\"\nto = \"{}\"\n{TLS}{more}",
            relay.config(),
            backend.address()
        );
        let vestibule = Vestibule::start_in(directory, &config).await;
        Self {
            vestibule,
            backend,
            acceptor: Arc::new(acceptor).into(),
        }
    }

    pub fn doors(&self) -> [Door; 4] {
        [
            Door::Tls(Front::Tcp(self.vestibule.tcp())),
            Door::Tls(Front::Unix(self.vestibule.path("front.sock"))),
            Door::Clear(Front::Tcp(self.vestibule.address("clear"))),
            Door::Clear(Front::Unix(self.vestibule.path("clear.sock"))),
        ]
    }

    /// The backend's side of the next connection, after its handshake.
    pub async fn server(&self) -> Server {
        self.shaken().await.expect("a handshake")
    }

    pub async fn shaken(&self) -> io::Result<Server> {
        let socket = soon("a dial", self.backend.accept()).await?;
        soon("a handshake", self.acceptor.accept(socket)).await
    }

    /// Both sides of a new connection.
    pub async fn pair(&self, door: &Door) -> (Box<dyn Peer>, Server) {
        tokio::join!(door.enter(), self.server())
    }
}

/// A server with the certificate `name` from the directory.
pub fn server(
    directory: &Path,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let (chain, key) = pair(directory, name);
    builder(versions)
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair")
}

/// Like [`server`], with a certificate that rustls's usual configuration would refuse.
pub fn odd_server(
    directory: &Path,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let (chain, key) = pair(directory, name);
    let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
    let pair = CertifiedKey::new(chain, key);
    builder(versions)
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
}

/// Like [`server`], and requires client certificates from the authority `ca`.
pub fn strict_server(
    directory: &Path,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read(directory, "ca"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .expect("an authority");
    let (chain, key) = pair(directory, name);
    builder(versions)
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a pair")
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("known versions")
}

type Chain = Vec<rustls::pki_types::CertificateDer<'static>>;

fn pair(directory: &Path, name: &str) -> (Chain, rustls::pki_types::PrivateKeyDer<'static>) {
    let key = std::fs::read(directory.join(format!("{name}-key.pem"))).expect("a key");
    let key = rustls_pemfile::private_key(&mut key.as_slice()).expect("PEM");
    (read(directory, name), key.expect("a key"))
}

fn read(directory: &Path, name: &str) -> Chain {
    let pem = std::fs::read(directory.join(format!("{name}.pem"))).expect("a certificate");
    rustls_pemfile::certs(&mut pem.as_slice())
        .map(|certificate| certificate.expect("PEM"))
        .collect()
}
