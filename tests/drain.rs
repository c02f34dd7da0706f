//! The shutdown: no new connections, time for the open ones to end, and a cut at the deadline.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::{self, Client, Front};
use common::gate::{self, Answer, Watch};
use common::vestibule::{ECHO_AND_WORKERS, LISTENERS, RELAYS, Vestibule, message};
use common::{bytes, soon};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// [`ECHO_AND_WORKERS`], and a backend without workers.
fn config() -> String {
    format!("{ECHO_AND_WORKERS}[[backend]]\nname = \"quiet\"\nto = \"gate\"\n")
}

#[tokio::test]
async fn a_drain_takes_nothing_new_and_lets_open_connections_end() {
    for relay in RELAYS {
        let vestibule = Vestibule::start_over(relay, &config()).await;
        let (tcp, unix) = fronts(&vestibule);
        let gate = vestibule.gate();
        let mut echoed = tcp.connect().await.expect("a handshake");
        echo_a_byte(&mut echoed).await;
        let (mut claimed, mut worker) = claimed(&vestibule).await;
        let mut watch = Watch::new(&gate, "app").await;
        let mut waiting = unix.connect().await.expect("a handshake");
        let id = offered(&mut watch).await;
        let mut idle = idle_worker(&gate).await;

        vestibule.signal(Signal::TERM);
        vestibule
            .event(|e| message(e).starts_with("draining: 3 open"))
            .await;
        for front in [&tcp, &unix] {
            refuses(front).await;
        }
        // Each of the three kinds of waiting parties is told.
        let event = soon("an event", watch.next()).await.expect("an event");
        assert_eq!(event, format!("GONE {id} drained"));
        assert!(soon("the end of the watch", watch.next()).await.is_err());
        assert_clean_end(&mut waiting).await;
        let told = soon("an answer", gate::line(&mut idle)).await;
        assert_eq!(told.expect("an answer"), "NO draining");
        refuses_workers(&gate, &id).await;

        // Open connections continue without a time limit of their own.
        echo_a_byte(&mut echoed).await;
        claimed.write_u8(b'y').await.expect("open");
        claimed.flush().await.expect("open");
        let byte = soon("a byte", worker.read_u8()).await;
        assert_eq!(byte.expect("open"), b'y');
        let files = files(&vestibule);
        assert!(files.iter().all(|file| file.exists()), "until the end");
        finish(echoed).await.expect("served");
        drop(worker);
        assert_clean_end(&mut claimed).await;
        claimed.shutdown().await.expect("open");
        drop((waiting, claimed));

        let mut vestibule = vestibule;
        assert_eq!(vestibule.wait().await.code(), Some(0));
        vestibule.whole_log().await;
        vestibule.assert_over(relay);
        let outcomes = vestibule.outcomes();
        assert_eq!(
            (outcomes["done"], outcomes["drained"]),
            (2, 1),
            "{outcomes:?}"
        );
        assert!(
            !files.iter().any(|file| file.exists()),
            "nothing is left behind"
        );
    }
}

async fn refuses_workers(gate: &Path, id: &str) {
    for line in [
        format!("CLAIM {id}"),
        "ACCEPT app".into(),
        "WATCH app".into(),
    ] {
        let answer = soon("an answer", gate::ask(gate, &line)).await;
        assert!(
            matches!(&answer, Answer::No(reason) if reason == "draining"),
            "{line}: {answer:?}"
        );
    }
}

/// As in a rolling update: the kernel has connected clients that the program has not accepted yet.
#[tokio::test]
async fn clients_in_the_queue_of_the_kernel_are_served_and_not_reset() {
    const CLIENTS: usize = 100;
    for relay in RELAYS {
        let mut vestibule = Vestibule::start_over(relay, &config()).await;
        let front = fronts(&vestibule).0;
        vestibule.signal(Signal::STOP);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let socket = front.socket().await.expect("a place in the queue");
            clients.spawn(async move { finish(client::handshake(socket).await?).await });
        }
        vestibule.signal(Signal::TERM);
        vestibule.signal(Signal::CONT);
        while let Some(served) = clients.join_next().await {
            served.expect("no panic").expect("no reset");
        }
        assert!(vestibule.wait().await.success());
    }
}

#[tokio::test]
async fn an_idle_keep_alive_connection_does_not_delay_the_drain() {
    for relay in RELAYS {
        let config = "[timeouts]\ndrain = \"50s\"\n[[backend]]\nname = \"app\"\nto = \"hello\"\n";
        let vestibule = Vestibule::start_over(relay, config).await;
        let mut client = fronts(&vestibule).0.connect().await.expect("a handshake");
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(request).await.expect("an open connection");
        assert_eq!(client.read_u8().await.expect("an answer"), b'H');

        vestibule.signal(Signal::TERM);
        let mut answer = Vec::new();
        soon("its end", client.read_to_end(&mut answer))
            .await
            .expect("close_notify");
        client.shutdown().await.expect("an open connection");
        drop(client);
        vestibule.ended_over(relay, "done", 1).await;
    }
}

#[tokio::test]
async fn at_the_deadline_open_connections_are_closed_in_order_and_logged() {
    for relay in RELAYS {
        const DRAIN: Duration = Duration::from_millis(1500);
        let config = format!("[timeouts]\ndrain = \"{DRAIN:?}\"\n{}", config());
        let mut vestibule = Vestibule::start_over(relay, &config).await;
        let (tcp, _) = fronts(&vestibule);
        let mut echoed = tcp.connect().await.expect("a handshake");
        echo_a_byte(&mut echoed).await;
        let (mut claimed, mut worker) = claimed(&vestibule).await;
        let files = files(&vestibule);

        let started = Instant::now();
        vestibule.signal(Signal::TERM);
        soon("the cut", async {
            tokio::join!(
                assert_clean_end(&mut echoed),
                assert_clean_end(&mut claimed),
                async { assert_eq!(worker.read(&mut [0]).await.expect("an end"), 0) }
            )
        })
        .await;
        assert!(started.elapsed() >= DRAIN, "cut too early");
        drop((echoed, claimed));
        assert_eq!(vestibule.wait().await.code(), Some(3));
        vestibule.whole_log().await;
        vestibule.assert_over(relay);
        assert_eq!(
            vestibule.outcomes(),
            [("drained".to_owned(), 2)].into(),
            "every one that was cut"
        );
        assert!(!files.iter().any(|file| file.exists()));
    }
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::TERM, Signal::INT),
        (Signal::INT, Signal::TERM),
        (Signal::INT, Signal::INT),
        (Signal::QUIT, Signal::QUIT),
        (Signal::TERM, Signal::QUIT),
    ] {
        let config = format!("[timeouts]\ndrain = \"unlimited\"\n{}", config());
        let mut vestibule = Vestibule::start(&config).await;
        let mut client = fronts(&vestibule).0.connect().await.expect("a handshake");
        echo_a_byte(&mut client).await;
        vestibule.signal(first);
        vestibule
            .event(|e| message(e).starts_with("draining: 1 open"))
            .await;
        echo_a_byte(&mut client).await;
        vestibule.signal(Signal::USR1);
        vestibule.event(|e| message(e).contains("SIGUSR1")).await;
        vestibule.signal(second);
        assert_clean_end(&mut client).await;
        drop(client);
        assert_eq!(vestibule.wait().await.code(), Some(3));
    }
}

#[tokio::test]
async fn with_nothing_open_it_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let config = format!("[timeouts]\ndrain = \"10m\"\n{}", config());
        let mut vestibule = Vestibule::start(&config).await;
        // Clients that wait at the gate do not delay the drain.
        let _watch = Watch::new(&vestibule.gate(), "app").await;
        let _worker = idle_worker(&vestibule.gate()).await;
        let mut registered = gate::send(&vestibule.gate(), "REGISTER quiet tcp:127.0.0.1:9").await;
        let answer = soon("an answer", gate::line(&mut registered)).await;
        assert_eq!(answer.expect("an answer"), "OK {}");
        vestibule.signal(signal);
        assert_eq!(vestibule.wait().await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_signals_of_reload_log_rotation_and_upgrade_do_not_kill() {
    let vestibule = Vestibule::start(&config()).await;
    let (tcp, _) = fronts(&vestibule);
    let mut open = tcp.connect().await.expect("a handshake");
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
    ] {
        vestibule.signal(signal);
        vestibule.event(|e| message(e).contains(name)).await;
        echo_a_byte(&mut open).await;
        finish(tcp.connect().await.expect("a handshake"))
            .await
            .expect("served");
    }
    finish(open).await.expect("served");
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn a_generated_runtime_directory_is_removed_at_the_exit() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).expect("a directory");
    let config = format!("[runtime]\nlog_format = \"json\"\n{}{LISTENERS}", config());
    let mut vestibule = Vestibule::spawn(directory, &config, |mut command| {
        command
            .env_remove("XDG_RUNTIME_DIR")
            .env("TMPDIR", &temporary);
        command
    });
    vestibule.until_started().await;
    let line = vestibule
        .event(|e| message(e).starts_with("gate at unix:"))
        .await;
    let gate = PathBuf::from(message(&line).trim_start_matches("gate at unix:"));
    let fresh = gate.parent().expect("a directory");
    assert_eq!(fresh.parent(), Some(temporary.as_path()));
    let mode = fs::metadata(fresh).expect("a directory").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    let _client = fronts(&vestibule).0.connect().await.expect("a handshake");
    // This holds for every end; here it is a cut.
    vestibule.signal(Signal::TERM);
    vestibule
        .event(|e| message(e).starts_with("draining"))
        .await;
    vestibule.signal(Signal::TERM);
    assert_eq!(vestibule.wait().await.code(), Some(3));
    assert_eq!(fs::read_dir(&temporary).expect("a directory").count(), 0);
}

fn fronts(vestibule: &Vestibule) -> (Front, Front) {
    (
        Front::Tcp(vestibule.tcp()),
        Front::Unix(vestibule.path("front.sock")),
    )
}

/// The files that it has created.
fn files(vestibule: &Vestibule) -> Vec<PathBuf> {
    [
        "run/gate.sock",
        "run/gate.sock.lock",
        "front.sock",
        "front.sock.lock",
    ]
    .map(|name| vestibule.path(name))
    .into()
}

/// A client and the worker that serves it.
async fn claimed(vestibule: &Vestibule) -> (Client, UnixStream) {
    let mut client = fronts(vestibule).1.connect().await.expect("a handshake");
    let path = vestibule.gate();
    let (_, mut worker) = soon("a connection", gate::accept(&path, "app")).await;
    client.write_u8(b'x').await.expect("open");
    client.flush().await.expect("open");
    let byte = soon("a byte", worker.read_u8()).await;
    assert_eq!(byte.expect("open"), b'x');
    (client, worker)
}

/// A worker that waits for a connection, after the gate has read its line.
async fn idle_worker(gate: &Path) -> UnixStream {
    let worker = gate::send(gate, "ACCEPT quiet").await;
    // The gate reads the lines of its clients in order on one thread, so this answer comes after
    // the other line was read.
    let unknown = "00000000-0000-4000-8000-000000000000";
    let answer = soon("an answer", gate::claim(gate, unknown)).await;
    assert!(matches!(answer, Answer::No(reason) if reason == "unknown"));
    worker
}

/// Waits until the listener is closed. A client that connects before that is closed without an
/// answer.
async fn refuses(front: &Front) {
    soon("a refusal", async {
        while let Ok(mut socket) = front.socket().await {
            // A client that the kernel has connected already is admitted, and may leave.
            let mut answer = Vec::new();
            let _ = socket.shutdown().await;
            let _ = socket.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
        }
    })
    .await;
}

async fn assert_clean_end(client: &mut Client) {
    let mut rest = Vec::new();
    let read = soon("an end", client.read_to_end(&mut rest)).await;
    assert_eq!(read.expect("close_notify, not a truncation"), 0);
}

async fn echo_a_byte(client: &mut Client) {
    client.write_u8(b'x').await.expect("open");
    client.flush().await.expect("open");
    let byte = soon("an echo", client.read_u8()).await;
    assert_eq!(byte.expect("open"), b'x');
}

async fn finish(mut client: Client) -> std::io::Result<()> {
    const BYTES: usize = 100;
    bytes::send(&mut client, 7, BYTES).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 7, BYTES)).await;
    Ok(())
}

async fn offered(watch: &mut Watch) -> String {
    let facts = soon("an offer", watch.offer()).await;
    facts["id"].as_str().expect("an id").to_owned()
}
