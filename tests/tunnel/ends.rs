//! How tunnels end, and what ends with them.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use hyper::body::Bytes;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::admin::{Answer, WRITE, ask};
use crate::common::changing::{Site, reloaded};
use crate::common::soon;
use crate::common::tunnel::{Tunnel, secured, start};
use crate::common::vestibule::{Relay, Vestibule, message};
use crate::{ECHO, before_tcp};

async fn admin(vestibule: &Vestibule, path: &str, flags: &[&str]) -> Answer {
    ask(&vestibule.path("run/admin.sock"), path, flags).await
}

/// The ids of the connections that carry a tunnel, and of those that are streams.
async fn open(vestibule: &Vestibule) -> (Vec<String>, Vec<String>) {
    let page = admin(vestibule, "/v1/connections", &[]).await.json();
    let rows = page["connections"].as_array().expect("a list").clone();
    let (streams, carriers): (Vec<Value>, Vec<Value>) =
        rows.into_iter().partition(|row| row["tunnel"].is_string());
    let ids = |rows: Vec<Value>| {
        let ids = rows.iter().map(|row| row["id"].as_str().expect("an id"));
        ids.map(str::to_owned).collect()
    };
    (ids(carriers), ids(streams))
}

#[tokio::test]
async fn killing_a_tunnel_kills_its_streams_and_no_other() {
    let site = Site::new();
    let alice = site.client("alice");
    let vestibule = start(&site, Relay::Auto, ECHO).await;
    let mut doomed = Tunnel::open(&vestibule, &site, &alice).await;
    let mut streams = [doomed.connect("a:1").await, doomed.connect("a:1").await];
    let (carriers, _) = open(&vestibule).await;
    let [carrier] = carriers.as_slice() else {
        panic!("one tunnel: {carriers:?}");
    };
    let other = Tunnel::open(&vestibule, &site, &alice).await;
    let mut survivor = other.connect("a:1").await;

    let of_it = format!("/v1/connections?tunnel={carrier}");
    let page = admin(&vestibule, &of_it, &[]).await.json();
    assert_eq!(page["total"], 2);
    assert_eq!(page["connections"][0]["authority"], "a:1");
    let wrong = admin(&vestibule, "/v1/connections?tunnel=x", &[]).await;
    assert_eq!(wrong.status, 400);
    let metrics = admin(&vestibule, "/metrics", &[]).await.body;
    for line in [
        "vestibule_tunnels{role=\"server\"} 2",
        "vestibule_tunnel_streams{role=\"server\"} 3",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{metrics}");
    }

    let one = format!("/v1/connections/{carrier}");
    let killed = admin(&vestibule, &one, &[&WRITE[..], &["-X", "DELETE"]].concat()).await;
    assert_eq!(killed.json()["killed"], 1);
    for stream in &mut streams {
        assert!(stream.reset().await.is_some());
    }
    vestibule.ended("killed", 3).await;
    let _ = doomed.ended().await;
    survivor.echo(b"well").await;
}

#[tokio::test]
async fn a_stream_is_killed_alone() {
    let site = Site::new();
    let alice = site.client("alice");
    let vestibule = start(&site, Relay::Auto, ECHO).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut doomed = tunnel.connect("a:1").await;
    let (_, streams) = open(&vestibule).await;
    let mut survivor = tunnel.connect("a:1").await;
    let one = format!("/v1/connections/{}", streams[0]);
    let killed = admin(&vestibule, &one, &[&WRITE[..], &["-X", "DELETE"]].concat()).await;
    assert_eq!(killed.json()["killed"], 1);
    assert!(doomed.reset().await.is_some());
    survivor.echo(b"well").await;
    vestibule.ended("killed", 1).await;
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_the_streams_end() {
    let site = Site::new();
    let alice = site.client("alice");
    let mut vestibule = start(&site, Relay::Auto, ECHO).await;
    let mut tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut stream = tunnel.connect("a:1").await;
    stream.echo(b"before").await;
    vestibule.signal(Signal::TERM);
    vestibule
        .event(|it| message(it).starts_with("draining"))
        .await;
    stream.echo(b"during").await;
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    tunnel.ended().await.expect("an end in order");
    let status = vestibule.wait().await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_drain_cuts_the_streams_that_do_not_end() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = format!("[timeouts]\ndrain = \"300ms\"\n{ECHO}");
    let mut vestibule = start(&site, Relay::Auto, &config).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut stream = tunnel.connect("a:1").await;
    stream.echo(b"before").await;
    vestibule.signal(Signal::TERM);
    assert!(stream.reset().await.is_some());
    let status = vestibule.wait().await;
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn a_tunnel_without_streams_ends_when_it_is_idle_and_not_before() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = format!("[timeouts]\nidle = \"700ms\"\n{ECHO}");
    let vestibule = start(&site, Relay::Auto, &config).await;
    let mut tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut stream = tunnel.connect("a:1").await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(1500) {
        stream.echo(b"lively").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    stream.end().expect("open");
    assert_eq!(stream.rest().await.expect("a clean end"), b"");
    tunnel.ended().await.expect("an end in order");
    vestibule.ended("idle", 1).await;
}

#[tokio::test]
async fn limits_count_the_streams() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = format!("[limits]\nconnections_per_identity = 3\n{ECHO}");
    let vestibule = start(&site, Relay::Auto, &config).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(tunnel.connect("a:1").await);
    }
    assert_eq!(tunnel.refusal("a:1").await, 429);
    vestibule.ended("over_limit", 1).await;
    let mut first = streams.remove(0);
    first.end().expect("open");
    assert_eq!(first.rest().await.expect("a clean end"), b"");
    vestibule.ended("done", 1).await;
    tunnel.connect("a:1").await.echo(b"room").await;
}

#[tokio::test]
async fn the_number_of_connections_counts_the_streams() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = format!("[limits]\nconnections = 2\n{ECHO}");
    let vestibule = start(&site, Relay::Auto, &config).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let _streams = [tunnel.connect("a:1").await, tunnel.connect("a:1").await];
    assert_eq!(tunnel.refusal("a:1").await, 429);
}

#[tokio::test]
async fn a_revoked_certificate_ends_the_tunnel_and_its_streams() {
    let site = Site::new();
    let alice = site.client("alice");
    let vestibule = start(&site, Relay::Auto, ECHO).await;
    let mut tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut stream = tunnel.connect("a:1").await;
    stream.echo(b"before").await;
    site.revoke(&[alice.serial]);
    vestibule.signal(Signal::HUP);
    reloaded(&vestibule, 1).await;
    assert!(stream.reset().await.is_some());
    let _ = tunnel.ended().await;
    vestibule.ended("revoked", 2).await;
}

#[tokio::test]
async fn a_revoked_identity_has_no_tunnel_any_more() {
    let site = Site::new();
    let (alice, bob) = (site.client("alice"), site.client("bob"));
    let vestibule = start(&site, Relay::Auto, ECHO).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut stream = tunnel.connect("a:1").await;
    let others = Tunnel::open(&vestibule, &site, &bob).await;
    let mut other = others.connect("a:1").await;
    let body = ["-d", r#"{"identity":"cn:alice"}"#];
    let revoked = admin(&vestibule, "/v1/revocations", &[&WRITE[..], &body].concat()).await;
    assert_eq!(revoked.status, 201, "{revoked:?}");
    assert!(stream.reset().await.is_some());
    vestibule.ended("revoked", 2).await;
    let mut again = secured(&vestibule, &site, &alice).await;
    let read = soon("an alert", again.read(&mut [0])).await;
    assert!(read.is_err(), "{read:?}");
    vestibule.ended("revoked", 3).await;
    other.echo(b"well").await;
}

#[tokio::test]
async fn a_route_that_is_gone_ends_its_streams_and_not_the_tunnel() {
    let site = Site::new();
    let alice = site.client("alice");
    let routes = |last: &str| {
        format!(
            "{}{}{ECHO}[[route]]\nauthority = [\"kept:1\"]\nbackend = \"echo\"\n{last}",
            Relay::Auto.config(),
            crate::common::tunnel::LISTENER
        )
    };
    let both = routes("[[route]]\nauthority = [\"gone:1\"]\nbackend = \"echo\"\n");
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &both).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let mut kept = tunnel.connect("kept:1").await;
    let mut gone = tunnel.connect("gone:1").await;
    site.configure(&routes(""));
    vestibule.signal(Signal::HUP);
    vestibule.ended("revoked", 1).await;
    assert!(gone.reset().await.is_some());
    kept.echo(b"well").await;
    assert_eq!(tunnel.refusal("gone:1").await, 404);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_backend_is_gone() {
    let site = Site::new();
    let alice = site.client("alice");
    let config = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";
    let vestibule = start(&site, Relay::Auto, config).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let (_response, mut sending) = tunnel.begin("a:1").await;
    while open(&vestibule).await.1.is_empty() {}
    sending.send_reset(Reason::CANCEL);
    vestibule.ended("client_gone", 1).await;
}

#[tokio::test]
async fn a_client_that_gives_up_after_its_last_byte_resets_the_backend() {
    let site = Site::new();
    let alice = site.client("alice");
    let (vestibule, backend) = before_tcp(&site).await;
    for breaks_off in [false, true] {
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        let (mut stream, mut server) = tokio::join!(tunnel.connect("a:1"), async {
            backend.accept().await.expect("a connection")
        });
        let bytes = Bytes::from_static(b"question");
        stream.send(bytes).await.expect("room");
        stream.end().expect("open");
        let mut question = Vec::new();
        soon("the end", server.read_to_end(&mut question))
            .await
            .expect("a clean end");
        assert_eq!(question, b"question");
        if breaks_off {
            tunnel.break_off();
            vestibule.ended("client_truncated", 2).await;
        } else {
            stream.sending.send_reset(Reason::CANCEL);
            vestibule.ended("client_reset", 1).await;
        }
        // The server learns that nobody waits for its answer. After an end, Linux says so with EPIPE.
        let written = server.write_all(b"answer").await;
        assert_eq!(written.expect_err("a reset").kind(), ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn bytes_that_were_sent_before_the_tunnel_broke_off_are_delivered() {
    let site = Site::new();
    let alice = site.client("alice");
    let (vestibule, backend) = before_tcp(&site).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let (mut stream, mut server) = tokio::join!(tunnel.connect("a:1"), async {
        backend.accept().await.expect("a connection")
    });
    stream
        .send(Bytes::from_static(b"first"))
        .await
        .expect("room");
    let mut first = [0; 5];
    soon("bytes", server.read_exact(&mut first))
        .await
        .expect("bytes");
    tunnel.break_off();
    let error = soon("a reset", server.read(&mut first)).await;
    assert_eq!(
        error.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn bytes_that_were_read_arrive_before_the_reset_of_a_killed_stream() {
    let site = Site::new();
    let alice = site.client("alice");
    let (vestibule, backend) = before_tcp(&site).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1_000);
    let tunnel = Tunnel::open_with(&builder, &vestibule, &site, &alice).await;
    let (mut stream, mut server) = tokio::join!(tunnel.connect("a:1"), async {
        backend.accept().await.expect("a connection")
    });
    let bytes = super::bytes::seeded(1, 20_000);
    server.write_all(&bytes).await.expect("open");
    let first = soon("bytes", stream.received.data()).await;
    let first = first.expect("a frame").expect("bytes");
    // They came as one piece, so Vestibule has all of them.
    assert_eq!(first, bytes[..1_000]);
    let (_, streams) = open(&vestibule).await;
    let path = format!("/v1/connections/{}", streams[0]);
    let flags = [&WRITE[..], &["-X", "DELETE"]].concat();
    let killed = admin(&vestibule, &path, &flags).await;
    assert_eq!(killed.json()["killed"], 1);
    let early = tokio::time::timeout(MOMENT, stream.received.data()).await;
    assert!(early.is_err(), "{early:?}");
    let released = stream.received.flow_control().release_capacity(1_000);
    released.expect("it was received");
    assert_eq!(stream.read(19_000).await.expect("bytes"), bytes[1_000..]);
    assert_eq!(stream.reset().await, Some(Reason::CONNECT_ERROR));
    vestibule.ended("killed", 1).await;
}

/// Long enough for a reset that is too early to show.
const MOMENT: Duration = Duration::from_millis(200);
