//! Clients that never get through the handshake: what they are told, and what it is called.

mod common;

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

/// The first bytes of a fatal alert's record.
const ALERT: [u8; 2] = [0x15, 0x03];
const FATAL: u8 = 2;
const UNEXPECTED_MESSAGE: u8 = 10;

#[tokio::test]
async fn what_is_not_tls_gets_an_alert_and_harms_nobody() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    let mut random = vec![0; 4096];
    Bytes::seeded(3).fill(&mut random);
    random[0] = 0x99;
    let words: [(&str, &[u8]); 7] = [
        ("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("one byte", b"G"),
        ("random bytes", &random),
        ("zeros", &[0; 100]),
        ("SSLv2", &SSL2_HELLO),
        ("a record of TLS 9", b"\x16\x09\x00\x00\x05hello"),
    ];
    let mut strangers = 0;
    for (what, bytes) in words {
        for front in [tcp(&vestibule), unix(&vestibule)] {
            let answer = say(&front, bytes).await;
            assert_is_alert(&answer, what);
            strangers += 1;
            vestibule.ended("not_tls", strangers).await;
            neighbour.is_well().await;
        }
    }
    neighbour.leave(&vestibule, ("not_tls", strangers)).await;
}

#[tokio::test]
async fn curl_with_http_where_tls_is_spoken_gets_a_tls_alert() {
    let vestibule = Vestibule::start(ECHO).await;
    let url = format!("http://{}/", vestibule.tcp());
    let mut command = curl();
    command.args(["--http0.9", &url]);
    assert_is_alert(&output(command).await.ok(), "curl");
    // As everybody calls it: an answer that is no HTTP, at once, instead of a hanging page.
    let mut command = curl();
    command.arg(&url);
    let done = output(command).await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("HTTP/0.9"), "{}", done.err);
    vestibule.ended("not_tls", 2).await;
}

#[tokio::test]
async fn tls_without_a_usable_hello_is_a_failed_handshake() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    let mut wrong_hello = b"\x16\x03\x01\x00\x24\x01\x00\x00\x20".to_vec();
    wrong_hello.extend([0xaa; 32]);
    let words: [(&str, &[u8]); 5] = [
        ("a hello of rubbish", &wrong_hello),
        ("an empty record", b"\x16\x03\x01\x00\x00"),
        ("a record that is too long", b"\x16\x03\x01\xff\xff\x01"),
        ("data before the hello", b"\x17\x03\x03\x00\x05hello"),
        ("an alert before the hello", b"\x15\x03\x03\x00\x02\x02\x28"),
    ];
    for (before, (what, bytes)) in words.into_iter().enumerate() {
        say(&tcp(&vestibule), bytes).await;
        let outcomes = vestibule.outcomes();
        assert!(outcomes.len() <= 1, "{what}: {outcomes:?}");
        vestibule.ended("handshake_failed", before + 1).await;
        neighbour.is_well().await;
    }
    let ended = ("handshake_failed", words.len());
    neighbour.leave(&vestibule, ended).await;
}

#[tokio::test]
async fn a_first_message_that_is_no_hello_gets_unexpected_message() {
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{ECHO}", relay.config())).await;
        let words: [(&str, &[u8]); 5] = [
            ("data", b"\x17\x03\x03\x00\x05hello"),
            ("an alert", b"\x15\x03\x03\x00\x02\x02\x28"),
            ("close_notify", b"\x15\x03\x01\x00\x02\x01\x00"),
            ("change_cipher_spec", b"\x14\x03\x03\x00\x01\x01"),
            ("a Finished", b"\x16\x03\x01\x00\x05\x14\x00\x00\x01\x00"),
        ];
        for (before, (what, bytes)) in words.into_iter().enumerate() {
            let answer = say(&tcp(&vestibule), bytes).await;
            assert_is_alert(&answer, what);
            assert_eq!(answer[6], UNEXPECTED_MESSAGE, "{what}: {answer:x?}");
            vestibule.ended("handshake_failed", before + 1).await;
        }
    }
}

/// In parts, so that rustls has it before the next record, and at once.
#[tokio::test]
async fn a_record_in_one_segment_with_the_hello_is_looked_at_as_soon_as_one_behind_it() {
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{ECHO}", relay.config())).await;
        // Whatever it is, it is no answer to the ServerHello.
        let bytes = [&hello()[..], b"\x16\x03\x03\x00\x05\x14\x00\x00\x01\x00"].concat();
        let mut socket = tcp(&vestibule).socket().await.expect("a connection");
        write(&mut socket, &bytes).await;
        soon("an end", to_the_end(&mut socket)).await;
        vestibule.ended("handshake_failed", 1).await;
    }
}

#[tokio::test]
async fn half_a_hello_of_64_kib_costs_little_more_than_itself() {
    const CLIENTS: usize = 100;
    const LENGTH: usize = 0xff00;
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{ECHO}", relay.config())).await;
        let message = [&[1, 0, 0xff, 0xff][..], &[0; LENGTH]].concat();
        let records = message.chunks(1 << 14).flat_map(|part| {
            let [high, low] = (part.len() as u16).to_be_bytes();
            [&[22, 3, 1, high, low], part].concat()
        });
        let half = Vec::from_iter(records);
        // What is needed once.
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

/// Once it is more than this and grows no more.
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
async fn openssl_that_speaks_only_what_we_do_not_sees_the_alert() {
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
async fn a_handshake_has_one_budget_however_its_bytes_come() {
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
        // Far from the ten seconds of the default, however slow the machine.
        assert!((least..least + 5.0).contains(&seconds), "{event}");
    }
    neighbour.leave(&vestibule, ("handshake_timeout", 4)).await;
}

/// A byte at a time, and the next only when none has been answered for a while. Returns how many
/// were sent when the connection ended.
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
async fn a_client_that_leaves_during_the_handshake_is_gone() {
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
    // One of each first, for what is opened once.
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

/// A client that is served all along, and must not notice the others.
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

    /// Its end and those of the strangers, with `outcome`, are all there were.
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

/// Says something and listens to the end.
async fn say(front: &Front, bytes: &[u8]) -> Vec<u8> {
    let mut socket = front.socket().await.expect("a connection");
    write(&mut socket, bytes).await;
    soon("an end", to_the_end(&mut socket)).await
}

/// Vestibule may have heard enough and ended the connection.
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

/// A CLIENT-HELLO of version 2 with three cipher specs and a challenge, as browsers sent it until 2006.
const SSL2_HELLO: [u8; 36] = [
    0x80, 0x22, 0x01, 0x03, 0x01, 0x00, 0x09, 0x00, 0x00, 0x00, 0x10, // lengths
    0x00, 0x00, 0x05, 0x00, 0x00, 0x04, 0x01, 0x00, 0x80, // RC4
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // challenge
];
