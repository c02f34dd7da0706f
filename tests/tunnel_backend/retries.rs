//! Which streams are tried again in another tunnel: those that the server has certainly not looked at.

use std::io::ErrorKind;

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::hostile::{before, reads};
use super::pair::connect;
use super::raw::{DATA, RST_STREAM, Raw};
use crate::common::soon;

async fn reads_a_reset(client: &mut TcpStream) {
    let read = soon("a reset", client.read(&mut [0])).await;
    assert_eq!(
        read.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn goaway_moves_the_streams_above_its_last_one_to_another_tunnel_and_no_others() {
    for code in [Reason::NO_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (_site, server, near) = before("").await;
        let mut first = connect(&near).await;
        let mut before = Raw::accept(&server, 100).await;
        let one = before.asked().await;
        let mut second = connect(&near).await;
        let three = before.asked().await;
        let mut third = connect(&near).await;
        let five = before.asked().await;
        assert_eq!([one, three, five], [1, 3, 5]);
        before.answer(one).await;
        before.data(one, b"one").await;
        reads(&mut first, b"one").await;

        before.go_away(three, code.into()).await;
        let mut after = Raw::accept(&server, 100).await;
        let again = after.asked().await;
        after.answer(again).await;
        after.data(again, b"five").await;
        reads(&mut third, b"five").await;

        // The stream below continues, also if it had no answer yet.
        before.answer(three).await;
        before.data(three, b"three").await;
        reads(&mut second, b"three").await;
        before.data(one, b"more").await;
        reads(&mut first, b"more").await;
        first.write_all(b"back").await.expect("open");
        let back = before.next(DATA).await;
        assert_eq!((back.stream, &*back.payload), (one, &b"back"[..]));

        // Then the server leaves, with two streams that have ended in no other way.
        drop(before);
        reads_a_reset(&mut first).await;
        reads_a_reset(&mut second).await;
        near.ended("backend_reset", 2).await;
        after.data(again, b"well").await;
        reads(&mut third, b"well").await;
    }
}

#[tokio::test]
async fn a_stream_below_goaway_that_gets_no_answer_is_not_tried_again() {
    let (_site, server, near) = before("").await;
    let mut client = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 100).await;
    let stream = tunnel.asked().await;
    tunnel.go_away(stream, Reason::NO_ERROR.into()).await;
    drop(tunnel);
    tokio::select! {
        () = reads_a_reset(&mut client) => {}
        _ = server.secured() => panic!("it asks another tunnel"),
    }
    near.ended("backend_reset", 1).await;
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_in_another_tunnel() {
    let (_site, server, near) = before("").await;
    let mut neighbour = connect(&near).await;
    let mut one = Raw::accept(&server, 100).await;
    let beside = one.asked().await;
    one.answer(beside).await;
    let mut client = connect(&near).await;
    let stream = one.asked().await;
    one.reset(stream, Reason::REFUSED_STREAM.into()).await;
    let mut other = Raw::accept(&server, 100).await;
    let stream = other.asked().await;
    other.answer(stream).await;
    other.data(stream, b"well").await;
    reads(&mut client, b"well").await;
    one.data(beside, b"well").await;
    reads(&mut neighbour, b"well").await;
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_not_flooded() {
    let more = "{tunnel}connections = 1\n[timeouts]\nbackend = \"1s\"\n";
    let (_site, server, near) = before(more).await;
    let _client = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 100).await;
    let mut refused = 0;
    let ended = near.ended("backend_timeout", 1);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            stream = tunnel.asked() => {
                refused += 1;
                tunnel.reset(stream, Reason::REFUSED_STREAM.into()).await;
            }
        }
    }
    assert!((2..60).contains(&refused), "{refused} requests");
}

#[tokio::test]
async fn other_resets_before_the_answer_are_not_tried_again() {
    for code in [Reason::CONNECT_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (_site, server, near) = before("").await;
        let _client = connect(&near).await;
        let mut tunnel = Raw::accept(&server, 100).await;
        let stream = tunnel.asked().await;
        tunnel.reset(stream, code.into()).await;
        tokio::select! {
            () = near.ended("backend_reset", 1) => {}
            _ = tunnel.asked() => panic!("it asks again after {code}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_before_the_answer_is_not_tried_again() {
    let (_site, server, near) = before("").await;
    let mut client = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 100).await;
    tunnel.asked().await;
    drop(tunnel);
    tokio::select! {
        () = reads_a_reset(&mut client) => {}
        _ = server.secured() => panic!("it asks another tunnel"),
    }
    near.ended("backend_reset", 1).await;
}

#[tokio::test]
async fn frames_for_streams_that_were_reset_end_no_tunnel() {
    const RESETS: usize = 1_400;
    let (_site, server, near) = before("").await;
    let mut neighbour = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 200).await;
    let beside = tunnel.asked().await;
    tunnel.answer(beside).await;
    let mut streams = Vec::new();
    while streams.len() < RESETS {
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(connect(&near).await);
            let stream = tunnel.asked().await;
            tunnel.answer(stream).await;
            streams.push(stream);
        }
        for client in clients {
            client.set_zero_linger().expect("an open socket");
            drop(client);
            tunnel.next(RST_STREAM).await;
        }
    }
    for stream in streams {
        tunnel.data(stream, b"late").await;
    }
    tunnel.data(beside, b"well").await;
    reads(&mut neighbour, b"well").await;
    neighbour.write_all(b"back").await.expect("open");
    assert_eq!(tunnel.next(DATA).await.payload, b"back");
    let mut another = connect(&near).await;
    let stream = tunnel.asked().await;
    tunnel.answer(stream).await;
    tunnel.data(stream, b"well").await;
    reads(&mut another, b"well").await;
}

#[tokio::test]
async fn bytes_that_came_before_the_cut_are_delivered_and_no_stream_ends_cleanly() {
    let (_site, server, near) = before("").await;
    let mut clients = Vec::new();
    let mut tunnel = None;
    for number in 0..10_u8 {
        clients.push(connect(&near).await);
        if tunnel.is_none() {
            tunnel = Some(Raw::accept(&server, 100).await);
        }
        let tunnel = tunnel.as_mut().expect("accepted");
        let stream = tunnel.asked().await;
        tunnel.answer(stream).await;
        tunnel.data(stream, &[number; 1000]).await;
    }
    drop(tunnel);
    for (number, client) in clients.iter_mut().enumerate() {
        reads(client, &[number as u8; 1000]).await;
        reads_a_reset(client).await;
    }
    near.ended("backend_reset", 10).await;
}
