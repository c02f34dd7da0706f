//! How connections and tunnels end: half-close, resets, drains, and the death of either side.

use std::time::Duration;

use hyper::body::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::pair::{ECHO, Pair, connect, site, start_near};
use super::server::{Server, asked, status};
use crate::common::backend::Backend;
use crate::common::client::Socket;
use crate::common::vestibule::{RELAYS, Relay};
use crate::common::{soon, until, within};
use crate::echo;

async fn before_tcp(relay: Relay) -> (Pair, Backend) {
    let backend = Backend::tcp().await;
    let far = format!(
        "[[backend]]\nname = \"app\"\nto = \"{}\"\n",
        backend.address()
    );
    (Pair::start(relay, "", &[&far]).await, backend)
}

async fn both_ends(pair: &Pair, backend: &Backend) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(pair.client(), soon("a connection", backend.accept()));
    match server.expect("a connection") {
        Socket::Tcp(server) => (client, server),
        Socket::Unix(_) => panic!("it is TCP"),
    }
}

#[tokio::test]
async fn half_close_is_kept_both_ways() {
    for relay in RELAYS {
        let (pair, backend) = before_tcp(relay).await;
        for client_is_first in [true, false] {
            let (client, server) = both_ends(&pair, &backend).await;
            let (mut first, mut second) = match client_is_first {
                true => (client, server),
                false => (server, client),
            };
            first.write_all(b"question").await.expect("open");
            first.shutdown().await.expect("open");
            let mut question = String::new();
            let read = soon("the end", second.read_to_string(&mut question)).await;
            read.expect("a clean end");
            assert_eq!(question, "question");
            second.write_all(b"answer").await.expect("open");
            drop(second);
            let mut answer = String::new();
            let read = soon("the end", first.read_to_string(&mut answer)).await;
            read.expect("a clean end");
            assert_eq!(answer, "answer");
        }
        pair.near.ended("done", 2).await;
        pair.far[0].ended("done", 2).await;
    }
}

#[tokio::test]
async fn a_reset_of_one_side_resets_the_other_and_no_neighbour() {
    for relay in RELAYS {
        let (pair, backend) = before_tcp(relay).await;
        let (mut neighbour, mut beside) = both_ends(&pair, &backend).await;
        for client_is_first in [true, false] {
            let (client, server) = both_ends(&pair, &backend).await;
            let (mut first, mut second) = match client_is_first {
                true => (client, server),
                false => (server, client),
            };
            first.write_all(b"half").await.expect("open");
            let mut half = [0; 4];
            let read = soon("bytes", second.read_exact(&mut half)).await;
            read.expect("bytes");
            first.set_zero_linger().expect("an open socket");
            drop(first);
            let read = soon("a reset", second.read(&mut half)).await;
            assert_eq!(
                read.expect_err("a reset").kind(),
                std::io::ErrorKind::ConnectionReset
            );
        }
        pair.near.ended("client_reset", 1).await;
        pair.near.ended("backend_reset", 1).await;
        neighbour.write_all(b"well").await.expect("open");
        let read = soon("bytes", beside.read_exact(&mut [0; 4])).await;
        read.expect("bytes");
        assert_eq!(pair.wires[0].accepted(), 1);
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_off_cuts_its_connections_after_their_last_bytes() {
    for relay in RELAYS {
        let (mut pair, backend) = before_tcp(relay).await;
        let (mut client, mut server) = both_ends(&pair, &backend).await;
        server.write_all(b"last").await.expect("open");
        let mut last = [0; 4];
        let read = soon("bytes", client.read_exact(&mut last)).await;
        read.expect("bytes");
        pair.wires[0].cut().await;
        let read = soon("a reset", client.read(&mut last)).await;
        assert_eq!(
            read.expect_err("a reset").kind(),
            std::io::ErrorKind::ConnectionReset
        );
        pair.near.ended("backend_reset", 1).await;
    }
}

#[tokio::test]
async fn a_killed_server_is_replaced_by_another_address() {
    let mut pair = Pair::start(Relay::Auto, "", &[ECHO, ECHO]).await;
    let (mut one, mut other) = (pair.client().await, pair.client().await);
    echo(&mut one).await;
    echo(&mut other).await;
    assert_eq!([pair.wires[0].accepted(), pair.wires[1].accepted()], [1, 1]);
    pair.far.remove(0).kill().await;
    pair.near.ended("backend_reset", 1).await;
    for _ in 0..10 {
        echo(&mut pair.client().await).await;
    }
    pair.near.ended("done", 10).await;
}

#[tokio::test]
async fn a_server_that_drains_gets_no_new_streams_and_loses_none() {
    let mut pair = Pair::start(Relay::Auto, "", &[ECHO, ECHO]).await;
    let (mut one, mut other) = (pair.client().await, pair.client().await);
    echo(&mut one).await;
    echo(&mut other).await;
    let mut draining = pair.far.remove(0);
    draining.signal(Signal::TERM);
    pair.near.said("the tunnel takes no more streams", 1).await;
    for _ in 0..10 {
        echo(&mut pair.client().await).await;
    }
    echo(&mut one).await;
    echo(&mut other).await;
    drop((one, other));
    pair.near.ended("done", 12).await;
    assert_eq!(draining.wait().await.code(), Some(0));
    assert_eq!(pair.near.outcomes().len(), 1, "{:?}", pair.near.outcomes());
}

#[tokio::test]
async fn a_drain_of_ours_lets_streams_end_and_closes_the_tunnels() {
    let mut pair = Pair::start(Relay::Auto, "", &[ECHO]).await;
    let mut client = pair.client().await;
    echo(&mut client).await;
    pair.near.signal(Signal::TERM);
    echo(&mut client).await;
    drop(client);
    assert_eq!(pair.near.wait().await.code(), Some(0));
    // The carrier has ended in order, and so has its stream.
    pair.far[0].ended("done", 2).await;
}

#[tokio::test]
async fn a_drain_waits_until_the_server_has_taken_the_last_bytes() {
    let site = site();
    let server = Server::new(&site).await;
    let mut near = start_near(&site, Relay::Auto, &[server.address()], "").await;
    let mut client = connect(&near).await;
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1_000);
    let tunnel = builder.handshake(server.secured().await);
    let mut tunnel = soon("a preface", tunnel).await.expect("HTTP/2");
    let (request, mut respond) = asked(&mut tunnel).await;
    let mut driver = JoinSet::new();
    driver.spawn(async move { while let Some(Ok(_)) = tunnel.accept().await {} });
    let mut sending = respond.send_response(status(200), false).expect("open");
    sending.send_data(Bytes::new(), true).expect("open");
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    let sent = [7; 20_000];
    client.write_all(&sent).await.expect("open");
    client.shutdown().await.expect("open");
    near.signal(Signal::TERM);
    let early = tokio::time::timeout(Duration::from_millis(1_500), near.wait()).await;
    assert!(early.is_err(), "{early:?}");
    let (mut received, mut read) = (request.into_body(), Vec::new());
    while let Some(frame) = soon("bytes", received.data()).await {
        let frame = frame.expect("bytes");
        let released = received.flow_control().release_capacity(frame.len());
        released.expect("it was received");
        read.extend_from_slice(&frame);
    }
    assert!(read == sent);
    near.ended("done", 1).await;
    assert_eq!(near.wait().await.code(), Some(0));
}

#[tokio::test]
async fn the_end_of_a_drain_cuts_the_streams_and_closes_the_tunnels() {
    let more = "[timeouts]\ndrain = \"300ms\"\n";
    let mut pair = Pair::start(Relay::Auto, more, &[ECHO]).await;
    let mut client = pair.client().await;
    echo(&mut client).await;
    pair.near.signal(Signal::TERM);
    let read = soon("a reset", client.read(&mut [0])).await;
    read.expect_err("a reset");
    assert_eq!(pair.near.wait().await.code(), Some(3));
    pair.far[0].ended("client_reset", 1).await;
    pair.far[0].ended("done", 1).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_dial_without_clients() {
    let site = site();
    let server = Server::new(&site).await;
    let mut near = start_near(&site, Relay::Auto, &[server.address()], "").await;
    let client = connect(&near).await;
    let _silent = server.secured().await;
    client.set_zero_linger().expect("an open socket");
    drop(client);
    near.ended("client_gone", 1).await;
    near.signal(Signal::TERM);
    let exit = within(Duration::from_millis(1_500), "an exit", near.wait());
    assert_eq!(exit.await.code(), Some(0));
}

#[tokio::test]
async fn a_tunnel_without_streams_ends_in_time() {
    let more = "[timeouts]\nidle = \"300ms\"\n";
    let pair = Pair::start(Relay::Auto, more, &[ECHO]).await;
    for round in 1..=2 {
        let mut client = pair.client().await;
        echo(&mut client).await;
        drop(client);
        pair.near
            .said("the tunnel is closed: it has no stream", round)
            .await;
        assert_eq!(pair.wires[0].accepted(), round);
        pair.far[0].ended("done", 2 * round).await;
    }
    until("no descriptor of a tunnel", || {
        pair.far[0].outcomes().len() == 1
    })
    .await;
}
