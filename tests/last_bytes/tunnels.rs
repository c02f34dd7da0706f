//! The three kinds of tunnels of a Vestibule that drains, while an answer is on its way to their peer.

use std::sync::Arc;

use h2::server::SendResponse;
use hyper::body::Bytes;
use hyper::{Method, Request, Response};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::peer::{Peer, Server, Wire, answer, drive, listener};
use crate::common::changing::{Site, reloaded};
use crate::common::soon;
use crate::common::tunnel::LISTENER;
use crate::common::vestibule::{RUNTIME, Vestibule};

/// A tunnel that ends, with its peer.
pub(crate) struct Ending {
    pub(crate) vestibule: Vestibule,
    pub(crate) peer: Peer,
    _sender: JoinSet<()>,
}

fn send(mut to: impl AsyncWrite + Unpin + Send + 'static) -> JoinSet<()> {
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        to.write_all(&answer()).await.expect("open");
        to.shutdown().await.expect("open");
    });
    sender
}

async fn local_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

async fn next_at(server: &TcpListener) -> TcpStream {
    let (socket, _) = soon("a connection", server.accept()).await.expect("one");
    socket
}

async fn at_end(socket: &mut TcpStream) {
    let read = soon("the end", socket.read(&mut [0])).await;
    assert_eq!(read.expect("a clean end"), 0);
}

/// The client of a listener that takes tunnels.
pub(crate) async fn of_a_client(timeouts: &str) -> Ending {
    let site = Site::new();
    let (server, to) = local_server().await;
    let config =
        format!("{RUNTIME}{timeouts}{LISTENER}[[backend]]\nname = \"app\"\nto = \"tcp:{to}\"\n");
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
    let alice = site.client("alice");
    let (wire, requests, mut connection) = Wire::connect(&vestibule.tcp(), &site, &alice).await;
    let ping = connection.ping_pong().expect("the only one");
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "app:1".parse().expect("an authority");
    let mut begun = requests.clone().ready().await.expect("open");
    let (response, mut sending) = begun.send_request(request, false).expect("open");
    let (response, mut socket) = tokio::join!(soon("a response", response), next_at(&server));
    let received = response.expect("a stream").into_body();
    sending.send_data(Bytes::new(), true).expect("open");
    at_end(&mut socket).await;
    vestibule.signal(Signal::TERM);
    // Its GOAWAY comes with a PING, which is answered.
    soon("GOAWAY", async {
        while requests.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let peer = Peer::new(wire, ping, received, driver, (requests, sending));
    Ending {
        vestibule,
        peer,
        _sender: send(socket),
    }
}

/// The next request, and the rest of its tunnel.
async fn next(server: &mut Server) -> (Request<h2::RecvStream>, SendResponse<Bytes>) {
    let asked = soon("a request", server.accept()).await;
    asked.expect("a request").expect("no error")
}

/// The server of a backend that is reached through tunnels.
pub(crate) async fn of_a_server(timeouts: &str) -> Ending {
    let site = Site::new();
    site.client("alice").write(site.directory.path(), "alice");
    let listener = listener();
    let config = format!(
        r#"{RUNTIME}{timeouts}
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[[backend]]
name = "db"
to = "tcp:{}"
[backend.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/alice.pem", key = "{{dir}}/alice-key.pem" }}
[backend.tunnel]
authority = "db:5432"
"#,
        listener.local_addr().expect("bound")
    );
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
    let mut client = TcpStream::connect(vestibule.tcp()).await.expect("TCP");
    let (wire, mut server) = Wire::accept(&listener, &site).await;
    let (request, mut respond) = next(&mut server).await;
    let ping = server.ping_pong().expect("the only one");
    let mut driver = JoinSet::new();
    driver.spawn(drive(server));
    let mut sending = respond
        .send_response(Response::new(()), false)
        .expect("open");
    sending.send_data(Bytes::new(), true).expect("open");
    at_end(&mut client).await;
    vestibule.signal(Signal::TERM);
    let peer = Peer::new(wire, ping, request.into_body(), driver, (respond, sending));
    Ending {
        vestibule,
        peer,
        _sender: send(client),
    }
}

/// The front of a join.
pub(crate) async fn of_a_front(timeouts: &str) -> Ending {
    of_a_front_until(timeouts, async |vestibule, _, _| {
        vestibule.signal(Signal::TERM);
    })
    .await
}

/// The front of a join that a reload removes.
pub(crate) async fn of_a_removed_join(timeouts: &str) -> Ending {
    of_a_front_until(timeouts, async |vestibule, site, config| {
        let (rest, _) = config.split_once("[[join]]").expect("a join");
        let rest = format!("{rest}[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n");
        site.configure(&format!(
            "{rest}[[backend]]\nname = \"echo\"\nto = \"echo\"\n"
        ));
        vestibule.signal(Signal::HUP);
        reloaded(vestibule, 1).await;
    })
    .await
}

/// `end` begins the end of the tunnel.
async fn of_a_front_until(
    timeouts: &str,
    end: impl AsyncFnOnce(&Vestibule, &Site, &str),
) -> Ending {
    let site = Site::new();
    site.client("worker").write(site.directory.path(), "worker");
    let listener = listener();
    let (local, to) = local_server().await;
    let config = format!(
        r#"{RUNTIME}{timeouts}
[[join]]
backend = "app"
front = "{}"
to = "tcp:{to}"
offers = 1
[join.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/worker.pem", key = "{{dir}}/worker-key.pem" }}
"#,
        listener.local_addr().expect("bound")
    );
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
    let (wire, mut server) = Wire::accept(&listener, &site).await;
    let (request, mut respond) = next(&mut server).await;
    let ping = server.ping_pong().expect("the only one");
    let mut driver = JoinSet::new();
    driver.spawn(drive(server));
    let mut response = Response::new(());
    let facts = r#"{"id":"0d166c02-c87f-483f-bb05-6ebb447d6634"}"#;
    let facts = facts.parse().expect("a header");
    response.headers_mut().insert("vestibule-facts", facts);
    let mut sending = respond.send_response(response, false).expect("open");
    let mut received = request.into_body();
    let (taken, mut socket) = tokio::join!(soon("the byte", received.data()), next_at(&local));
    assert_eq!(taken.expect("a frame").expect("open"), [0][..]);
    sending.send_data(Bytes::new(), true).expect("open");
    at_end(&mut socket).await;
    end(&vestibule, &site, &config).await;
    let peer = Peer::new(wire, ping, received, driver, (respond, sending));
    Ending {
        vestibule,
        peer,
        _sender: send(socket),
    }
}
