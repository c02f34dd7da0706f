//! Without free file descriptors Vestibule waits and continues: it does not exit, spin or go
//! silent.

mod common;
mod descriptors {
    mod limits;
}

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::admin::ask;
use common::backend::Backend;
use common::client::{Client, Front, Socket};
use common::gate::{self, Answer};
use common::resources::{cpu_seconds, limited};
use common::vestibule::{LISTENERS, Vestibule, message};
use common::{bytes, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

const DESCRIPTORS: usize = 100;
const ECHO: &str = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";
/// An echo, and a gate for workers of another backend.
const ECHO_AND_GATE: &str = "[[backend]]\nname = \"app\"\nto = \"echo\"\n\
    [[backend]]\nname = \"workers\"\nto = \"gate\"\n[[route]]\nbackend = \"app\"\n";
const GATE: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";

#[tokio::test]
async fn with_built_in_backends_connections_beyond_the_descriptors_wait() {
    let vestibule = start(2 * DESCRIPTORS, ECHO_AND_GATE).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut clients = Crowd::of(2 * DESCRIPTORS, &front);
    // More than there are descriptors for, together with those of the program itself.
    for _ in 0..DESCRIPTORS / 2 {
        clients.served().await;
    }
    assert_calm(&vestibule).await;
    clients.leave().await;
    vestibule.ended("done", 2 * DESCRIPTORS).await;
    assert_recovered(vestibule, &front).await;
}

/// The descriptor for the gate's answers must not be taken by connections, which would keep it.
#[tokio::test]
async fn while_connections_wait_for_descriptors_the_gate_answers_everybody() {
    const ASKED: usize = 60;
    let vestibule = start(2 * DESCRIPTORS, ECHO_AND_GATE).await;
    let front = Front::Tcp(vestibule.tcp());
    let clients = Crowd::of(2 * DESCRIPTORS, &front);
    soon("a complaint", complained(&vestibule, 1)).await;
    for _ in 0..ASKED {
        assert_answers(&vestibule).await;
    }
    clients.leave().await;
    vestibule.ended("done", 2 * DESCRIPTORS).await;
}

/// Neither must a client of the admin API keep it: a page that follows the events, or one that asks again
/// and again over one connection.
#[tokio::test]
async fn while_connections_wait_for_descriptors_the_admin_api_answers_everybody() {
    let vestibule = start(2 * DESCRIPTORS, ECHO).await;
    let front = Front::Tcp(vestibule.tcp());
    let clients = Crowd::of(2 * DESCRIPTORS, &front);
    soon("a complaint", complained(&vestibule, 1)).await;
    let socket = vestibule.path("run/admin.sock");
    let mut staying = Vec::new();
    for (path, status) in [("/v1/events", "503"), ("/v1/status", "200")] {
        let mut client = UnixStream::connect(&socket).await.expect("a socket");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("room");
        let mut start = [0; 12];
        let read = soon("an answer", client.read_exact(&mut start)).await;
        read.expect("an answer");
        assert_eq!(&start[9..], status.as_bytes());
        staying.push(client);
        for _ in 0..3 {
            assert_eq!(ask(&socket, "/healthz", &[]).await.status, 200);
        }
    }
    clients.leave().await;
    vestibule.ended("done", 2 * DESCRIPTORS).await;
}

#[tokio::test]
async fn with_claimed_backends_offers_expire_and_the_gate_keeps_working() {
    let config = format!("[timeouts]\nbackend = \"4s\"\n{GATE}");
    let vestibule = start(2 * DESCRIPTORS, &config).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut clients = JoinSet::new();
    for _ in 0..2 * DESCRIPTORS {
        let front = front.clone();
        clients.spawn(async move {
            let mut client = front.connect().await.expect("a handshake, in the end");
            let mut answer = Vec::new();
            let read = client.read_to_end(&mut answer).await;
            // This fails if Vestibule has closed both directions.
            let _ = client.shutdown().await;
            read.map(|_| answer)
        });
    }
    assert_calm(&vestibule).await;
    // A worker can connect and gets a connection.
    let (_, mut worker) = soon("a connection", gate::accept(&vestibule.gate(), "app")).await;
    worker.write_all(b"served").await.expect("open");
    drop(worker);

    let answers = soon("every client's end", clients.join_all()).await;
    let answers: Vec<Vec<u8>> = answers
        .into_iter()
        .map(|answer| answer.expect("close_notify"))
        .collect();
    let served = answers.iter().filter(|answer| *answer == b"served").count();
    assert_eq!(served, 1);
    vestibule.ended("expired", 2 * DESCRIPTORS - 1).await;
    vestibule.ended("done", 1).await;

    let gate = vestibule.gate();
    let serve = async {
        let (_, mut worker) = gate::accept(&gate, "app").await;
        let (mut reader, mut writer) = worker.split();
        tokio::io::copy(&mut reader, &mut writer).await
    };
    let come = async { finish(front.connect().await.expect("room")).await };
    let ((), served) = soon("service as ever", async { tokio::join!(come, serve) }).await;
    served.expect("open");
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn with_dialled_backends_waiting_clients_are_served_once_a_descriptor_is_free() {
    const MOST: usize = DESCRIPTORS / 2;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let backend = Backend::unix(&directory.path().join("app.sock"));
    let config = format!(
        "[timeouts]\nbackend = \"30s\"\n[[backend]]\nname = \"app\"\nto = \"{}\"\n\
         [[backend]]\nname = \"workers\"\nto = \"gate\"\n[[route]]\nbackend = \"app\"\n",
        backend.address()
    );
    let _serving = backend.serve(echo);
    let vestibule = start_in(directory, MOST, &config).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut clients = Crowd::of(MOST, &front);
    // Two descriptors each: some connections are served, others are not.
    for _ in 0..MOST / 4 {
        clients.served().await;
    }
    common::until("there is no descriptor left", || {
        used(&vestibule) == DESCRIPTORS
    })
    .await;
    clients.leave().await;
    vestibule.ended("done", MOST).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    assert_recovered(vestibule, &front).await;
}

#[tokio::test]
async fn with_dialled_backends_clients_without_a_descriptor_in_time_get_an_orderly_end() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let backend = Backend::unix(&directory.path().join("app.sock"));
    let config = format!(
        "[timeouts]\nbackend = \"3s\"\n[[backend]]\nname = \"app\"\nto = \"{}\"\n\
         [[backend]]\nname = \"workers\"\nto = \"gate\"\n[[route]]\nbackend = \"app\"\n",
        backend.address()
    );
    let _serving = backend.serve(echo);
    let vestibule = start_in(directory, 2 * DESCRIPTORS, &config).await;
    let front = Front::Tcp(vestibule.tcp());
    let clients = Crowd::of(2 * DESCRIPTORS, &front);
    assert_calm(&vestibule).await;
    let fates = clients.leave().await;
    let count = |fate| fates.iter().filter(|this| **this == fate).count();
    let (served, unserved) = (count(Fate::Served), count(Fate::Unserved));
    assert_eq!(served + unserved, 2 * DESCRIPTORS);
    vestibule.ended("done", served).await;
    vestibule.ended("backend_timeout", unserved).await;
    assert_recovered(vestibule, &front).await;
}

async fn start(connections: usize, config: &str) -> Vestibule {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    start_in(directory, connections, config).await
}

async fn start_in(
    directory: Arc<tempfile::TempDir>,
    connections: usize,
    config: &str,
) -> Vestibule {
    let config = format!("[limits]\nconnections = {connections}\n{config}{LISTENERS}");
    let vestibule = Vestibule::spawn(directory, &config, |command| limited(command, DESCRIPTORS));
    vestibule.until_started().await;
    vestibule
}

/// What happened to a client. Nothing else is allowed: no byte is lost, and no connection ends in
/// another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No handshake.
    TurnedAway,
    /// A handshake, and an orderly end without an answer.
    Unserved,
    Served,
}

/// Clients that connect, are served by an echo, and stay until they are told to leave.
struct Crowd {
    clients: JoinSet<Fate>,
    served: mpsc::Receiver<()>,
    leave: watch::Sender<bool>,
}

impl Crowd {
    fn of(size: usize, front: &Front) -> Self {
        let (leave, told) = watch::channel(false);
        let (report, served) = mpsc::channel(size);
        let mut clients = JoinSet::new();
        for _ in 0..size {
            let (front, report, mut told) = (front.clone(), report.clone(), told.clone());
            clients.spawn(async move {
                let Ok(mut client) = front.connect().await else {
                    return Fate::TurnedAway;
                };
                client.write_all(b"x").await.expect("open");
                client.flush().await.expect("open");
                if client.read(&mut [0]).await.expect("a byte or a clean end") == 0 {
                    return Fate::Unserved;
                }
                report.send(()).await.expect("the test goes on");
                told.wait_for(|told| *told).await.expect("the test goes on");
                finish(client).await;
                Fate::Served
            });
        }
        Self {
            clients,
            served,
            leave,
        }
    }

    /// Waits until one more of them is served.
    async fn served(&mut self) {
        soon("a served client", self.served.recv())
            .await
            .expect("a client");
    }

    /// Ends all clients, those that are served now and those that are served later.
    async fn leave(self) -> Vec<Fate> {
        let Self {
            clients,
            mut served,
            leave,
        } = self;
        leave.send(true).expect("clients");
        let report = async { while served.recv().await.is_some() {} };
        soon("everybody's end", async {
            tokio::join!(clients.join_all(), report).0
        })
        .await
    }
}

/// The gate answers a client that there is no such connection.
async fn assert_answers(vestibule: &Vestibule) {
    let unknown = "00000000-0000-4000-8000-000000000000";
    let answer = soon("an answer", gate::claim(&vestibule.gate(), unknown)).await;
    assert!(matches!(answer, Answer::No(reason) if reason == "unknown"));
}

/// Without descriptors it logs this once a second, answers at the gate, and uses no CPU otherwise.
async fn assert_calm(vestibule: &Vestibule) {
    soon("a complaint", complained(vestibule, 1)).await;
    let now = complaints(vestibule);
    let (started, cpu) = (Instant::now(), cpu_seconds(vestibule.pid()));
    for _ in 0..5 {
        assert_answers(vestibule).await;
    }
    // This takes more than a second, on any machine.
    soon("other complaints", complained(vestibule, now + 2)).await;
    let seconds = started.elapsed().as_secs_f64();
    let used = cpu_seconds(vestibule.pid()) - cpu;
    assert!(used < seconds / 2.0, "{used} s of CPU in {seconds} s");
    let (complaints, seconds) = (complaints(vestibule), vestibule.age().as_secs_f64());
    assert!(
        complaints as f64 <= seconds + 1.0,
        "{complaints} lines in {seconds} s"
    );
}

async fn assert_recovered(vestibule: Vestibule, front: &Front) {
    for _ in 0..10 {
        finish(front.connect().await.expect("room")).await;
    }
    assert_eq!(vestibule.terminate().await, Some(0));
}

/// The number of used descriptors within the limit. An inherited descriptor may be above the limit,
/// and then it does not count.
fn used(vestibule: &Vestibule) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", vestibule.pid())).expect("alive");
    let number = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.expect("alive").file_name();
        name.to_string_lossy().parse::<usize>().expect("a number")
    };
    descriptors.map(number).filter(|n| *n < DESCRIPTORS).count()
}

/// The number of descriptors for the null device; the descriptor in reserve is one.
fn null_devices(vestibule: &Vestibule) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", vestibule.pid())).expect("alive");
    let opened = descriptors.map(|entry| std::fs::read_link(entry.expect("alive").path()));
    // A descriptor that was closed meanwhile does not count.
    opened
        .filter_map(Result::ok)
        .filter(|path| path == Path::new("/dev/null"))
        .count()
}

fn complaints(vestibule: &Vestibule) -> usize {
    vestibule.log().iter().filter(|e| is_complaint(e)).count()
}

fn is_complaint(event: &serde_json::Value) -> bool {
    message(event).starts_with("cannot accept") && event["level"] == "WARN"
}

async fn complained(vestibule: &Vestibule, times: usize) {
    let mut seen = std::collections::HashSet::new();
    vestibule
        .event(|event| {
            if is_complaint(event) {
                seen.insert(event["timestamp"].to_string());
            }
            seen.len() >= times
        })
        .await;
}

async fn finish(mut client: Client) {
    const BYTES: usize = 100;
    bytes::send(&mut client, 7, BYTES).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 7, BYTES)).await;
}

async fn echo(mut socket: Socket) {
    let _: io::Result<()> = async {
        let mut chunk = [0; 1024];
        loop {
            match socket.read(&mut chunk).await? {
                0 => return socket.shutdown().await,
                read => socket.write_all(&chunk[..read]).await?,
            }
        }
    }
    .await;
}
