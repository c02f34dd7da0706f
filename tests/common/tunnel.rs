//! A client that brings a tunnel: HTTP/2 over TLS, with CONNECT streams.

use std::io;
use std::sync::Arc;

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ALL_VERSIONS;

use super::changing::Site;
use super::client::config_for;
use super::pki::Issued;
use super::soon;
use super::vestibule::{Relay, Vestibule};

/// A Vestibule with a listener that takes tunnels. `rest` follows the listener's table.
pub async fn start(site: &Site, relay: Relay, rest: &str) -> Vestibule {
    let config = format!("{}{LISTENER}{rest}", relay.config());
    Vestibule::start_whole(Arc::clone(&site.directory), &config).await
}

pub const LISTENER: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{dir}/server.pem", key = "{dir}/server-key.pem" } ]
client_auth = "required"
client_ca = "{dir}/ca.pem"
crl = "{dir}/revoked.pem"
[listener.tunnel]
"#;

/// A tunnel, and the task that drives it.
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    driver: JoinSet<Result<(), h2::Error>>,
}

/// An answered stream.
#[derive(Debug)]
pub struct Stream {
    pub sending: SendStream<Bytes>,
    pub received: RecvStream,
}

impl Tunnel {
    pub async fn open(vestibule: &Vestibule, site: &Site, certificate: &Issued) -> Self {
        let mut builder = Builder::new();
        builder
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24);
        Self::open_with(&builder, vestibule, site, certificate).await
    }

    pub async fn open_with(
        builder: &Builder,
        vestibule: &Vestibule,
        site: &Site,
        certificate: &Issued,
    ) -> Self {
        let tls = secured(vestibule, site, certificate).await;
        Self::over(builder, tls).await
    }

    /// Opens a tunnel over a TLS connection.
    pub async fn over(builder: &Builder, tls: TlsStream<TcpStream>) -> Self {
        let (requests, connection) = builder.handshake(tls).await.expect("HTTP/2");
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Self { requests, driver }
    }

    /// Asks for a connection, and returns the status and the stream.
    pub async fn ask(
        &self,
        method: Method,
        target: &str,
    ) -> Result<(StatusCode, Stream), h2::Error> {
        let uri = hyper::Uri::builder();
        let uri = match method {
            Method::CONNECT => uri.authority(target).build(),
            _ => uri
                .scheme("https")
                .authority("localhost")
                .path_and_query(target)
                .build(),
        };
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri.expect("a target");
        let mut requests = self.requests.clone().ready().await?;
        let (response, sending) = requests.send_request(request, false)?;
        let response = soon("a response", response).await?;
        let status = response.status();
        let received = response.into_body();
        Ok((status, Stream { sending, received }))
    }

    pub async fn connect(&self, authority: &str) -> Stream {
        let (status, stream) = self
            .ask(Method::CONNECT, authority)
            .await
            .expect("a response");
        assert_eq!(status, StatusCode::OK, "{authority}");
        stream
    }

    pub async fn refusal(&self, authority: &str) -> StatusCode {
        let (status, _) = self
            .ask(Method::CONNECT, authority)
            .await
            .expect("a response");
        status
    }

    /// Asks for a connection, and does not wait for the answer.
    pub async fn begin(&self, authority: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let uri = hyper::Uri::builder().authority(authority).build();
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri.expect("an authority");
        let requests = self.requests.clone().ready().await;
        let begun = requests.expect("open").send_request(request, false);
        begun.expect("open")
    }

    pub async fn requests(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        self.requests.clone().ready().await
    }

    /// How the tunnel ended.
    pub async fn ended(&mut self) -> Result<(), h2::Error> {
        let ended = soon("the end of the tunnel", self.driver.join_next()).await;
        ended.expect("one task").expect("no panic")
    }

    /// Breaks the TCP connection off.
    pub fn break_off(self) {}
}

/// A TLS connection that has agreed on HTTP/2 and has not spoken yet.
pub async fn secured(
    vestibule: &Vestibule,
    site: &Site,
    certificate: &Issued,
) -> TlsStream<TcpStream> {
    secured_at(&vestibule.tcp(), site, certificate).await
}

/// As [`secured`], at this address.
pub async fn secured_at(address: &str, site: &Site, certificate: &Issued) -> TlsStream<TcpStream> {
    let mut config = config_for(ALL_VERSIONS, &site.authority.pem(), Some(certificate));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(address).await.expect("TCP");
    socket.set_nodelay(true).expect("an open socket");
    let name = "localhost".try_into().expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let tls = soon("a handshake", connector.connect(name, socket)).await;
    let tls = tls.expect("a handshake");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls
}

impl Stream {
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), h2::Error> {
        send(&mut self.sending, bytes).await
    }

    /// Sends all of it and the end, and returns what comes back until the end.
    pub async fn exchange(mut self, bytes: Bytes) -> Result<Vec<u8>, h2::Error> {
        let Self { sending, received } = &mut self;
        let up = async {
            send(sending, bytes).await?;
            sending.send_data(Bytes::new(), true)
        };
        let (sent, back) = tokio::join!(up, rest(received));
        sent.and(back)
    }

    pub fn end(&mut self) -> Result<(), h2::Error> {
        self.sending.send_data(Bytes::new(), true)
    }

    /// Reads exactly `length` bytes.
    pub async fn read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let frame = soon("bytes", self.received.data()).await;
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
            let frame = frame.map_err(io::Error::other)?;
            let _ = self.received.flow_control().release_capacity(frame.len());
            bytes.extend_from_slice(&frame);
        }
        assert_eq!(bytes.len(), length, "more than was awaited");
        Ok(bytes)
    }

    /// Reads to the end of the stream.
    pub async fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        rest(&mut self.received).await
    }

    /// The reason of the reset that ends the stream.
    pub async fn reset(&mut self) -> Option<Reason> {
        match self.rest().await {
            Ok(bytes) => panic!("{} bytes and a clean end", bytes.len()),
            Err(error) => error.reason(),
        }
    }

    pub async fn echo(&mut self, word: &'static [u8]) {
        self.send(Bytes::from_static(word)).await.expect("room");
        assert_eq!(self.read(word.len()).await.expect("an echo"), word);
    }
}

pub async fn send(sending: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        let room = soon("room", room(sending, bytes.len())).await?;
        sending.send_data(bytes.split_to(room), false)?;
    }
    Ok(())
}

/// Waits until the peer takes more, at most `most` bytes.
pub async fn room(sending: &mut SendStream<Bytes>, most: usize) -> Result<usize, h2::Error> {
    sending.reserve_capacity(most);
    while sending.capacity() == 0 {
        let more = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await;
        more.ok_or(Reason::CANCEL)??;
    }
    Ok(most.min(sending.capacity()))
}

async fn rest(received: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = soon("bytes or the end", received.data()).await {
        let frame = frame?;
        let _ = received.flow_control().release_capacity(frame.len());
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}
