//! How a client with our record layer is told the end of its stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};

use super::*;
use crate::sys::socket::Socket;
use crate::tls::certs::Certificate;
use crate::tls::tickets::TicketSecret;
use crate::tls::{AcceptorSettings, TlsAcceptor};

/// A client after its handshake, and its far end.
async fn client_and_far_end() -> (Client, TlsStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
    let near = Transport::Socket(Socket::Tcp(near.expect("a connection").0));
    let certificate = Certificate::for_development().expect("it is tested");
    let secret = TicketSecret::new(&[7; 32]).expect("it is long enough");
    let acceptor = TlsAcceptor::new(&AcceptorSettings::with(certificate), &secret);
    let acceptor = acceptor.expect("the development certificate and its key");
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(include_bytes!("../../certs/ca.pem"));
    let added: Result<(), rustls::Error> = roots.add(authority.expect("a certificate"));
    added.expect("a root");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").expect("a name");
    let (far, near) = tokio::join!(
        connector.connect(name, far.expect("a connection")),
        acceptor.accept(near, Deadline::after(None), |_| Ok::<_, ()>(None)),
    );
    let session = near.expect("a handshake").session;
    let client = Client::secured(session).expect("a suite of ours");
    (client, far.expect("a handshake"))
}

fn backend() -> (Upstream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (Socket::Unix(ours.into()).into(), theirs)
}

const SETTINGS: InactivityTimeouts = InactivityTimeouts {
    idle: Some(Duration::from_secs(60)),
    half_close: Some(Duration::from_secs(60)),
    unacknowledged: None,
};

fn relay(traffic: &Traffic) -> Relay<'_> {
    Relay {
        settings: &SETTINGS,
        traffic,
    }
}

/// The stream ends with `close_notify`, and its socket in order.
async fn is_told_the_end(far: &mut TlsStream<TcpStream>) {
    assert_eq!(far.read(&mut [0]).await.expect("close_notify"), 0);
    let socket = far.get_mut().0;
    assert_eq!(socket.read(&mut [0]).await.expect("no reset"), 0);
}

#[tokio::test]
async fn a_client_that_has_ended_is_told_the_end_by_the_close_of_its_socket() {
    let (mut client, mut far) = client_and_far_end().await;
    let ((mut near, mut backend), traffic) = (backend(), Traffic::default());
    far.write_all(b"question").await.expect("room");
    far.shutdown().await.expect("open");
    let served = async {
        let mut question = Vec::new();
        backend.read_to_end(&mut question).await.expect("the end");
        assert_eq!(question, b"question");
        backend.write_all(b"answer").await.expect("room");
        drop(backend);
    };
    let (end, ()) = tokio::join!(client.relay(&mut near, relay(&traffic)), served);
    assert_eq!(end.expect("in time"), End::Done);
    drop((near, client));
    let mut answer = [0; 6];
    far.read_exact(&mut answer).await.expect("the answer");
    assert_eq!(&answer, b"answer");
    is_told_the_end(&mut far).await;
}

#[tokio::test]
async fn a_client_that_goes_on_is_told_the_end_of_its_answer_at_once() {
    let (mut client, mut far) = client_and_far_end().await;
    let ((mut near, backend), traffic) = (backend(), Traffic::default());
    let (mut reader, mut writer) = backend.into_split();
    writer.shutdown().await.expect("open");
    let mut relaying = client.relay(&mut near, relay(&traffic));
    tokio::select! {
        end = &mut relaying => panic!("the client has not ended: {end:?}"),
        () = is_told_the_end(&mut far) => {}
    }
    far.write_all(b"more").await.expect("room");
    far.shutdown().await.expect("open");
    let mut more = Vec::new();
    let (end, read) = tokio::join!(relaying, reader.read_to_end(&mut more));
    read.expect("the end");
    assert_eq!(end.expect("in time"), End::Done);
    assert_eq!(more, b"more");
}
