//! What becomes of tunnels: orders for addresses, reloads, health checks, the end of the program.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use vestibule::{Config, MetricsFormat, Proxy, Running};

use super::pair::{ECHO, Pair, connect, near_config, site, start_near};
use super::raw::Raw;
use super::server::Server;
use crate::common::admin::{WRITE, ask};
use crate::common::changing::Site;
use crate::common::vestibule::{Relay, message};
use crate::common::{SOON, soon};
use crate::echo;

#[tokio::test]
async fn an_address_that_is_drained_gets_no_stream_and_one_that_is_down_loses_them() {
    let pair = Pair::start(Relay::Auto, "", &[ECHO, ECHO]).await;
    let (mut one, mut other) = (pair.client().await, pair.client().await);
    echo(&mut one).await;
    echo(&mut other).await;
    order(&pair, 0, "drain").await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = pair.client().await;
        echo(&mut client).await;
        clients.push(client);
    }
    echo(&mut one).await;
    echo(&mut other).await;
    // Those at the other address, and then its tunnel.
    order(&pair, 1, "down").await;
    pair.near.ended("killed", 6).await;
    pair.near
        .said("the tunnel is closed: it has no stream", 1)
        .await;
    let mut alive = 0;
    for client in [&mut one, &mut other] {
        let mut end = [0];
        let idle = std::time::Duration::from_millis(1);
        alive += usize::from(
            tokio::time::timeout(idle, client.read(&mut end))
                .await
                .is_err(),
        );
    }
    assert_eq!(alive, 1);
    drop((one, other));
    pair.near
        .said("the tunnel is closed: it has no stream", 2)
        .await;
}

#[tokio::test]
async fn status_and_metrics_show_the_tunnels_of_each_address() {
    let pair = Pair::start(Relay::Auto, "", &[ECHO]).await;
    let (mut one, mut other) = (pair.client().await, pair.client().await);
    echo(&mut one).await;
    echo(&mut other).await;
    let socket = pair.near.path("near/admin.sock");
    let status = ask(&socket, "/v1/status", &[]).await.json();
    let address = &status["backends"][0]["addresses"][0];
    assert_eq!(address["tunnels"]["streams"], 2, "{status}");
    let tunnels = address["tunnels"]["open"].as_u64().expect("a number");
    assert!((1..=2).contains(&tunnels), "{status}");
    let page = ask(&socket, "/metrics", &[]).await.body;
    let lines = page
        .lines()
        .filter(|it| it.starts_with("vestibule_backend_tunnel"));
    let values: Vec<&str> = lines.filter_map(|it| it.split(' ').nth(1)).collect();
    assert_eq!(values, [&*tunnels.to_string(), "2"], "{page}");
    // It takes no more streams, and keeps those that it has.
    pair.far[0].signal(rustix::process::Signal::TERM);
    pair.near.said("the tunnel takes no more streams", 1).await;
    let status = ask(&socket, "/v1/status", &[]).await.json();
    let address = &status["backends"][0]["addresses"][0];
    assert_eq!(address["tunnels"]["streams"], 2, "{status}");
    drop((one, other));
}

#[tokio::test]
async fn a_tunnel_without_streams_ends_with_the_service_of_its_address() {
    let pair = Pair::start(Relay::Auto, "", &[ECHO]).await;
    let mut client = pair.client().await;
    echo(&mut client).await;
    drop(client);
    pair.near.ended("done", 1).await;
    order(&pair, 0, "drain").await;
    pair.near
        .said("the tunnel is closed: it has no stream", 1)
        .await;
    order(&pair, 0, "up").await;
    echo(&mut pair.client().await).await;
    assert_eq!(pair.wires[0].accepted(), 2);
}

async fn order(pair: &Pair, index: usize, state: &str) {
    let address = &pair.wires[index].address;
    let path = format!("/v1/backends/db/addresses/tcp:{address}");
    let body = format!("{{\"state\":\"{state}\"}}");
    let flags = [&WRITE[..], &["-X", "PUT", "-d", &body]].concat();
    let answer = ask(&pair.near.path("near/admin.sock"), &path, &flags).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_reload_that_changes_the_backend_lets_the_streams_end() {
    let site = site();
    let server = Server::new(&site).await;
    let to = [server.address()];
    let near = start_near(&site, Relay::Auto, &to, "").await;
    let mut client = connect(&near).await;
    let mut before = Raw::accept(&server, 100).await;
    let stream = before.asked().await;
    before.answer(stream).await;
    let reload = async |times: usize, more: &str| {
        let config = near_config(Relay::Auto, &to, more);
        let config = config.replace("{dir}", &site.directory.path().display().to_string());
        std::fs::write(site.path("near.toml"), config).expect("a file");
        near.signal(rustix::process::Signal::HUP);
        near.said("reloaded", times).await;
    };
    // What the backend does not see keeps its tunnels.
    reload(1, "[limits]\nconnections = 99\n").await;
    let beside = connect(&near).await;
    let second = before.asked().await;
    before.answer(second).await;
    beside.set_zero_linger().expect("an open socket");
    drop(beside);

    reload(2, "{tunnel}streams = 7\n").await;
    let _new = connect(&near).await;
    let mut after = Raw::accept(&server, 100).await;
    after.asked().await;
    before.data(stream, b"word").await;
    let read = soon("bytes", client.read_exact(&mut [0; 4])).await;
    read.expect("bytes");
    client.set_zero_linger().expect("an open socket");
    drop(client);
    before.ended().await;
}

#[tokio::test]
async fn a_health_check_goes_the_whole_way() {
    let more = "health = { interval = \"100ms\", fall = 1, rise = 1, send = \"PING\", expect = \"PING\" }{tunnel}";
    let far = "[[backend]]\nname = \"app\"\nto = \"unix:{dir}/app.sock\"\npark = false\n";
    let pair = Pair::start(Relay::Auto, more, &[far]).await;
    let down = pair
        .near
        .event(|event| message(event) == "backend address is down");
    let down = down.await;
    let error = down["error"].as_str().unwrap_or_default();
    assert!(error.contains("502"), "{down}");
    let backend = crate::common::backend::Backend::unix(&pair.near.path("app.sock"));
    let _serving = backend.serve(|mut socket| async move {
        let (mut reading, mut writing) = tokio::io::split(&mut socket);
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    });
    pair.near.said("backend address is up", 1).await;
    let mut client = pair.client().await;
    echo(&mut client).await;
}

#[tokio::test]
async fn the_metrics_count_tunnels_and_streams() {
    let pair = Pair::start(Relay::Auto, "", &[ECHO]).await;
    let mut clients = [pair.client().await, pair.client().await];
    for client in &mut clients {
        echo(client).await;
    }
    let metrics = async || {
        let answer = ask(&pair.near.path("near/admin.sock"), "/metrics", &[]).await;
        let of = |name: &str| {
            let line = format!("vestibule_{name}{{role=\"client\"}} ");
            let found = answer.body.lines().find_map(|it| it.strip_prefix(&line));
            found.expect(name).to_owned()
        };
        (of("tunnels"), of("tunnel_streams"))
    };
    assert_eq!(metrics().await, ("1".into(), "2".into()));
    drop(clients);
    pair.near.ended("done", 2).await;
    assert_eq!(metrics().await, ("1".into(), "0".into()));
}

/// The proxy of the near configuration, on the runtime of the test.
async fn embedded(site: &Site, to: &str, tunnel: &str) -> (Running, String) {
    let text = near_config(Relay::Auto, &[to.to_owned()], tunnel);
    let text = text.replace("{dir}", &site.directory.path().display().to_string());
    let (_, text) = text.split_once("[[listener]]").expect("a listener");
    let config: Config = format!("[[listener]]{text}").parse().expect("valid");
    let bound = Proxy::builder(config).bind().await.expect("ports");
    let running = bound.start();
    let address = running.addresses()["tcp"].to_string();
    (running, address.trim_start_matches("tcp:").to_owned())
}

#[tokio::test]
async fn an_embedding_program_has_tunnels_too_and_drains_them() {
    let pair = Pair::start(Relay::Auto, "", &[ECHO]).await;
    let (running, address) = embedded(
        &pair.site,
        &pair.wires[0].address,
        "{tunnel}connections = 1",
    )
    .await;
    let mut talks = JoinSet::new();
    for _ in 0..60 {
        let address = address.clone();
        talks.spawn(async move {
            let mut client = TcpStream::connect(address).await.expect("a connection");
            for _ in 0..20 {
                echo(&mut client).await;
            }
        });
    }
    while let Some(talk) = soon("all connections", talks.join_next()).await {
        talk.expect("echoes");
    }
    assert_eq!(pair.wires[0].accepted(), 1);
    let drained = running.drain(SOON).await;
    assert_eq!(drained.cut, 0);
}

#[tokio::test]
async fn a_program_that_drops_its_proxy_has_no_tunnels() {
    let site = site();
    let server = Server::new(&site).await;
    let (running, address) = embedded(&site, &server.address(), "").await;
    let client = TcpStream::connect(address).await;
    let mut client = client.expect("a connection");
    let mut tunnel = Raw::accept(&server, 100).await;
    let stream = tunnel.asked().await;
    tunnel.answer(stream).await;
    tunnel.data(stream, b"word").await;
    let read = soon("bytes", client.read_exact(&mut [0; 4])).await;
    read.expect("bytes");
    let metrics = running.metrics(MetricsFormat::Prometheus);
    assert!(
        metrics.contains("vestibule_tunnels{role=\"client\"} 1"),
        "{metrics}"
    );
    drop(running);
    tunnel.ended().await;
    let read = soon("the end", client.read(&mut [0])).await;
    assert!(!matches!(read, Ok(1..)), "{read:?}");
}
