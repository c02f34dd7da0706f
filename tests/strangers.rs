//! Clients whose handshake never succeeds: the answers that they get, and the outcomes.

mod common;
mod strangers {
    mod first_bytes;
}

use std::time::Duration;

use common::bytes::Bytes;
use common::client::{self, Client, Front, Socket};
use common::process::{Done, curl, output, s_client};
use common::vestibule::{RELAYS, Vestibule};
use common::{project, soon, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{self, ClientConnection};

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

/// The first bytes of an alert record.
const ALERT: [u8; 2] = [0x15, 0x03];
const FATAL: u8 = 2;
#[tokio::test]
async fn half_a_64_kib_hello_costs_little_more_than_its_size() {
    // So many that the pages which the process uses for something else do not count: with a hundred
    // clients they are up to 3 KiB for each, with these 100 bytes.
    const CLIENTS: usize = 600;
    const LENGTH: usize = 0xff00;
    const LIMITS: &str = "[limits]\nhandshaking = 10000\n";
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{LIMITS}{ECHO}", relay.config())).await;
        let message = [&[1, 0, 0xff, 0xff][..], &[0; LENGTH]].concat();
        let records = message.chunks(1 << 14).flat_map(|part| {
            let [high, low] = (part.len() as u16).to_be_bytes();
            [&[22, 3, 1, high, low], part].concat()
        });
        let half = Vec::from_iter(records);
        // Allocates what is needed once.
        let _first = half_open(&vestibule, &half).await;
        let before = settled_memory(&vestibule, LENGTH / 2).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(half_open(&vestibule, &half).await);
        }
        let all = before + CLIENTS * LENGTH * 9 / 10;
        let grown = (settled_memory(&vestibule, all).await - before) / CLIENTS;
        assert!(grown <= 80 * 1024, "{grown} bytes a client, {relay:?}");
    }
}

async fn half_open(vestibule: &Vestibule, half: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(vestibule.tcp()).await.expect("TCP");
    socket.write_all(half).await.expect("room");
    socket
}

/// The memory once it is above `least` and stable.
async fn settled_memory(vestibule: &Vestibule, least: usize) -> usize {
    let (mut last, mut same) = (0, 0);
    until("it is read", || {
        let now = vestibule.memory();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 20 && now >= least
    })
    .await;
    last
}

#[tokio::test]
async fn openssl_without_a_common_version_or_suite_gets_the_alert() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    let offers: [(&str, &[&str]); 4] = [
        ("TLS 1.1", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]),
        ("RSA key exchange", &["-tls1_2", "-cipher", "AES128-SHA"]),
        (
            "a suite of TLS 1.3 that rustls has not",
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
        ),
        ("a group that we have not", &["-groups", "X448"]),
    ];
    for (before, (what, arguments)) in offers.into_iter().enumerate() {
        let done = openssl(&vestibule, arguments).await;
        assert_ne!(done.code, Some(0), "{what}");
        // handshake_failure, or protocol_version
        let told = ["SSL alert number 40", "SSL alert number 70"];
        assert!(
            told.iter().any(|alert| done.err.contains(alert)),
            "{what}: {}",
            done.err
        );
        vestibule.ended("handshake_failed", before + 1).await;
        neighbour.is_well().await;
    }
    let ended = ("handshake_failed", offers.len());
    neighbour.leave(&vestibule, ended).await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_a_failed_handshake() {
    let vestibule = Vestibule::start(ECHO).await;
    for (before, version) in [["--tls-max", "1.2"], ["--tls-max", "1.3"]]
        .into_iter()
        .enumerate()
    {
        let mut command = curl();
        command
            .args(version)
            // A certificate that has not signed ours.
            .args(["--cacert", &project("certs/client.pem")])
            .arg(format!("https://{}/", vestibule.tcp()));
        let done = output(command).await;
        assert_eq!(done.code, Some(60), "{}", done.err);
        vestibule.ended("handshake_failed", before + 1).await;
    }
}

#[tokio::test]
async fn a_handshake_has_one_time_limit_however_slowly_its_bytes_arrive() {
    const BUDGET: Duration = Duration::from_secs(1);
    let config = format!("[timeouts]\nhandshake = \"1s\"\n{ECHO}");
    let vestibule = Vestibule::start(&config).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    for (before, manner) in ["silent", "half a hello", "hello and no more", "trickling"]
        .into_iter()
        .enumerate()
    {
        let hello = hello();
        let mut socket = tcp(&vestibule).socket().await.expect("a connection");
        match manner {
            "silent" => {}
            "half a hello" => write(&mut socket, &hello[..hello.len() / 2]).await,
            "hello and no more" => write(&mut socket, &hello).await,
            _ => {
                let sent = trickle(&mut socket, &hello).await;
                assert!(sent < hello.len(), "it was given time for a whole hello");
            }
        }
        soon(manner, to_the_end(&mut socket)).await;
        vestibule.ended("handshake_timeout", before + 1).await;
        neighbour.is_well().await;
    }
    for event in vestibule.closed() {
        let seconds = event["seconds"].as_f64().expect("a number");
        let least = BUDGET.as_secs_f64();
        // Far from the default of ten seconds, even on a slow machine.
        assert!((least..least + 5.0).contains(&seconds), "{event}");
    }
    neighbour.leave(&vestibule, ("handshake_timeout", 4)).await;
}

/// Sends one byte at a time, and the next one only after a pause without an answer. Returns how
/// many were sent until the connection ended.
async fn trickle(socket: &mut Socket, bytes: &[u8]) -> usize {
    let a_while = Duration::from_millis(50);
    for (sent, byte) in bytes.iter().enumerate() {
        if socket.write_all(&[*byte]).await.is_err() {
            return sent;
        }
        if tokio::time::timeout(a_while, socket.read_u8())
            .await
            .is_ok_and(|end| end.is_err())
        {
            return sent;
        }
    }
    bytes.len()
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_client_gone() {
    let vestibule = Vestibule::start(ECHO).await;
    let neighbour = Neighbour::new(&vestibule).await;
    let hello = hello();
    let mut left = 0;
    for manner in ["closes", "resets"] {
        for sent in [0, 1, 5, hello.len() / 2, hello.len()] {
            let mut tcp = TcpStream::connect(vestibule.tcp()).await.expect("TCP");
            tcp.write_all(&hello[..sent]).await.expect("room");
            if manner == "resets" {
                tcp.set_zero_linger().expect("an open socket");
            }
            drop(tcp);
            left += 1;
            vestibule.ended("client_gone", left).await;
        }
    }
    for sent in [0, 1, hello.len()] {
        let mut socket = unix(&vestibule).socket().await.expect("a connection");
        write(&mut socket, &hello[..sent]).await;
        drop(socket);
        left += 1;
        vestibule.ended("client_gone", left).await;
    }
    neighbour.leave(&vestibule, ("client_gone", left)).await;
}

#[tokio::test]
async fn strangers_leave_no_descriptor_behind() {
    let vestibule = Vestibule::start(ECHO).await;
    // One of each first, to open what is opened only once.
    let visit = async || {
        say(&tcp(&vestibule), b"GET / HTTP/1.1\r\n\r\n").await;
        say(&unix(&vestibule), b"GET / HTTP/1.1\r\n\r\n").await;
        drop(tcp(&vestibule).socket().await);
    };
    visit().await;
    vestibule.ended("client_gone", 1).await;
    let before = vestibule.descriptors();
    for _ in 0..50 {
        visit().await;
    }
    vestibule.ended("not_tls", 102).await;
    vestibule.ended("client_gone", 51).await;
    until("the descriptors are closed", || {
        vestibule.descriptors() <= before
    })
    .await;
}

/// A client that is served all the time, and must not be affected by the others.
struct Neighbour(Client);

impl Neighbour {
    async fn new(vestibule: &Vestibule) -> Self {
        Self(
            client::connect(&vestibule.tcp())
                .await
                .expect("a handshake"),
        )
    }

    async fn is_well(&mut self) {
        self.0.write_all(b"well?").await.expect("open");
        let mut word = [0; 5];
        let echo = soon("the neighbour's echo", self.0.read_exact(&mut word));
        echo.await.expect("an echo");
        assert_eq!(&word, b"well?");
    }

    /// Checks that its own end, and those of the strangers with `outcome`, are the only ones.
    async fn leave(mut self, vestibule: &Vestibule, (outcome, strangers): (&str, usize)) {
        self.is_well().await;
        self.0.shutdown().await.expect("open");
        vestibule.ended("done", 1).await;
        let outcomes = vestibule.outcomes();
        assert_eq!(outcomes.get(outcome), Some(&strangers), "{outcomes:?}");
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        let moved = |event: &Value| event["bytes_in"] != 0 || event["bytes_out"] != 0;
        let served = vestibule.closed().into_iter().filter(moved).count();
        assert_eq!(served, 1, "a stranger's bytes went somewhere");
    }
}

fn tcp(vestibule: &Vestibule) -> Front {
    Front::Tcp(vestibule.tcp())
}

fn unix(vestibule: &Vestibule) -> Front {
    Front::Unix(vestibule.path("front.sock"))
}

/// Sends bytes and returns everything until the end.
async fn say(front: &Front, bytes: &[u8]) -> Vec<u8> {
    let mut socket = front.socket().await.expect("a connection");
    write(&mut socket, bytes).await;
    soon("an end", to_the_end(&mut socket)).await
}

/// Vestibule may have seen enough and ended the connection.
async fn write(socket: &mut Socket, bytes: &[u8]) {
    let _ = socket.write_all(bytes).await;
}

async fn to_the_end(socket: &mut Socket) -> Vec<u8> {
    let mut answer = Vec::new();
    // What came before a reset is kept.
    let _ = socket.read_to_end(&mut answer).await;
    answer
}

async fn openssl(vestibule: &Vestibule, arguments: &[&str]) -> Done {
    let mut command = s_client(&vestibule.tcp());
    command.args(arguments);
    output(command).await
}

#[track_caller]
fn assert_is_alert(answer: &[u8], what: &str) {
    assert_eq!(answer.len(), 7, "{what}: {answer:x?}");
    assert_eq!(answer[..2], ALERT, "{what}: {answer:x?}");
    assert_eq!(answer[5], FATAL, "{what}: {answer:x?}");
}

/// The first flight of a TLS client.
fn hello() -> Vec<u8> {
    let config = client::config(rustls::ALL_VERSIONS);
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    hello
}
