//! The bytes of many streams beside each other, and the memory for them.

use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common;
use crate::common::backend::Backend;
use crate::common::changing::Site;
use crate::common::client::Socket;
use crate::common::resources::raise_own_limit;
use crate::common::tunnel::{Stream, Tunnel, room, send, start};
use crate::common::vestibule::{RELAYS, Relay};
use crate::common::{soon, until};
use crate::{APP, ECHO};

#[tokio::test]
async fn fifty_streams_move_256_kib_both_ways_at_the_same_time() {
    const LENGTH: usize = 256 * 1024;
    for relay in RELAYS {
        let site = Site::new();
        let alice = site.client("alice");
        let vestibule = start(&site, relay, ECHO).await;
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        let mut talks = tokio::task::JoinSet::new();
        for seed in 0..50 {
            let stream = tunnel.connect("echo:1").await;
            let bytes = seeded(seed, LENGTH);
            talks.spawn(async move {
                let back = stream.exchange(bytes.clone()).await.expect("a clean end");
                assert!(back == bytes, "stream {seed}: other bytes");
            });
        }
        while let Some(talk) = soon("all streams", talks.join_next()).await {
            talk.expect("the same bytes");
        }
        vestibule.ended("done", 50).await;
    }
}

pub(super) fn seeded(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    common::bytes::Bytes::seeded(seed).fill(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn a_hundred_thousand_frames_of_20_bytes_are_legal_in_both_directions() {
    const FRAMES: usize = 100_000;
    let site = Site::new();
    let alice = site.client("alice");
    let backend = Backend::unix(&site.path("app.sock"));
    let vestibule = start(&site, Relay::Auto, APP).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let (stream, server) = tokio::join!(tunnel.connect("db:1"), async {
        backend.accept().await.expect("a connection")
    });
    let Stream {
        mut sending,
        mut received,
    } = stream;
    let (mut from_client, mut to_client) = tokio::io::split(server);
    let up = async {
        for number in 0..FRAMES {
            let frame = Bytes::from(format!("{number:020}"));
            send(&mut sending, frame).await.expect("open");
        }
        sending.send_data(Bytes::new(), true).expect("open");
    };
    let read_up = async {
        let mut frame = [0; 20];
        for number in 0..FRAMES {
            soon("a frame", from_client.read_exact(&mut frame))
                .await
                .expect("a frame");
            assert_eq!(frame, *format!("{number:020}").as_bytes());
        }
        assert_eq!(from_client.read(&mut frame).await.expect("the end"), 0);
    };
    let down = async {
        for number in 0..FRAMES {
            to_client
                .write_all(format!("{number:020}").as_bytes())
                .await
                .expect("room");
        }
        to_client.shutdown().await.expect("open");
    };
    let read_down = async {
        let mut bytes = Vec::new();
        while let Some(frame) = soon("a frame", received.data()).await {
            let frame = frame.expect("no reset");
            received
                .flow_control()
                .release_capacity(frame.len())
                .expect("received");
            bytes.extend_from_slice(&frame);
        }
        assert_eq!(bytes.len(), 20 * FRAMES);
        let is_right =
            |(number, frame): (usize, &[u8])| frame == format!("{number:020}").as_bytes();
        assert!(bytes.chunks(20).enumerate().all(is_right));
    };
    tokio::join!(up, read_up, down, read_down);
    vestibule.ended("done", 1).await;
}

/// Small frames that nobody takes are kept in one piece: the stream costs its window, and no other stream waits.
#[tokio::test]
async fn streams_that_nobody_reads_cost_their_window_and_delay_no_other() {
    const STALLED: usize = 20;
    for frame in [16, 16 * 1024] {
        let site = Site::new();
        let alice = site.client("alice");
        let backend = Backend::unix(&site.path("app.sock"));
        let config = format!(
            "{APP}{ECHO}[[route]]\nauthority = [\"echo:*\"]\nbackend = \"echo\"\n[[route]]\nbackend = \"app\"\n"
        );
        let vestibule = start(&site, Relay::Auto, &config).await;
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        let mut lively = tunnel.connect("echo:1").await;
        lively.echo(b"before").await;
        let mut before = 0;
        let (mut stalled, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..STALLED {
            let (mut stream, server) = tokio::join!(tunnel.connect("db:1"), async {
                backend.accept().await.expect("a connection")
            });
            servers.push(server);
            let mut taken = 0;
            let bytes = Bytes::from(vec![7; frame]);
            // Until nobody takes any more.
            while let Ok(room) = tokio::time::timeout(FULL, room(&mut stream.sending, frame)).await
            {
                let room = room.expect("open");
                stream
                    .sending
                    .send_data(bytes.slice(..room), false)
                    .expect("open");
                taken += room;
                assert!(taken < 4 * 1024 * 1024, "it takes all of it");
            }
            stalled.push((stream, taken));
            if stalled.len() == 1 {
                // With what the tunnel needs once.
                before = vestibule.memory();
            }
            lively.echo(b"beside").await;
        }
        // The allocator gives memory back that it needed in between.
        let most = before + STALLED * 300 * 1024;
        until("the memory is what the windows hold", || {
            vestibule.memory() < most
        })
        .await;
        for ((mut stream, taken), mut server) in stalled.into_iter().zip(servers) {
            stream.end().expect("open");
            let mut bytes = Vec::new();
            soon("the end", server.read_to_end(&mut bytes))
                .await
                .expect("a clean end");
            assert_eq!(bytes.len(), taken);
        }
        lively.echo(b"after").await;
    }
}

/// The other direction: what a backend sends and the client does not read stays with the backend, but for a little.
#[tokio::test]
async fn streams_whose_client_reads_nothing_cost_little_and_delay_no_other() {
    const STALLED: usize = 20;
    let site = Site::new();
    let alice = site.client("alice");
    let backend = Backend::unix(&site.path("app.sock"));
    let config = format!(
        "{APP}{ECHO}[[route]]\nauthority = [\"echo:*\"]\nbackend = \"echo\"\n[[route]]\nbackend = \"app\"\n"
    );
    let vestibule = start(&site, Relay::Auto, &config).await;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1 << 24);
    let tunnel = Tunnel::open_with(&builder, &vestibule, &site, &alice).await;
    let mut lively = tunnel.connect("echo:1").await;
    lively.echo(b"before").await;
    let (mut stalled, mut before) = (Vec::new(), 0);
    for seed in 0..STALLED as u64 {
        let (stream, mut server) = tokio::join!(tunnel.connect("db:1"), async {
            backend.accept().await.expect("a connection")
        });
        let bytes = seeded(seed, 4 * 1024 * 1024);
        let mut sent = 0;
        // Until nobody takes any more.
        while let Ok(count) = tokio::time::timeout(FULL, server.write(&bytes[sent..])).await {
            sent += count.expect("open");
            assert!(sent < bytes.len(), "it takes all of it");
        }
        stalled.push((stream, server, bytes.slice(..sent)));
        if stalled.len() == 1 {
            // With what the tunnel needs once.
            before = vestibule.memory();
        }
        lively.echo(b"beside").await;
    }
    // The allocator gives memory back that it needed in between.
    let most = before + STALLED * 256 * 1024;
    until("the memory is bounded", || vestibule.memory() < most).await;
    for (mut stream, server, bytes) in stalled {
        drop(server);
        let back = stream.rest().await.expect("a clean end");
        assert!(back == bytes, "other bytes");
    }
    lively.echo(b"after").await;
}

/// A stream that takes nothing for so long is full.
const FULL: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_thousand_idle_streams_that_have_moved_bytes_own_no_buffer() {
    const TUNNELS: usize = 10;
    const STREAMS: usize = 100;
    const MOVED: usize = 16 * 1024;
    let site = Site::new();
    let alice = site.client("alice");
    let backend = Backend::unix(&site.path("app.sock"));
    let _serving = backend.serve(echo);
    raise_own_limit();
    let limits = ["connections_per_ip", "connections_per_identity"];
    let limits = limits.map(|limit| format!("{limit} = \"unlimited\"\n"));
    let config = format!("{APP}[limits]\n{}", limits.concat());
    let vestibule = start(&site, Relay::Auto, &config).await;
    let bytes = seeded(7, MOVED);
    let (mut held, mut before) = (Vec::new(), 0);
    for _ in 0..=TUNNELS {
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = tunnel.connect("db:1").await;
            stream.send(bytes.clone()).await.expect("room");
            let back = stream.read(MOVED).await.expect("an echo");
            assert!(back == bytes, "other bytes");
            streams.push(stream);
        }
        held.push((tunnel, streams));
        if held.len() == 1 {
            // With what the program needs once.
            before = vestibule.memory();
        }
    }
    // The allocator gives memory back that it needed in between.
    let most = before + TUNNELS * STREAMS * 10 * 1024;
    until("an idle stream owns less than one frame", || {
        vestibule.memory() < most
    })
    .await;
    for (_, streams) in &mut held {
        streams[0].echo(b"still there").await;
    }
}

async fn echo(socket: Socket) {
    let (mut reader, mut writer) = tokio::io::split(socket);
    // Until the client has gone.
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}
