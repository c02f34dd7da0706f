//! A front that does what a test wants: HTTP/2 over TLS with client certificates.

use std::sync::Arc;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ALL_VERSIONS;
use tokio_rustls::server::TlsStream;

use crate::common::changing::Site;
use crate::common::site::strict_server;
use crate::common::soon;
use crate::common::tunnel::{Stream, send};
use crate::common::vestibule::Vestibule;

/// A front. Dropping it closes its port and its tunnels.
pub(crate) struct Front {
    pub(crate) address: String,
    tunnels: Mutex<mpsc::Receiver<TlsStream<TcpStream>>>,
    _accepting: JoinSet<()>,
}

/// A tunnel that a worker has brought.
pub(crate) struct Tunnel {
    offers: Mutex<mpsc::Receiver<Offer>>,
    orders: mpsc::Sender<Order>,
    driver: JoinSet<Result<(), h2::Error>>,
}

/// An offer of a worker, which waits for its answer.
pub(crate) struct Offer {
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) respond: SendResponse<Bytes>,
    pub(crate) received: RecvStream,
}

enum Order {
    GoAway,
    Cut,
}

impl Front {
    pub(crate) async fn new(site: &Site) -> Self {
        Self::at(site, "127.0.0.1:0").await
    }

    pub(crate) async fn at(site: &Site, address: &str) -> Self {
        Self::with(site, address, "h2").await
    }

    pub(crate) async fn with(site: &Site, address: &str, alpn: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut config = strict_server(site.directory.path(), "server", ALL_VERSIONS);
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.into()];
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (sender, tunnels) = mpsc::channel(64);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(socket).await {
                    let _ = sender.send(stream).await;
                }
            }
        });
        Self {
            address,
            tunnels: Mutex::new(tunnels),
            _accepting: accepting,
        }
    }

    /// The next connection after its handshake.
    pub(crate) async fn connection(&self) -> TlsStream<TcpStream> {
        let mut tunnels = self.tunnels.lock().await;
        soon("a tunnel", tunnels.recv()).await.expect("it accepts")
    }

    /// The next tunnel.
    pub(crate) async fn tunnel(&self) -> Tunnel {
        self.tunnel_with(server::Builder::new().initial_window_size(1 << 20))
            .await
    }

    pub(crate) async fn tunnel_with(&self, builder: &server::Builder) -> Tunnel {
        let mut connection = builder
            .handshake(self.connection().await)
            .await
            .expect("HTTP/2");
        let (sender, offers) = mpsc::channel(256);
        let (orders, mut received) = mpsc::channel(4);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    Some(order) = received.recv() => match order {
                        Order::GoAway => {
                            connection.graceful_shutdown();
                            continue;
                        }
                        Order::Cut => return Ok(()),
                    },
                };
                let Some(accepted) = accepted else {
                    return Ok(());
                };
                let (request, respond) = accepted?;
                let authority = request.uri().authority().map(ToString::to_string);
                let (parts, received) = request.into_parts();
                let _ = sender
                    .send(Offer {
                        authority: authority.unwrap_or_default(),
                        headers: parts.headers,
                        respond,
                        received,
                    })
                    .await;
            }
        });
        Tunnel {
            offers: Mutex::new(offers),
            orders,
            driver,
        }
    }
}

impl Tunnel {
    pub(crate) async fn offer(&self) -> Offer {
        let mut offers = self.offers.lock().await;
        soon("an offer", offers.recv())
            .await
            .expect("a live tunnel")
    }

    /// Lets the streams end, and takes no others.
    pub(crate) async fn go_away(&self) {
        self.orders.send(Order::GoAway).await.expect("alive");
    }

    /// Breaks it off.
    pub(crate) async fn cut(&self) {
        self.orders.send(Order::Cut).await.expect("alive");
    }

    /// Waits until the worker has closed it.
    pub(crate) async fn ended(&mut self) {
        let ended = soon("the end of the tunnel", self.driver.join_next()).await;
        ended
            .expect("one task")
            .expect("no panic")
            .expect("a clean end");
    }
}

impl Offer {
    pub(crate) async fn tunnelled(self, facts: &str) -> Stream {
        let mut stream = self.give(facts);
        assert_eq!(stream.read(1).await.expect("the byte"), [0]);
        stream
    }

    /// Says that a connection is there.
    pub(crate) fn give(mut self, facts: &str) -> Stream {
        let mut response = Response::new(());
        let facts = facts.parse().expect("a header");
        response.headers_mut().insert("vestibule-facts", facts);
        let sending = self.respond.send_response(response, false).expect("open");
        Stream {
            sending,
            received: self.received,
        }
    }

    pub(crate) fn refuse(mut self, status: StatusCode, reason: &str) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        if !reason.is_empty() {
            let reason = reason.parse().expect("a header");
            response.headers_mut().insert("vestibule-refusal", reason);
        }
        self.respond.send_response(response, true).expect("open");
    }

    /// The reason for which the worker withdraws it.
    pub(crate) async fn withdrawn(mut self) -> Reason {
        let reset = std::future::poll_fn(|cx| self.respond.poll_reset(cx));
        soon("a reset", reset).await.expect("a reset")
    }
}

/// Answers without the facts.
pub(crate) fn without_facts(mut offer: Offer) -> (SendStream<Bytes>, RecvStream) {
    let sent = offer.respond.send_response(Response::new(()), false);
    (sent.expect("open"), offer.received)
}

/// Sends and reads back through an echo.
pub(crate) async fn echo(stream: &mut Stream, word: &'static [u8]) {
    send(&mut stream.sending, Bytes::from_static(word))
        .await
        .expect("room");
    assert_eq!(stream.read(word.len()).await.expect("an echo"), word);
}

/// A worker of this front for the server at `to`, without any listener.
pub(crate) async fn worker(site: &Site, fronts: &[&Front], to: &str, offers: usize) -> Vestibule {
    let config = join(fronts, to, offers);
    site.client("worker").write(site.directory.path(), "worker");
    Vestibule::start_whole(Arc::clone(&site.directory), &config).await
}

/// One worker thread, so that all offers are in one tunnel.
pub(crate) fn join(fronts: &[&Front], to: &str, offers: usize) -> String {
    let fronts: Vec<String> = fronts
        .iter()
        .map(|it| format!("{:?}", it.address))
        .collect();
    format!(
        r#"[runtime]
workers = 1
directory = "{{dir}}/run"
log_format = "json"
{TABLE}front = [{}]
to = "{to}"
offers = {offers}
{TLS}"#,
        fronts.join(", ")
    )
}

const TABLE: &str = "[[join]]\nbackend = \"app\"\n";
const TLS: &str = r#"
[join.tls]
server_name = "localhost"
ca = "{dir}/ca.pem"
certificate = { chain = "{dir}/worker.pem", key = "{dir}/worker-key.pem" }
"#;
