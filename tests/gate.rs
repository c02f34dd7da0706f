//! The gate with all kinds of wrong clients, and the events for watchers and registered workers.

mod common;

use std::time::{Duration, Instant};

use common::backend::Backend;
use common::gate::{self, Answer, Watch};
use common::vestibule::Vestibule;
use common::{client, soon, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

const APP: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";

/// Two backends need a route. This route never chooses the second one.
const TWO: &str = r#"
[[backend]]
name = "app"
to = "gate"
[[backend]]
name = "fixed"
to = "hello"
[[route]]
backend = "app"
"#;

/// The documented limit is 5 seconds; the rest is for a loaded machine.
const CUT: Duration = Duration::from_secs(10);

/// Everything that the gate sends until it closes.
async fn last_words(mut socket: UnixStream) -> String {
    let mut words = Vec::new();
    // A reset is an end too: the gate closes with unread bytes when a line is too long.
    let _ = within(CUT, "the gate's end", socket.read_to_end(&mut words)).await;
    String::from_utf8(words).expect("ASCII")
}

#[tokio::test]
async fn every_wrong_line_is_refused_with_its_reason() {
    let vestibule = Vestibule::start(TWO).await;
    let id = "7f8c1d9e-0a1b-4c2d-8e3f-405162738495";
    let longest = "A".repeat(255);
    let too_long = "A".repeat(300);
    for (line, reason) in [
        ("", "malformed"),
        ("HELLO", "malformed"),
        ("GET / HTTP/1.1\r", "malformed"),
        ("CLAIM", "malformed"),
        ("CLAIM 1", "malformed"),
        ("ACCEPT", "malformed"),
        ("ACCEPT a b", "malformed"),
        ("REGISTER app", "malformed"),
        ("REGISTER app x", "malformed"),
        (longest.as_str(), "malformed"),
        (too_long.as_str(), "malformed"),
        (&format!("CLAIM {id}"), "unknown"),
        (&format!("CLAIM {}", id.to_uppercase()), "unknown"),
        (&format!("CLAIM {id}\nand stream data behind it"), "unknown"),
        ("ACCEPT nobody", "unknown"),
        ("WATCH nobody", "unknown"),
        ("REGISTER nobody unix:/a", "unknown"),
        ("ACCEPT fixed", "forbidden"),
        ("REGISTER fixed unix:/a", "forbidden"),
        ("REGISTER app tcp:192.0.2.1:80", "forbidden"),
    ] {
        let socket = gate::send(&vestibule.gate(), line).await;
        assert_eq!(
            last_words(socket).await,
            format!("NO {reason}\n"),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn silence_halves_and_single_bytes_are_cut_within_five_seconds() {
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (name, sent) in [
        ("silent", &b""[..]),
        ("half", b"CLAIM 7f8c1d9e"),
        ("endless", b"AAAAA"),
    ] {
        let mut socket = UnixStream::connect(&path).await.expect("the gate");
        clients.spawn(async move {
            if name == "endless" {
                // One byte at a time, for as long as the gate accepts them.
                while socket.write_all(b"A").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return;
            }
            socket.write_all(sent).await.expect("room");
            assert_eq!(last_words(socket).await, "NO malformed\n", "{name}");
        });
    }
    within(CUT, "all cut", async {
        while let Some(client) = clients.join_next().await {
            client.expect("a client that was cut");
        }
    })
    .await;
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "a slow line has its five seconds"
    );
}

#[tokio::test]
async fn a_line_without_a_newline_before_the_close_is_malformed() {
    let vestibule = Vestibule::start(APP).await;
    let mut socket = UnixStream::connect(vestibule.gate())
        .await
        .expect("the gate");
    socket.write_all(b"ACCEPT app").await.expect("room");
    socket.shutdown().await.expect("an open socket");
    assert_eq!(last_words(socket).await, "NO malformed\n");
}

#[tokio::test]
async fn a_line_in_single_bytes_is_a_line() {
    let vestibule = Vestibule::start(APP).await;
    let mut socket = UnixStream::connect(vestibule.gate())
        .await
        .expect("the gate");
    for byte in b"CLAIM 7f8c1d9e-0a1b-4c2d-8e3f-405162738495\n" {
        socket.write_all(&[*byte]).await.expect("room");
        tokio::task::yield_now().await;
    }
    assert_eq!(last_words(socket).await, "NO unknown\n");
}

#[tokio::test]
async fn ten_thousand_wrong_claims_leave_the_memory_as_it_was() {
    const CLAIMS: usize = 10_000;
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    // After these the allocator and the runtime have reached their usual size.
    storm(&path, 2_000).await;
    let (memory, descriptors) = (vestibule.memory(), vestibule.descriptors());
    storm(&path, CLAIMS).await;
    let grown = vestibule.memory().saturating_sub(memory);
    assert!(
        grown < 1024 * 1024,
        "10,000 refused claims took {grown} bytes"
    );
    common::until("all closed", || vestibule.descriptors() <= descriptors).await;
}

/// Claims of unknown ids, incomplete lines, and lines that are too long.
async fn storm(gate: &std::path::Path, count: usize) {
    let mut clients = JoinSet::new();
    for number in 0..count {
        let gate = gate.to_owned();
        clients.spawn(async move {
            match number % 4 {
                0 => drop(gate::send(&gate, &"x".repeat(300)).await),
                1 => {
                    let mut socket = UnixStream::connect(&gate).await.expect("the gate");
                    socket.write_all(b"CLAIM ").await.expect("room");
                }
                _ => {
                    let id = uuid::Uuid::new_v4();
                    match gate::claim(&gate, &id.to_string()).await {
                        Answer::No(reason) => assert_eq!(reason, "unknown"),
                        Answer::Ok(..) => panic!("a connection out of nowhere"),
                    }
                }
            }
        });
        if clients.len() >= 100 {
            soon("a client", clients.join_next())
                .await
                .expect("some")
                .expect("answered");
        }
    }
    while let Some(client) = soon("a client", clients.join_next()).await {
        client.expect("answered");
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_are_told_that_the_gate_is_busy() {
    let config = format!("[gate]\nmax_clients = 2\n{APP}");
    let vestibule = Vestibule::start(&config).await;
    let path = vestibule.gate();
    let first = Watch::new(&path, "app").await;
    let _second = Watch::new(&path, "app").await;
    assert!(matches!(gate::ask(&path, "ACCEPT app").await, Answer::No(no) if no == "busy"));
    drop(first);
    // The place is free after the gate has noticed the end, which an event makes it do.
    soon("a place", async {
        loop {
            drop(client::connect(&vestibule.tcp()).await);
            match gate::claim(&path, "7f8c1d9e-0a1b-4c2d-8e3f-405162738495").await {
                Answer::No(reason) if reason == "busy" => tokio::task::yield_now().await,
                Answer::No(reason) => break assert_eq!(reason, "unknown"),
                Answer::Ok(..) => panic!("a connection out of nowhere"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn waiting_workers_that_died_do_not_keep_their_places() {
    let config = format!("[gate]\nmax_clients = 4\n{APP}");
    let vestibule = Vestibule::start(&config).await;
    let path = vestibule.gate();
    for _ in 0..3 {
        let mut waiting = Vec::new();
        while waiting.len() < 4 {
            let mut socket = gate::send(&path, "ACCEPT app").await;
            // The gate answers `busy` until it has found the dead clients of the last round.
            let refused = tokio::time::timeout(Duration::from_millis(100), gate::line(&mut socket));
            if refused.await.is_err() {
                waiting.push(socket);
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_sees_what_waits_then_every_event_in_order() {
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    let mut early = Watch::new(&path, "app").await;
    let first = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let facts = early.offer().await;
    let id = facts["id"].as_str().expect("an id").to_owned();

    let mut late = Watch::new(&path, "app").await;
    assert_eq!(late.offer().await, facts, "it waits already");
    let Answer::Ok(_, worker) = gate::claim(&path, &id).await else {
        panic!("refused")
    };
    for watch in [&mut early, &mut late] {
        let event = soon("an event", watch.next()).await.expect("an event");
        assert_eq!(event, format!("GONE {id} claimed"));
    }
    drop((first, worker));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_delays_nobody() {
    let config = format!(
        "[limits]\nconnections_per_ip = \"unlimited\"\n[timeouts]\nbackend = \"20s\"\n{APP}"
    );
    let vestibule = Vestibule::start(&config).await;
    let path = vestibule.gate();
    let mut asleep = gate::send(&path, "WATCH app").await;
    let mut awake = Watch::new(&path, "app").await;
    // More events than its socket and its queue hold: 200 KiB and 1024 lines of about 500 bytes.
    for _ in 0..1_000 {
        let mut worker = gate::send(&path, "ACCEPT app").await;
        let client = soon("a handshake", client::connect(&vestibule.tcp()))
            .await
            .expect("served");
        // The worker reads its answer, so that the connection counts as served and is not offered
        // again.
        assert!(
            gate::line(&mut worker)
                .await
                .expect("OK")
                .starts_with("OK ")
        );
        awake.offer().await;
        drop((worker, client));
    }
    vestibule
        .event(|event| common::vestibule::message(event) == "watch overrun")
        .await;
    let mut rest = Vec::new();
    soon("its end", asleep.read_to_end(&mut rest))
        .await
        .expect("closed");
    assert!(rest.starts_with(b"OFFER {"));
}

#[tokio::test]
async fn registered_addresses_are_dialled_until_their_socket_closes() {
    let vestibule = Vestibule::start(APP).await;
    let path = vestibule.gate();
    let backend = Backend::unix(&vestibule.path("worker.sock"));
    let register = format!("REGISTER app {}", backend.address());
    let _serving = backend.serve(|mut socket| async move {
        let _ = socket.write_all(b"dialled").await;
    });

    // A connection waits, and then an address is registered: the connection is dialled there.
    let mut watch = Watch::new(&path, "app").await;
    let mut waiting = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let id = watch.offer().await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let mut registration = gate::send(&path, &register).await;
    assert_eq!(
        gate::line(&mut registration).await.expect("an answer"),
        "OK {}"
    );
    let mut answer = String::new();
    soon("an answer", waiting.read_to_string(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, "dialled");
    assert_eq!(
        watch.next().await.expect("an event"),
        format!("GONE {id} dialled")
    );

    // While the address is registered, no connection is offered.
    let mut next = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let mut answer = String::new();
    soon("an answer", next.read_to_string(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, "dialled");

    // After its socket is closed, connections wait for claims again.
    drop(registration);
    vestibule
        .event(|event| common::vestibule::message(event) == "address withdrawn")
        .await;
    let _client = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let (_, mut worker) = soon("a connection", gate::accept(&path, "app")).await;
    worker
        .write_all(b"claimed")
        .await
        .expect("an open connection");
}
