//! Servers of tunnels that refuse, die, say nothing, or change their mind.

use h2::Reason;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pair::{connect, site, start_near};
use super::raw::{DATA, RST_STREAM, Raw};
use super::server::{Server, asked, status};
use crate::common::changing::Site;
use crate::common::pki::{Authority, Subject};
use crate::common::soon;
use crate::common::vestibule::{RELAYS, Relay, Vestibule, message};

pub(super) async fn before(more: &str) -> (Site, Server, Vestibule) {
    let site = site();
    let server = Server::new(&site).await;
    let near = start_near(&site, Relay::Auto, &[server.address()], more).await;
    (site, server, near)
}

pub(super) async fn reads(client: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    let read = soon("bytes", client.read_exact(&mut bytes)).await;
    read.expect("bytes");
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_asked_once() {
    for code in [301, 400, 403, 404, 405] {
        let (_site, server, near) = before("").await;
        let _client = connect(&near).await;
        let mut tunnel = server.tunnel().await;
        let (request, mut respond) = asked(&mut tunnel).await;
        assert_eq!(request.uri().to_string(), "db:5432");
        respond.send_response(status(code), true).expect("open");
        let ended = near.ended("backend_refused", 1);
        tokio::select! {
            () = ended => {}
            again = asked(&mut tunnel) => panic!("it asks again: {:?}", again.0),
        }
        near.said("a stream in a tunnel is refused", 1).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_asked_again() {
    for code in [429, 502, 503, 504] {
        let (_site, server, near) = before("").await;
        let mut client = connect(&near).await;
        let mut tunnel = server.tunnel().await;
        let (_, mut respond) = asked(&mut tunnel).await;
        respond.send_response(status(code), true).expect("open");
        let (_, mut respond) = asked(&mut tunnel).await;
        let mut stream = respond.send_response(status(200), false).expect("open");
        stream.send_data("well".into(), false).expect("open");
        tokio::select! {
            () = reads(&mut client, b"well") => {}
            again = asked(&mut tunnel) => panic!("it asks again: {:?}", again.0),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_asked_once_without_parking() {
    let (_site, server, near) = before("park = false{tunnel}").await;
    let _client = connect(&near).await;
    let mut tunnel = server.tunnel().await;
    let (_, mut respond) = asked(&mut tunnel).await;
    respond.send_response(status(503), true).expect("open");
    tokio::select! {
        () = near.ended("backend_refused", 1) => {}
        again = asked(&mut tunnel) => panic!("it asks again: {:?}", again.0),
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_after_the_handshake_is_a_timeout() {
    let (_site, server, near) = before("[timeouts]\nbackend = \"500ms\"\n").await;
    let _client = connect(&near).await;
    let _silent = server.secured().await;
    near.ended("backend_timeout", 1).await;
}

#[tokio::test]
async fn a_request_without_an_answer_is_a_timeout_and_no_second_request() {
    let site = site();
    let servers = [Server::new(&site).await, Server::new(&site).await];
    let to = [servers[0].address(), servers[1].address()];
    let more = "balance = \"round_robin\"{tunnel}[timeouts]\nbackend = \"500ms\"\n";
    let near = start_near(&site, Relay::Auto, &to, more).await;
    let _client = connect(&near).await;
    let mut tunnel = tokio::select! {
        tunnel = Raw::accept(&servers[0], 100) => tunnel,
        tunnel = Raw::accept(&servers[1], 100) => tunnel,
    };
    let stream = tunnel.asked().await;
    let reset = tunnel.next(RST_STREAM).await;
    assert_eq!(reset.stream, stream);
    assert_eq!(reset.payload, u32::from(Reason::CANCEL).to_be_bytes());
    near.ended("backend_timeout", 1).await;
    near.terminate().await;
    for server in &servers {
        assert!(server.is_left_alone().await, "another address was dialled");
    }
}

#[tokio::test]
async fn the_servers_limit_of_streams_is_kept() {
    let (_site, server, near) = before("").await;
    let mut first = connect(&near).await;
    let mut one = Raw::accept(&server, 1).await;
    let stream = one.asked().await;
    one.answer(stream).await;
    let mut second = connect(&near).await;
    let mut other = Raw::accept(&server, 1).await;
    let beside = other.asked().await;
    other.answer(beside).await;
    // As many tunnels as are allowed, without a place.
    let mut third = connect(&near).await;
    third.write_all(b"early").await.expect("open");
    first.write_all(b"done").await.expect("open");
    assert_eq!(one.next(DATA).await.payload, b"done");
    first.set_zero_linger().expect("an open socket");
    drop(first);
    let stream = one.asked().await;
    one.answer(stream).await;
    assert_eq!(one.next(DATA).await.payload, b"early");
    one.data(stream, b"well").await;
    reads(&mut third, b"well").await;
    other.data(beside, b"well").await;
    reads(&mut second, b"well").await;
}

#[tokio::test]
async fn a_limit_that_the_server_raises_serves_those_who_wait() {
    let more = "{tunnel}connections = 1\n[timeouts]\nbackend = \"1m\"\n";
    let (_site, server, near) = before(more).await;
    let _first = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 1).await;
    let stream = tunnel.asked().await;
    tunnel.answer(stream).await;
    let mut others = [connect(&near).await, connect(&near).await];
    tunnel.allow(3).await;
    for _ in 0..2 {
        let stream = tunnel.asked().await;
        tunnel.answer(stream).await;
        tunnel.data(stream, b"well").await;
    }
    for other in &mut others {
        reads(other, b"well").await;
    }
}

#[tokio::test]
async fn a_limit_that_the_server_lowers_is_kept_from_then_on() {
    let (_site, server, near) = before("").await;
    let mut first = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 100).await;
    let stream = tunnel.asked().await;
    tunnel.allow(1).await;
    tunnel.answer(stream).await;
    tunnel.data(stream, b"seen").await;
    reads(&mut first, b"seen").await;
    let _second = connect(&near).await;
    let mut other = Raw::accept(&server, 100).await;
    other.asked().await;
}

#[tokio::test]
async fn a_server_without_the_protocol_is_refused_and_said_so() {
    for relay in RELAYS {
        let site = site();
        let server = Server::agreeing(&site, &[]).await;
        let near = start_near(&site, relay, &[server.address()], "").await;
        let _client = connect(&near).await;
        let _tls = server.secured().await;
        near.ended("backend_refused", 1).await;
        let complaint = near.event(|event| message(event) == "cannot open a tunnel to a backend");
        let complaint = complaint.await;
        let error = complaint["error"].as_str().unwrap_or_default();
        assert!(error.contains("ALPN"), "{complaint}");
        assert_eq!(complaint["backend"], "db", "{complaint}");
        let address = format!("tcp:{}", server.address());
        assert_eq!(complaint["address"], address, "{complaint}");
    }
}

/// One line names the backend and the address, and a protocol is no certificate.
#[tokio::test]
async fn each_reason_for_which_there_is_no_tunnel_is_one_warning_with_its_place() {
    for (alpn, authority, word) in [
        ("other", None, "no common protocol (ALPN)"),
        ("h2", Some(Authority::root("strangers")), "UnknownIssuer"),
    ] {
        let site = site();
        let server = Server::agreeing(&site, &[alpn]).await;
        if let Some(authority) = authority {
            let ca = site.path("ca.pem");
            std::fs::write(ca, authority.pem()).expect("a file");
        }
        let near = start_near(&site, Relay::Auto, &[server.address()], "").await;
        let _client = connect(&near).await;
        server.refused().await;
        let complaint = near.event(|event| message(event) == "cannot open a tunnel to a backend");
        let complaint = complaint.await;
        let error = complaint["error"].as_str().unwrap_or_default();
        assert!(error.contains(word), "{complaint}");
        assert_eq!(complaint["backend"], "db", "{complaint}");
        let log = near.log();
        let others = log
            .iter()
            .filter(|it| it["level"] == "WARN" && it["error"].is_string());
        let others = others.filter(|it| message(it).starts_with("TLS with a backend"));
        assert_eq!(others.count(), 0, "{log:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_refused() {
    for relay in RELAYS {
        let site = site();
        let server = Server::new(&site).await;
        let stranger = Authority::root("nobody").issue(&Subject::named("alice"));
        stranger.write(site.directory.path(), "alice");
        let near = start_near(&site, relay, &[server.address()], "").await;
        let _client = connect(&near).await;
        server.refused().await;
        near.ended("backend_refused", 1).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_dial_leaves_it_to_the_others() {
    let (_site, server, near) = before("").await;
    let first = connect(&near).await;
    let tls = server.secured().await;
    let mut second = connect(&near).await;
    first.set_zero_linger().expect("an open socket");
    drop(first);
    near.ended("client_gone", 1).await;
    let begun = soon("a preface", h2::server::handshake(tls)).await;
    let mut tunnel = begun.expect("HTTP/2");
    let (_, mut respond) = asked(&mut tunnel).await;
    let mut stream = respond.send_response(status(200), false).expect("open");
    stream
        .send_data(Bytes::from_static(b"well"), false)
        .expect("open");
    tokio::select! {
        () = reads(&mut second, b"well") => {}
        again = asked(&mut tunnel) => panic!("it asks again: {:?}", again.0),
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_resets_its_stream_alone() {
    let (_site, server, near) = before("").await;
    let mut neighbour = connect(&near).await;
    let mut tunnel = Raw::accept(&server, 100).await;
    let beside = tunnel.asked().await;
    tunnel.answer(beside).await;
    let client = connect(&near).await;
    let stream = tunnel.asked().await;
    client.set_zero_linger().expect("an open socket");
    drop(client);
    let reset = tunnel.next(RST_STREAM).await;
    assert_eq!(reset.stream, stream);
    assert_eq!(reset.payload, u32::from(Reason::CANCEL).to_be_bytes());
    near.ended("client_gone", 1).await;
    tunnel.data(beside, b"well").await;
    reads(&mut neighbour, b"well").await;
}

#[tokio::test]
async fn the_proxy_header_is_the_first_bytes_of_the_stream() {
    let (_site, server, near) = before("proxy_protocol = \"v1\"{tunnel}").await;
    let mut client = connect(&near).await;
    client.write_all(b"hello").await.expect("open");
    let mut tunnel = Raw::accept(&server, 100).await;
    let stream = tunnel.asked().await;
    tunnel.answer(stream).await;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"hello") {
        bytes.extend(tunnel.next(DATA).await.payload);
    }
    let port = client.local_addr().expect("bound").port();
    let text = String::from_utf8(bytes).expect("text");
    assert!(
        text.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{text}"
    );
    assert!(text.contains(&format!(" {port} ")), "{text}");
    assert!(text.ends_with("\r\nhello"), "{text}");
}
