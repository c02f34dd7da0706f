//! Real fronts and real workers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use crate::common::admin::ask;
use crate::common::backend::Backend;
use crate::common::bytes;
use crate::common::changing::Site;
use crate::common::pki::Issued;
use crate::common::tunnel::LISTENER;
use crate::common::vestibule::{Vestibule, message};
use crate::common::{soon, within};
use crate::echo_server;

/// A front named `name`, whose clients connect to a Unix socket of that name. `address` is where workers come.
pub(crate) async fn front(site: &Site, name: &str, address: &str) -> Vestibule {
    let listener = LISTENER.replace("127.0.0.1:0", address);
    let config = format!(
        r#"[runtime]
workers = 2
directory = "{{dir}}/{name}"
log_format = "json"
[timeouts]
backend = "50s"
drain = "50s"
{listener}workers = true
[[listener]]
name = "clients"
address = "unix:{{dir}}/{name}.sock"
[[backend]]
name = "app"
to = "gate"
workers = ["cn:worker"]
"#
    );
    Vestibule::start_as(&site.directory, &format!("{name}.toml"), &config).await
}

/// A worker of fronts at these addresses, with two threads.
pub(crate) fn worker_config(name: &str, fronts: &[String], to: &str, offers: usize) -> String {
    let fronts: Vec<String> = fronts.iter().map(|it| format!("{it:?}")).collect();
    format!(
        r#"[runtime]
workers = 2
directory = "{{dir}}/{name}"
log_format = "json"
[timeouts]
drain = "50s"
[[join]]
backend = "app"
front = [{}]
to = "{to}"
offers = {offers}
[join.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/worker.pem", key = "{{dir}}/worker-key.pem" }}
"#,
        fronts.join(", ")
    )
}

pub(crate) async fn worker(site: &Site, name: &str, fronts: &[String], to: &str) -> Vestibule {
    let config = worker_config(name, fronts, to, 8);
    Vestibule::start_as(&site.directory, &format!("{name}.toml"), &config).await
}

/// The value of a metric of a Vestibule with this name.
pub(crate) async fn metric(site: &Site, name: &str, metric: &str) -> Option<f64> {
    let socket = site.path(&format!("{name}/admin.sock"));
    let answer = ask(&socket, "/metrics", &[]).await;
    let line = answer.body.lines().find_map(|it| it.strip_prefix(metric));
    line.map(|it| it.trim().parse().expect("a number"))
}

/// The certificate of the workers, also as files.
pub(crate) fn certificate(site: &Site) -> Issued {
    let issued = site.client("worker");
    issued.write(site.directory.path(), "worker");
    issued
}

pub(crate) async fn client(site: &Site, front: &str) -> UnixStream {
    let path = site.path(&format!("{front}.sock"));
    UnixStream::connect(path).await.expect("a front")
}

pub(crate) async fn echo(client: &mut UnixStream, word: &[u8]) {
    client.write_all(word).await.expect("open");
    let mut back = vec![0; word.len()];
    soon("an echo", client.read_exact(&mut back))
        .await
        .expect("an echo");
    assert_eq!(back, word);
}

/// Ends the client's direction, and waits for the end of the other one.
async fn end(mut client: UnixStream) {
    client.shutdown().await.expect("open");
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest))
        .await
        .expect("a clean end");
    assert_eq!(rest, b"");
}

/// `JOIN_MIB=1024` for the long form.
pub(crate) fn mebibytes() -> usize {
    let wanted = std::env::var("JOIN_MIB").ok();
    wanted.map_or(64, |it| it.parse().expect("a number"))
}

/// Sends as many bytes through the front and the echo behind it as [`mebibytes`], and compares each.
pub(crate) async fn exchange(client: UnixStream) {
    const SEED: u64 = 7;
    let total = mebibytes() << 20;
    let (mut from, mut to) = client.into_split();
    let sent = bytes::send(&mut to, SEED, total);
    let received = bytes::expect(&mut from, SEED, total);
    let both = async { tokio::join!(sent, received) };
    let (sent, ()) = within(Duration::from_secs(600), "all bytes", both).await;
    sent.expect("all sent");
}

#[tokio::test]
async fn every_byte_arrives_in_both_directions() {
    let site = Site::new();
    certificate(&site);
    let (to, _server) = echo_server(&site);
    let front = front(&site, "front", "127.0.0.1:0").await;
    let worker = worker(&site, "worker", &[front.tcp()], &to).await;
    let mut open = client(&site, "front").await;
    echo(&mut open, b"open").await;
    for (role, streams) in [("join", 1.0), ("server", 0.0)] {
        let name = format!("vestibule_tunnel_streams{{role=\"{role}\"}}");
        assert_eq!(
            metric(&site, "worker", &name).await,
            Some(streams),
            "{role}"
        );
    }
    let tunnels = metric(&site, "worker", "vestibule_tunnels{role=\"join\"}").await;
    assert_eq!(tunnels, Some(2.0), "one for each thread");
    drop(open);
    exchange(client(&site, "front").await).await;
    worker.ended("done", 1).await;
    front.ended("done", 1).await;
}

#[tokio::test]
async fn while_a_local_server_is_down_another_worker_serves() {
    let site = Site::new();
    certificate(&site);
    let (to, _server) = echo_server(&site);
    let front = front(&site, "front", "127.0.0.1:0").await;
    let fronts = [front.tcp()];
    let nowhere = format!("unix:{}", site.path("nowhere.sock").display());
    let idle = worker(&site, "idle", &fronts, &nowhere).await;
    idle.said("joined the front", 1).await;
    let busy = worker(&site, "busy", &fronts, &to).await;
    busy.said("joined the front", 1).await;
    for _ in 0..40 {
        let mut client = client(&site, "front").await;
        echo(&mut client, b"hello").await;
        end(client).await;
    }
    front.ended("done", 40).await;
    busy.ended("done", 40).await;
    // Its server comes, and then it serves.
    let late = Backend::unix(&site.path("nowhere.sock"));
    idle.said("the local server answers again", 1).await;
    drop(busy);
    let (mut client, server) = tokio::join!(client(&site, "front"), late.accept());
    // The first connections are those by which it was found.
    drop(server);
    let _late = late.serve(|mut socket| async move {
        let mut room = [0; 5];
        if socket.read_exact(&mut room).await.is_ok() {
            let _ = socket.write_all(&room).await;
        }
    });
    echo(&mut client, b"hello").await;
}

/// A port that is free now.
async fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn a_front_that_drains_loses_no_connection_and_the_next_one_is_served() {
    let site = Site::new();
    certificate(&site);
    let (to, _server) = echo_server(&site);
    let address = free_port().await;
    let old = front(&site, "old", &address).await;
    let worker = worker(&site, "worker", std::slice::from_ref(&address), &to).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client(&site, "old").await;
        echo(&mut client, b"before").await;
        clients.push(client);
    }
    old.signal(rustix::process::Signal::TERM);
    old.event(|it| message(it).starts_with("draining")).await;
    let next = front(&site, "next", &address).await;
    let mut client = client(&site, "next").await;
    echo(&mut client, b"next").await;
    for client in &mut clients {
        echo(client, b"after").await;
    }
    for client in clients {
        end(client).await;
    }
    let mut old = old;
    assert_eq!(old.wait().await.code(), Some(0), "nothing was cut");
    end(client).await;
    worker.ended("done", 21).await;
    assert_eq!(worker.terminate().await, Some(0));
    drop(next);
}
