//! Workers that come through tunnels, with the guarantees of the gate.

mod common;
mod network_workers {
    mod cable;
    mod ends;
    mod many;
    mod offers;
    mod refusals;
    mod watch;
}

use std::sync::Arc;

use common::changing::Site;
use common::gate::Watch;
use common::network_worker::Host;
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::{bytes, soon};
use hyper::body::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn a_worker_that_accepts_serves_the_connection() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let offer = host.ask("app", "accept").await;
    let mut client = connect(&vestibule).await;
    client.write_all(b"question").await.expect("open");
    let (facts, mut stream) = offer.granted().await;
    assert_eq!(facts["backend"], "app");
    assert_eq!(facts["listener"], "front");
    stream.take();
    assert_eq!(stream.read(8).await.expect("bytes"), b"question");
    let answer = Bytes::from_static(b"answer");
    stream.send(answer).await.expect("room");
    stream.end().expect("open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an end");
    assert_eq!(answer, "answer");
    // The other direction is still open.
    client.write_all(b"more").await.expect("half open");
    client.shutdown().await.expect("half open");
    assert_eq!(stream.rest().await.expect("an end"), b"more");
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn a_worker_moves_every_byte_of_a_tls_client_in_both_directions() {
    for relay in RELAYS {
        let site = Site::new();
        let vestibule = start_over(&site, relay, "").await;
        let host = worker(&vestibule, &site).await;
        let serve = async {
            let (facts, stream) = host.accept("app").await;
            assert_eq!(facts["tls"]["version"], "1.3");
            stream.echo_all().await;
        };
        let socket = TcpStream::connect(vestibule.address("secure")).await;
        let name = "localhost".try_into().expect("a name");
        let client = TlsConnector::from(site.config(None))
            .connect(name, socket.expect("a listener"))
            .await;
        let (mut reader, mut writer) = tokio::io::split(client.expect("a handshake"));
        let say = async {
            bytes::send(&mut writer, 7, MANY).await.expect("open");
        };
        tokio::join!(serve, bytes::expect(&mut reader, 7, MANY), say);
        vestibule.ended("done", 1).await;
        assert_eq!(
            vestibule.sides(),
            [(relay.side().to_owned(), "tunnel".to_owned())]
        );
    }
}

const MANY: usize = 3 * 1024 * 1024 + 7;

/// A Vestibule with two backends that network workers may serve, each only those with the right name. `rest` precedes
/// the tables of listeners.
async fn start(site: &Site, rest: &str) -> Vestibule {
    start_over(site, Relay::Auto, rest).await
}

async fn start_over(site: &Site, relay: Relay, rest: &str) -> Vestibule {
    let config = config(relay, rest);
    Vestibule::start_whole(Arc::clone(&site.directory), &config).await
}

fn config(relay: Relay, rest: &str) -> String {
    let listener = common::tunnel::LISTENER;
    format!("{}{rest}{listener}{CONFIG}", relay.config())
}

async fn worker(vestibule: &Vestibule, site: &Site) -> Host {
    Host::open(vestibule, site, &site.client("worker")).await
}

async fn connect(vestibule: &Vestibule) -> UnixStream {
    let path = vestibule.path("front.sock");
    UnixStream::connect(path).await.expect("the front")
}

/// Connects a client that sends the word. Returns it, and the id under which it is offered.
async fn offered(vestibule: &Vestibule, watch: &mut Watch, word: &[u8]) -> (UnixStream, String) {
    let mut client = connect(vestibule).await;
    client.write_all(word).await.expect("open");
    let facts = soon("an offer", watch.offer()).await;
    (client, id(&facts))
}

async fn watch(vestibule: &Vestibule) -> Watch {
    Watch::new(&vestibule.gate(), "app").await
}

fn id(facts: &Value) -> String {
    facts["id"].as_str().expect("an id").to_owned()
}

const CONFIG: &str = r#"
workers = true
[[listener]]
name = "front"
address = "unix:{dir}/front.sock"
[[listener]]
name = "other"
address = "unix:{dir}/other.sock"
[[listener]]
name = "secure"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{dir}/server.pem", key = "{dir}/server-key.pem" } ]
[[route]]
listener = ["front", "secure"]
backend = "app"
[[route]]
listener = ["other"]
backend = "other"
[[backend]]
name = "app"
to = "gate"
workers = ["cn:worker", "cn:both"]
[[backend]]
name = "other"
to = "gate"
workers = ["cn:other", "cn:both"]
[[backend]]
name = "local"
to = "gate"
[[backend]]
name = "echo"
to = "echo"
"#;
