//! Workers at the gate during a reload.

mod common;

use std::io::ErrorKind;

use common::backend::Backend;
use common::changing::{Client, Site, config, connect, reloaded};
use common::gate::{self, Watch};
use common::soon;
use common::vestibule::Vestibule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// With enough time for a reload while a connection waits.
const APP: &str = "
[timeouts]
backend = \"50s\"
[[backend]]
name = \"app\"
to = \"gate\"
";

/// A worker that sends a word on each connection, and the socket of its registration.
struct Worker {
    registration: UnixStream,
    _serving: JoinSet<()>,
}

impl Worker {
    async fn register(vestibule: &Vestibule) -> Self {
        let backend = Backend::tcp().await;
        let line = format!("REGISTER app {}", backend.address());
        let serving = backend.serve(|mut socket| async move {
            let _ = socket.write_all(b"served").await;
        });
        let mut registration = gate::send(&vestibule.gate(), &line).await;
        let answer = soon("an answer", gate::line(&mut registration)).await;
        assert_eq!(answer.expect("an answer"), "OK {}");
        Self {
            registration,
            _serving: serving,
        }
    }

    /// Waits until the gate has closed the registration.
    async fn dismissed(mut self) {
        let end = soon("its dismissal", self.registration.read(&mut [0])).await;
        assert_eq!(end.expect("an end"), 0);
    }
}

async fn assert_served(client: &mut Client) {
    let mut said = String::new();
    let read = soon("a worker", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    assert_eq!(said, "served");
}

#[tokio::test]
async fn a_registered_worker_keeps_serving_when_its_backend_is_changed() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let client = site.config(None);
    let worker = Worker::register(&vestibule).await;
    let changes = [
        "balance = \"round_robin\"",
        "health = { fall = 1 }",
        "park = false",
    ];
    for (round, change) in changes.into_iter().enumerate() {
        site.configure(&config(&format!("{APP}{change}\n")));
        reloaded(&vestibule, round + 1).await;
        let mut client = connect(&vestibule, &client).await.expect("a handshake");
        assert_served(&mut client).await;
    }
    // The registration belongs to the new backend as well: without it connections wait.
    drop(worker);
    vestibule.said("address withdrawn", 1).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let mut client = connect(&vestibule, &client).await.expect("a handshake");
    soon("an offer", watch.offer()).await;
    let _worker = Worker::register(&vestibule).await;
    assert_served(&mut client).await;
}

#[tokio::test]
async fn a_connection_that_waits_across_a_reload_is_served_by_a_later_worker() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let client = connect(&vestibule, &site.config(None)).await;
    let mut client = client.expect("a handshake");
    soon("an offer", watch.offer()).await;
    site.configure(&config(&format!("{APP}balance = \"source\"\n")));
    reloaded(&vestibule, 1).await;
    let _worker = Worker::register(&vestibule).await;
    assert_served(&mut client).await;
}

#[tokio::test]
async fn registered_workers_of_a_removed_backend_are_dismissed() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let without = [APP.replace("app", "other"), APP.replace("gate", "hello")];
    for (round, without) in without.iter().enumerate() {
        let worker = Worker::register(&vestibule).await;
        site.configure(&config(without));
        worker.dismissed().await;
        site.configure(&config(APP));
        reloaded(&vestibule, 2 * (round + 1)).await;
        // It may register again.
        let _worker = Worker::register(&vestibule).await;
        let client = connect(&vestibule, &site.config(None)).await;
        assert_served(&mut client.expect("a handshake")).await;
    }
}

#[tokio::test]
async fn waiting_workers_of_a_removed_backend_are_told() {
    let site = Site::new();
    let vestibule = site.start(APP).await;
    let without = [
        (APP.replace("app", "other"), "unknown"),
        (APP.replace("gate", "hello"), "forbidden"),
    ];
    for (round, (without, reason)) in without.into_iter().enumerate() {
        let mut waiting = gate::send(&vestibule.gate(), "ACCEPT app").await;
        let mut watch = Watch::new(&vestibule.gate(), "app").await;
        gate::until_in_place(&vestibule.gate()).await;
        site.configure(&config(&without));
        let answer = soon("an answer", gate::line(&mut waiting)).await;
        assert_eq!(answer.expect("an answer"), format!("NO {reason}"));
        let end = soon("the end of the watch", watch.next()).await;
        assert_eq!(end.expect_err("an end").kind(), ErrorKind::UnexpectedEof);
        site.configure(&config(APP));
        reloaded(&vestibule, 2 * (round + 1)).await;
    }
    // Other changes do not affect waiting workers.
    let mut waiting = gate::send(&vestibule.gate(), "ACCEPT app").await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    gate::until_in_place(&vestibule.gate()).await;
    site.configure(&config(&format!("{APP}park = false\n")));
    reloaded(&vestibule, 5).await;
    let _client = connect(&vestibule, &site.config(None)).await;
    soon("an offer", watch.offer()).await;
    let answer = soon("an answer", gate::line(&mut waiting)).await;
    assert!(answer.expect("an answer").starts_with("OK "));
}

#[tokio::test]
async fn watchers_see_a_revoked_waiting_connection_as_refused() {
    let site = Site::new();
    let mallory = site.client("mallory");
    let vestibule = site.start(APP).await;
    let mut watch = Watch::new(&vestibule.gate(), "app").await;
    let client = connect(&vestibule, &site.config(Some(&mallory))).await;
    let mut client = client.expect("a handshake");
    let id = soon("an offer", watch.offer()).await["id"].clone();
    let id = id.as_str().expect("an id");
    site.revoke(&[mallory.serial]);
    let event = soon("an event", watch.next()).await.expect("an event");
    assert_eq!(event, format!("GONE {id} refused"));
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    vestibule.ended("revoked", 1).await;
}
