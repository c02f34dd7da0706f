//! Workers that watch a backend.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::changing::{Site, reloaded};
use crate::common::network_worker::{Answer, Host};
use crate::common::tunnel::Stream;
use crate::common::vestibule::{Relay, Vestibule};
use crate::common::{gate, soon, within};
use crate::{config, connect, id, start, worker};

/// A watch, and what was read of it.
struct Lines {
    stream: Stream,
    unread: Vec<u8>,
}

impl Lines {
    async fn of(host: &Host) -> Self {
        let (_, stream) = host.ask("app", "watch").await.granted().await;
        host.until_in_place().await;
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// The next event that is not a ping; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|it| *it == b'\n') {
                let rest = self.unread.split_off(end + 1);
                let line = std::mem::replace(&mut self.unread, rest);
                let line = String::from_utf8(line).expect("text");
                match line.trim_end() {
                    "PING" => continue,
                    event => return Some(event.to_owned()),
                }
            }
            let frame = soon("an event", self.stream.received.data()).await?;
            let frame = frame.expect("an event");
            let received = self.stream.received.flow_control();
            received.release_capacity(frame.len()).expect("received");
            self.unread.extend_from_slice(&frame);
        }
    }

    async fn offer(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        let facts = event.strip_prefix("OFFER ").expect(&event);
        serde_json::from_str(facts).expect("facts")
    }
}

#[tokio::test]
async fn a_watcher_sees_what_waits_then_every_event_in_order() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut early = Lines::of(&host).await;
    let client = connect(&vestibule).await;
    let facts = early.offer().await;
    let mut late = Lines::of(&host).await;
    assert_eq!(late.offer().await, facts, "it waits already");
    let Answer::Ok(claimed, mut stream) = host.claim("app", &id(&facts)).await else {
        panic!("refused")
    };
    assert_eq!(claimed, facts);
    stream.take();
    let _other = connect(&vestibule).await;
    for watch in [&mut early, &mut late] {
        let gone = format!("GONE {} claimed", id(&facts));
        assert_eq!(watch.next().await, Some(gone));
        watch.offer().await;
    }
    drop(client);
}

#[tokio::test]
async fn a_watcher_that_has_ended_its_direction_still_watches() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut watch = Lines::of(&host).await;
    watch.stream.end().expect("open");
    host.until_in_place().await;
    let _client = connect(&vestibule).await;
    watch.offer().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_delays_nobody() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let mut builder = h2::client::Builder::new();
    // Each stream has room for a few events.
    builder.initial_window_size(2_000);
    let certificate = site.client("worker");
    let tunnel =
        crate::common::tunnel::Tunnel::open_with(&builder, &vestibule, &site, &certificate).await;
    let asleep = Host(tunnel);
    let (_, mut silent) = asleep.ask("app", "watch").await.granted().await;
    let host = worker(&vestibule, &site).await;
    let mut awake = Lines::of(&host).await;
    let mut kept = Vec::new();
    for _ in 0..10 {
        let client = connect(&vestibule).await;
        let facts = awake.offer().await;
        let (taken, mut stream) = host.ask("app", "accept").await.granted().await;
        assert_eq!(taken, facts);
        stream.take();
        let gone = format!("GONE {} claimed", id(&facts));
        assert_eq!(awake.next().await, Some(gone));
        kept.push((client, stream));
    }
    // After five seconds.
    vestibule.said("network watcher gone", 1).await;
    assert!(silent.reset().await.is_some());
}

#[tokio::test]
async fn a_watcher_that_may_not_serve_its_backend_any_more_learns_nothing() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut watch = Lines::of(&host).await;
    let text = config(Relay::Auto, "").replace("\"cn:worker\", ", "");
    site.configure(&text);
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 1).await;
    // Nothing else happens, and it is before the next PING.
    let end = within(Duration::from_secs(10), "the end", watch.next());
    assert_eq!(end.await, None);
}

#[tokio::test]
async fn a_drain_ends_the_watchers() {
    let site = Site::new();
    let vestibule: Vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let mut watch = Lines::of(&host).await;
    let _client = connect(&vestibule).await;
    let facts = watch.offer().await;
    let _ = gate::until_in_place(&vestibule.gate()).await;
    vestibule.signal(Signal::TERM);
    let gone = format!("GONE {} drained", id(&facts));
    assert_eq!(watch.next().await, Some(gone));
    assert_eq!(watch.next().await, None);
}
