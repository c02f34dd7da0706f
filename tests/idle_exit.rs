//! `runtime.idle_exit` and `runtime.heartbeat`: what a supervisor sees of a process that nobody uses.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::client::Front;
use common::gate;
use common::vestibule::{ECHO_AND_WORKERS, LISTENERS, RUNTIME, Vestibule, message};
use common::{bytes, soon, until};
use rustix::process::Signal;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

const IDLE: Duration = Duration::from_secs(2);

async fn start(keys: &str) -> Vestibule {
    let config = format!("{RUNTIME}{keys}\n{ECHO_AND_WORKERS}{LISTENERS}");
    Vestibule::start_whole(Arc::new(tempdir().expect("a directory")), &config).await
}

#[tokio::test]
async fn it_ends_with_0_after_the_time_without_a_connection_and_not_during_one() {
    let mut vestibule = start("idle_exit = \"2s\"").await;
    let mut client = Front::Tcp(vestibule.tcp()).connect().await.expect("TLS");
    let waited = timeout(2 * IDLE, vestibule.wait()).await;
    assert!(waited.is_err(), "it ended during a connection: {waited:?}");
    bytes::send(&mut client, 1, 1000).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 1, 1000)).await;
    client.shutdown().await.expect("open");
    let _ = client.read(&mut [0]).await;
    vestibule.ended("done", 1).await;
    let closed = Instant::now();
    assert_eq!(vestibule.wait().await.code(), Some(0));
    let waited = closed.elapsed();
    let tolerance = Duration::from_millis(500);
    assert!(waited > IDLE - tolerance, "only {waited:?}");
    assert!(!vestibule.path("front.sock").exists());
    let log = vestibule.whole_log().await;
    let lines = log.iter();
    let said = lines.filter(|it| message(it).contains("runtime.idle_exit"));
    assert_eq!(said.count(), 1);
}

/// The kernel has connected these clients when the time is over, and the program has not accepted them.
#[tokio::test]
async fn clients_that_arrive_as_the_time_ends_are_served_also_by_workers() {
    const CLIENTS: usize = 20;
    for _ in 0..3 {
        let mut vestibule = start("idle_exit = \"2s\"").await;
        let (tcp, unix) = (vestibule.tcp(), vestibule.path("front.sock"));
        let gate = vestibule.gate();
        vestibule.signal(Signal::STOP);
        let stopped = Instant::now();
        let mut clients = JoinSet::new();
        for front in [Front::Tcp(tcp), Front::Unix(unix)] {
            for _ in 0..CLIENTS {
                let socket = front.socket().await.expect("a place in the queue");
                clients.spawn(async move {
                    let mut client = common::client::handshake(socket).await?;
                    bytes::send(&mut client, 1, 1000).await?;
                    soon("the echo", bytes::expect(&mut client, 1, 1000)).await;
                    client.shutdown().await
                });
            }
        }
        until("the end of the time", || {
            stopped.elapsed() > IDLE + IDLE / 2
        })
        .await;
        vestibule.signal(Signal::CONT);
        let mut workers = JoinSet::new();
        for _ in 0..CLIENTS {
            let gate = gate.clone();
            workers.spawn(async move { echo_for_one(&gate).await });
        }
        while let Some(served) = clients.join_next().await {
            served.expect("no panic").expect("served");
        }
        assert_eq!(vestibule.wait().await.code(), Some(0));
    }
}

/// A worker that sends one client what it has sent.
async fn echo_for_one(gate: &Path) {
    let (_, mut client) = gate::accept(gate, "app").await;
    let (mut read, mut write) = client.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

#[tokio::test]
async fn a_sigterm_works_while_the_time_runs() {
    let vestibule = start("idle_exit = \"1h\"").await;
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn the_heartbeat_is_touched_during_a_connection_and_at_most_every_ten_seconds() {
    let vestibule = start("heartbeat = \"{dir}/beat\"").await;
    let beat = vestibule.path("beat");
    let touched = || -> Option<SystemTime> { fs::metadata(&beat).ok()?.modified().ok() };
    let client = Front::Tcp(vestibule.tcp()).connect().await.expect("TLS");
    until("a heartbeat", || touched().is_some()).await;
    let first = touched().expect("just seen");
    until("another one", || touched() > Some(first)).await;
    let second = touched().expect("there");
    let between = second.duration_since(first).expect("later");
    assert!(between > Duration::from_millis(9_900), "{between:?}");
    drop(client);
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn there_is_no_heartbeat_without_a_connection() {
    let mut vestibule = start("idle_exit = \"3s\"\nheartbeat = \"{dir}/beat\"").await;
    assert_eq!(vestibule.wait().await.code(), Some(0));
    assert!(!vestibule.path("beat").exists());
}

#[tokio::test]
async fn a_heartbeat_that_fails_is_a_warning() {
    let vestibule = start("heartbeat = \"{dir}/missing/beat\"").await;
    let _client = Front::Tcp(vestibule.tcp()).connect().await.expect("TLS");
    let is_it = |it: &_| message(it).starts_with("cannot touch ");
    let warning = vestibule.event(is_it).await;
    assert_eq!(warning["level"], "WARN");
    assert!(message(&warning).contains("missing/beat (runtime.heartbeat)"));
}
