//! The other end of a tunnel: it reads most of an answer, and the rest when the test lets it.

use std::any::Any;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use h2::{Ping, PingPong, RecvStream, client, server};
use hyper::body::Bytes;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ALL_VERSIONS;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::gate::{Gate, Gated};
use crate::common::changing::Site;
use crate::common::client::config_for;
use crate::common::pki::Issued;
use crate::common::site::strict_server;
use crate::common::{self, soon, until};

/// The answer.
pub(crate) fn answer() -> Vec<u8> {
    let mut bytes = vec![0; 4 << 20];
    common::bytes::Bytes::seeded(14).fill(&mut bytes);
    bytes
}

/// What a peer leaves unread at first: more than its socket holds, so that the sender's kernel has the rest.
const UNREAD: usize = 512 * 1024;
/// Of the socket of a peer.
const SMALL: u32 = 32 * 1024;
/// No window of HTTP/2 keeps the answer back.
const WINDOW: u32 = 16 << 20;

pub(crate) type Client = client::Connection<TlsOfClient, Bytes>;
pub(crate) type Server = server::Connection<TlsOfServer, Bytes>;
type TlsOfClient = tokio_rustls::client::TlsStream<Gated>;
type TlsOfServer = tokio_rustls::server::TlsStream<Gated>;

/// A connection for a tunnel, before its HTTP/2.
pub(crate) struct Wire {
    gate: Gate,
    ours: SocketAddr,
    theirs: SocketAddr,
}

/// A peer with an answered stream.
pub(crate) struct Peer {
    wire: Wire,
    ping: PingPong,
    reader: JoinSet<Result<Vec<u8>, h2::Error>>,
    driver: JoinSet<Result<(), h2::Error>>,
    /// What has to live as long.
    _held: Box<dyn Any + Send>,
}

impl Wire {
    fn of(socket: tokio::net::TcpStream) -> (Gated, Self) {
        let [ours, theirs] = [socket.local_addr(), socket.peer_addr()].map(|it| it.expect("open"));
        let (gated, gate) = Gated::new(socket);
        (gated, Self { gate, ours, theirs })
    }

    pub(crate) async fn connect(
        address: &str,
        site: &Site,
        certificate: &Issued,
    ) -> (Self, client::SendRequest<Bytes>, Client) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(SMALL).expect("an open socket");
        let connected = socket.connect(address.parse().expect("an address"));
        let (gated, wire) = Self::of(connected.await.expect("TCP"));
        let mut config = config_for(ALL_VERSIONS, &site.authority.pem(), Some(certificate));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = "localhost".try_into().expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, gated);
        let tls = soon("a handshake", tls).await.expect("a handshake");
        let begun = client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(tls);
        let (requests, connection) = begun.await.expect("HTTP/2");
        (wire, requests, connection)
    }

    pub(crate) async fn accept(listener: &TcpListener, site: &Site) -> (Self, Server) {
        let (socket, _) = soon("a tunnel", listener.accept()).await.expect("TCP");
        let (gated, wire) = Self::of(socket);
        let mut config = strict_server(site.directory.path(), "server", ALL_VERSIONS);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config)).accept(gated);
        let tls = soon("a handshake", tls).await.expect("a handshake");
        let begun = server::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(tls);
        (wire, soon("HTTP/2", begun).await.expect("HTTP/2"))
    }
}

/// A listener whose connections have a small buffer to receive.
pub(crate) fn listener() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(SMALL).expect("an open socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a port");
    socket.listen(16).expect("a bound socket")
}

/// Moves a tunnel to its end. The streams that it brings stay open.
pub(crate) async fn drive(mut connection: Server) -> Result<(), h2::Error> {
    let mut held = Vec::new();
    while let Some(accepted) = connection.accept().await {
        held.push(accepted?);
    }
    Ok(())
}

impl Peer {
    pub(crate) fn new(
        wire: Wire,
        ping: PingPong,
        received: RecvStream,
        driver: JoinSet<Result<(), h2::Error>>,
        held: impl Any + Send,
    ) -> Self {
        let mut reader = JoinSet::new();
        reader.spawn(read(received));
        let peer = Self {
            wire,
            ping,
            reader,
            driver,
            _held: Box::new(held),
        };
        peer.wire.gate.close_after(answer().len() - UNREAD);
        peer
    }

    /// Waits until Vestibule has ended the tunnel, whose last bytes are not read.
    pub(crate) async fn until_ended(&self) {
        until("all but the end", || self.wire.gate.is_closed()).await;
        until("the end of the tunnel", || self.wire.is_ending()).await;
    }

    /// Waits until Vestibule has closed its socket.
    pub(crate) async fn until_closed(&self) {
        until("a close", || self.wire.is_closed()).await;
    }

    /// Speaks and reads again, and returns the answer after the end of the tunnel.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let before = self.wire.gate.written();
        self.ping.send_ping(Ping::opaque()).expect("the only one");
        until("a PING", || self.wire.gate.written() > before).await;
        self.wire.gate.open();
        let read = soon("the answer", self.reader.join_next()).await;
        let read = read.expect("one task").expect("no panic");
        let ended = soon("the end", self.driver.join_next()).await;
        let ended = ended.expect("one task").expect("no panic");
        ended.expect("an end in order");
        read.expect("the answer")
    }
}

async fn read(mut received: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = received.data().await {
        let frame = frame?;
        let _ = received.flow_control().release_capacity(frame.len());
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

impl Wire {
    /// Whether the kernel has the end of Vestibule's direction, behind bytes that were not acknowledged.
    fn is_ending(&self) -> bool {
        const FIN_WAIT1: &str = "04";
        self.row().is_some_and(|row| row[3] == FIN_WAIT1)
    }

    /// Whether Vestibule has no descriptor of its socket any more.
    fn is_closed(&self) -> bool {
        self.row().is_none_or(|row| row[9] == "0")
    }

    /// Vestibule's socket in the table of the kernel.
    fn row(&self) -> Option<Vec<String>> {
        let [theirs, ours] = [self.theirs, self.ours].map(named);
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let rows = table.lines().map(|line| {
            let words = line.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        });
        { rows }.find(|row| row[1] == theirs && row[2] == ours)
    }
}

/// As the kernel writes an address.
fn named(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("it is IPv4");
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
