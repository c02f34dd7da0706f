//! How connections end, over every kind of listener and every kind of backend.

mod common;

use std::path::Path;

use common::client::Front;
use common::vestibule::{RELAYS, Vestibule};
use common::world::{To, World, aborted, all, everywhere};
use common::{bytes, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The rest of a stream, which must end in order.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("a clean end");
    rest
}

#[tokio::test]
async fn bytes_pass_both_ways_completely_and_once() {
    const BYTES: usize = 8 * 1024 * 1024 + 3;
    everywhere("", "done", |client, server| async move {
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut server_reader, mut server_writer) = tokio::io::split(server);
        let (up, down, (), ()) = tokio::join!(
            bytes::send(&mut client_writer, 1, BYTES),
            bytes::send(&mut server_writer, 2, BYTES),
            bytes::expect(&mut server_reader, 1, BYTES),
            bytes::expect(&mut client_reader, 2, BYTES),
        );
        up.and(down).expect("open connections");
    })
    .await;
}

#[tokio::test]
async fn sixty_four_mebibytes_each_way_on_one_claimed_connection() {
    const BYTES: usize = 64 * 1024 * 1024;
    for relay in RELAYS {
        let world = World::new((relay, To::Gate), "").await;
        let (client, server) = world.pair(&world.fronts()[0]).await;
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut server_reader, mut server_writer) = tokio::io::split(server);
        let (up, down, (), ()) = soon("64 MiB", async {
            tokio::join!(
                bytes::send(&mut client_writer, 1, BYTES),
                bytes::send(&mut server_writer, 2, BYTES),
                bytes::expect(&mut server_reader, 1, BYTES),
                bytes::expect(&mut client_reader, 2, BYTES),
            )
        })
        .await;
        up.and(down).expect("open connections");
        world.ended("done", 1).await;
        let closed = &world.vestibule.closed()[0];
        assert_eq!(
            (closed["bytes_in"].as_u64(), closed["bytes_out"].as_u64()),
            (Some(BYTES as u64 + 1), Some(BYTES as u64))
        );
    }
}

#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_whole_answer() {
    const ANSWER: usize = 10 * 1024 * 1024;
    everywhere("", "done", |mut client, mut server| async move {
        client.shutdown().await.expect("close_notify");
        assert!(rest(&mut server).await.is_empty());
        let answer = bytes::send(&mut server, 7, ANSWER);
        let ((), sent) = tokio::join!(bytes::expect(&mut client, 7, ANSWER), answer);
        sent.expect("an open connection");
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_closed_its_side_gets_the_whole_rest() {
    const REST: usize = 10 * 1024 * 1024;
    everywhere("", "done", |mut client, mut server| async move {
        server.shutdown().await.expect("an open connection");
        assert!(rest(&mut client).await.is_empty());
        let sending = bytes::send(&mut client, 9, REST);
        let ((), sent) = tokio::join!(bytes::expect(&mut server, 9, REST), sending);
        sent.expect("an open connection");
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_order_at_its_timeout() {
    everywhere(
        "idle = \"200ms\"",
        "idle",
        |mut client, mut server| async move {
            assert!(rest(&mut client).await.is_empty(), "close_notify");
            // The client has not ended its stream, so the backend must not take the request for
            // complete.
            aborted(&mut server).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_half_closed_connection_on_which_nothing_moves_is_closed_at_its_timeout() {
    let timeouts = "half_close = \"200ms\"";
    everywhere(
        timeouts,
        "half_closed",
        |mut client, mut server| async move {
            client.shutdown().await.expect("close_notify");
            assert!(rest(&mut server).await.is_empty());
            assert!(rest(&mut client).await.is_empty(), "close_notify");
        },
    )
    .await;
}

#[tokio::test]
async fn a_connection_ends_at_its_lifetime_though_bytes_move() {
    everywhere(
        "lifetime = \"1s\"",
        "lifetime",
        |client, mut server| async move {
            let (mut reader, mut writer) = tokio::io::split(client);
            let (mut server_reader, mut server_writer) = tokio::io::split(&mut server);
            let chatter = async {
                while writer.write_all(b"x").await.is_ok() {
                    tokio::task::yield_now().await;
                }
                std::future::pending().await
            };
            let echo = async {
                // The kind of this end does not matter here, only the client's.
                let _ = tokio::io::copy(&mut server_reader, &mut server_writer).await;
                std::future::pending().await
            };
            let mut echoed = Vec::new();
            tokio::select! {
                () = chatter => {}
                () = echo => {}
                read = reader.read_to_end(&mut echoed) => {
                    read.expect("close_notify");
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_stalled_backend_stops_the_client_and_a_stalled_client_the_backend() {
    /// More than all sockets in between can hold.
    const ENOUGH: usize = 64 * 1024 * 1024;
    for (relay, to) in all() {
        let world = World::new((relay, to), "").await;
        let (client, server) = world.pair(&world.fronts()[0]).await;
        let before = world.vestibule.memory();
        let (_, mut client_writer) = tokio::io::split(client);
        let (_, mut server_writer) = tokio::io::split(server);
        let (up, down) = tokio::join!(
            fill(&mut client_writer, ENOUGH),
            fill(&mut server_writer, ENOUGH)
        );
        assert!(
            up < ENOUGH && down < ENOUGH,
            "{relay:?} {to:?}: {up} and {down} bytes went nowhere"
        );
        let grown = world.vestibule.memory().saturating_sub(before);
        assert!(
            grown < 2 * 1024 * 1024,
            "{relay:?} {to:?}: {grown} bytes held for two stalled sides"
        );
    }
}

/// Writes until no bytes are accepted for a moment, at most `most` bytes. Returns the number.
async fn fill(writer: &mut (impl AsyncWriteExt + Unpin), most: usize) -> usize {
    let block = [0; 64 * 1024];
    let mut written = 0;
    while written < most {
        let write =
            tokio::time::timeout(std::time::Duration::from_millis(500), writer.write(&block));
        match write.await {
            Ok(count) => written += count.expect("an open connection"),
            Err(_) => break,
        }
    }
    written
}

#[tokio::test]
async fn a_missing_backend_is_refused_or_waited_for_as_configured() {
    let both = [
        ("park = false", "backend_refused"),
        ("park = true", "backend_timeout"),
    ];
    for (relay, (extra, outcome)) in RELAYS.map(|relay| both.map(|case| (relay, case))).concat() {
        let config = format!(
            "{}[timeouts]\nbackend = \"300ms\"\n[[backend]]\nname = \"app\"\nto = \"unix:{{dir}}/none\"\n{extra}\n",
            relay.config()
        );
        let vestibule = Vestibule::start(&config).await;
        for front in [
            Front::Tcp(vestibule.tcp()),
            Front::Unix(vestibule.path("front.sock")),
        ] {
            let mut client = front.connect().await.expect("a handshake");
            client
                .write_all(b"question")
                .await
                .expect("an open connection");
            assert!(soon("an end", rest(&mut client)).await.is_empty());
        }
        vestibule.ended_over(relay, outcome, 2).await;
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

#[tokio::test]
async fn plaintext_listeners_relay_like_tls_listeners() {
    let config = r#"
[[listener]]
name = "tcp"
address = "127.0.0.1:0"
[[listener]]
name = "unix"
address = "unix:{dir}/plain.sock"
[[backend]]
name = "app"
to = "echo"
"#;
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_whole(directory, config).await;
    let path: &Path = &vestibule.path("plain.sock");
    for front in [Front::Tcp(vestibule.tcp()), Front::Unix(path.to_owned())] {
        let socket = front.socket().await.expect("a connection");
        let (mut reader, mut writer) = tokio::io::split(socket);
        const BYTES: usize = 3 * 1024 * 1024;
        let ((), sent) = soon("the echo", async {
            tokio::join!(
                bytes::expect(&mut reader, 3, BYTES),
                bytes::send(&mut writer, 3, BYTES)
            )
        })
        .await;
        sent.expect("an open connection");
    }
    // Without TLS there are no records to have.
    vestibule.ended("done", 2).await;
    let plain = ("plain".to_owned(), "plain".to_owned());
    assert_eq!(vestibule.sides(), [plain.clone(), plain]);
}
