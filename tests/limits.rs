//! Limits are exact: with a limit of N, connection N + 1 is closed before any work is done for it.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::client::{self, Client, Front, Socket, client_hello, from};
use common::gate::{self, Answer, Watch};
use common::resources::raise_own_limit;
use common::vestibule::Vestibule;
use common::{bytes, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";
const GATE: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";
const MOST: usize = 100;

#[tokio::test]
async fn the_connection_over_the_limit_is_closed_before_a_byte_is_answered() {
    let vestibule = Vestibule::start(&format!("[limits]\nconnections = {MOST}\n{ECHO}")).await;
    for front in fronts(&vestibule) {
        let before = over_limit(&vestibule);
        let done = vestibule.outcomes().get("done").copied().unwrap_or(0);
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(front.connect().await.expect("room"));
        }
        assert_turned_away(front.socket().await).await;
        assert!(front.connect().await.is_err(), "{front:?}");
        vestibule.ended("over_limit", before + 2).await;
        assert_eq!(last_limit(&vestibule), "limits.connections");

        // One connection ends, and exactly one is admitted.
        let last = open.pop().expect("a hundred");
        finish(last).await;
        vestibule.ended("done", done + 1).await;
        open.push(front.connect().await.expect("room"));
        assert_turned_away(front.socket().await).await;
        vestibule.ended("over_limit", before + 3).await;

        // The admitted connections still work.
        for client in open {
            finish(client).await;
        }
        vestibule.ended("done", done + MOST + 1).await;
        assert_eq!(over_limit(&vestibule), before + 3);
    }
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn the_limit_counts_the_connections_of_all_listeners() {
    let vestibule = Vestibule::start(&format!("[limits]\nconnections = 2\n{ECHO}")).await;
    let [tcp, unix] = fronts(&vestibule);
    let _one = tcp.connect().await.expect("room");
    let _two = unix.connect().await.expect("room");
    for front in [tcp, unix] {
        assert_turned_away(front.socket().await).await;
    }
    vestibule.ended("over_limit", 2).await;
}

#[tokio::test]
async fn each_address_has_its_own_share() {
    let config = format!("[limits]\nconnections_per_ip = {MOST}\n{ECHO}");
    let vestibule = Vestibule::start(&config).await;
    let address = vestibule.tcp();
    let mut open = Vec::new();
    for source in ["127.0.0.1", "127.0.0.2"] {
        for _ in 0..MOST {
            let socket = from(source, &address).await.expect("a socket");
            open.push(client::handshake(socket).await.expect("room"));
        }
        assert_turned_away(from(source, &address).await).await;
    }
    vestibule.ended("over_limit", 2).await;
    assert_eq!(last_limit(&vestibule), "limits.connections_per_ip");

    // Room for one address is no room for the other.
    finish(open.pop().expect("one of the second address")).await;
    vestibule.ended("done", 1).await;
    assert_turned_away(from("127.0.0.1", &address).await).await;
    let again = from("127.0.0.2", &address).await.expect("a socket");
    let again = client::handshake(again).await.expect("room");
    // A Unix client has no address, and the limit for each address does not apply.
    let [_, unix] = fronts(&vestibule);
    for _ in 0..=MOST {
        open.push(unix.connect().await.expect("room"));
    }
    vestibule.ended("over_limit", 3).await;
    for client in open {
        finish(client).await;
    }
    finish(again).await;
    assert_eq!(over_limit(&vestibule), 3);
}

#[tokio::test]
async fn pending_counts_waiting_connections_and_not_handshaking_or_served_ones() {
    let config = format!("[limits]\npending = {MOST}\n[timeouts]\nbackend = \"60s\"\n{GATE}");
    let vestibule = Vestibule::start(&config).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    for (round, front) in fronts(&vestibule).into_iter().enumerate() {
        // Some have sent a ClientHello, got the answer, and send nothing more.
        let mut shaking = Vec::new();
        for _ in 0..MOST / 2 {
            let mut socket = front.socket().await.expect("a socket");
            socket.write_all(&client_hello()).await.expect("room");
            soon("the server's hello", socket.read_u8())
                .await
                .expect("room");
            shaking.push(socket);
        }
        let (mut waiting, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..MOST {
            waiting.push(front.connect().await.expect("room"));
            ids.push(offered(&mut watch).await);
        }
        assert_refused(front.connect().await).await;
        vestibule.ended("over_limit", 2 * round + 1).await;

        // A claimed connection makes room, though it is still open.
        let id = ids.pop().expect("an id");
        let mut served = waiting.pop().expect("a client");
        let Answer::Ok(_, mut worker) = gate::claim(&vestibule.gate(), &id).await else {
            panic!("it was not there");
        };
        relay_a_byte(&mut served, &mut worker).await;
        let _again = front.connect().await.expect("room");
        offered(&mut watch).await;
        assert_refused(front.connect().await).await;
        vestibule.ended("over_limit", 2 * round + 2).await;

        // So that no connection is waiting when the next round begins.
        let left = waiting.len() + 1;
        drop((waiting, shaking, _again));
        vestibule.ended("client_gone", (round + 1) * left).await;
        let unfinished = || {
            let ends = vestibule.outcomes();
            let count = |outcome| ends.get(outcome).copied().unwrap_or(0);
            count("client_gone") + count("handshake_failed") - (round + 1) * left
        };
        common::until("the half-done handshakes ended", || {
            unfinished() == (round + 1) * MOST / 2
        })
        .await;
    }
}

#[tokio::test]
async fn silent_clients_of_two_addresses_keep_nobody_else_out() {
    const SILENT: usize = 512;
    const SHARE: usize = 128;
    raise_own_limit();
    let vestibule = Vestibule::start(ECHO).await;
    let address = vestibule.tcp();
    let mut silent = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3"] {
        for _ in 0..SILENT {
            silent.push(from(source, &address).await.expect("a socket"));
        }
    }
    vestibule.ended("over_limit", 2 * (SILENT - SHARE)).await;
    assert_eq!(last_limit(&vestibule), "limits.handshaking");
    for front in fronts(&vestibule) {
        finish(front.connect().await.expect("room")).await;
    }
    vestibule.ended("done", 2).await;
    assert_eq!(over_limit(&vestibule), 2 * (SILENT - SHARE));
}

#[tokio::test]
async fn at_the_limit_a_silent_handshake_makes_room() {
    const PLACES: usize = 16;
    let config = format!("[limits]\nhandshaking = {PLACES}\n{ECHO}");
    let vestibule = Vestibule::start(&config).await;
    let address = vestibule.tcp();
    let mut silent = Vec::new();
    for n in 0..PLACES {
        let source = format!("127.0.0.{}", 10 + n / 2);
        silent.push(from(&source, &address).await.expect("a socket"));
    }
    // The oldest client has sent something and got an answer, before the others come.
    let mut oldest = silent.remove(0);
    oldest.write_all(&client_hello()).await.expect("room");
    soon("the server's hello", oldest.read_u8())
        .await
        .expect("room");
    let socket = from("127.0.0.1", &address).await.expect("a socket");
    let client = client::handshake(socket).await;
    finish(client.expect("the place of a silent one")).await;
    vestibule.ended("over_limit", 1).await;
    vestibule.ended("done", 1).await;
    // The others are open. Which of them was the oldest depends on when each worker accepted it.
    let mut served = 0;
    for socket in silent {
        if let Ok(client) = soon("an answer", client::handshake(socket)).await {
            finish(client).await;
            served += 1;
        }
    }
    assert_eq!(served, PLACES - 2);
    vestibule.ended("done", PLACES - 1).await;
    assert_eq!(over_limit(&vestibule), 1);
}

#[tokio::test]
async fn exactly_as_many_of_a_burst_are_served_as_the_limit_allows() {
    const BURST: usize = 400;
    let vestibule = Vestibule::start(&format!("[limits]\nconnections = {MOST}\n{ECHO}")).await;
    for (round, front) in fronts(&vestibule).into_iter().enumerate() {
        let mut connecting = JoinSet::new();
        for _ in 0..BURST {
            let front = front.clone();
            connecting.spawn(async move { front.connect().await });
        }
        let attempts = soon("all answers", connecting.join_all()).await;
        let open: Vec<Client> = attempts.into_iter().filter_map(Result::ok).collect();
        assert_eq!(open.len(), MOST, "{front:?}");
        vestibule
            .ended("over_limit", (round + 1) * (BURST - MOST))
            .await;
        for client in open {
            finish(client).await;
        }
        vestibule.ended("done", (round + 1) * MOST).await;
    }
    let expected = [("done", 2 * MOST), ("over_limit", 2 * (BURST - MOST))];
    assert_eq!(
        vestibule.outcomes(),
        expected.map(|(outcome, n)| (outcome.to_owned(), n)).into()
    );
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn under_churn_there_are_never_more_connections_than_the_limit() {
    const MOST: usize = 10;
    const CLIENTS: usize = 100;
    let vestibule = Vestibule::start(&format!("[limits]\nconnections = {MOST}\n{ECHO}")).await;
    let [front, _] = fronts(&vestibule);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (front, now, most) = (front.clone(), Arc::clone(&now), Arc::clone(&most));
        clients.spawn(async move {
            let client = loop {
                if let Ok(client) = front.connect().await {
                    break client;
                }
            };
            // Counts a connection after it is known to be open and until it begins to close.
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            finish(client).await;
        });
    }
    soon("all clients", async {
        while let Some(client) = clients.join_next().await {
            client.expect("a client that was served");
        }
    })
    .await;
    vestibule.ended("done", CLIENTS).await;
    assert!(most.load(Ordering::SeqCst) <= MOST, "{most:?}");
}

fn fronts(vestibule: &Vestibule) -> [Front; 2] {
    [
        Front::Tcp(vestibule.tcp()),
        Front::Unix(vestibule.path("front.sock")),
    ]
}

/// Sends a ClientHello, and gets an end or a reset and nothing else.
async fn assert_turned_away(socket: io::Result<Socket>) {
    let mut socket = socket.expect("the kernel accepts for the listener");
    // It may be closed already.
    let _ = socket.write_all(&client_hello()).await;
    let mut answer = Vec::new();
    let _ = soon("a close", socket.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "answered with {} bytes", answer.len());
}

/// A client that is refused. Its handshake may have succeeded.
async fn assert_refused(client: io::Result<Client>) {
    if let Ok(mut client) = client {
        let mut answer = Vec::new();
        let _ = soon("an end", client.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "answered with {} bytes", answer.len());
    }
}

/// Uses the connection and ends it in order.
async fn finish(mut client: Client) {
    const BYTES: usize = 100;
    bytes::send(&mut client, 7, BYTES).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 7, BYTES)).await;
}

async fn relay_a_byte(
    client: &mut (impl AsyncWriteExt + Unpin),
    worker: &mut (impl AsyncReadExt + Unpin),
) {
    client.write_u8(b'x').await.expect("open");
    client.flush().await.expect("open");
    let byte = soon("a byte", worker.read_u8()).await.expect("open");
    assert_eq!(byte, b'x');
}

async fn offered(watch: &mut Watch) -> String {
    let facts = soon("an offer", watch.offer()).await;
    facts["id"].as_str().expect("an id").to_owned()
}

fn over_limit(vestibule: &Vestibule) -> usize {
    vestibule.outcomes().get("over_limit").copied().unwrap_or(0)
}

/// The configuration key in the last refusal.
fn last_limit(vestibule: &Vestibule) -> String {
    let log = vestibule.log();
    let refused = log
        .iter()
        .rfind(|event| event["outcome"] == "over_limit")
        .expect("a refusal");
    refused["limit"].as_str().expect("a key").to_owned()
}
