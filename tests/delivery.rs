//! Every byte that a side has sent arrives before the end, and the end arrives in its own kind.
//!
//! `DELIVERY_RUNS=20 cargo test --test delivery` runs each case twenty times, with 200 clients that
//! each send a line. The default is one run with 25 clients.

mod common;
mod delivery {
    mod lines;
}

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use common::client::{Client, Socket};
use common::site::{Door, Kind, Peer, Server, Site, certificates, server};
use common::soon;
use common::vestibule::RELAYS;
use common::world::{To, World};
use nix::sys::socket::GetSockOpt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// How a side ends its stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Clean,
    /// The socket ends without `close_notify`.
    Truncation,
    Reset,
    /// `close_notify`, and then another record.
    ExtraRecord,
}

const MANNERS: [Manner; 4] = [
    Manner::Clean,
    Manner::Truncation,
    Manner::Reset,
    Manner::ExtraRecord,
];

/// How fast the other side reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    Fast,
    /// A mebibyte a second.
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// More than all sockets in between can hold.
const WORDS: usize = 3 * 1024 * 1024;

/// A side of a connection with access to its socket.
trait Party: Peer {
    fn socket(&self) -> &Socket;
    fn into_socket(self: Box<Self>) -> Socket;
    /// Ends the TLS stream and sends another record; `None` without TLS.
    fn end_with_a_record_behind(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + '_>>>;
    fn speaks_tls(&self) -> bool;
}

impl Party for Socket {
    fn socket(&self) -> &Socket {
        self
    }
    fn into_socket(self: Box<Self>) -> Socket {
        *self
    }
    fn end_with_a_record_behind(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + '_>>> {
        None
    }
    fn speaks_tls(&self) -> bool {
        false
    }
}

macro_rules! party {
    ($stream:ty) => {
        impl Party for $stream {
            fn socket(&self) -> &Socket {
                self.get_ref().0
            }
            fn into_socket(self: Box<Self>) -> Socket {
                (*self).into_inner().0
            }
            fn end_with_a_record_behind(
                &mut self,
            ) -> Option<Pin<Box<dyn Future<Output = ()> + '_>>> {
                Some(Box::pin(async {
                    self.get_mut().1.send_close_notify();
                    self.flush().await.expect("a connection");
                    let record = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
                    let socket = self.get_mut().0;
                    socket.write_all(&record).await.expect("a connection");
                }))
            }
            fn speaks_tls(&self) -> bool {
                true
            }
        }
    };
}

party!(Client);
party!(Server);

type Side = Box<dyn Party>;

#[tokio::test]
async fn every_byte_arrives_before_the_end_in_server_mode() {
    let mut cases = Cases::default();
    for _ in 0..runs() {
        for relay in RELAYS {
            for to in [To::Tcp, To::Unix, To::Gate] {
                for version in [&TLS12, &TLS13] {
                    let world = World::new((relay, to), "").await;
                    for (manner, pace, direction) in variants() {
                        let front = &world.fronts()[0];
                        let (client, server) = tokio::join!(
                            async { front.connect_with(version).await.expect("a handshake") },
                            async {
                                match to {
                                    To::Gate => None,
                                    _ => Some(world.server().await),
                                }
                            }
                        );
                        let server = match server {
                            Some(server) => server,
                            None => world.server().await,
                        };
                        let name = format!(
                            "{relay:?} {to:?} {version:?} {manner:?} {pace:?} {direction:?}"
                        );
                        cases.add(
                            name,
                            Box::new(client),
                            Box::new(server),
                            manner,
                            pace,
                            direction,
                        );
                    }
                    cases.run().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn every_byte_arrives_before_the_end_in_client_mode() {
    let mut cases = Cases::default();
    for _ in 0..runs() {
        for relay in RELAYS {
            for kind in [Kind::Tcp, Kind::Unix] {
                for version in [&TLS12, &TLS13] {
                    let directory = certificates();
                    let acceptor = server(directory.path(), "api", &[version]);
                    let more = "";
                    let site = Site::start(directory, relay, kind, acceptor, more).await;
                    for door in site.doors() {
                        for (manner, pace, direction) in variants() {
                            let (client, server) = tokio::join!(enter(&door), site.server());
                            let name = format!(
                                "{relay:?} {kind:?} {version:?} {door:?} {manner:?} {pace:?} {direction:?}"
                            );
                            cases.add(name, client, Box::new(server), manner, pace, direction);
                        }
                    }
                    cases.run().await;
                }
            }
        }
    }
}

fn runs() -> usize {
    let runs = std::env::var("DELIVERY_RUNS").ok();
    runs.map_or(1, |runs| runs.parse().expect("a number"))
}

fn variants() -> impl Iterator<Item = (Manner, Pace, Direction)> {
    MANNERS.into_iter().flat_map(|manner| {
        [Pace::Fast, Pace::Slow].into_iter().flat_map(move |pace| {
            [Direction::Up, Direction::Down].map(move |direction| (manner, pace, direction))
        })
    })
}

async fn enter(door: &Door) -> Side {
    match door {
        Door::Tls(front) => Box::new(front.connect().await.expect("a handshake")),
        Door::Clear(front) => Box::new(front.socket().await.expect("a listener")),
    }
}

/// Independent connections.
#[derive(Default)]
struct Cases(Vec<(String, Case)>);

type Case = Pin<Box<dyn Future<Output = ()>>>;

impl Cases {
    fn add(
        &mut self,
        name: String,
        client: Side,
        server: Side,
        manner: Manner,
        pace: Pace,
        direction: Direction,
    ) {
        let (speaker, listener) = match direction {
            Direction::Up => (client, server),
            Direction::Down => (server, client),
        };
        if can(&*speaker, manner) {
            let case = case(name.clone(), speaker, listener, manner, pace);
            self.0.push((name, Box::pin(case)));
        }
    }

    async fn run(&mut self) {
        let mut all = tokio::task::JoinSet::new();
        let local = tokio::task::LocalSet::new();
        for (name, case) in self.0.drain(..) {
            all.spawn_local_on(async move { soon(&name, case).await }, &local);
        }
        local
            .run_until(async {
                while all
                    .join_next()
                    .await
                    .transpose()
                    .expect("no panic")
                    .is_some()
                {}
            })
            .await;
    }
}

/// Whether a side can end in this manner.
fn can(speaker: &dyn Party, manner: Manner) -> bool {
    match manner {
        Manner::Clean => true,
        Manner::Truncation | Manner::ExtraRecord => speaker.speaks_tls(),
        Manner::Reset => is_tcp(speaker),
    }
}

fn is_tcp(side: &dyn Party) -> bool {
    matches!(side.socket(), Socket::Tcp(_))
}

async fn case(name: String, speaker: Side, mut listener: Side, manner: Manner, pace: Pace) {
    let words = words();
    let listens = hear(&mut listener, &words, pace);
    let (spoken, (arrived, end)) = tokio::join!(speak(speaker, &words, manner), listens);
    assert!(
        arrived == words.len(),
        "{name}: {arrived} bytes and {end:?}"
    );
    match manner {
        Manner::Clean | Manner::ExtraRecord => {
            assert!(end.is_ok(), "{name}: {end:?}");
            // The answer arrives too; the record after the end must not destroy it.
            let answer = async {
                let written = listener.write_all(&words).await;
                written
                    .and(listener.shutdown().await)
                    .unwrap_or_else(|error| panic!("{name}: the answer: {error}"));
            };
            let mut speaker = spoken.expect("it can still hear");
            let mut heard = Vec::new();
            let (read, ()) = tokio::join!(speaker.read_to_end(&mut heard), answer);
            assert!(read.is_ok(), "{name}: the answer ended with {read:?}");
            assert!(
                heard == words,
                "{name}: {} bytes of the answer",
                heard.len()
            );
        }
        // A Unix socket cannot show this.
        Manner::Truncation | Manner::Reset if !listener.speaks_tls() && !is_tcp(&*listener) => {}
        Manner::Truncation | Manner::Reset => assert!(end.is_err(), "{name}: a clean end"),
    }
}

fn words() -> Vec<u8> {
    (0..WORDS as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}

/// Sends everything and ends. Returns the side if it can still read.
async fn speak(mut side: Side, words: &[u8], manner: Manner) -> Option<Side> {
    side.write_all(words).await.expect("a connection");
    side.flush().await.expect("a connection");
    match manner {
        Manner::Clean => {
            side.shutdown().await.expect("a connection");
            Some(side)
        }
        Manner::Truncation => {
            let mut socket = side.into_socket();
            socket.shutdown().await.expect("a connection");
            Some(Box::new(socket))
        }
        Manner::Reset => {
            match side.into_socket() {
                Socket::Tcp(stream) => {
                    // A reset discards what our own kernel has not delivered.
                    while !has_arrived(&TcpInfo.get(&stream).expect("TCP")) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    stream.set_zero_linger().expect("an open socket");
                }
                Socket::Unix(stream) => drop(stream),
            }
            None
        }
        Manner::ExtraRecord => {
            side.end_with_a_record_behind()
                .expect("it speaks TLS")
                .await;
            Some(side)
        }
    }
}

/// The number of bytes that arrived, and the kind of end.
async fn hear(side: &mut Side, words: &[u8], pace: Pace) -> (usize, io::Result<()>) {
    let mut arrived = 0;
    let mut block = vec![0; 64 * 1024];
    loop {
        match side.read(&mut block).await {
            Ok(0) => return (arrived, Ok(())),
            Ok(read) => {
                assert!(words[arrived..].starts_with(&block[..read]), "other bytes");
                arrived += read;
                if pace == Pace::Slow {
                    let mebibyte_a_second = Duration::from_secs_f64(read as f64 / (1 << 20) as f64);
                    tokio::time::sleep(mebibyte_a_second).await;
                }
            }
            Err(error) => return (arrived, Err(error)),
        }
    }
}

/// Whether no bytes are in flight or waiting for room (`struct tcp_info` of linux/tcp.h).
fn has_arrived(info: &[u8; 148]) -> bool {
    info[24..28] == [0; 4] && info[144..148] == [0; 4]
}

sockopt_impl!(
    /// The beginning of the structure; see [`has_arrived`].
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 148]);
