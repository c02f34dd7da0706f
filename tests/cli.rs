//! The command line: exit codes, output on stdout and stderr, and errors of one line.

mod cli {
    mod check;
    mod start;
    mod usage;
}
mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::backend::Backend;
use common::client::{self, Front};
use common::pki::{Authority, Subject};
use common::process::{Done, Process, output, tool, vestibule};
use common::{bytes, gate, project, soon};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig};

#[tokio::test]
async fn flags_alone_run_every_kind_of_backend() {
    let directory = tempdir().expect("a directory");
    let tcp = Backend::tcp().await;
    let unix = Backend::unix(&directory.path().join("app.sock"));
    let (to_tcp, to_unix) = (tcp.address(), unix.address());
    let bare = to_tcp.trim_start_matches("tcp:").to_owned();
    let greet = |mut socket: client::Socket| async move {
        socket.write_all(b"hello, ").await.expect("open");
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        let _ = socket.write_all(&rest).await;
    };
    let _serving = (tcp.serve(greet), unix.serve(greet));
    for to in ["echo", &to_tcp, &bare, &to_unix] {
        let said = talk(&run(to, "127.0.0.1:0"), b"friend").await;
        let expected = if to == "echo" {
            "friend"
        } else {
            "hello, friend"
        };
        assert_eq!(said, expected, "{to}");
    }
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = talk(&run("hello", "127.0.0.1:0"), request).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}

#[tokio::test]
async fn flags_alone_name_several_addresses_protocols_and_the_form_of_the_log() {
    let (one, two) = (Backend::tcp().await, Backend::tcp().await);
    let more = format!(
        "--to {} --alpn h2,http/1.1 --log-format json",
        two.address()
    );
    let process = Process::start(run_command(&one.address(), "127.0.0.1:0", &more));
    let line = process.line("listening on tcp:").await;
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    let address = address_in(&line);
    let mut config = ClientConfig::clone(&client::config(rustls::ALL_VERSIONS));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let connect = async || {
        let socket = TcpStream::connect(&address).await.expect("a listener");
        let connector = TlsConnector::from(Arc::new(config.clone()));
        let name = "localhost".try_into().expect("a name");
        connector.connect(name, socket).await.expect("TLS")
    };
    // The first connection is still open when the second one arrives.
    let (first, second) = (connect().await, connect().await);
    soon("a dial", one.accept()).await.expect("a connection");
    soon("a dial", two.accept()).await.expect("a connection");
    for client in [first, second] {
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn a_port_alone_listens_on_every_address_of_this_machine() {
    let process = run("echo", ":0");
    let address = address_in(&process.line("listening on tcp:").await);
    let port = address.strip_prefix("[::]:").expect("all addresses");
    for host in ["127.0.0.1", "[::1]"] {
        let connected = TcpStream::connect(format!("{host}:{port}")).await;
        connected.unwrap_or_else(|error| panic!("{host}: {error}"));
    }
}

#[tokio::test]
async fn a_listener_on_a_unix_socket_needs_no_file_either() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("front.sock");
    let process = run("echo", &format!("unix:{}", path.display()));
    process.line("listening on unix:").await;
    let mut client = Front::Unix(path.clone()).connect().await.expect("TLS");
    bytes::send(&mut client, 1, 100).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 1, 100)).await;
    assert_eq!(process.terminate().await, Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_gate_on_the_command_line_is_relative_to_the_working_directory() {
    let directory = tempdir().expect("a directory");
    fs::create_dir(directory.path().join("sub")).expect("a directory");
    let absolute = directory.path().join("absolute.sock").display().to_string();
    for given in ["gate.sock", "./gate.sock", "sub/gate.sock", &absolute] {
        let mut command = run_command("gate", "127.0.0.1:0", &format!("--gate {given}"));
        command.current_dir(directory.path());
        let process = Process::start(command);
        let address = address_in(&process.line("listening on tcp:").await);
        process.line("limits: ").await;
        let path = directory.path().join(given);
        let mut client = client::connect(&address).await.expect("TLS");
        let (facts, mut worker) = soon("a connection", gate::accept(&path, "default")).await;
        assert_eq!(facts["listener"], "default");
        worker.write_all(b"served").await.expect("open");
        drop(worker);
        let mut said = String::new();
        let read = soon("a word", client.read_to_string(&mut said)).await;
        read.expect("a clean end");
        assert_eq!(said, "served");
        client.shutdown().await.expect("open");
        drop(client);
        assert_eq!(process.terminate().await, Some(0));
        assert!(!path.exists());
    }
}

const GOOD: &str = r#"
[runtime]
workers = 2
directory = "run"
[limits]
connections = 77
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[[backend]]
name = "echo"
to = "echo"
"#;

fn command(args: &str) -> Command {
    let mut command = vestibule();
    command.args(args.split_whitespace()).env_remove("RUST_LOG");
    command
}

fn run_command(to: &str, listen: &str, more: &str) -> Command {
    let (chain, key) = (cert("server.pem"), cert("server-key.pem"));
    command(&format!(
        "run --listen {listen} --cert {chain} --key {key} --to {to} {more}"
    ))
}

fn run(to: &str, listen: &str) -> Process {
    Process::start(run_command(to, listen, ""))
}

/// One client: sends `say` and returns the whole answer.
async fn talk(process: &Process, say: &[u8]) -> String {
    let address = address_in(&process.line("listening on tcp:").await);
    let mut client = client::connect(&address).await.expect("TLS");
    client.write_all(say).await.expect("open");
    client.shutdown().await.expect("open");
    let mut said = String::new();
    let read = soon("an answer", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    said
}

/// The address in a line at the start, in either log format.
fn address_in(line: &str) -> String {
    let (_, rest) = line.split_once("listening on tcp:").expect("an address");
    let end = rest.find(|c: char| c.is_whitespace() || c == '"');
    rest[..end.unwrap_or(rest.len())].to_owned()
}

fn cert(name: &str) -> String {
    project(&format!("certs/{name}"))
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = Path::new(directory.path()).join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}
