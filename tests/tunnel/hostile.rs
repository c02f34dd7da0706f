//! Clients that break the rules of HTTP/2, or use them to harm: they are cut, and nobody else notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ECHO;
use crate::common::changing::Site;
use crate::common::soon;
use crate::common::tunnel::{Tunnel, secured, start};
use crate::common::vestibule::{RELAYS, Relay};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// A request to connect to `a:1`, without compression (RFC 7541 §6.2.2).
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x03a:1";

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// What follows the preface, and its name.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let resets = (0..20_000).flat_map(|number| {
        let stream = 2 * number + 1;
        let opened = frame(HEADERS, END_HEADERS, stream, CONNECT);
        [opened, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    let pieces = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[0; 1024]), 5_000).flatten();
    let pings = std::iter::repeat_n(frame(PING, 0, 0, &[7; 8]), 100_000).flatten();
    let settings =
        std::iter::repeat_n(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), 50_000).flatten();
    let opened = frame(HEADERS, END_HEADERS, 1, CONNECT);
    let empty = std::iter::repeat_n(frame(DATA, 0, 1, &[]), 50_000).flatten();
    vec![
        ("rapid reset", resets.collect()),
        (
            "endless header",
            frame(HEADERS, 0, 1, CONNECT)
                .into_iter()
                .chain(pieces)
                .collect(),
        ),
        ("pings", pings.collect()),
        ("settings", settings.collect()),
        (
            "empty frames",
            opened.iter().copied().chain(empty).collect(),
        ),
        (
            "a frame that is too long",
            [&[0xff, 0xff, 0xff, DATA, 0][..], &[0; 4], &[0; 99]].concat(),
        ),
        (
            "a window that does not grow",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        ("a window that is too large", {
            let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
            [&most[..], &most].concat()
        }),
        (
            "data for a stream that was never opened",
            frame(DATA, 0, 99, b"x"),
        ),
        (
            "a compressed header that is none",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        ),
        ("a bomb of headers", frame(HEADERS, END_HEADERS, 1, &bomb())),
        ("not HTTP/2", Vec::new()),
    ]
}

/// A long entry of the dynamic table, used again and again (RFC 7541 §7.3).
fn bomb() -> Vec<u8> {
    let mut block = b"\x40\x01x\x7f\x91\x1e".to_vec();
    block.extend([b'y'; 4000]);
    block.extend([0xbe; 10_000]);
    block.truncate(16_000);
    block
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_cut_and_nobody_else_notices() {
    for relay in RELAYS {
        let site = Site::new();
        let alice = site.client("alice");
        let config = format!("[timeouts]\nhandshake = \"2s\"\n{ECHO}");
        let vestibule = start(&site, relay, &config).await;
        let neighbour = Tunnel::open(&vestibule, &site, &alice).await;
        let mut stream = neighbour.connect("a:1").await;
        stream.echo(b"before").await;
        for (what, attack) in attacks() {
            let mut socket = secured(&vestibule, &site, &alice).await;
            let preface = if attack.is_empty() {
                b"GET / HTTP/1.1\r\n\r\n"
            } else {
                PREFACE
            };
            let bytes = [preface, &frame(SETTINGS, 0, 0, &[]), &attack].concat();
            let attacked = async {
                let (mut reading, mut writing) = tokio::io::split(&mut socket);
                let write = async {
                    // It may be cut in the middle.
                    let _ = writing.write_all(&bytes).await;
                    let _ = writing.flush().await;
                    let _ = writing.shutdown().await;
                };
                let mut told = Vec::new();
                let (_, read) = tokio::join!(write, reading.read_to_end(&mut told));
                drop(read);
                told.len()
            };
            let told = soon(what, attacked).await;
            assert!(told < 8 << 20, "{what}: {told} bytes of answers");
            stream.echo(b"beside").await;
        }
        let memory = vestibule.memory();
        assert!(memory < 120 << 20, "{memory} bytes");
        let outcomes = vestibule.outcomes();
        assert!(!outcomes.contains_key("aborted"), "{outcomes:?}");
        Tunnel::open(&vestibule, &site, &alice)
            .await
            .connect("a:1")
            .await
            .echo(b"after")
            .await;
    }
}

#[tokio::test]
async fn a_client_that_agrees_on_http2_and_is_silent_is_cut_in_time() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = format!("[timeouts]\nhandshake = \"300ms\"\n{ECHO}");
    let vestibule = start(&site, Relay::Auto, &config).await;
    let mut socket = secured(&vestibule, &site, &alice).await;
    let mut told = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut told)).await;
    assert!(read.is_ok(), "it is still open");
    vestibule.ended("idle", 1).await;
}
