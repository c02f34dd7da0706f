//! A worker that nobody can connect to: it is in a network namespace with one way out, through a relay.
//!
//! ```text
//! host: front ◄── veth ── namespace "nat": relay, forwards nothing ◄── veth ── namespace "inside": worker, server
//! ```

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::changing::Site;
use crate::common::users::require_root;
use crate::common::vestibule::{RUNTIME, Vestibule};
use crate::common::{soon, within};
use crate::echo_server;
use crate::join::real::{
    certificate, client, echo, exchange, front, metric, worker, worker_config,
};

/// Two network namespaces, which end with it.
struct Network {
    nat: String,
    inside: String,
    /// The address of the host that `nat` reaches.
    host: Ipv4Addr,
}

/// What only `nat` and `inside` know: the host has no route to it.
const GATEWAY: &str = "198.19.0.1";
const INSIDE: &str = "198.19.0.2";

impl Network {
    /// `test` tells the networks of two tests apart.
    fn new(test: &str) -> Self {
        require_root();
        let pid = std::process::id();
        let pid = 2 * pid + u32::from(test == "b");
        let [high, low] = [(pid >> 6 & 0xff) as u8, ((pid & 0x3f) * 4) as u8];
        let (host, peer) = (
            Ipv4Addr::new(198, 18, high, low + 1),
            Ipv4Addr::new(198, 18, high, low + 2),
        );
        let network = Self {
            nat: format!("vj{pid}n"),
            inside: format!("vj{pid}i"),
            host,
        };
        let Self { nat, inside, .. } = &network;
        let (outer, inner) = (format!("vj{pid}o"), format!("vj{pid}p"));
        for line in [
            format!("netns add {nat}"),
            format!("netns add {inside}"),
            format!("link add {outer} type veth peer name wan netns {nat}"),
            format!("address add {host}/30 dev {outer}"),
            format!("link set {outer} up"),
            format!("-n {nat} address add {peer}/30 dev wan"),
            format!("-n {nat} link set wan up"),
            format!("-n {nat} link add {inner} type veth peer name lan netns {inside}"),
            format!("-n {nat} address add {GATEWAY}/30 dev {inner}"),
            format!("-n {nat} link set {inner} up"),
            format!("-n {inside} address add {INSIDE}/30 dev lan"),
            format!("-n {inside} link set lan up"),
            format!("-n {inside} link set lo up"),
        ] {
            ip(&line);
        }
        network
    }

    async fn start(&self, namespace: &str, config: &str) -> Vestibule {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let vestibule = Vestibule::spawn(directory, config, |command| {
            let command = command.as_std();
            let mut within = tokio::process::Command::new("ip");
            within.args(["netns", "exec", namespace]);
            within.arg(command.get_program()).args(command.get_args());
            within.env("RUST_LOG", "vestibule=debug");
            within
        });
        vestibule.until_started().await;
        vestibule
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.nat, &self.inside] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output();
    let done = done.expect("`ip` is missing; install the Debian package iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {line}: {said}");
}

fn plain(address: &str, to: &str) -> String {
    format!(
        "{RUNTIME}[[listener]]\nname = \"plain\"\naddress = \"{address}\"\n\
         [[backend]]\nname = \"to\"\nto = \"{to}\"\n"
    )
}

/// A worker in the innermost namespace, and its server.
struct Inside {
    worker: Vestibule,
    _server: Vestibule,
    _relay: Vestibule,
}

/// Starts a worker of `front` that has an echo.
async fn inside(network: &Network, site: &Site, front: &Vestibule) -> Inside {
    let relay = plain(&format!("{GATEWAY}:15008"), &front.tcp());
    let relay = network.start(&network.nat, &relay).await;
    let server = plain(&format!("{INSIDE}:8080"), "echo");
    let server = network.start(&network.inside, &server).await;
    let fronts = [format!("{GATEWAY}:15008")];
    let config = worker_config("worker", &fronts, &format!("{INSIDE}:8080"), 4);
    // The files are those of the site.
    let config = config.replace("{dir}", &site.directory.path().display().to_string());
    let worker = network.start(&network.inside, &config).await;
    worker.said("joined the front", 1).await;
    Inside {
        worker,
        _server: server,
        _relay: relay,
    }
}

#[tokio::test]
async fn a_worker_without_an_inbound_path_serves_clients_of_the_front() {
    let network = Network::new("a");
    let site = Site::new();
    certificate(&site);
    let front = front(&site, "front", &format!("{}:0", network.host)).await;
    let inside = inside(&network, &site, &front).await;
    // Nobody outside can connect to its server. What else may have that address is no echo.
    let reached = tokio::time::timeout(Duration::from_secs(1), async {
        let mut socket = TcpStream::connect(format!("{INSIDE}:8080")).await?;
        socket.write_all(b"hello").await?;
        socket.read_exact(&mut [0; 5]).await
    });
    assert!(!matches!(reached.await, Ok(Ok(_))), "an inbound path");
    exchange(client(&site, "front").await).await;
    inside.worker.ended("done", 1).await;
    front.ended("done", 1).await;
}

#[tokio::test]
async fn the_offers_behind_a_cut_cable_are_gone_within_fifteen_seconds() {
    let network = Network::new("b");
    let site = Site::new();
    certificate(&site);
    let front = front(&site, "front", &format!("{}:0", network.host)).await;
    // Without a relay in between, whose connections would stay.
    let config = worker_config("worker", &[front.tcp()], "127.0.0.1:1", 4);
    let config = config.replace("{dir}", &site.directory.path().display().to_string());
    let cut = network.start(&network.nat, &config).await;
    cut.said("joined the front", 1).await;
    let (to, _server) = echo_server(&site);
    let other = worker(&site, "other", &[front.tcp()], &to).await;
    other.said("joined the front", 1).await;
    let offers = "vestibule_gate_clients{kind=\"accept\"}";
    let offered = async |count| {
        while metric(&site, "front", offers).await != Some(count) {}
    };
    soon("all offers", offered(12.0)).await;
    ip(&format!("-n {} link set wan down", network.nat));
    within(Duration::from_secs(15), "fewer offers", offered(8.0)).await;
    // No client waits for the lost ones.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client(&site, "front").await;
        within(
            Duration::from_secs(1),
            "an echo",
            echo(&mut client, b"hello"),
        )
        .await;
        clients.push(client);
    }
}
