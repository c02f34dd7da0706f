//! `[[join]]` and `vestibule join`: a worker of fronts elsewhere, for a local server.

mod common;
mod join {
    mod chain;
    mod deaths;
    mod embedded;
    mod endings;
    pub(crate) mod front;
    mod hostile;
    mod killed;
    mod limits;
    mod nat;
    pub(crate) mod real;
    mod server;
    mod shown;
}

use common::backend::Backend;
use common::changing::Site;
use common::soon;
use common::vestibule::{Vestibule, complete, message};
use h2::Reason;
use hyper::StatusCode;
use hyper::body::Bytes;
use join::front::{Front, echo, worker};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

const FACTS: &str = r#"{"id":"0d166c02-c87f-483f-bb05-6ebb447d6634","listener":"https","peer":"192.0.2.7:51234","local":"192.0.2.1:8443","backend":"app","accepted_at":"2026-11-20T20:00:00.123Z","tls":{"version":"1.3","cipher":"TLS13_AES_128_GCM_SHA256","group":"X25519","sni":"app.example","alpn":null,"resumed":false},"identity":{"uri":[],"dns":[],"cn":"alice","ou":[],"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}}"#;

/// An echo on a Unix socket of the site, which reads to the end.
fn echo_server(site: &Site) -> (String, tokio::task::JoinSet<()>) {
    let backend = Backend::unix(&site.path("app.sock"));
    let address = backend.address();
    let serving = backend.serve(|socket| async move {
        let (mut from, mut to) = tokio::io::split(socket);
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    (address, serving)
}

#[tokio::test]
async fn a_joined_connection_is_served_by_the_local_server() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 3).await;
    let tunnel = front.tunnel().await;
    let mut offers = Vec::new();
    for _ in 0..3 {
        let offer = tunnel.offer().await;
        assert_eq!(offer.authority, "app");
        assert_eq!(offer.headers["vestibule"], "accept");
        offers.push(offer);
    }
    let mut stream = offers.pop().expect("three").tunnelled(FACTS).await;
    // Another one is offered in its place.
    let _ = tunnel.offer().await;
    echo(&mut stream, b"hello").await;
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    worker.ended("done", 1).await;
    let closed = worker.event(|it| it["outcome"] == "done").await;
    let span = &closed["span"];
    assert_eq!(span["peer"], "192.0.2.7:51234", "{closed}");
    assert_eq!(span["identity"], "cn:alice");
    assert_eq!(span["listener"], "join:app");
    assert_eq!(span["backend"], "app");
    let offered = worker.event(|it| message(it) == "offered").await;
    assert_eq!(offered["id_at_front"], "0d166c02");
}

#[tokio::test]
async fn the_command_joins_a_front_without_a_file() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    site.client("worker").write(site.directory.path(), "worker");
    let [cert, key, ca] = ["worker.pem", "worker-key.pem", "ca.pem"].map(|it| site.path(it));
    let directory = site.path("runtime");
    let command = |_: Command| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command.args([
            "join",
            "--front",
            &front.address,
            "--backend",
            "app",
            "--to",
            &to,
        ]);
        command.args([
            "--server-name",
            "localhost",
            "--offers",
            "2",
            "--log-format",
            "json",
        ]);
        command.arg("--cert").arg(cert).arg("--key").arg(key);
        command
            .arg("--ca")
            .arg(ca)
            .env("XDG_RUNTIME_DIR", directory);
        command
    };
    std::fs::create_dir(site.path("runtime")).expect("a directory");
    let worker = Vestibule::spawn(Arc::clone(&site.directory), "", command);
    worker.until_started().await;
    let start = format!("joining tcp:{}", front.address);
    worker.said(&start, 1).await;
    let tunnel = front.tunnel().await;
    let mut stream = tunnel.offer().await.tunnelled(FACTS).await;
    echo(&mut stream, b"hello").await;
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn half_close_and_resets_are_passed_on_in_both_directions() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let backend = Backend::tcp().await;
    let worker = worker(&site, &[&front], &backend.address(), 2).await;
    let tunnel = front.tunnel().await;

    // The client ends first, then the server.
    let (mut stream, mut server) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    stream
        .send(Bytes::from_static(b"question"))
        .await
        .expect("room");
    stream.end().expect("open");
    let mut question = Vec::new();
    soon("the end", server.read_to_end(&mut question))
        .await
        .expect("a clean end");
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.expect("room");
    drop(server);
    assert_eq!(stream.rest().await.expect("a clean end"), b"answer");
    worker.ended("done", 1).await;

    // The server ends first, then the client.
    let (mut stream, mut server) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    server.write_all(b"greeting").await.expect("room");
    server.shutdown().await.expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"greeting");
    stream.send(Bytes::from_static(b"bye")).await.expect("room");
    stream.end().expect("open");
    let mut bye = Vec::new();
    soon("the end", server.read_to_end(&mut bye))
        .await
        .expect("a clean end");
    assert_eq!(bye, b"bye");
    worker.ended("done", 2).await;

    // The client resets.
    let (mut stream, mut server) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    stream.sending.send_reset(Reason::CANCEL);
    let read = soon("a reset", server.read(&mut [0])).await;
    assert_eq!(
        read.expect_err("a reset").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    worker.ended("client_reset", 1).await;

    // The server resets.
    let (mut stream, server) = tokio::join!(
        async { tunnel.offer().await.tunnelled(FACTS).await },
        async { backend.accept().await.expect("a connection") }
    );
    let common::client::Socket::Tcp(server) = server else {
        panic!("it is TCP");
    };
    server.set_zero_linger().expect("an open socket");
    drop(server);
    assert_eq!(stream.reset().await, Some(Reason::CANCEL));
    worker.ended("backend_reset", 1).await;
}

#[tokio::test]
async fn a_drain_withdraws_the_offers_and_lets_connections_end() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 3).await;
    let mut tunnel = front.tunnel().await;
    let mut stream = tunnel.offer().await.tunnelled(FACTS).await;
    let offers = [
        tunnel.offer().await,
        tunnel.offer().await,
        tunnel.offer().await,
    ];
    worker.signal(rustix::process::Signal::TERM);
    for offer in offers {
        assert_eq!(offer.withdrawn().await, Reason::CANCEL);
    }
    echo(&mut stream, b"still").await;
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    tunnel.ended().await;
    let mut worker = worker;
    assert_eq!(worker.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_waits_for_the_last_bytes_of_connections() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = server.local_addr().expect("bound").to_string();
    let worker = worker(&site, &[&front], &to, 1).await;
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1_000);
    let mut tunnel = front.tunnel_with(&builder).await;
    let mut stream = tunnel.offer().await.tunnelled(FACTS).await;
    let (mut local, _) = server.accept().await.expect("a connection");
    stream.end().expect("open");
    let sent = [7; 20_000];
    local.write_all(&sent).await.expect("open");
    local.shutdown().await.expect("open");
    assert_eq!(local.read(&mut [0]).await.expect("an end"), 0);
    drop(local);
    let _offer = tunnel.offer().await;
    worker.signal(rustix::process::Signal::TERM);
    // The client of the front takes nothing for a while.
    let early = tokio::time::timeout(Duration::from_millis(1500), tunnel.ended()).await;
    assert!(early.is_err());
    assert_eq!(stream.rest().await.expect("a clean end"), sent);
    drop(stream);
    tunnel.ended().await;
    worker.ended("done", 1).await;
}

#[tokio::test]
async fn a_front_that_drains_keeps_its_connections_and_gets_no_more_offers() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let _worker = worker(&site, &[&front], &to, 2).await;
    let mut old = front.tunnel().await;
    let mut stream = old.offer().await.tunnelled(FACTS).await;
    let (first, second) = (old.offer().await, old.offer().await);
    first.refuse(StatusCode::SERVICE_UNAVAILABLE, "draining");
    // At the address there is another front by now, and the offer that was not refused may still be taken.
    let new = front.tunnel().await;
    let (one, _two) = (new.offer().await, new.offer().await);
    echo(&mut one.tunnelled(FACTS).await, b"new").await;
    let mut late = second.tunnelled(FACTS).await;
    for stream in [&mut stream, &mut late] {
        echo(stream, b"old").await;
        stream.end().expect("open");
        assert_eq!(stream.rest().await.expect("a clean end"), b"");
    }
    drop((stream, late));
    old.ended().await;
}

#[tokio::test]
async fn a_worker_comes_back_to_a_front_that_restarts() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 2).await;
    let address = front.address.clone();
    let tunnel = front.tunnel().await;
    let _stream = tunnel.offer().await.tunnelled(FACTS).await;
    drop((tunnel, front));
    worker.ended("client_truncated", 1).await;
    let is_trouble = |it: &serde_json::Value| message(it).starts_with("cannot serve the front: ");
    worker.event(is_trouble).await;
    let front = Front::at(&site, &address).await;
    let tunnel = front.tunnel().await;
    echo(&mut tunnel.offer().await.tunnelled(FACTS).await, b"again").await;
    worker.said("joined the front", 2).await;
}

#[tokio::test]
async fn each_of_many_fronts_has_its_own_offers() {
    let site = Site::new();
    let fronts = [
        Front::new(&site).await,
        Front::new(&site).await,
        Front::new(&site).await,
    ];
    let (to, _server) = echo_server(&site);
    let all: Vec<&Front> = fronts.iter().collect();
    let _worker = worker(&site, &all, &to, 2).await;
    for front in &fronts {
        let tunnel = front.tunnel().await;
        let (one, two) = (tunnel.offer().await, tunnel.offer().await);
        echo(&mut one.tunnelled(FACTS).await, b"one").await;
        echo(&mut two.tunnelled(FACTS).await, b"two").await;
    }
}

#[tokio::test]
async fn another_tunnel_is_opened_when_one_is_full() {
    let site = Site::new();
    let front = Front::new(&site).await;
    let (to, _server) = echo_server(&site);
    let worker = worker(&site, &[&front], &to, 2).await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(3);
    let first = front.tunnel_with(&builder).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(first.offer().await.tunnelled(FACTS).await);
    }
    // Two connections and one offer are in the first one; the other offer needs room.
    let second = front.tunnel_with(&builder).await;
    streams.push(second.offer().await.tunnelled(FACTS).await);
    streams.push(first.offer().await.tunnelled(FACTS).await);
    for stream in &mut streams {
        echo(stream, b"well").await;
    }
    drop(worker);
}

#[tokio::test]
async fn a_reload_starts_and_ends_joins_and_keeps_those_that_are_as_before() {
    let site = Site::new();
    let (kept, left, new) = (
        Front::new(&site).await,
        Front::new(&site).await,
        Front::new(&site).await,
    );
    let (to, _server) = echo_server(&site);
    let table = |front: &Front| join::front::join(&[front], &to, 1);
    let runtime = table(&kept)
        .split_once("[[join]]")
        .expect("a table")
        .0
        .to_owned();
    let tables = |fronts: [&Front; 2]| {
        let tables = fronts.map(|it| table(it).replace(&runtime, ""));
        format!("{runtime}{}", tables.concat())
    };
    site.client("worker").write(site.directory.path(), "worker");
    let worker = site_start(&site, &tables([&kept, &left])).await;
    let (of_kept, mut of_left) = tokio::join!(kept.tunnel(), left.tunnel());
    let offer = of_kept.offer().await;
    let mut stream = of_left.offer().await.tunnelled(FACTS).await;
    let withdrawn = of_left.offer().await;
    site.configure(&complete(&site.directory, &tables([&kept, &new])));
    worker.signal(rustix::process::Signal::HUP);
    assert_eq!(withdrawn.withdrawn().await, Reason::CANCEL);
    let of_new = new.tunnel().await;
    echo(&mut of_new.offer().await.tunnelled(FACTS).await, b"new").await;
    echo(&mut offer.tunnelled(FACTS).await, b"kept").await;
    echo(&mut stream, b"left").await;
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    drop(stream);
    of_left.ended().await;
}

async fn site_start(site: &Site, config: &str) -> Vestibule {
    Vestibule::start_whole(Arc::clone(&site.directory), config).await
}
