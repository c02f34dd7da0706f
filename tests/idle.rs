//! Thousands of idle connections: each is alive, and nothing is left when they have ended.

mod common;

use std::collections::HashSet;
use std::sync::Arc;

use common::client::{Client, Front};
use common::gate::{self, Answer, Watch};
use common::resources::raise_own_limit;
use common::vestibule::{LISTENERS, Vestibule};
use common::{soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const CONFIG: &str = r#"
[limits]
connections = 9000
connections_per_ip = "unlimited"
pending = 4000
handshaking = 9000
[timeouts]
backend = "10m"

[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "hello"
to = "hello"
[[backend]]
name = "app"
to = "gate"

[[route]]
listener = ["tcp"]
backend = "echo"
[[route]]
listener = ["hello"]
backend = "hello"
[[route]]
listener = ["unix"]
backend = "app"

[[listener]]
name = "hello"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
"#;

const ECHOED: usize = 5_000;
const GREETED: usize = 1_000;
const WAITING: usize = 1_000;
const CLAIMED: usize = 2_000;
/// A watcher may be a thousand events behind, and each connection has two events.
const BATCH: usize = 250;
const ALL: usize = ECHOED + GREETED + WAITING + CLAIMED;

#[tokio::test]
async fn nine_thousand_idle_connections_are_alive_and_leave_nothing_behind() {
    raise_own_limit();
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_whole(directory, &format!("{CONFIG}{LISTENERS}")).await;
    let before = vestibule.descriptors();
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let unix = Front::Unix(vestibule.path("front.sock"));
    // When the watcher reports a first connection, it is in its place. That connection then ends.
    let first = unix.connect().await.expect("a handshake");
    let mut gone = HashSet::from([offered(&mut watch).await]);
    drop(first);
    next_gone(&mut watch, &mut HashSet::new()).await;
    let descriptors = before + 1;
    until("the watcher is alone", || {
        vestibule.descriptors() == descriptors
    })
    .await;

    let mut echoed = connect(ECHOED, &Front::Tcp(vestibule.tcp())).await;
    let mut greeted = connect(GREETED, &Front::Tcp(vestibule.address("hello"))).await;
    let (mut claimed, mut handed, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..(CLAIMED + WAITING) / BATCH {
        let clients = connect(BATCH, &unix).await;
        let mut ids = Vec::new();
        for _ in 0..BATCH {
            ids.push(offered(&mut watch).await);
        }
        if batch < CLAIMED / BATCH {
            claimed.extend(clients);
            handed.extend(claim(&vestibule, &ids).await);
        } else {
            waiting.extend(clients);
        }
        gone.extend(ids);
    }
    assert_eq!(vestibule.descriptors(), descriptors + ALL + CLAIMED);
    assert_eq!(gone.len(), 1 + CLAIMED + WAITING);

    are_alive(&mut echoed, &mut greeted, &mut claimed, &mut handed).await;

    drop((echoed, greeted, claimed, handed, waiting));
    let mut claims = HashSet::new();
    for _ in 0..WAITING {
        next_gone(&mut watch, &mut claims).await;
    }
    until("every descriptor is closed", || {
        vestibule.descriptors() == descriptors
    })
    .await;
    for id in &gone {
        let answer = soon("an answer", gate::claim(&vestibule.gate(), id)).await;
        assert!(matches!(answer, Answer::No(reason) if reason == "unknown"));
    }
    until("every end is in the log", || {
        vestibule.outcomes().values().sum::<usize>() == 1 + ALL
    })
    .await;
    let outcomes = vestibule.outcomes();
    assert_eq!(outcomes["client_gone"], 1 + WAITING, "{outcomes:?}");
    assert_eq!(vestibule.terminate().await, Some(0));
}

/// Sends something on some connections of each kind, and on all connections of a worker.
async fn are_alive(
    echoed: &mut [Client],
    greeted: &mut [Client],
    claimed: &mut [Client],
    handed: &mut [UnixStream],
) {
    for client in echoed.iter_mut().step_by(50) {
        client.write_u8(7).await.expect("open");
        client.flush().await.expect("open");
        assert_eq!(soon("an echo", client.read_u8()).await.expect("open"), 7);
    }
    for client in greeted.iter_mut().step_by(50) {
        greet(client).await;
    }
    for client in claimed {
        client.write_u8(7).await.expect("open");
        client.flush().await.expect("open");
    }
    for worker in handed {
        assert_eq!(soon("a word", worker.read_u8()).await.expect("open"), 7);
    }
}

/// Opens this many TLS clients, with at most 64 handshakes at a time.
async fn connect(count: usize, front: &Front) -> Vec<Client> {
    let places = Arc::new(Semaphore::new(64));
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        let (front, places) = (front.clone(), Arc::clone(&places));
        connecting.spawn(async move {
            let _place = places.acquire().await.expect("open");
            front.connect().await.expect("a handshake")
        });
    }
    soon("all handshakes", connecting.join_all()).await
}

async fn claim(vestibule: &Vestibule, ids: &[String]) -> Vec<UnixStream> {
    let mut workers = Vec::new();
    for id in ids {
        match soon("an answer", gate::claim(&vestibule.gate(), id)).await {
            Answer::Ok(_, worker) => workers.push(worker),
            Answer::No(reason) => panic!("NO {reason}"),
        }
    }
    workers
}

async fn offered(watch: &mut Watch) -> String {
    let facts = soon("an offer", watch.offer()).await;
    facts["id"].as_str().expect("an id").to_owned()
}

/// Waits until a waiting client has left.
async fn next_gone(watch: &mut Watch, claims: &mut HashSet<String>) {
    loop {
        let event = soon("an event", watch.next()).await.expect("an event");
        let gone = event.strip_prefix("GONE ").expect("nobody new");
        match gone.split_once(' ').expect("an id and a resolution") {
            (_, "client_gone") => return,
            (id, "claimed") => assert!(claims.insert(id.to_owned()), "claimed twice"),
            (_, other) => panic!("{other}"),
        }
    }
}

async fn greet(client: &mut Client) {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).await.expect("open");
    client.flush().await.expect("open");
    let mut status = [0; 15];
    soon("an answer", client.read_exact(&mut status))
        .await
        .expect("open");
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}
