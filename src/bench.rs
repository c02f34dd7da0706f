//! What the benchmarks in benches/ measure: a TLS connection in memory, and parts that have no public
//! API.
//!
//! ```text
//! Client (rustls) ── front ── Proxy: what a connection runs ── back ── the caller
//! ```
//!
//! Nothing here waits. [`turn`] polls the proxy's side by hand when the proxy has something to do, and
//! nothing else polls it.
//! for it to do.

mod ledger;
mod scrape;

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedCipherSuite,
};

pub use self::ledger::OpenConnections;
pub use self::scrape::Scraped;
use crate::deadline::Deadline;
use crate::relay::{InactivityTimeouts, Joint, Records, Relay};
use crate::route::{Action, Query, Routes, Rule};
use crate::tls::certs::Certificate;
use crate::tls::tickets::TicketSecret;
use crate::tls::{self, Beginning, Keyed, Session, TlsAcceptor};
use crate::traffic::Traffic;
use crate::wire::{Peer, Wire};

/// A listener in memory, and the configuration of its clients.
#[derive(Debug)]
pub struct Front {
    acceptor: TlsAcceptor,
    client: Arc<ClientConfig>,
    /// Never driven: only its clock is needed.
    runtime: Arc<Runtime>,
}

/// Whether the handshakes of a client resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Every handshake is a full one.
    New,
    /// Each handshake, except the first, resumes the session of the previous one.
    Resumed,
}

impl Front {
    /// Clients that offer `suite` and X25519, and nothing else.
    ///
    ///
    /// # Panics
    ///
    /// If the set-up fails. This holds for every function in this module.
    pub fn new(suite: SupportedCipherSuite, sessions: Sessions) -> Self {
        let certificate = Certificate::for_development().expect("it is tested");
        let secret = TicketSecret::random().expect("random bytes");
        let acceptor = TlsAcceptor::new(&tls::AcceptorSettings::with(certificate), &secret);
        let runtime = Builder::new_current_thread().enable_time().build();
        Self {
            acceptor: acceptor.expect("the development certificate and its key"),
            client: client(suite, sessions),
            runtime: Arc::new(runtime.expect("a runtime without descriptors")),
        }
    }

    /// Performs a handshake and connects the client to the backend's line.
    pub fn meet(&self) -> Meeting {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.client), name).expect("a client");
        let (front, back) = (Line::default(), Line::default());
        let (acceptor, wire) = (self.acceptor.clone(), front.clone());
        let arrived = Rc::new(RefCell::new(None));
        let came = Rc::clone(&arrived);
        let handshake = async move {
            *came.borrow_mut() = Some(secure(&acceptor, wire).await);
        };
        let mut meeting = Meeting {
            client: Client(client),
            proxy: Proxy {
                life: Box::pin(handshake),
                runtime: Arc::clone(&self.runtime),
                front,
                back,
            },
            handshake: Duration::ZERO,
        };
        let client = loop {
            meeting.client.say(&meeting.proxy.front);
            let begun = Instant::now();
            let ended = meeting.proxy.turn();
            meeting.handshake += begun.elapsed();
            // With its ticket, if there is one.
            meeting.client.hear(&meeting.proxy.front);
            if ended.is_ready() {
                break arrived.take().expect("it has ended");
            }
        };
        meeting.proxy.join(client);
        meeting
    }
}

async fn secure(acceptor: &TlsAcceptor, wire: Line) -> Joint<Records<Line>> {
    let deadline = Deadline::after(LONG);
    let beginning = Beginning {
        io: wire,
        received: Vec::new(),
        local: None,
    };
    let accepted = acceptor.accept_from(beginning, deadline, |_| Ok::<_, ()>(None));
    let Ok(secured) = accepted.await else {
        panic!("the handshake failed");
    };
    let Session::Record(keyed) = secured.session else {
        panic!("the records are not ours");
    };
    black_box(secured.facts);
    let Keyed { io, start } = *keyed;
    Joint::new(Records::new(io, start).expect("a suite of ours"))
}

/// The configuration of clients that offer `suite` and X25519, and nothing else.
pub fn client(suite: SupportedCipherSuite, sessions: Sessions) -> Arc<ClientConfig> {
    let version = match suite {
        SupportedCipherSuite::Tls12(_) => &TLS12,
        SupportedCipherSuite::Tls13(_) => &TLS13,
    };
    let provider = CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    let mut root = &include_bytes!("../certs/ca.pem")[..];
    roots.add_parsable_certificates(rustls_pemfile::certs(&mut root).filter_map(Result::ok));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("the suite's own")
        .with_root_certificates(roots)
        .with_no_client_auth();
    if sessions == Sessions::New {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Meeting {
    /// The client's end.
    pub client: Client,
    /// The proxy, between the client and the caller. The caller is the backend.
    pub proxy: Proxy,
    /// How long the proxy's part of the handshake took.
    pub handshake: Duration,
}

impl Meeting {
    /// The client sends a message, and the backend echoes it.
    pub fn echo(&mut self, message: &[u8]) {
        let record = self.client.seal(message);
        let up = self.proxy.open(&record);
        assert!(up == message, "other bytes at the backend");
        let down = self.proxy.seal(&up);
        assert!(self.client.open(&down) == message, "other bytes came back");
    }
}

/// The client, which uses rustls.
#[derive(Debug)]
pub struct Client(ClientConnection);

impl Client {
    /// Whether its handshake resumed a session.
    pub fn has_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Encrypts `message` into records.
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(message).expect("it takes all");
        let mut records = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut records).expect("a Vec takes all");
        }
        records
    }

    /// Decrypts records and returns their payload.
    pub fn open(&mut self, mut records: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        while !records.is_empty() {
            self.0.read_tls(&mut records).expect("records");
            let state = self.0.process_new_packets().expect("good records");
            let end = message.len();
            message.resize(end + state.plaintext_bytes_to_read(), 0);
            let read = self.0.reader().read_exact(&mut message[end..]);
            read.expect("as many as there are");
        }
        message
    }

    fn say(&mut self, front: &Line) {
        let said = self.seal(&[]);
        front.0.borrow_mut().incoming.extend(said);
    }

    fn hear(&mut self, front: &Line) {
        assert!(self.open(&front.take()).is_empty(), "early data");
    }
}

/// The proxy's side of a connection.
pub struct Proxy {
    life: Pin<Box<dyn Future<Output = ()>>>,
    runtime: Arc<Runtime>,
    front: Line,
    back: Line,
}

impl Proxy {
    fn join(&mut self, mut client: Joint<Records<Line>>) {
        let mut backend = self.back.clone();
        self.life = Box::pin(async move {
            let traffic = Traffic::default();
            let relay = Relay {
                settings: &InactivityTimeouts {
                    idle: Some(LONG),
                    half_close: Some(LONG),
                    unacknowledged: Some(LONG),
                },
                traffic: &traffic,
            };
            let end = client.join(&mut backend, relay).await;
            panic!("nobody has ended it: {end:?}");
        });
    }

    /// Receives records from the client. Returns the bytes that the backend gets.
    pub fn open(&mut self, records: &[u8]) -> Vec<u8> {
        self.front.0.borrow_mut().incoming.extend(records);
        assert!(self.turn().is_pending());
        self.back.take()
    }

    /// Receives bytes from the backend. Returns the records that the client gets.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.back.0.borrow_mut().incoming.extend(bytes);
        assert!(self.turn().is_pending());
        self.front.take()
    }

    fn turn(&mut self) -> Poll<()> {
        let _clock = self.runtime.enter();
        turn(self.life.as_mut())
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

/// The proxy does all of its work in this function, and nothing else runs here: benches/guard/run
/// counts the instructions of this function by its name.
#[inline(never)]
fn turn(life: Pin<&mut dyn Future<Output = ()>>) -> Poll<()> {
    life.poll(&mut Context::from_waker(Waker::noop()))
}

/// One end of a stream in memory. A clone of the handle is the other end.
#[derive(Clone, Debug, Default)]
struct Line(Rc<RefCell<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    /// Bytes for the proxy to read.
    incoming: Vec<u8>,
    /// Bytes that the proxy wrote.
    outgoing: Vec<u8>,
}

impl Line {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().outgoing)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let incoming = &mut self.0.borrow_mut().incoming;
        if incoming.is_empty() {
            return Poll::Pending;
        }
        let length = incoming.len().min(buf.remaining());
        buf.put_slice(&incoming[..length]);
        incoming.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().outgoing.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Peer for Line {}

impl Wire for Line {
    fn was_read_out(&self) -> bool {
        false
    }
}

/// Routing rules, one for each server name, and a client that asks for the last name.
#[derive(Debug)]
pub struct Rules {
    routes: Routes,
    last: String,
}

impl Rules {
    /// Makes `count` rules.
    pub fn new(count: usize) -> Self {
        let name = |number| format!("server-{number}.example.com");
        let rule = |number| Rule {
            listener: vec!["https".into()],
            sni: vec![name(number).parse().expect("a pattern")],
            action: Action::Backend(format!("app-{number}")),
            ..Rule::default()
        };
        Self {
            routes: Routes::new((1..=count).map(rule).collect()),
            last: name(count),
        }
    }

    /// The backend for the client.
    pub fn choose(&self) -> &str {
        let query = Query {
            listener: "https",
            sni: Some(&self.last),
            ..Query::default()
        };
        self.routes.choose(&query).expect("the last rule's backend")
    }
}

/// For the timers that production has. They exist here too, and never fire.
const LONG: Duration = Duration::from_secs(600);
