//! Workers that compete, die or hang.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::*;

#[tokio::test]
async fn competing_workers_serve_each_connection_once_and_completely() {
    for relay in RELAYS {
        // All of them run on one thread of the test, so a claim may take long on a slow machine.
        // They also have one address, which may not hold so many of the handshakes.
        let limits = "[limits]\nhandshaking = \"unlimited\"\n";
        let config = format!("{limits}[timeouts]\nbackend = \"50s\"\n{APP}");
        let vestibule = Vestibule::start_over(relay, &config).await;
        let path = vestibule.gate();
        let record = Arc::new(Record::default());

        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let watch = Watch::new(&path, "app").await;
            workers.spawn(compete(watch, path.clone(), Arc::clone(&record)));
        }

        let mut clients = JoinSet::new();
        for seed in 0..CONNECTIONS {
            let address = vestibule.tcp();
            clients.spawn(converse(address, seed));
        }
        soon("all clients", async {
            while let Some(client) = clients.join_next().await {
                client.expect("a client that got all");
            }
        })
        .await;

        vestibule
            .ended_over(relay, "done", CONNECTIONS as usize)
            .await;
        let served = record.served.lock().expect("no panic").clone();
        assert_eq!(served.len(), CONNECTIONS as usize);
        assert_eq!(
            served.iter().collect::<HashSet<_>>().len(),
            served.len(),
            "none served twice"
        );
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
        // Every watcher saw every offer, and all but one of them lost it.
        until("every loser was told", || {
            *record.losses.lock().expect("no panic") == CONNECTIONS as usize * (WORKERS - 1)
        })
        .await;
        assert_eq!(vestibule.terminate().await, Some(0));
        while let Some(worker) = soon("workers", workers.join_next()).await {
            worker.expect("a worker that served whole connections");
        }
    }
}

/// The results of the workers.
#[derive(Default)]
struct Record {
    /// The ids that any worker has claimed.
    served: Mutex<Vec<String>>,
    losses: Mutex<usize>,
}

/// Claims every connection that is offered, and serves those that it gets.
async fn compete(mut watch: Watch, path: PathBuf, record: Arc<Record>) {
    let mut serving = JoinSet::new();
    while let Ok(event) = watch.next().await {
        let Some(facts) = event.strip_prefix("OFFER ") else {
            continue;
        };
        let facts: serde_json::Value = serde_json::from_str(facts).expect("facts");
        let id = facts["id"].as_str().expect("an id").to_owned();
        match gate::claim(&path, &id).await {
            Answer::No(reason) => {
                assert_eq!(reason, "unknown");
                *record.losses.lock().expect("no panic") += 1;
            }
            Answer::Ok(facts, mut socket) => {
                assert_eq!(facts["id"], id.as_str());
                record.served.lock().expect("no panic").push(id);
                serving.spawn(async move {
                    // The client sends its number, one of 200.
                    let seed = socket.read_u64().await.expect("a number");
                    let (mut reader, mut writer) = socket.split();
                    let sending = bytes::send(&mut writer, seed, BYTES);
                    let ((), sent) =
                        tokio::join!(bytes::expect(&mut reader, !seed, BYTES), sending);
                    sent.expect("an open connection");
                });
            }
        }
    }
    while let Some(served) = serving.join_next().await {
        served.expect("served");
    }
}

/// Sends the client's number and bytes, and receives the worker's bytes.
async fn converse(address: String, seed: u64) {
    let client = client::connect(&address).await.expect("a handshake");
    let (mut reader, mut writer) = tokio::io::split(client);
    let say = async {
        writer.write_u64(seed).await.expect("an open connection");
        bytes::send(&mut writer, !seed, BYTES)
            .await
            .expect("an open connection");
    };
    tokio::join!(bytes::expect(&mut reader, seed, BYTES), say);
}

const CONNECTIONS: u64 = 200;
const WORKERS: usize = 8;
/// With 200 connections this makes a little more than 64 MiB in each direction.
const BYTES: usize = 336 * 1024 + 7;

#[tokio::test]
async fn a_worker_killed_between_claim_and_ok_leaves_the_connection_to_another() {
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    let mut watch = Watch::new(&path, "app").await;
    let (_client, id) = offered(&vestibule, &mut watch, b"hello").await;

    // One worker gets its answer and dies without reading it: the connection is offered again.
    for line in [format!("CLAIM {id}"), "ACCEPT app".into()] {
        let unaware = gate::send(&path, &line).await;
        let event = soon("an event", watch.next()).await.expect("an event");
        assert_eq!(event, format!("GONE {id} claimed"));
        drop(unaware);
        assert_eq!(soon("the offer", watch.offer()).await["id"], id.as_str());
    }
    // Others die at any moment between their line and their answer.
    for line in [format!("CLAIM {id}"), "ACCEPT app".into()] {
        for _ in 0..20 {
            drop(gate::send(&path, &line).await);
        }
    }
    let (facts, mut socket) = soon("the connection", gate::accept(&path, "app")).await;
    assert_eq!(facts["id"], id.as_str());
    let mut word = [0; 5];
    soon("the client's word", socket.read_exact(&mut word))
        .await
        .expect("five bytes");
    assert_eq!(&word, b"hello");
}

#[tokio::test]
async fn dead_waiting_workers_are_skipped_and_the_others_served_in_turn() {
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    let mut waiting = Vec::new();
    for number in 0..6 {
        let worker = gate::send(&path, "ACCEPT app").await;
        // Each one waits before the next one connects.
        gate::until_in_place(&path).await;
        if number % 2 == 0 {
            drop(worker);
        } else {
            waiting.push(worker);
        }
    }
    for mut worker in waiting {
        let mut client = client::connect(&vestibule.tcp())
            .await
            .expect("a handshake");
        assert!(
            soon("OK", gate::line(&mut worker))
                .await
                .expect("a line")
                .starts_with("OK {")
        );
        worker
            .write_all(b"served")
            .await
            .expect("an open connection");
        let mut word = [0; 6];
        soon("the worker's word", client.read_exact(&mut word))
            .await
            .expect("six bytes");
    }
}

/// A stopped process reads nothing, and the kernel accepts its answers.
const STOPPED: &str = "import os, signal, socket, sys
sockets = [socket.socket(socket.AF_UNIX) for _ in range(20)]
for it in sockets:
    it.connect(sys.argv[1])
    it.sendall(b'ACCEPT app\\n')
print('ready', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
";

const HUNG: &str = "a worker did not read its OK in time; closed all sockets on which its process waits; its connections wait for another worker";

#[tokio::test]
async fn a_stopped_worker_swallows_no_connection() {
    const CLIENTS: usize = 20;
    for relay in RELAYS {
        let vestibule = Vestibule::start_over(relay, APP).await;
        let mut command = process::python();
        command.args(["-c", STOPPED]).arg(vestibule.gate());
        let worker = process::Process::start(command);
        worker.line("ready").await;
        gate::until_in_place(&vestibule.gate()).await;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let address = vestibule.tcp();
            clients.spawn(async move {
                let mut client = client::connect(&address).await.expect("a handshake");
                client.write_all(b"?").await.expect("an open connection");
                client.read_u8().await
            });
        }
        // A healthy worker comes after the stopped one has failed.
        vestibule.said(HUNG, 1).await;
        for _ in 0..CLIENTS {
            let (_, mut socket) = soon("a claim", gate::accept(&vestibule.gate(), "app")).await;
            assert_eq!(socket.read_u8().await.expect("a word"), b'?');
            socket.write_all(b"!").await.expect("an open connection");
        }
        while let Some(answer) = clients.join_next().await {
            assert_eq!(answer.expect("no panic").expect("an answer"), b'!');
        }
        let log = vestibule.log();
        let lines = log.iter().filter(|event| message(event) == HUNG);
        assert_eq!(lines.count(), 1);
    }
}

#[tokio::test]
async fn a_worker_that_takes_no_data_after_its_ok_is_cut() {
    for relay in RELAYS {
        let config = format!("[timeouts]\nunacknowledged = \"400ms\"\n{APP}");
        let vestibule = Vestibule::start_over(relay, &config).await;
        let mut client = client::connect(&vestibule.tcp())
            .await
            .expect("a handshake");
        let (_, socket) = soon("a claim", gate::accept(&vestibule.gate(), "app")).await;
        client
            .write_all(b"a word")
            .await
            .expect("an open connection");
        client.flush().await.expect("an open connection");
        let end = soon("the end", client.read_to_end(&mut Vec::new())).await;
        end.expect_err("a reset, and no clean end");
        drop(socket);
        vestibule.ended_over(relay, "backend_reset", 1).await;
    }
}
