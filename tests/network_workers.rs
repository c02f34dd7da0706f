//! Workers that come through tunnels, with the guarantees of the gate.

mod common;

use common::changing::Site;
use common::network_worker::Host;
use common::vestibule::{RELAYS, Relay, Vestibule};
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[tokio::test]
async fn a_worker_that_accepts_serves_the_connection() {
    for relay in RELAYS {
        let site = Site::new();
        let vestibule = start(&site, relay).await;
        let host = Host::open(&vestibule, &site, &site.client("worker")).await;
        let offer = host.ask("app", "accept").await;
        let mut client = connect(&vestibule).await;
        client.write_all(b"question").await.expect("open");
        let (facts, mut stream) = offer.granted().await;
        assert_eq!(facts["backend"], "app");
        assert_eq!(facts["listener"], "front");
        stream.take();
        assert_eq!(stream.read(8).await.expect("bytes"), b"question");
        let answer = Bytes::from_static(b"answer");
        stream.send(answer).await.expect("room");
        stream.end().expect("open");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an end");
        assert_eq!(answer, "answer");
        // The other direction is still open.
        client.write_all(b"more").await.expect("half open");
        client.shutdown().await.expect("half open");
        assert_eq!(stream.rest().await.expect("an end"), b"more");
        vestibule.ended("done", 1).await;
    }
}

/// A Vestibule with two backends that network workers may serve, each only those with the right name.
async fn start(site: &Site, relay: Relay) -> Vestibule {
    common::tunnel::start(site, relay, CONFIG).await
}

async fn connect(vestibule: &Vestibule) -> UnixStream {
    let path = vestibule.path("front.sock");
    UnixStream::connect(path).await.expect("the front")
}

const CONFIG: &str = r#"
workers = true
[[listener]]
name = "front"
address = "unix:{dir}/front.sock"
[[listener]]
name = "other"
address = "unix:{dir}/other.sock"
[[route]]
listener = ["front"]
backend = "app"
[[route]]
listener = ["other"]
backend = "other"
[[backend]]
name = "app"
to = "gate"
workers = ["cn:worker", "cn:both"]
[[backend]]
name = "other"
to = "gate"
workers = ["cn:other", "cn:both"]
"#;
