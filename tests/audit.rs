//! The audit log of the running program: complete, bounded, and never in the way of traffic.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::client::{Client, Front, reset};
use common::process::tool;
use common::vestibule::{RUNTIME, Vestibule};
use common::{soon, until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, spawn_blocking};

const AUDIT: &str = "[audit]\npath = \"{dir}/log/audit.log\"\n";

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

#[tokio::test]
async fn every_accepted_connection_has_exactly_one_close_or_refuse() {
    let config = format!(
        "[limits]\npending = 20\n[timeouts]\nhandshake = \"200ms\"\nbackend = \"20ms\"\n{AUDIT}{ECHO}\
         [[backend]]\nname = \"nobody\"\nto = \"gate\"\n\
         [[route]]\nlistener = [\"tcp\"]\nsni = [\"localhost\"]\nbackend = \"echo\"\n\
         [[route]]\nlistener = [\"unix\"]\nfrom = [\"192.0.2.1\"]\nbackend = \"nobody\"\n"
    );
    let mut vestibule = start(&config).await;
    let tcp = Front::Tcp(vestibule.tcp());
    let unix = Front::Unix(vestibule.path("front.sock"));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (tcp, unix) = (tcp.clone(), unix.clone());
        clients.spawn(async move { visit(number, &tcp, &unix).await });
        // As many at a time as there are descriptors for, and enough to reach a limit.
        while clients.len() >= 64 {
            clients.join_next().await;
        }
    }
    while clients.join_next().await.is_some() {}
    let log = vestibule.path("log/audit.log");
    until("the end of all", || ends(&read(&log)).len() >= CLIENTS).await;
    vestibule.signal(Signal::TERM);
    assert_eq!(vestibule.wait().await.code(), Some(0));
    vestibule.whole_log().await;
    let events = read(&log);
    assert_eq!(ends(&events).len(), CLIENTS);
    let outcomes = outcomes(&events);
    assert_eq!(outcomes, vestibule.outcomes());
    for outcome in [
        "done",
        "not_tls",
        "client_gone",
        "no_route",
        "client_truncated",
    ] {
        assert!(outcomes.contains_key(outcome), "{outcome}: {outcomes:?}");
    }
}

const CLIENTS: usize = 3000;

/// One of many kinds of clients.
async fn visit(number: usize, tcp: &Front, unix: &Front) {
    match number % 8 {
        0 | 1 => finish(tcp.connect().await).await,
        // It leaves without a word, or with one that is not TLS.
        2 => drop(tcp.socket().await),
        3 => {
            let mut socket = unix.socket().await.expect("a listener");
            let _ = socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
        // No route.
        4 => finish(unix.connect().await).await,
        // In the middle of the handshake.
        5 => {
            let mut socket = tcp.socket().await.expect("a listener");
            let _ = socket
                .write_all(&common::client::client_hello()[..100])
                .await;
        }
        6 => {
            if let Ok(mut client) = tcp.connect().await {
                let _ = client.write_all(b"?").await;
                let _ = client.read_u8().await;
                // Without close_notify.
                let _ = client.get_mut().0.shutdown().await;
            }
        }
        _ => {
            if let Ok(mut client) = tcp.connect().await {
                let _ = client.write_all(b"?").await;
                let _ = client.read_u8().await;
                reset(client);
            }
        }
    }
}

async fn finish(client: std::io::Result<Client>) {
    let Ok(mut client) = client else { return };
    let _ = client.write_all(b"hello").await;
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn the_log_is_complete_after_sigterm_under_load() {
    let config = format!("[timeouts]\ndrain = \"300ms\"\n{AUDIT}{ECHO}");
    let mut vestibule = start(&config).await;
    let tcp = Front::Tcp(vestibule.tcp());
    let mut clients = JoinSet::new();
    for number in 0..16 {
        let tcp = tcp.clone();
        clients.spawn(async move {
            // Until nobody accepts any more.
            while let Ok(socket) = tcp.socket().await {
                if number % 4 == 0 {
                    drop(socket);
                } else {
                    finish(common::client::handshake(socket).await).await;
                }
            }
        });
    }
    let mut held = tcp.connect().await.expect("a handshake");
    held.write_all(b"?").await.expect("an open connection");
    held.read_u8().await.expect("an echo");
    let log = vestibule.path("log/audit.log");
    until("some connections", || ends(&read(&log)).len() > 200).await;
    vestibule.signal(Signal::TERM);
    assert_eq!(vestibule.wait().await.code(), Some(3), "one had to be cut");
    vestibule.whole_log().await;
    let events = read(&log);
    assert_eq!(outcomes(&events), vestibule.outcomes());
    // The one that was held, and clients that came with the signal.
    assert!(outcomes(&events)["drained"] >= 1);
    assert_eq!(events[0]["event"], "start");
    let last = events.last().expect("events");
    assert_eq!(last["event"], "stop");
    assert!(last["cut"].as_u64().expect("a number") >= 1);
    assert_eq!(ids(&events, "open"), ids(&events, "close"));
    clients.shutdown().await;
}

#[tokio::test]
async fn an_event_has_what_is_known_of_the_connection() {
    let vestibule = start(&format!("{AUDIT}{ECHO}")).await;
    finish(Front::Tcp(vestibule.tcp()).connect().await).await;
    let log = vestibule.path("log/audit.log");
    until("a close", || !ids(&read(&log), "close").is_empty()).await;
    let events = read(&log);
    let of = |event: &str| {
        let found = events.iter().find(|it| it["event"] == event);
        found.unwrap_or_else(|| panic!("no {event}"))
    };
    let (open, close) = (of("open"), of("close"));
    for event in [open, close] {
        assert_eq!(event["listener"], "tcp");
        assert_eq!(event["backend"], "echo");
        assert_eq!(event["tls"]["sni"], "localhost");
        assert_eq!(event["id"].as_str().map(str::len), Some(36));
        assert!(
            event["peer"]
                .as_str()
                .expect("text")
                .starts_with("127.0.0.1:")
        );
        assert!(event["time"].as_str().expect("text").ends_with('Z'));
    }
    assert_eq!(close["outcome"], "done");
    assert_eq!(close["cause"], "both sides closed");
    assert_eq!(
        (&close["bytes_in"], &close["bytes_out"]),
        (&5.into(), &5.into())
    );
    assert!(close["seconds"].as_f64().expect("a number") < 60.0);
    assert_eq!(of("start")["pid"], vestibule.pid());
}

#[tokio::test]
async fn a_full_disk_stops_no_client_and_its_gap_is_recorded() {
    let directory = directory();
    let log = directory.path().join("log");
    let _mounted = Mounted::new(&log).await;
    let config = format!("{RUNTIME}[limits]\nconnections = 1\n{AUDIT}{ECHO}");
    let vestibule = Vestibule::start_in(Arc::clone(&directory), &config).await;
    let front = vestibule.path("front.sock");
    let held = Front::Unix(front.clone()).connect().await;
    let mut held = held.expect("a handshake");
    let refuse = move |count| {
        for _ in 0..count {
            let mut client = StdUnixStream::connect(&front).expect("a listener");
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        }
    };
    let first = refuse.clone();
    soon("refusals", spawn_blocking(move || first(8_000)))
        .await
        .expect("no panic");
    held.write_all(b"?").await.expect("an open connection");
    assert_eq!(held.read_u8().await.expect("an echo"), b'?');
    vestibule
        .event(|it| common::vestibule::message(it).starts_with("cannot write the audit log"))
        .await;
    let path = log.join("audit.log");
    let before = read(&path);
    // The disk has room again, for more than it had before.
    let mut mount = tool("mount");
    mount.args(["-o", "remount,size=64m"]).arg(&log);
    assert!(mount.status().await.expect("mount").success());
    vestibule
        .event(|it| common::vestibule::message(it) == "the audit log can be written again")
        .await;
    soon("refusals", spawn_blocking(move || refuse(10)))
        .await
        .expect("no panic");
    drop(held);
    assert_eq!(vestibule.terminate().await, Some(0));
    let events = read(&path);
    let gaps = events.iter().filter(|it| it["event"] == "gap");
    let dropped: u64 = gaps
        .map(|it| it["dropped"].as_u64().expect("a number"))
        .sum();
    assert!(dropped > 0, "{} lines fitted", events.len());
    assert!(before.len() < events.len());
    // 8010 refused, one closed.
    assert_eq!(ends(&events).len() as u64 + dropped, 8_011);
}

#[tokio::test]
async fn sigusr1_opens_the_path_again() {
    let vestibule = start(&format!("{AUDIT}{ECHO}")).await;
    let log = vestibule.path("log/audit.log");
    let moved = vestibule.path("log/moved");
    let tcp = Front::Tcp(vestibule.tcp());
    finish(tcp.connect().await).await;
    until("a close", || ends(&read(&log)).len() == 1).await;
    fs::rename(&log, &moved).expect("ours");
    finish(tcp.connect().await).await;
    until("a close", || ends(&read(&moved)).len() == 2).await;
    vestibule.signal(Signal::USR1);
    until("the new file", || log.exists()).await;
    finish(tcp.connect().await).await;
    until("a close", || ends(&read(&log)).len() == 1).await;
    assert_eq!(ends(&read(&moved)).len(), 2);
}

#[tokio::test]
async fn a_reload_changes_the_path_and_is_in_the_log() {
    let vestibule = start(&format!("{AUDIT}{ECHO}")).await;
    let (first, second) = (
        vestibule.path("log/audit.log"),
        vestibule.path("log/second"),
    );
    let file = vestibule.path("vestibule.toml");
    let text = fs::read_to_string(&file).expect("a file");
    let tcp = Front::Tcp(vestibule.tcp());
    finish(tcp.connect().await).await;
    fs::write(&file, format!("{text}wrong = 1\n")).expect("a file");
    until("a refusal", || reloads(&read(&first)) == ["failed"]).await;
    fs::write(&file, text.replace("log/audit.log", "log/second")).expect("a file");
    vestibule.said("reloaded", 1).await;
    finish(tcp.connect().await).await;
    until("a close", || ends(&read(&second)).len() == 1).await;
    assert_eq!(ends(&read(&first)).len(), 1);
    fs::write(&file, text.replace("log/audit.log", "missing/audit.log")).expect("a file");
    until("a refusal", || {
        reloads(&read(&second)).last() == Some(&"failed".into())
    })
    .await;
    finish(tcp.connect().await).await;
    until("a close", || ends(&read(&second)).len() == 2).await;
}

#[tokio::test]
async fn a_start_without_its_audit_log_fails_and_says_why() {
    let directory = Arc::new(tempdir().expect("a directory"));
    let config = format!("{AUDIT}{ECHO}{}", common::vestibule::LISTENERS);
    let mut vestibule = Vestibule::spawn(directory, &config, |command| command);
    assert_eq!(vestibule.wait().await.code(), Some(1));
    let said = format!("{:?}", vestibule.whole_log().await);
    assert!(
        said.contains("log/audit.log: No such file or directory"),
        "{said}"
    );
}

#[tokio::test]
async fn a_relative_path_is_in_the_runtime_directory() {
    let vestibule = start(&format!("[audit]\npath = \"audit.log\"\n{ECHO}")).await;
    until("a file", || vestibule.path("run/audit.log").exists()).await;
    assert_eq!(vestibule.terminate().await, Some(0));
}

/// A directory with a directory `log`.
fn directory() -> Arc<TempDir> {
    let directory = tempdir().expect("a directory");
    fs::create_dir(directory.path().join("log")).expect("a directory");
    Arc::new(directory)
}

async fn start(config: &str) -> Vestibule {
    Vestibule::start_in(directory(), config).await
}

/// The events of a file; none if it is missing. A line that is being written is left out.
fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let event = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    whole.lines().map(event).collect()
}

/// The ids of the connections that have ended. None has ended twice.
fn ends(events: &[Value]) -> Vec<String> {
    let mut ends = [ids(events, "close"), ids(events, "refuse")].concat();
    ends.sort();
    assert!(
        ends.windows(2).all(|pair| pair[0] != pair[1]),
        "an id ended twice"
    );
    ends
}

/// The ids in all events of a kind, sorted.
fn ids(events: &[Value], kind: &str) -> Vec<String> {
    let events = events.iter().filter(|it| it["event"] == kind);
    let mut ids: Vec<_> = events
        .map(|it| it["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

fn outcomes(events: &[Value]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for outcome in events.iter().filter_map(|it| it["outcome"].as_str()) {
        *counts.entry(outcome.to_owned()).or_default() += 1;
    }
    counts
}

fn reloads(events: &[Value]) -> Vec<String> {
    let events = events.iter().filter(|it| it["event"] == "reload");
    events
        .map(|it| it["result"].as_str().expect("a word").to_owned())
        .collect()
}

/// A tmpfs of 64 KiB.
struct Mounted(PathBuf);

impl Mounted {
    async fn new(path: &Path) -> Self {
        let mut mount = tool("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
        let done = mount.arg(path).status().await.expect("mount");
        assert!(done.success(), "tests run as root");
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(&self.0).status();
    }
}
