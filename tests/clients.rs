//! Well-known clients with the demo and with relays: curl, openssl, Python, Node.

mod clients {
    mod demo;
}
mod common;

use std::net::TcpListener;
use std::sync::Arc;

use common::backend::Backend;
use common::client::{Front, Socket};
use common::process::{self, Process, curl, node, output, run, s_client, tool};
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::{bytes, project, soon, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use uuid::Uuid;

const HELLO: &str = "[[backend]]\nname = \"hello\"\nto = \"hello\"\n";
const TEN_MIB: usize = 10 * 1024 * 1024;

#[tokio::test]
async fn curl_gets_the_tls_version_that_it_asks_for() {
    let vestibule = Vestibule::start(HELLO).await;
    let url = format!(
        "https://{}/",
        vestibule.tcp().replace("127.0.0.1", "localhost")
    );
    let ask = async |arguments: &[&str]| -> Value {
        let mut command = curl();
        command.args(["-H", "accept: application/json", &url]);
        command.args(arguments);
        serde_json::from_slice(&output(command).await.ok()).expect("JSON")
    };
    for (arguments, version) in [
        (&["--tls-max", "1.2"][..], "1.2"),
        (&["--tlsv1.3"], "1.3"),
        (&[], "1.3"),
    ] {
        let facts = ask(arguments).await;
        assert_eq!(facts["tls"]["version"], version, "{arguments:?}");
        assert_eq!(facts["tls"]["sni"], "localhost", "{arguments:?}");
    }
    // A client that connects by address sends no SNI, and the certificate is still valid.
    let mut by_address = curl();
    by_address
        .args(["-H", "accept: application/json"])
        .arg(format!("https://{}/", vestibule.tcp()));
    let facts: Value = serde_json::from_slice(&output(by_address).await.ok()).expect("JSON");
    assert_eq!(facts["tls"]["sni"], Value::Null);
    // The same through a Unix socket: a client without an address.
    let socket = vestibule.path("front.sock").display().to_string();
    let facts = ask(&["--unix-socket", &socket]).await;
    assert_eq!(facts["listener"], "unix");
    assert_eq!(facts["tls"]["version"], "1.3");
    vestibule.ended("done", 5).await;
}

#[tokio::test]
async fn openssl_gets_the_tls_version_that_it_asks_for() {
    let vestibule = Vestibule::start(HELLO).await;
    for (argument, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut command = s_client(&vestibule.tcp());
        command.args(["-brief", argument]);
        let done = run(command, b"").await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        let protocol = format!("Protocol version: {version}");
        assert!(done.err.contains(&protocol), "{}", done.err);
        assert!(done.err.contains("Verification: OK"), "{}", done.err);

        let mut command = s_client(&vestibule.tcp());
        command.args(["-quiet", argument]);
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = run(command, request).await.text();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let number = version.trim_start_matches("TLSv");
        assert!(
            answer.contains(&format!("TLS version  {number}")),
            "{answer}"
        );
    }
}

/// At the end of its stdin, `s_client -quiet` sends nothing more and no `close_notify`: it waits
/// for the server's.
#[tokio::test]
async fn openssl_whose_input_has_ended_gets_the_whole_answer() {
    for (relay, kind) in everywhere() {
        let (vestibule, _serving) = answering(relay, kind, After::FirstByte).await;
        for version in ["-tls1_2", "-tls1_3"] {
            let mut command = s_client(&vestibule.tcp());
            command.args(["-quiet", version]);
            let answer = run(command, b"x").await.ok();
            assert_is_answer(&answer).await;
        }
        vestibule.ended_over(relay, "done", 2).await;
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_the_whole_answer() {
    for (relay, kind) in everywhere() {
        let (vestibule, _serving) = answering(relay, kind, After::End).await;
        let fronts = [
            Front::Tcp(vestibule.tcp()),
            Front::Unix(vestibule.path("front.sock")),
        ];
        for front in fronts {
            for version in [&TLS12, &TLS13] {
                let mut client = front.connect_with(version).await.expect("a handshake");
                client.write_all(b"x").await.expect("an open connection");
                client.shutdown().await.expect("an open connection");
                let answer = bytes::expect(&mut client, SEED, TEN_MIB);
                soon("the whole answer", answer).await;
            }
        }
        vestibule.ended_over(relay, "done", 4).await;
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

/// If the client is gone, a Unix socket refuses our `close_notify` at once; TCP accepts it.
#[tokio::test]
async fn a_client_that_sends_close_notify_after_its_answer_has_the_outcome_done() {
    for relay in RELAYS {
        const TIMES: usize = 20;
        let vestibule =
            Vestibule::start_over(relay, "[[backend]]\nname = \"echo\"\nto = \"echo\"\n").await;
        let fronts = [
            Front::Tcp(vestibule.tcp()),
            Front::Unix(vestibule.path("front.sock")),
        ];
        for front in &fronts {
            for _ in 0..TIMES {
                let mut client = front.connect().await.expect("a handshake");
                client.write_all(b"x").await.expect("an open connection");
                assert_eq!(client.read_u8().await.expect("an echo"), b'x');
                client.shutdown().await.expect("an open connection");
            }
        }
        vestibule.ended_over(relay, "done", 2 * TIMES).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_whole_answer_has_another_outcome_than_done() {
    for (relay, kind) in everywhere() {
        let (vestibule, _serving) = answering(relay, kind, After::End).await;
        let fronts = [
            Front::Tcp(vestibule.tcp()),
            Front::Unix(vestibule.path("front.sock")),
        ];
        for front in fronts {
            let mut client = front.connect().await.expect("a handshake");
            client.write_all(b"x").await.expect("an open connection");
            client.shutdown().await.expect("an open connection");
            client.read_u8().await.expect("the first of many");
        }
        vestibule.ended_over(relay, "client_reset", 2).await;
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

#[tokio::test]
async fn python_and_node_that_have_closed_their_side_get_the_whole_answer() {
    for (relay, kind) in everywhere() {
        let (vestibule, _serving) = answering(relay, kind, After::End).await;
        let port = vestibule.tcp().replace("127.0.0.1:", "");
        for version in ["1.2", "1.3"] {
            let mut python = tool("python3");
            python.args(["-c", PYTHON, &port, version, &project("certs/ca.pem")]);
            assert_is_answer(&output(python).await.ok()).await;
            let mut javascript: Command = node();
            javascript
                .args(["--input-type=module", "--eval", NODE, "--"])
                .args([&port, version]);
            assert_is_answer(&output(javascript).await.ok()).await;
        }
        vestibule.ended_over(relay, "done", 4).await;
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

/// `unwrap` sends `close_notify` but no FIN, so that only TLS shows the end.
const PYTHON: &str = r#"
import socket, ssl, sys
port, version, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
context.minimum_version = context.maximum_version = version
tcp = socket.create_connection(("127.0.0.1", int(port)))
client = context.wrap_socket(tcp, server_hostname="localhost")
client.sendall(b"x")
client.setblocking(False)
try:
    client.unwrap()
except ssl.SSLWantReadError:
    pass
client.settimeout(50)
try:
    while data := client.recv(65536):
        sys.stdout.buffer.write(data)
except ssl.SSLZeroReturnError:
    pass  # the server's close_notify
"#;

/// node fails if it does not trust the certificate, or without `close_notify` at the end.
const NODE: &str = r#"
import tls from 'node:tls';
const [port, version] = process.argv.slice(1);
const client = tls.connect({
  host: '127.0.0.1', port, servername: 'localhost', allowHalfOpen: true,
  minVersion: `TLSv${version}`, maxVersion: `TLSv${version}`,
}, () => client.end('x'));
client.pipe(process.stdout);
"#;

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Unix,
}

fn everywhere() -> impl Iterator<Item = (Relay, Kind)> {
    RELAYS
        .into_iter()
        .flat_map(|relay| [(relay, Kind::Tcp), (relay, Kind::Unix)])
}

/// What a backend waits for before it answers.
#[derive(Clone, Copy)]
enum After {
    FirstByte,
    End,
}

const SEED: u64 = 7;

/// Vestibule in front of a backend that answers `x` with 10 MiB.
async fn answering(
    relay: Relay,
    kind: Kind,
    after: After,
) -> (Vestibule, tokio::task::JoinSet<()>) {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let backend = match kind {
        Kind::Tcp => Backend::tcp().await,
        Kind::Unix => Backend::unix(&directory.path().join("app.sock")),
    };
    let to = backend.address();
    let serving = backend.serve(move |socket| answer(socket, after));
    let config = format!(
        "{}[[backend]]\nname = \"app\"\nto = \"{to}\"\n",
        relay.config()
    );
    (Vestibule::start_in(directory, &config).await, serving)
}

async fn answer(mut socket: Socket, after: After) {
    let mut asked = Vec::new();
    match after {
        After::FirstByte => asked.push(socket.read_u8().await.expect("a byte")),
        After::End => {
            let end = socket.read_to_end(&mut asked).await;
            end.expect("a clean end");
        }
    }
    assert_eq!(asked, b"x");
    let sent = bytes::send(&mut socket, SEED, TEN_MIB).await;
    sent.expect("a client that listens");
    // A Unix socket that is closed with unread bytes would reset its peer.
    let _ = socket.read_to_end(&mut asked).await;
}

async fn assert_is_answer(mut answer: &[u8]) {
    assert_eq!(answer.len(), TEN_MIB);
    bytes::expect(&mut answer, SEED, TEN_MIB).await;
}

#[track_caller]
fn assert_is_random_uuid(text: &str) {
    let id = Uuid::parse_str(text).expect("a UUID");
    assert_eq!(id.get_version_num(), 4, "{text}");
    assert_eq!(id.hyphenated().to_string(), text);
}

/// Checks that the text is RFC 3339 in UTC with milliseconds, of this minute or the last one.
#[track_caller]
fn assert_is_recent(text: &str) {
    assert!(text.ends_with('Z') && text.len() == 24, "{text}");
    let time = humantime::parse_rfc3339(text).expect("a time");
    let age = time.elapsed().expect("a time in the past");
    assert!(age.as_secs() < 60, "{age:?}");
}
