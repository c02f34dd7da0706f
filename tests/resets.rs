//! Connections that fail: only an orderly end is passed on as an orderly end.

mod common;

use std::io;

use common::client::{self, Client, Socket};
use common::vestibule::RELAYS;
use common::world::{To, World, aborted, all, everywhere};
use common::{bytes, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_client_that_ends_without_close_notify_is_a_truncation_and_aborts_the_backend() {
    everywhere("", "client_truncated", |client, mut server| async move {
        // The backend may have received what was sent before; no orderly end follows.
        let (mut socket, _) = client.into_inner();
        socket.shutdown().await.expect("an open connection");
        aborted(&mut server).await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_the_client_resets_the_backend() {
    for (relay, to) in all() {
        let world = World::new((relay, to), "").await;
        let (client, mut server) = world.pair(&world.fronts()[0]).await;
        client::reset(client);
        soon("the backend's end", aborted(&mut server)).await;
        world.ended("client_reset", 1).await;
    }
}

#[tokio::test]
async fn a_reset_of_the_backend_resets_the_client() {
    for (relay, to) in all() {
        let world = World::new((relay, to), "").await;
        let (mut client, server) = world.pair(&world.fronts()[0]).await;
        fail(server, &mut client).await;
        // The client gets no orderly end, and no truncation that it could take for one: the socket
        // is reset.
        let end = soon("the client's end", client.read_to_end(&mut Vec::new())).await;
        let kind = end.map_err(|error| error.kind());
        assert_eq!(
            kind,
            Err(io::ErrorKind::ConnectionReset),
            "{relay:?} {to:?} {:?}",
            world.vestibule.closed()
        );
        world.ended("backend_reset", 1).await;
    }
}

/// Ends the backend's side with a reset: directly on TCP, through unread bytes on a Unix socket.
async fn fail(server: Socket, client: &mut Client) {
    match server {
        Socket::Tcp(stream) => stream.set_zero_linger().expect("an open socket"),
        Socket::Unix(mut stream) => {
            client
                .write_all(b"unread")
                .await
                .expect("an open connection");
            // When the first byte is here, the others are too.
            stream.read_u8().await.expect("an open socket");
        }
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_complete_arrives_completely() {
    // If a server closes with unread bytes, its own kernel discards what it has not sent.
    const ANSWER: usize = 16 * 1024;
    // On a Unix socket, closing with unread bytes resets the reader of the answer, so that a
    // complete answer looks like a broken one.
    for relay in RELAYS {
        let world = World::new((relay, To::Tcp), "").await;
        for (number, front) in world.fronts().iter().enumerate() {
            let (client, mut server) = world.pair(front).await;
            let (mut reader, mut writer) = tokio::io::split(client);
            // A server refuses an upload that is too large: it does not read it, answers, closes
            // its side, and leaves. The client continues to send until the connection ends. If it
            // stopped before the server left, nothing would have to be refused.
            let upload = async { while writer.write_all(&[0; 64 * 1024]).await.is_ok() {} };
            let answer = async {
                bytes::send(&mut server, 5, ANSWER)
                    .await
                    .expect("an open connection");
                drop(server);
            };
            let read = bytes::expect(&mut reader, 5, ANSWER);
            soon("the answer", async { tokio::join!(read, answer, upload) }).await;
            world.ended("backend_reset", number + 1).await;
        }
    }
}

#[tokio::test]
async fn an_answer_truncated_by_a_reset_is_not_passed_on_as_complete() {
    for (relay, to) in all() {
        let world = World::new((relay, to), "").await;
        let (client, mut server) = world.pair(&world.fronts()[0]).await;
        let (mut reader, mut writer) = tokio::io::split(client);
        // The client is writing when the backend dies, so the relay notices it by a failed write.
        let upload = async {
            while writer.write_all(&[0; 64 * 1024]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let answer = async {
            // The rest of the upload has arrived and is unread.
            server.read_u8().await.expect("a byte");
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf";
            server.write_all(half).await.expect("an open connection");
            if let Socket::Tcp(stream) = &server {
                stream.set_zero_linger().expect("an open socket");
            }
            drop(server);
        };
        let mut had = Vec::new();
        let read = async { tokio::join!(reader.read_to_end(&mut had), answer).0 };
        let end = soon("the client's end", async {
            tokio::select! {
                end = read => end,
                () = upload => panic!("pending"),
            }
        })
        .await;
        assert!(
            end.is_err(),
            "{relay:?} {to:?}: a clean end after {} bytes",
            had.len()
        );
        world.ended("backend_reset", 1).await;
    }
}

#[tokio::test]
async fn a_reset_of_the_client_is_noticed_while_the_backend_reads_nothing() {
    for (relay, to) in all() {
        // The time that the backend has to read what the client sent before.
        let world = World::new((relay, to), "half_close = \"1s\"").await;
        let (mut client, mut server) = world.pair(&world.fronts()[0]).await;
        // Until all sockets in between are full.
        let block = [0; 64 * 1024];
        while let Ok(written) = tokio::time::timeout(MOMENT, client.write(&block)).await {
            assert!(written.expect("an open connection") > 0);
        }
        client::reset(client);
        world.ended("client_reset", 1).await;
        // The backend sees the failure, after the bytes that it had not read yet.
        let read = soon("the backend's end", server.read_to_end(&mut Vec::new())).await;
        if to == To::Tcp {
            assert_eq!(
                read.map_err(|error| error.kind()),
                Err(io::ErrorKind::ConnectionReset)
            );
        }
    }
}

/// Long enough for a socket with room to report it. It ends a loop and decides nothing.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(500);
