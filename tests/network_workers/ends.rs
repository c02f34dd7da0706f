//! Drain, reload, revocation and kill, with workers that wait or serve.

use hyper::body::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::common::admin::WRITE;
use crate::common::changing::{Site, reloaded};
use crate::common::network_worker::{Answer, Host};
use crate::common::soon;
use crate::common::tunnel::Stream;
use crate::common::vestibule::{Relay, Vestibule};
use crate::{config, connect, start, worker};

/// A client with its worker, after the first words.
async fn served(vestibule: &Vestibule, host: &Host) -> (UnixStream, Stream) {
    let mut client = connect(vestibule).await;
    client.write_all(b"hello").await.expect("open");
    let (_, mut stream) = host.accept("app").await;
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    (client, stream)
}

/// Both directions work to their end.
async fn finish(client: &mut UnixStream, mut stream: Stream) {
    stream
        .send(Bytes::from_static(b"well"))
        .await
        .expect("room");
    stream.end().expect("open");
    let mut answer = String::new();
    let read = soon("an answer", client.read_to_string(&mut answer)).await;
    read.expect("an end");
    assert_eq!(answer, "well");
    client.shutdown().await.expect("half open");
    assert_eq!(stream.rest().await.expect("an end"), b"");
}

#[tokio::test]
async fn a_drain_sends_the_waiting_away_and_loses_no_connection() {
    let site = Site::new();
    let mut vestibule = start(&site, "").await;
    let mut host = worker(&vestibule, &site).await;
    let (mut client, stream) = served(&vestibule, &host).await;
    // One was told, and has not confirmed.
    let mut other = connect(&vestibule).await;
    other.write_all(b"first").await.expect("open");
    let (_, mut told) = host.ask("app", "accept").await.granted().await;
    let offers = host.offer("app", 3).await;
    vestibule.signal(Signal::TERM);
    for offer in offers {
        assert_eq!(offer.refused().await, (503, "draining".to_owned()));
    }
    told.take();
    assert_eq!(told.read(5).await.expect("bytes"), b"first");
    finish(&mut other, told).await;
    finish(&mut client, stream).await;
    let ended = host.0.ended().await;
    assert!(ended.is_ok(), "GOAWAY without an error: {ended:?}");
    vestibule.ended("done", 2).await;
    assert_eq!(vestibule.wait().await.code(), Some(0));
}

#[tokio::test]
async fn after_a_reload_only_the_offers_that_are_still_allowed_wait() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let workers = worker(&vestibule, &site).await;
    let both = Host::open(&vestibule, &site, &site.client("both")).await;
    let (mut client, stream) = served(&vestibule, &workers).await;
    let forbidden = workers.offer("app", 2).await;
    let mut kept = both.offer("app", 1).await;
    let unknown = both.offer("other", 2).await;
    let text = config(Relay::Auto, "").replace("\"cn:worker\", ", "");
    // The backend `other` is gone.
    let text = text.replace("backend = \"other\"", "deny = true");
    let text = text.replace("name = \"other\"\nto =", "name = \"another\"\nto =");
    site.configure(&text);
    vestibule.signal(Signal::HUP);
    for offer in forbidden {
        assert_eq!(offer.refused().await, (403, "forbidden".to_owned()));
    }
    for offer in unknown {
        assert_eq!(offer.refused().await, (404, "unknown".to_owned()));
    }
    reloaded(&vestibule, 1).await;
    let refused = workers.ask("app", "accept").await.refused().await;
    assert_eq!(refused, (403, "forbidden".to_owned()));
    let _client = connect(&vestibule).await;
    kept.remove(0).granted().await;
    // What it has it keeps.
    finish(&mut client, stream).await;
}

#[tokio::test]
async fn after_a_reload_a_listener_without_workers_has_no_offers() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let offers = host.offer("app", 2).await;
    site.configure(&config(Relay::Auto, "").replace("workers = true\n", ""));
    vestibule.signal(Signal::HUP);
    for offer in offers {
        assert_eq!(offer.refused().await, (403, "forbidden".to_owned()));
    }
}

#[tokio::test]
async fn a_revoked_worker_loses_its_tunnel_and_what_it_was_told() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let mut host = worker(&vestibule, &site).await;
    let other = Host::open(&vestibule, &site, &site.client("both")).await;
    let (mut client, _stream) = served(&vestibule, &host).await;
    let mut waits = connect(&vestibule).await;
    waits.write_all(b"hello").await.expect("open");
    let (_, _told) = host.ask("app", "accept").await.granted().await;
    let offers = host.offer("app", 2).await;
    let body = ["-d", r#"{"identity":"cn:worker"}"#];
    let socket = vestibule.path("run/admin.sock");
    let flags = [&WRITE[..], &body].concat();
    let revoked = crate::common::admin::ask(&socket, "/v1/revocations", &flags).await;
    assert_eq!(revoked.status, 201, "{revoked:?}");
    for offer in offers {
        let answer = offer.answer().await;
        assert!(matches!(answer, Answer::Reset(_)), "{answer:?}");
    }
    // The one that it had not confirmed goes to another worker.
    let (_, stream) = other.accept("app").await;
    let mut stream = stream;
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    finish(&mut waits, stream).await;
    let _ = host.0.ended().await;
    let _ = soon("an end", client.read(&mut [0])).await;
    vestibule.ended("revoked", 1).await;
    vestibule.ended("backend_reset", 1).await;
}

#[tokio::test]
async fn a_worker_needs_no_route_and_stays_after_a_reload() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    // No route is for its listener.
    assert_eq!(host.0.refusal("db:1").await, 404);
    let mut offers = host.offer("app", 1).await;
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 1).await;
    let _client = connect(&vestibule).await;
    offers.remove(0).granted().await;
}

#[tokio::test]
async fn connections_outlive_the_lifetime_of_their_workers_tunnel() {
    let site = Site::new();
    let vestibule = start(&site, "[timeouts]\nlifetime = \"1s\"\n").await;
    let mut host = worker(&vestibule, &site).await;
    let mut offers = host.offer("app", 2).await;
    // Clients that come from now on have no such bound.
    site.configure(&config(Relay::Auto, ""));
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 1).await;
    let mut client = connect(&vestibule).await;
    let (_, mut stream) = offers.remove(0).granted().await;
    stream.take();
    let refused = offers.remove(0).refused().await;
    assert_eq!(refused, (503, "draining".to_owned()));
    // Another tunnel lives longer than a tunnel without workers would have to end.
    site.configure(&config(Relay::Auto, "[timeouts]\nlifetime = \"1500ms\"\n"));
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 2).await;
    let _other = worker(&vestibule, &site).await;
    vestibule.ended("lifetime", 1).await;
    finish(&mut client, stream).await;
    assert!(host.0.ended().await.is_ok());
    vestibule.ended("lifetime", 2).await;
}

#[tokio::test]
async fn a_tunnel_with_a_waiting_worker_is_not_idle() {
    let site = Site::new();
    let vestibule = start(&site, "[timeouts]\nidle = \"300ms\"\n").await;
    let mut host = worker(&vestibule, &site).await;
    let mut idle = worker(&vestibule, &site).await;
    let mut offers = host.offer("app", 1).await;
    assert!(idle.0.ended().await.is_ok());
    vestibule.ended("idle", 1).await;
    let _client = connect(&vestibule).await;
    let (_, mut stream) = offers.remove(0).granted().await;
    stream.sending.send_reset(h2::Reason::CANCEL);
    assert!(host.0.ended().await.is_ok());
}

#[tokio::test]
async fn metrics_count_the_tunnels_and_the_streams_of_workers() {
    let site = Site::new();
    let vestibule = start(&site, "").await;
    let host = worker(&vestibule, &site).await;
    let idle = worker(&vestibule, &site).await;
    assert_eq!(metrics(&vestibule).await, ["2", "0", "0", "0", "0"]);
    let mut offers = host.offer("app", 2).await;
    let (_, _watch) = host.ask("app", "watch").await.granted().await;
    host.until_in_place().await;
    assert_eq!(metrics(&vestibule).await, ["1", "1", "3", "2", "1"]);
    let mut client = connect(&vestibule).await;
    let (_, mut stream) = offers.remove(0).granted().await;
    stream.take();
    stream.send(Bytes::from_static(b"w")).await.expect("room");
    client.read_u8().await.expect("a byte");
    // It does not wait at the gate any more, and is still a stream.
    assert_eq!(metrics(&vestibule).await, ["1", "1", "3", "1", "1"]);
    drop(idle);
}

/// Tunnels without and with workers, streams of workers, and what waits and watches.
async fn metrics(vestibule: &Vestibule) -> [String; 5] {
    let socket = vestibule.path("run/admin.sock");
    let page = crate::common::admin::ask(&socket, "/metrics", &[])
        .await
        .body;
    [
        "vestibule_tunnels{role=\"server\"} ",
        "vestibule_tunnels{role=\"worker\"} ",
        "vestibule_tunnel_streams{role=\"worker\"} ",
        "vestibule_gate_clients{kind=\"accept\"} ",
        "vestibule_gate_clients{kind=\"watch\"} ",
    ]
    .map(|name| {
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.expect(name).to_owned()
    })
}
