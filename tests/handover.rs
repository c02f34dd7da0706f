//! One connection, one server: the hand-over at the gate.

mod common;
mod handover {
    mod workers;
}

use std::time::Duration;

use common::gate::{self, Answer, Watch};
use common::vestibule::{RELAYS, Vestibule, message};
use common::{bytes, client, process, soon, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const APP: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";

/// Connects a client that sends `bytes`. Returns it, and the id under which it is offered.
async fn offered(
    vestibule: &Vestibule,
    watch: &mut Watch,
    bytes: &[u8],
) -> (client::Client, String) {
    let connected = client::connect(&vestibule.tcp()).await;
    let mut client = connected.expect("a handshake");
    client.write_all(bytes).await.expect("an open connection");
    let facts = watch.offer().await;
    (client, facts["id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn the_facts_at_the_hand_over_describe_the_connection() {
    let vestibule = Vestibule::start(APP).await;
    let client = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let (facts, _socket) = soon("a connection", gate::accept(&vestibule.gate(), "app")).await;
    let client::Socket::Tcp(tcp) = client.get_ref().0 else {
        panic!("TCP")
    };
    assert_eq!(
        facts["peer"],
        tcp.local_addr().expect("connected").to_string()
    );
    assert_eq!(
        facts["local"],
        tcp.peer_addr().expect("connected").to_string()
    );
    assert_eq!(facts["listener"], "tcp");
    assert_eq!(facts["backend"], "app");
    assert_eq!(facts["tls"]["version"], "1.3");
    assert_eq!(facts["tls"]["sni"], "localhost");
    assert_eq!(facts["tls"]["alpn"], serde_json::Value::Null);
    assert_eq!(facts["tls"]["resumed"], false);
    assert_eq!(facts["identity"], serde_json::Value::Null);
    let keys: Vec<&String> = facts.as_object().expect("an object").keys().collect();
    assert_eq!(keys.len(), 8, "{keys:?}");
}

#[tokio::test]
async fn bytes_around_the_hand_over_are_neither_lost_nor_repeated() {
    for relay in RELAYS {
        let vestibule = Vestibule::start_over(relay, APP).await;
        // The worker sends data in the same write as its line, and the client sends before anybody
        // reads.
        let mut worker = gate::send(&vestibule.gate(), "ACCEPT app\nfrom the worker").await;
        let mut client = client::connect(&vestibule.tcp())
            .await
            .expect("a handshake");
        client
            .write_all(b"from the client")
            .await
            .expect("an open connection");
        assert!(
            soon("OK", gate::line(&mut worker))
                .await
                .expect("a line")
                .starts_with("OK {")
        );

        worker.shutdown().await.expect("an open connection");
        let mut said = String::new();
        soon("the worker's words", client.read_to_string(&mut said))
            .await
            .expect("a clean end");
        assert_eq!(said, "from the worker\n");
        client.shutdown().await.expect("an open connection");
        let mut said = String::new();
        soon("the client's words", worker.read_to_string(&mut said))
            .await
            .expect("a clean end");
        assert_eq!(said, "from the client");
        vestibule.ended_over(relay, "done", 1).await;
    }
}

#[tokio::test]
async fn without_a_worker_the_client_gets_an_orderly_end() {
    for relay in RELAYS {
        let vestibule =
            Vestibule::start_over(relay, &format!("[timeouts]\nbackend = \"300ms\"\n{APP}")).await;
        let mut watch = Watch::new(&vestibule.gate(), "app").await;
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let (mut client, id) = offered(&vestibule, &mut watch, request).await;
        let mut answer = Vec::new();
        let read = soon("an end", client.read_to_end(&mut answer)).await;
        assert_eq!(read.expect("close_notify, not a truncation"), 0);
        assert_eq!(
            watch.next().await.expect("an event"),
            format!("GONE {id} expired")
        );
        assert!(
            matches!(gate::claim(&vestibule.gate(), &id).await, Answer::No(no) if no == "unknown")
        );
        vestibule.ended_over(relay, "expired", 1).await;
    }
}

#[tokio::test]
async fn missing_workers_are_logged_once_until_one_comes() {
    const NOBODY: &str = "no worker takes connections in time; they end as expired \
                          (timeouts.backend); start more workers";
    const AGAIN: &str = "workers take connections again";
    let vestibule = Vestibule::start(&format!("[timeouts]\nbackend = \"300ms\"\n{APP}")).await;
    for round in 1..=2 {
        for _ in 0..3 {
            let mut client = client::connect(&vestibule.tcp())
                .await
                .expect("a handshake");
            let read = soon("an end", client.read(&mut [0])).await;
            assert_eq!(read.expect("close_notify"), 0);
        }
        vestibule.ended("expired", 3 * round).await;
        vestibule.said(NOBODY, round).await;
        for _ in 0..2 {
            // The worker is in its place before the connection arrives, because 300 ms may be too
            // short otherwise.
            let mut worker = gate::send(&vestibule.gate(), "ACCEPT app").await;
            gate::until_in_place(&vestibule.gate()).await;
            let client = client::connect(&vestibule.tcp()).await;
            let answer = soon("an answer", gate::line(&mut worker)).await;
            assert!(answer.expect("an answer").starts_with("OK "));
            drop((worker, client.expect("a handshake")));
        }
        vestibule.said(AGAIN, round).await;
    }
    let log = vestibule.log();
    let lines = |text| log.iter().filter(|event| message(event) == text).count();
    assert_eq!((lines(NOBODY), lines(AGAIN)), (2, 2));
    assert!(
        log.iter()
            .any(|event| message(event) == NOBODY && event["backend"] == "app")
    );
}

#[tokio::test]
async fn a_connection_whose_lifetime_ends_while_it_waits_is_reported_as_expired() {
    let config = format!("[timeouts]\nlifetime = \"2s\"\n{APP}");
    let vestibule = Vestibule::start(&config).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let (mut client, id) = offered(&vestibule, &mut watch, b"").await;
    let event = soon("an event", watch.next()).await.expect("an event");
    assert_eq!(event, format!("GONE {id} expired"));
    let read = soon("an end", client.read(&mut [0])).await;
    assert_eq!(read.expect("close_notify, not a truncation"), 0);
    vestibule.ended("lifetime", 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_waiting_withdraws_its_offer() {
    for relay in RELAYS {
        let vestibule = Vestibule::start_over(relay, APP).await;
        let mut watch = Watch::new(&vestibule.gate(), "app").await;
        for manner in ["truncated", "reset", "closed without a word"] {
            let (mut client, id) = offered(&vestibule, &mut watch, b"").await;
            match manner {
                "truncated" => drop(client),
                "reset" => client::reset(client),
                _ => client.shutdown().await.expect("open"),
            }
            let event = within(Duration::from_secs(3), manner, watch.next()).await;
            assert_eq!(
                event.expect("an event"),
                format!("GONE {id} client_gone"),
                "{manner}"
            );
        }
        vestibule.ended_over(relay, "client_gone", 3).await;
    }
}

#[tokio::test]
async fn a_client_that_asked_and_closed_its_side_is_still_served() {
    for relay in RELAYS {
        let vestibule = Vestibule::start_over(relay, APP).await;
        let mut watch = Watch::new(&vestibule.gate(), "app").await;
        let (mut client, id) = offered(&vestibule, &mut watch, b"question").await;
        client.shutdown().await.expect("an open connection");
        let Answer::Ok(_, mut socket) = gate::claim(&vestibule.gate(), &id).await else {
            panic!("it was withdrawn");
        };
        let mut question = String::new();
        soon("the question", socket.read_to_string(&mut question))
            .await
            .expect("a clean end");
        assert_eq!(question, "question");
        socket
            .write_all(b"answer")
            .await
            .expect("an open connection");
        drop(socket);
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer))
            .await
            .expect("a clean end");
        assert_eq!(answer, "answer");
        vestibule.ended_over(relay, "done", 1).await;
    }
}
