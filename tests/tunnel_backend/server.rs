//! A server of tunnels whose behaviour a test defines.

use std::sync::Arc;
use std::time::Duration;

use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use hyper::body::Bytes;
use hyper::{Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::common::changing::Site;
use crate::common::pki::Subject;
use crate::common::soon;

pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

pub(crate) type Tls = TlsStream<TcpStream>;
/// A request, and the means to answer it.
pub(crate) type Asked = (Request<RecvStream>, SendResponse<Bytes>);

impl Server {
    pub(crate) async fn new(site: &Site) -> Self {
        Self::agreeing(site, &["h2"]).await
    }

    /// It agrees on one of these protocols.
    pub(crate) async fn agreeing(site: &Site, alpn: &[&str]) -> Self {
        let mut config = config(site);
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().expect("bound").to_string()
    }

    /// The next TLS connection, on which nothing was said yet.
    pub(crate) async fn secured(&self) -> Tls {
        let (socket, _) = soon("a connection", self.listener.accept())
            .await
            .expect("a connection");
        socket.set_nodelay(true).expect("an open socket");
        let tls = soon("a handshake", self.acceptor.accept(socket)).await;
        tls.expect("a handshake")
    }

    /// Closes the next connection before its handshake.
    pub(crate) async fn hang_up(&self) {
        let accepted = soon("a connection", self.listener.accept()).await;
        drop(accepted.expect("a connection"));
    }

    /// Whether there is no connection that was not accepted yet.
    pub(crate) async fn is_left_alone(&self) -> bool {
        let accepted = tokio::time::timeout(Duration::ZERO, self.listener.accept());
        accepted.await.is_err()
    }

    /// The next TLS connection, whose certificate the server does not accept.
    pub(crate) async fn refused(&self) {
        let accepted = soon("a connection", self.listener.accept()).await;
        let (socket, _) = accepted.expect("a connection");
        let accepted = soon("a handshake", self.acceptor.accept(socket).into_fallible()).await;
        let Err((_, mut socket)) = accepted else {
            panic!("the certificate is accepted");
        };
        // A close with unread bytes would destroy the alert.
        let _ = soon("the end", socket.read_to_end(&mut Vec::new())).await;
    }

    /// The next tunnel.
    pub(crate) async fn tunnel(&self) -> Connection<Tls, Bytes> {
        let tls = self.secured().await;
        let begun = soon("a preface", h2::server::handshake(tls)).await;
        begun.expect("HTTP/2")
    }
}

/// The next request of a tunnel.
pub(crate) async fn asked(tunnel: &mut Connection<Tls, Bytes>) -> Asked {
    let asked = soon("a request", tunnel.accept()).await;
    asked.expect("a request").expect("no error")
}

pub(crate) fn status(code: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = code.try_into().expect("a status");
    response
}

fn config(site: &Site) -> ServerConfig {
    let issued = site.authority.issue(&Subject::host(&["localhost"]));
    let chain: Result<_, _> = rustls_pemfile::certs(&mut issued.chain.as_bytes()).collect();
    let key = rustls_pemfile::private_key(&mut issued.key.as_bytes());
    let mut roots = RootCertStore::empty();
    for root in rustls_pemfile::certs(&mut site.authority.pem().as_bytes()) {
        roots.add(root.expect("PEM")).expect("a CA");
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both")
        .with_client_cert_verifier(clients.build().expect("an authority"))
        .with_single_cert(chain.expect("PEM"), key.expect("PEM").expect("a key"))
        .expect("a certificate and its key")
}
