//! A worker's host behind a cable that is cut: no end and no reset tells so.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::client::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch::{self, Sender};
use tokio::task::JoinSet;

use crate::common::changing::Site;
use crate::common::network_worker::Host;
use crate::common::tunnel::{Tunnel, secured_at};
use crate::common::vestibule::{Relay, Vestibule};
use crate::common::{gate, soon};
use crate::{config, connect, start, worker};

#[tokio::test]
async fn after_a_cut_cable_the_offers_are_gone_and_no_client_waits_for_them() {
    let site = Site::new();
    let vestibule = start(&site, "[timeouts]\nbackend = \"20s\"\n").await;
    let cable = Cable::to(vestibule.tcp()).await;
    dies_behind(&vestibule, &site, &cable.address, || cable.cut()).await;
}

/// Cuts the cable to a host that serves one connection and waits for more, and watches what the clients notice.
async fn dies_behind(vestibule: &Vestibule, site: &Site, address: &str, cut: impl FnOnce()) {
    let certificate = site.client("worker");
    let tls = secured_at(address, site, &certificate).await;
    let far = Host(Tunnel::over(&Builder::new(), tls).await);
    let mut served = connect(vestibule).await;
    let (_, mut stream) = far.accept("app").await;
    served.write_all(b"hello").await.expect("open");
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    let _offers = far.offer("app", 4).await;
    let near = worker(vestibule, site).await;
    let offer = near.offer("app", 1).await.remove(0);
    let began = Instant::now();
    cut();
    // This one meets a dead offer, at most once.
    let mut unlucky = connect(vestibule).await;
    unlucky.write_all(b"hello").await.expect("open");
    let (_, mut stream) = offer.granted().await;
    stream.take();
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    // What the dead host had is over too.
    let _ = soon("an end", served.read(&mut [0])).await;
    let gone = began.elapsed();
    assert!(gone < Duration::from_secs(15), "{gone:?}");
    vestibule.ended("client_reset", 1).await;
    vestibule.ended("backend_reset", 1).await;
}

/// Forwards bytes until it is cut. Then nothing is forwarded, and nothing is closed.
struct Cable {
    address: String,
    is_whole: Sender<bool>,
    _forwards: JoinSet<()>,
}

impl Cable {
    async fn to(front: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (is_whole, mut cut) = watch::channel(true);
        let mut forwards = JoinSet::new();
        forwards.spawn(async move {
            let (mut near, _) = listener.accept().await.expect("a connection");
            let mut far = TcpStream::connect(front).await.expect("the front");
            let (mut near_reader, mut near_writer) = near.split();
            let (mut far_reader, mut far_writer) = far.split();
            tokio::select! {
                _ = cut.wait_for(|is_whole| !is_whole) => {}
                _ = copy(&mut near_reader, &mut far_writer) => {}
                _ = copy(&mut far_reader, &mut near_writer) => {}
            }
            std::future::pending().await
        });
        Self {
            address,
            is_whole,
            _forwards: forwards,
        }
    }

    fn cut(&self) {
        self.is_whole.send_replace(false);
    }
}

/// A network namespace, and a link to it whose other end is here.
struct Namespace(String);

impl Namespace {
    /// `None` if this user may not make one.
    async fn new() -> Option<Self> {
        let name = format!("vg{}", std::process::id());
        if !ip(&["netns", "add", &name]).await {
            return None;
        }
        let namespace = Self(name);
        let inside = format!("{}i", namespace.0);
        let outside = namespace.outside();
        let link = [
            "link", "add", &outside, "type", "veth", "peer", "name", &inside,
        ];
        for command in [
            &[&link[..], &["netns", &namespace.0]].concat()[..],
            &["address", "add", HERE, "dev", &outside],
            &["link", "set", &outside, "up"],
            &["-n", &namespace.0, "address", "add", THERE, "dev", &inside],
            &["-n", &namespace.0, "link", "set", &inside, "up"],
        ] {
            if !ip(command).await {
                return None;
            }
        }
        Some(namespace)
    }

    fn outside(&self) -> String {
        format!("{}o", self.0)
    }

    /// Waits for the program to be done, on this thread.
    fn cut(&self) {
        let outside = self.outside();
        let cut = std::process::Command::new("ip")
            .args(["link", "set", &outside, "down"])
            .status();
        assert!(cut.expect("ip").success());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // This removes its links too.
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.0])
            .status();
    }
}

async fn ip(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments).stderr(Stdio::null());
    command.status().await.is_ok_and(|it| it.success())
}

/// TEST-NET-2 (RFC 5737).
const HERE: &str = "198.51.100.1/30";
const THERE: &str = "198.51.100.2/30";

/// With root, the cable is the link to another network namespace.
#[tokio::test]
async fn the_offers_behind_a_cut_cable_are_gone_also_if_nobody_meets_them() {
    let site = Site::new();
    match Namespace::new().await {
        Some(namespace) => {
            let vestibule = start_in(&namespace, &site).await;
            let address = vestibule.tcp();
            ends_behind(&vestibule, &site, &address, || namespace.cut()).await;
        }
        None => {
            let vestibule = start(&site, "").await;
            let cable = Cable::to(vestibule.tcp()).await;
            ends_behind(&vestibule, &site, &cable.address, || cable.cut()).await;
        }
    }
}

async fn start_in(namespace: &Namespace, site: &Site) -> Vestibule {
    let text = config(Relay::Auto, "").replace("127.0.0.1:0", "198.51.100.2:0");
    let vestibule = Vestibule::spawn(Arc::clone(&site.directory), &text, |command| {
        let inner = command.as_std();
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &namespace.0]);
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.env("RUST_LOG", "vestibule=debug");
        outer
    });
    vestibule.until_started().await;
    vestibule
}

/// Cuts the cable to a host that serves one connection and waits for more, while no client comes.
async fn ends_behind(vestibule: &Vestibule, site: &Site, address: &str, cut: impl FnOnce()) {
    let tls = secured_at(address, site, &site.client("worker")).await;
    let far = Host(Tunnel::over(&Builder::new(), tls).await);
    let mut served = connect(vestibule).await;
    let (_, mut stream) = far.accept("app").await;
    served.write_all(b"hello").await.expect("open");
    assert_eq!(stream.read(5).await.expect("bytes"), b"hello");
    let _offers = far.offer("app", 4).await;
    let began = Instant::now();
    cut();
    let _ = soon("an end", served.read(&mut [0])).await;
    let gone = began.elapsed();
    assert!(gone < Duration::from_secs(15), "{gone:?}");
    vestibule.ended("client_reset", 1).await;
    let path = vestibule.gate();
    let mut near = gate::send(&path, "ACCEPT app").await;
    gate::until_in_place(&path).await;
    let began = Instant::now();
    let _client = connect(vestibule).await;
    let line = soon("OK", gate::line(&mut near)).await;
    assert!(line.expect("a line").starts_with("OK {"));
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
