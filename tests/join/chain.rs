//! A client whose bytes go through two tunnels: the one of a backend to a front, and the one of a worker.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::common::changing::Site;
use crate::common::soon;
use crate::common::vestibule::Vestibule;
use crate::join::real::{certificate, client, front, worker};

/// The Vestibule of the client, the front, and the worker, and the local server behind it.
async fn chain(site: &Site) -> ([Vestibule; 3], TcpListener) {
    certificate(site);
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = server.local_addr().expect("bound").to_string();
    let front = front(site, "front", "127.0.0.1:0").await;
    let worker = worker(site, "worker", &[front.tcp()], &to).await;
    let near = format!(
        r#"[runtime]
workers = 1
directory = "{{dir}}/near"
log_format = "json"
[timeouts]
drain = "50s"
[[listener]]
name = "clients"
address = "unix:{{dir}}/near.sock"
[[backend]]
name = "app"
to = "tcp:{}"
[backend.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/worker.pem", key = "{{dir}}/worker-key.pem" }}
[backend.tunnel]
authority = "app:1"
"#,
        front.tcp()
    );
    let near = Vestibule::start_as(&site.directory, "near.toml", &near).await;
    ([near, front, worker], server)
}

async fn ends(site: &Site, server: &TcpListener) -> (UnixStream, TcpStream) {
    let client = client(site, "near").await;
    let (server, _) = soon("a connection", server.accept()).await.expect("one");
    (client, server)
}

async fn send<S: AsyncWriteExt + Unpin>(stream: &mut S, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("open");
    stream.shutdown().await.expect("open");
}

async fn rest<S: AsyncReadExt + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = soon("the end", stream.read_to_end(&mut bytes)).await;
    read.expect("a clean end");
    bytes
}

fn bytes() -> Vec<u8> {
    (0..1_000_003_u32).map(|it| (it % 251) as u8).collect()
}

#[tokio::test]
async fn half_close_is_kept_through_two_tunnels_whoever_ends_first() {
    let site = Site::new();
    let ([near, front, worker], server) = chain(&site).await;
    let bytes = bytes();
    let (mut one, mut other) = ends(&site, &server).await;
    let (_, read) = tokio::join!(send(&mut one, &bytes), rest(&mut other));
    assert!(read == bytes);
    let (_, read) = tokio::join!(send(&mut other, &bytes), rest(&mut one));
    assert!(read == bytes);
    let (mut one, mut other) = ends(&site, &server).await;
    let (_, read) = tokio::join!(send(&mut other, &bytes), rest(&mut one));
    assert!(read == bytes);
    let (_, read) = tokio::join!(send(&mut one, &bytes), rest(&mut other));
    assert!(read == bytes);
    for it in [&near, &front, &worker] {
        it.ended("done", 2).await;
    }
}

#[tokio::test]
async fn a_connection_through_two_tunnels_survives_the_drain_of_all_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let site = Site::new();
        let (mut all, server) = chain(&site).await;
        let (mut one, mut other) = ends(&site, &server).await;
        for index in order {
            all[index].signal(Signal::TERM);
            other.write_all(b"still").await.expect("open");
            let mut word = [0; 5];
            soon("a word", one.read_exact(&mut word)).await.expect("it");
        }
        let bytes = bytes();
        let (_, read) = tokio::join!(send(&mut one, &bytes), rest(&mut other));
        assert!(read == bytes);
        let (_, read) = tokio::join!(send(&mut other, &bytes), rest(&mut one));
        assert!(read == bytes);
        drop((one, other));
        for it in &mut all {
            assert_eq!(soon("the end", it.wait()).await.code(), Some(0));
        }
    }
}
