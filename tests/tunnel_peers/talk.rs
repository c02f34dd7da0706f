//! What two programs say to each other through a tunnel that they know nothing of.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::backend::Backend;
use crate::common::client::Socket;
use crate::common::{bytes, soon};

/// The two ends of a way through a tunnel.
pub(super) struct Way<'a> {
    /// Where the client connects.
    pub near: String,
    /// Where the connection comes out.
    pub far: &'a Backend,
}

/// How an end of a connection sees that the other one was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Reset,
    /// It takes it for an end in order.
    End,
}

impl Way<'_> {
    /// A connection's two ends.
    pub(super) async fn open(&self) -> (TcpStream, TcpStream) {
        let far = async { tcp(soon("a connection", self.far.accept()).await.expect("one")) };
        tokio::join!(dial(&self.near), far)
    }

    pub(super) async fn client_ends_first(&self) {
        let (mut client, mut server) = self.open().await;
        client.write_all(b"question").await.expect("room");
        client.shutdown().await.expect("open");
        assert_eq!(rest(&mut server).await.expect("an end"), b"question");
        server.write_all(b"answer").await.expect("room");
        drop(server);
        assert_eq!(rest(&mut client).await.expect("an end"), b"answer");
    }

    pub(super) async fn server_ends_first(&self) {
        let (mut client, mut server) = self.open().await;
        server.write_all(b"greeting").await.expect("room");
        server.shutdown().await.expect("open");
        assert_eq!(rest(&mut client).await.expect("an end"), b"greeting");
        client.write_all(b"answer").await.expect("room");
        client.shutdown().await.expect("open");
        assert_eq!(rest(&mut server).await.expect("an end"), b"answer");
    }

    /// What the server sees, and its end.
    pub(super) async fn client_resets(&self) -> (Cut, TcpStream) {
        let (client, server) = self.open().await;
        reset(client, server).await
    }

    /// What the client sees, and its end.
    pub(super) async fn server_resets(&self) -> (Cut, TcpStream) {
        let (client, server) = self.open().await;
        reset(server, client).await
    }
}

async fn reset(mut one: TcpStream, mut other: TcpStream) -> (Cut, TcpStream) {
    one.write_all(b"half").await.expect("room");
    let mut half = [0; 4];
    soon("bytes", other.read_exact(&mut half))
        .await
        .expect("bytes");
    one.set_zero_linger().expect("an open socket");
    drop(one);
    (cut(&mut other).await, other)
}

/// How the connection ends; nothing must come before that.
pub(super) async fn cut(socket: &mut TcpStream) -> Cut {
    match soon("the end", socket.read(&mut [0])).await {
        Ok(0) => Cut::End,
        Ok(_) => panic!("a byte that nobody sent"),
        Err(_) => Cut::Reset,
    }
}

/// As many connections beside each other, each with 256 KiB in both directions, to a server that sends everything
/// back.
pub(super) async fn echoes(near: &str, count: u64) {
    const LENGTH: usize = 256 * 1024;
    let mut talks = JoinSet::new();
    for seed in 0..count {
        let near = near.to_owned();
        talks.spawn(async move {
            let (mut reading, mut writing) = dial(&near).await.into_split();
            let (sent, ()) = tokio::join!(
                bytes::send(&mut writing, seed, LENGTH),
                bytes::expect(&mut reading, seed, LENGTH)
            );
            sent.expect("room");
        });
    }
    while let Some(talk) = soon("all connections", talks.join_next()).await {
        talk.expect("the same bytes");
    }
}

/// A word in each direction.
pub(super) async fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    say(client, server).await;
    say(server, client).await;
}

async fn say(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"word").await.expect("room");
    let mut word = [0; 4];
    let read = soon("a word", to.read_exact(&mut word)).await;
    read.expect("a word");
    assert_eq!(&word, b"word");
}

pub(super) async fn rest(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    soon("the end", socket.read_to_end(&mut bytes)).await?;
    Ok(bytes)
}

pub(super) async fn dial(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).await.expect("a listener");
    socket.set_nodelay(true).expect("an open socket");
    socket
}

pub(super) fn tcp(socket: Socket) -> TcpStream {
    match socket {
        Socket::Tcp(socket) => socket,
        Socket::Unix(_) => panic!("it is TCP"),
    }
}
