//! The log while nobody reads it, and the lines about refused clients.

mod common;

use std::io::{PipeReader, Read, Write, pipe};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use common::pki::Authority;
use common::process::vestibule;
use common::vestibule::{RUNTIME, Vestibule};
use common::{bytes, client, soon, until};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ALL_VERSIONS;

#[tokio::test]
async fn traffic_reload_and_drain_work_while_nobody_reads_stderr() {
    for level in ["info", "debug", "trace"] {
        let directory = tempdir().expect("a directory");
        let (_unread, mut child) = start(&directory, level, "", Full::Yes);
        for _ in 0..200 {
            exchange(&directory).await;
        }
        let open = connect(&directory.path().join("front.sock")).await;
        signal(&child, Signal::HUP);
        exchange(&directory).await;
        signal(&child, Signal::TERM);
        drop(open);
        let status = soon("an exit", child.wait()).await.expect("our own child");
        assert_eq!(status.code(), Some(0), "{level}");
    }
}

#[tokio::test]
async fn a_late_reader_gets_whole_lines_and_the_number_of_dropped_ones() {
    let directory = tempdir().expect("a directory");
    let limits = "[limits]\nconnections = 1\n";
    let (mut pipe, mut child) = start(&directory, "debug", limits, Full::No);
    let front = directory.path().join("front.sock");
    let open = connect(&front).await;
    let refused = front.clone();
    let refuse = move || {
        for _ in 0..REFUSED {
            let mut client = StdUnixStream::connect(&refused).expect("a listener");
            // The connection ends after its line was logged or dropped.
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        }
    };
    soon("refusals", spawn_blocking(refuse))
        .await
        .expect("no panic");
    drop(open);
    let read = spawn_blocking(move || {
        let mut said = String::new();
        pipe.read_to_string(&mut said).expect("text");
        said
    });
    signal(&child, Signal::TERM);
    let status = soon("an exit", child.wait()).await.expect("our own child");
    assert_eq!(status.code(), Some(0));
    let said = soon("the log", read).await.expect("no panic");
    let events: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("half a line: {line}")))
        .collect();
    let kept = events
        .iter()
        .filter(|it| it["message"] == "connection refused");
    let lost: u64 = events.iter().filter_map(|it| it["dropped"].as_u64()).sum();
    let kept = kept.count();
    assert!(lost > 0, "{kept} lines fitted");
    let missing = (REFUSED - kept) as u64;
    // Besides these there are a few lines about other things.
    assert!(
        (missing..missing + 100).contains(&lost),
        "{lost} of {missing}"
    );
}

/// More lines than are kept for a reader.
const REFUSED: usize = 30_000;

#[tokio::test]
async fn a_start_that_fails_ends_while_nobody_reads_stderr() {
    for args in ["run -c /nonexistent.toml", "run", "bogus"] {
        let (_unread, full) = full_pipe(Full::Yes);
        let mut command = vestibule();
        command.args(args.split(' ')).stderr(full);
        let child = command.kill_on_drop(true).spawn();
        drop(command);
        let mut child = child.expect("the binary");
        let ended = soon("an exit", child.wait()).await;
        assert_eq!(ended.expect("our own child").code(), Some(2), "{args}");
    }
}

#[tokio::test]
async fn an_error_that_fills_the_pipe_arrives_completely() {
    let directory = tempdir().expect("a directory");
    let file = directory.path().join("vestibule.toml");
    let wrong: String = (0..5000).map(|i| format!("wrong_key_{i} = 1\n")).collect();
    std::fs::write(&file, wrong).expect("a file");
    let (mut pipe, stderr) = full_pipe(Full::No);
    let mut command = vestibule();
    let child = command
        .args(["run", "-c"])
        .arg(&file)
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn();
    drop(command);
    let read = spawn_blocking(move || {
        let mut said = String::new();
        pipe.read_to_string(&mut said).expect("text");
        said
    });
    let ended = soon("an exit", child.expect("the binary").wait_with_output()).await;
    assert_eq!(ended.expect("our own child").status.code(), Some(2));
    let said = soon("the problems", read).await.expect("no panic");
    // Two more lines say that there is no listener and no backend.
    assert_eq!(said.lines().count(), 5002);
    assert!(said.len() > 2 * 65536);
}

#[tokio::test]
async fn a_worker_ends_while_nobody_reads_its_stderr() {
    let directory = tempdir().expect("a directory");
    let gate = directory.path().join("gate.sock");
    let (_unread, stderr) = full_pipe(Full::Yes);
    let mut command = vestibule();
    let child = command
        .args(["claim", "--backend", "app", "--gate"])
        .arg(&gate)
        .args(["--", "cat"])
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.expect("the binary");
    // It has logged that there is no gate, and continues to look for it.
    soon("a claim", async {
        let gate = tokio::net::UnixListener::bind(&gate).expect("a gate");
        drop(gate.accept().await.expect("a worker"));
        drop(gate.accept().await.expect("the worker again"));
    })
    .await;
    signal(&child, Signal::TERM);
    let status = soon("an exit", child.wait()).await.expect("our own child");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn refused_clients_are_logged_once_a_second_by_default_and_not_once_each() {
    for (word, count, config, visit) in UNSERVED.iter().copied() {
        let config =
            format!("{RUNTIME}[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\n{config}")
                .replace("{tls}", TLS)
                .replace("{to}", TO);
        let directory = Arc::new(tempdir().expect("a directory"));
        let vestibule = Vestibule::spawn(directory, &config, |mut command| {
            command.env_remove("RUST_LOG");
            command
        });
        vestibule.until_started().await;
        let begun = Instant::now();
        visit.times(count, &vestibule.address("front")).await;
        let seconds = begun.elapsed().as_secs() as usize;
        vestibule.signal(Signal::TERM);
        let log = vestibule.whole_log().await;
        let lines: Vec<&Value> = log.iter().filter(|event| event["reason"] == word).collect();
        let clients = lines.iter().filter_map(|event| event["clients"].as_u64());
        assert_eq!(clients.sum::<u64>(), count as u64, "{word}: {log:#?}");
        // One line at once, one for each second, and the rest at the end.
        assert!(lines.len() <= seconds + 3, "{word}: {lines:#?}");
        for line in lines {
            assert_eq!(line["listener"], "front", "{word}");
            let peer = line["peer"].as_str().expect("a peer");
            assert!(peer.starts_with("127.0.0.1:"), "{word}: {peer}");
        }
        let others = log
            .iter()
            .filter(|event| !event["reason"].is_null() && event["reason"] != word);
        assert_eq!(others.count(), 0, "{word}: {log:#?}");
    }
}

/// The reason's word, the number of clients, the configuration behind the listener's address, and
/// the client's behaviour.
const UNSERVED: &[(&str, usize, &str, Visit)] = &[
    (
        "untrusted_proxy",
        300,
        "accept_proxy_protocol = \"required\"\ntrusted_proxies = [\"192.0.2.1\"]\n{tls}{to}\"echo\"\n",
        Visit::Plain(b""),
    ),
    (
        "proxy_header",
        50,
        "accept_proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\n{tls}{to}\"echo\"\n",
        Visit::Tls,
    ),
    (
        "certificate",
        50,
        "{tls}client_auth = \"required\"\nclient_ca = [\"{certs}/ca.pem\"]\n{to}\"echo\"\n",
        Visit::Tls,
    ),
    ("client_refused", 50, "{tls}{to}\"echo\"\n", Visit::Distrust),
    (
        "not_tls",
        300,
        "{tls}{to}\"echo\"\n",
        Visit::Plain(b"GET / HTTP/1.1\r\n\r\n"),
    ),
    (
        "no_route",
        50,
        "{tls}[[route]]\nsni = [\"other.example\"]\nbackend = \"app\"\n{to}\"echo\"\n",
        Visit::Tls,
    ),
    (
        "denied",
        50,
        "{tls}[[route]]\nsni = [\"localhost\"]\ndeny = true\n{to}\"echo\"\n",
        Visit::Tls,
    ),
    (
        "over_limit",
        300,
        "{to}\"echo\"\n[limits]\nconnections = 1\n",
        Visit::Second,
    ),
    (
        "handshake_timeout",
        50,
        "{tls}{to}\"echo\"\n[timeouts]\nhandshake = \"1ms\"\n",
        Visit::Plain(b""),
    ),
    (
        "expired",
        50,
        "{to}\"gate\"\n[timeouts]\nbackend = \"1ms\"\n",
        Visit::Plain(b""),
    ),
    (
        "backend_refused",
        50,
        "{to}\"unix:/nonexistent\"\npark = false\n",
        Visit::Plain(b""),
    ),
];

const TO: &str = "[[backend]]\nname = \"app\"\nto = ";

const TLS: &str = "[listener.tls]\ncertificates = [ { chain = \"{certs}/server.pem\", \
                   key = \"{certs}/server-key.pem\" } ]\n";

/// The behaviour of a client that is not served.
#[derive(Clone, Copy)]
enum Visit {
    /// Sends these bytes, and waits for the end.
    Plain(&'static [u8]),
    /// A handshake, if the connection gets that far.
    Tls,
    /// A handshake that fails because the client does not trust the certificate.
    Distrust,
    /// Connects while another client has the only place.
    Second,
}

impl Visit {
    async fn times(&self, count: usize, address: &str) {
        let mut first = None;
        if matches!(self, Self::Second) {
            let mut client = TcpStream::connect(address).await.expect("a listener");
            client.write_all(b"?").await.expect("open");
            assert_eq!(soon("an echo", client.read_u8()).await.expect("open"), b'?');
            first = Some(client);
        }
        for _ in 0..count {
            soon("an end", self.once(address)).await;
        }
        drop(first);
    }

    async fn once(&self, address: &str) {
        let config = match self {
            Self::Plain(say) => return Self::talk(address, say).await,
            Self::Second => return Self::talk(address, b"").await,
            Self::Tls => client::config(ALL_VERSIONS),
            Self::Distrust => {
                let other = Authority::root("other").pem();
                Arc::new(client::config_for(ALL_VERSIONS, &other, None))
            }
        };
        let socket = TcpStream::connect(address).await.expect("a listener");
        let name = "localhost".try_into().expect("a name");
        if let Ok(mut client) = TlsConnector::from(config).connect(name, socket).await {
            let _ = client.read(&mut [0]).await;
        }
    }

    async fn talk(address: &str, say: &[u8]) {
        // A client that is refused at the accept is reset, possibly before its connect returns.
        let Ok(mut client) = TcpStream::connect(address).await else {
            return;
        };
        let _ = client.write_all(say).await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Full {
    Yes,
    No,
}

/// A pipe for stderr, empty or filled up.
fn full_pipe(full: Full) -> (PipeReader, Stdio) {
    let (reader, mut writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe");
    while full == Full::Yes && writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).expect("a pipe");
    (reader, writer.into())
}

/// An echo server without TLS. Returns when its socket accepts connections, because its log is not
/// read.
fn start(directory: &TempDir, level: &str, more: &str, full: Full) -> (PipeReader, Child) {
    let file = directory.path().join("vestibule.toml");
    let path = directory.path().display();
    let config = format!(
        "[runtime]\nworkers = 1\nlog_format = \"json\"\ndirectory = \"{path}/run\"\n{more}\n\
         [[listener]]\nname = \"front\"\naddress = \"unix:{path}/front.sock\"\n\
         [[backend]]\nname = \"echo\"\nto = \"echo\"\n"
    );
    std::fs::write(&file, config).expect("a file");
    let (reader, stderr) = full_pipe(full);
    let mut command: Command = vestibule();
    command
        .args(["run", "-c"])
        .arg(&file)
        .env("RUST_LOG", level);
    let child = command.stderr(stderr).kill_on_drop(true).spawn();
    (reader, child.expect("the binary"))
}

/// A connection that is served: its first byte has come back.
async fn connect(path: &Path) -> UnixStream {
    let mut client = None;
    until("a listener", || {
        client = StdUnixStream::connect(path).ok();
        client.is_some()
    })
    .await;
    let client = client.expect("just seen");
    client.set_nonblocking(true).expect("a socket");
    let mut client = UnixStream::from_std(client).expect("a socket");
    client.write_all(b"?").await.expect("open");
    assert_eq!(soon("an echo", client.read_u8()).await.expect("open"), b'?');
    client
}

async fn exchange(directory: &TempDir) {
    let mut client = connect(&directory.path().join("front.sock")).await;
    bytes::send(&mut client, 1, 1000).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 1, 1000)).await;
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().expect("alive") as i32).expect("a pid");
    kill_process(pid, signal).expect("our own child");
}
