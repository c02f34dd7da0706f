//! Tunnels: many connections in one TLS connection, each a CONNECT stream of HTTP/2.

mod common;
mod tunnel {
    mod bytes;
    mod ends;
    mod hostile;
    mod windows;
}

use common::backend::Backend;
use common::changing::Site;
use common::soon;
use common::tunnel::{Tunnel, start};
use common::vestibule::{RELAYS, Relay, Vestibule};
use h2::Reason;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

#[tokio::test]
async fn streams_of_one_tunnel_are_connections_of_their_own() {
    for relay in RELAYS {
        let site = Site::new();
        let alice = site.client("alice");
        let vestibule = start(&site, relay, ECHO).await;
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(tunnel.connect("db.example:5432").await);
        }
        for stream in &mut streams {
            stream.echo(b"hello").await;
        }
        for mut stream in streams {
            stream.end().expect("open");
            assert_eq!(stream.rest().await.expect("a clean end"), b"");
        }
        vestibule.ended("done", 50).await;
        // Nothing was on its way, so nothing was lost.
        tunnel.break_off();
        vestibule.ended("done", 51).await;
    }
}

#[tokio::test]
async fn a_backend_gets_the_facts_of_the_stream_and_of_the_client_of_the_tunnel() {
    let site = Site::new();
    let alice = site.client("alice");
    let vestibule = start(&site, Relay::Auto, HELLO).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let (mut ids, mut carriers) = (Vec::new(), Vec::new());
    for authority in ["db.example:5432", "DB.example:1"] {
        let mut stream = tunnel.connect(authority).await;
        let request = Bytes::from_static(
            b"GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
        );
        stream.send(request).await.expect("room");
        let answer = String::from_utf8(stream.rest().await.expect("an answer")).expect("text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let facts: Value = serde_json::from_str(body).expect(&answer);
        assert_eq!(facts["authority"], authority.to_lowercase());
        assert_eq!(facts["identity"]["cn"], "alice");
        assert_eq!(facts["tls"]["alpn"], "h2");
        assert_eq!(facts["listener"], "tcp");
        assert!(
            facts["peer"]
                .as_str()
                .is_some_and(|it| it.starts_with("127.0.0.1:"))
        );
        ids.push(facts["id"].clone());
        carriers.push(facts["tunnel"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(carriers[0], carriers[1]);
    assert!(!ids.contains(&carriers[0]));
}

const HELLO: &str = "[[backend]]\nname = \"hello\"\nto = \"hello\"\n";

#[tokio::test]
async fn the_status_says_why_nobody_serves_a_stream() {
    let site = Site::new();
    let alice = site.client("alice");
    let vestibule = start(&site, Relay::Auto, STATUSES).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    for (authority, status) in [
        ("other:1", 404),
        ("echo:2", 404),
        ("a.b.svc.example:1", 404),
        ("secret:1", 403),
        ("refused:1", 502),
        ("slow:1", 504),
        ("worker:1", 503),
        ("a@echo:1", 400),
        ("echo", 400),
    ] {
        assert_eq!(tunnel.refusal(authority).await, status, "{authority}");
    }
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let (status, _) = tunnel.ask(method, "/").await.expect("an answer");
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for (outcome, count) in [
        ("no_route", 3),
        ("denied", 1),
        ("backend_refused", 1),
        ("backend_timeout", 1),
        ("expired", 1),
    ] {
        vestibule.ended(outcome, count).await;
    }
    // The tunnel has taken no harm.
    tunnel.connect("echo:1").await.echo(b"well").await;
    tunnel.connect("a.svc.example:99").await.echo(b"well").await;
}

const STATUSES: &str = r#"
[[route]]
authority = ["echo:1", "*.svc.example:*"]
backend = "echo"
[[route]]
authority = ["secret:*"]
deny = true
[[route]]
authority = ["refused:1"]
backend = "refused"
[[route]]
authority = ["slow:1"]
backend = "slow"
[[route]]
authority = ["worker:1"]
backend = "worker"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "refused"
to = "unix:{dir}/nobody.sock"
park = false
[[backend]]
name = "slow"
to = "unix:{dir}/nobody.sock"
[[backend]]
name = "worker"
to = "gate"
[timeouts]
backend = "300ms"
"#;

#[tokio::test]
async fn half_close_is_kept_both_ways() {
    for relay in RELAYS {
        let site = Site::new();
        let alice = site.client("alice");
        let backend = Backend::unix(&site.path("app.sock"));
        let vestibule = start(&site, relay, APP).await;
        let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
        for client_ends_first in [true, false] {
            let (mut stream, mut server) = tokio::join!(tunnel.connect("db:1"), async {
                backend.accept().await.expect("a connection")
            });
            if client_ends_first {
                stream
                    .send(Bytes::from_static(b"question"))
                    .await
                    .expect("room");
                stream.end().expect("open");
                let mut question = Vec::new();
                soon("the end", server.read_to_end(&mut question))
                    .await
                    .expect("a clean end");
                assert_eq!(question, b"question");
                server.write_all(b"answer").await.expect("room");
                drop(server);
                assert_eq!(stream.rest().await.expect("a clean end"), b"answer");
            } else {
                server.write_all(b"greeting").await.expect("room");
                server.shutdown().await.expect("open");
                assert_eq!(stream.rest().await.expect("a clean end"), b"greeting");
                stream
                    .send(Bytes::from_static(b"answer"))
                    .await
                    .expect("room");
                stream.end().expect("open");
                let mut answer = Vec::new();
                soon("the end", server.read_to_end(&mut answer))
                    .await
                    .expect("a clean end");
                assert_eq!(answer, b"answer");
            }
        }
        vestibule.ended("done", 2).await;
    }
}

const APP: &str = "[[backend]]\nname = \"app\"\nto = \"unix:{dir}/app.sock\"\n";

/// In front of a backend over TCP, whose resets can be seen.
async fn before_tcp(site: &Site) -> (Vestibule, Backend) {
    let backend = Backend::tcp().await;
    let config = format!(
        "[[backend]]\nname = \"app\"\nto = \"{}\"\n",
        backend.address()
    );
    (start(site, Relay::Auto, &config).await, backend)
}

#[tokio::test]
async fn a_reset_of_one_side_resets_the_other() {
    let site = Site::new();
    let alice = site.client("alice");
    let (vestibule, backend) = before_tcp(&site).await;
    let tunnel = Tunnel::open(&vestibule, &site, &alice).await;
    let accept = async || match backend.accept().await.expect("a connection") {
        common::client::Socket::Tcp(socket) => socket,
        common::client::Socket::Unix(_) => panic!("it is TCP"),
    };
    let (mut neighbour, mut beside) = tokio::join!(tunnel.connect("db:1"), accept());

    for reason in [Reason::CANCEL, Reason::CONNECT_ERROR, Reason::NO_ERROR] {
        let (mut stream, mut server) = tokio::join!(tunnel.connect("db:1"), accept());
        stream
            .send(Bytes::from_static(b"half"))
            .await
            .expect("room");
        let mut half = [0; 4];
        soon("bytes", server.read_exact(&mut half))
            .await
            .expect("bytes");
        stream.sending.send_reset(reason);
        let read = soon("a reset", server.read(&mut half)).await;
        assert_eq!(
            read.expect_err("a reset").kind(),
            std::io::ErrorKind::ConnectionReset,
            "{reason}"
        );
    }
    vestibule.ended("client_reset", 3).await;

    let (mut stream, mut server) = tokio::join!(tunnel.connect("db:1"), accept());
    server.write_all(b"half").await.expect("room");
    assert_eq!(stream.read(4).await.expect("bytes"), b"half");
    server.set_zero_linger().expect("an open socket");
    drop(server);
    assert_eq!(stream.reset().await, Some(Reason::CONNECT_ERROR));
    vestibule.ended("backend_reset", 1).await;
    neighbour
        .send(Bytes::from_static(b"well"))
        .await
        .expect("the tunnel lives");
    let mut well = [0; 4];
    soon("bytes", beside.read_exact(&mut well))
        .await
        .expect("bytes");

    // The tunnel breaks off: each of its streams is cut, and none ends cleanly.
    let (_stream, mut server) = tokio::join!(tunnel.connect("db:1"), accept());
    tunnel.break_off();
    let read = soon("a reset", server.read(&mut [0])).await;
    assert_eq!(
        read.expect_err("a reset").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    vestibule.ended("client_truncated", 3).await;
}
