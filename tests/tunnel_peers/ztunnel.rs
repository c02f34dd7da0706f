//! A client that behaves like Istio's ztunnel (HBONE): a SPIFFE identity, an address as authority, its windows.

use std::sync::Arc;

use h2::Reason;
use h2::client::Builder;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::talk::{self, Cut};
use crate::common::backend::Backend;
use crate::common::changing::Site;
use crate::common::pki::{Issued, Subject};
use crate::common::tunnel::{LISTENER, Tunnel};
use crate::common::vestibule::{Relay, Vestibule};
use crate::common::{bytes, soon};

const ROUTES: &str = r#"
[[route]]
authority = ["10.0.0.7:8080"]
identity = ["uri:spiffe://cluster.local/ns/shop/sa/web"]
backend = "app"
[[backend]]
name = "app"
to = "{app}"
"#;

async fn scene() -> (Site, Vestibule, Backend, Issued) {
    let site = Site::new();
    let workload = site.authority.issue(&Subject {
        uri: &["spiffe://cluster.local/ns/shop/sa/web"],
        ..Subject::default()
    });
    let app = Backend::tcp().await;
    let config = format!("{}{LISTENER}{ROUTES}", Relay::Auto.config());
    let config = config.replace("{app}", &app.address());
    let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
    (site, vestibule, app, workload)
}

fn windows() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .enable_push(false);
    builder
}

#[tokio::test]
async fn streams_of_256_kib_with_half_close_share_a_tunnel_with_the_windows_of_ztunnel() {
    const LENGTH: usize = 256 * 1024;
    let (site, vestibule, app, workload) = scene().await;
    let _served = app.serve(|socket| async move {
        let (mut reading, mut writing) = tokio::io::split(socket);
        // The client's end comes before the last byte of the answer.
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.expect("an end");
        writing.write_all(&all).await.expect("room");
        writing.shutdown().await.expect("open");
    });
    let tunnel = Tunnel::open_with(&windows(), &vestibule, &site, &workload).await;
    let mut talks = JoinSet::new();
    for seed in 0..50 {
        let stream = tunnel.connect("10.0.0.7:8080").await;
        let mut content = vec![0; LENGTH];
        bytes::Bytes::seeded(seed).fill(&mut content);
        talks.spawn(async move {
            let back = stream.exchange(Bytes::from(content.clone())).await;
            assert!(back.expect("a clean end") == content, "{seed}: other bytes");
        });
    }
    while let Some(talk) = soon("all streams", talks.join_next()).await {
        talk.expect("the same bytes");
    }
    vestibule.ended("done", 50).await;
}

#[tokio::test]
async fn a_dropped_stream_resets_its_backend_and_another_address_has_no_route() {
    let (site, vestibule, app, workload) = scene().await;
    let tunnel = Tunnel::open_with(&windows(), &vestibule, &site, &workload).await;
    let accept = async { talk::tcp(app.accept().await.expect("a connection")) };
    let (stream, mut server) = tokio::join!(tunnel.connect("10.0.0.7:8080"), accept);
    drop(stream);
    assert_eq!(talk::cut(&mut server).await, Cut::Reset);
    let accept = async { talk::tcp(app.accept().await.expect("a connection")) };
    let (mut stream, server) = tokio::join!(tunnel.connect("10.0.0.7:8080"), accept);
    server.set_zero_linger().expect("an open socket");
    drop(server);
    assert_eq!(stream.reset().await, Some(Reason::CONNECT_ERROR));
    assert_eq!(tunnel.refusal("10.0.0.8:8080").await, 404);
}
