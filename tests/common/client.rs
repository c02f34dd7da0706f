//! TLS clients that trust certs/ca.pem, over TCP and Unix sockets.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
};

use super::pki::Issued;
use super::project;

/// TCP or Unix: the transport below TLS.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub type Client = TlsStream<Socket>;

/// The address of a listener.
#[derive(Clone, Debug)]
pub enum Front {
    Tcp(String),
    Unix(std::path::PathBuf),
}

impl Front {
    pub async fn socket(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Like every TLS client: otherwise the second half of the handshake would wait 40
                // ms.
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Connects and performs a handshake for the name `localhost`.
    pub async fn connect(&self) -> io::Result<Client> {
        tls(self.socket().await?, rustls::ALL_VERSIONS).await
    }

    pub async fn connect_with(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<Client> {
        tls(self.socket().await?, &[version]).await
    }
}

/// A TCP connection from the source address `source`.
pub async fn from(source: &str, to: &str) -> io::Result<Socket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().expect("an address"))?;
    let stream = socket.connect(to.parse().expect("an address")).await?;
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

/// The first message of a TLS client.
pub fn client_hello() -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let config = config(rustls::ALL_VERSIONS);
    let mut connection = ClientConnection::new(config, name).expect("a configuration");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("memory");
    hello
}

pub async fn connect(address: &str) -> io::Result<Client> {
    Front::Tcp(address.to_owned()).connect().await
}

/// Performs a handshake over a connected socket.
pub async fn handshake(socket: Socket) -> io::Result<Client> {
    tls(socket, rustls::ALL_VERSIONS).await
}

async fn tls(socket: Socket, versions: &[&'static SupportedProtocolVersion]) -> io::Result<Client> {
    let connector = TlsConnector::from(config(versions));
    let name = "localhost".try_into().expect("a name");
    connector.connect(name, socket).await
}

pub fn config(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let pem = std::fs::read(Path::new(&project("certs/ca.pem"))).expect("the CA");
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        roots
            .add(certificate.expect("a certificate"))
            .expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// The configuration of a client that trusts `authority`, in PEM, with or without a certificate of
/// its own.
pub fn config_for(
    versions: &[&'static SupportedProtocolVersion],
    authority: &str,
    certificate: Option<&Issued>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in rustls_pemfile::certs(&mut authority.as_bytes()) {
        roots.add(root.expect("a certificate")).expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots);
    let Some(Issued { chain, key, .. }) = certificate else {
        return builder.with_no_client_auth();
    };
    let chain: Result<_, _> = rustls_pemfile::certs(&mut chain.as_bytes()).collect();
    let key = rustls_pemfile::private_key(&mut key.as_bytes());
    builder
        .with_client_auth_cert(chain.expect("PEM"), key.expect("PEM").expect("a key"))
        .expect("a certificate and its key")
}

/// Ends the client's TCP connection with a reset.
pub fn reset(client: Client) {
    match client.into_inner().0 {
        Socket::Tcp(stream) => stream.set_zero_linger().expect("an open socket"),
        Socket::Unix(_) => panic!("a Unix socket has no reset"),
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Socket::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}
