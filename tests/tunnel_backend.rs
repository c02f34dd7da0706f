//! Backends behind tunnels: Vestibule reaches them by streams in a few TLS connections.

mod common;
mod tunnel_backend {
    mod ends;
    mod health;
    mod hostile;
    pub(crate) mod pair;
    mod pool;
    pub(crate) mod raw;
    mod retries;
    pub(crate) mod server;
}

use common::vestibule::RELAYS;
use common::{bytes, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tunnel_backend::pair::{ECHO, Pair};

#[tokio::test]
async fn fifty_connections_move_256_kib_both_ways_at_the_same_time() {
    const LENGTH: usize = 256 * 1024;
    for relay in RELAYS {
        let pair = Pair::start(relay, "", &[ECHO]).await;
        let mut talks = JoinSet::new();
        for seed in 0..50 {
            let (mut down, mut up) = pair.client().await.into_split();
            talks.spawn(async move {
                let (sent, ()) = tokio::join!(
                    bytes::send(&mut up, seed, LENGTH),
                    bytes::expect(&mut down, seed, LENGTH)
                );
                sent.expect("open");
            });
        }
        while let Some(talk) = soon("all connections", talks.join_next()).await {
            talk.expect("the same bytes");
        }
        pair.near.ended("done", 50).await;
        pair.far[0].ended("done", 50).await;
        assert_eq!(pair.wires[0].accepted(), 1);
        let sides = pair.near.sides();
        assert!(
            sides.iter().all(|(_, backend)| backend == "tunnel"),
            "{sides:?}"
        );
    }
}

#[tokio::test]
async fn ten_clients_share_one_connection() {
    for relay in RELAYS {
        let pair = Pair::start(relay, "", &[ECHO]).await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(pair.client().await);
        }
        for client in &mut clients {
            echo(client).await;
        }
        assert_eq!(pair.wires[0].accepted(), 1);
        // One that leaves takes nobody along.
        drop(clients.pop());
        for client in &mut clients {
            echo(client).await;
        }
    }
}

pub(crate) async fn echo(client: &mut TcpStream) {
    client.write_all(b"word").await.expect("open");
    let mut word = [0; 4];
    let read = soon("an echo", client.read_exact(&mut word)).await;
    read.expect("an echo");
    assert_eq!(&word, b"word");
}
