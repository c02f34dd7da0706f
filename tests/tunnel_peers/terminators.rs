//! Envoy and Node.js as servers of tunnels, and Vestibule as their client.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::task::JoinSet;

use super::talk::{self, Cut, Way};
use super::{Doors, envoy, node};
use crate::common::backend::Backend;
use crate::common::changing::Site;
use crate::common::process::Process;
use crate::common::vestibule::Vestibule;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Peer {
    Envoy,
    Node,
}

const PEERS: [Peer; 2] = [Peer::Envoy, Peer::Node];

/// A Vestibule whose backends are behind the tunnels of a peer.
struct Scene {
    process: Process,
    stdin: Option<ChildStdin>,
    doors: Doors,
    site: Site,
    vestibule: Vestibule,
    app: Backend,
    _echo: JoinSet<()>,
}

impl Scene {
    async fn new(peer: Peer) -> Self {
        let site = Site::new();
        site.client("alice").write(site.directory.path(), "alice");
        let (app, echo, dead) = (Backend::tcp().await, Backend::tcp().await, free().await);
        let port = |backend: &Backend| backend.address().rsplit(':').next().map(str::to_owned);
        let targets = HashMap::from([
            ("echo:1", port(&echo).expect("a port")),
            ("app:1", port(&app).expect("a port")),
            ("dead:1", dead),
        ]);
        let directory = site.directory.path();
        let (process, stdin, at) = match peer {
            Peer::Envoy => {
                let (process, at) = envoy::server(directory, &targets).await;
                (process, None, at)
            }
            Peer::Node => {
                let (process, stdin, at) = node::server(directory, &targets).await;
                (process, Some(stdin), at)
            }
        };
        let echo = echo.serve(|mut socket| async move {
            let (mut reading, mut writing) = tokio::io::split(&mut socket);
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
            let _ = writing.shutdown().await;
        });
        let config = config(&at);
        let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &config).await;
        let door = |it: &str| (format!("{it}:1"), vestibule.address(it));
        let doors = NAMES.into_iter().map(door).collect();
        Self {
            process,
            stdin,
            doors,
            site,
            vestibule,
            app,
            _echo: echo,
        }
    }

    fn way(&self) -> Way<'_> {
        Way {
            near: self.doors["app:1"].clone(),
            far: &self.app,
        }
    }

    /// The tunnels that Node.js has got so far.
    fn sessions(&self) -> usize {
        let said = self.process.said().out;
        said.iter().filter(|it| *it == "session").count()
    }
}

const NAMES: [&str; 4] = ["echo", "app", "dead", "nothing"];

/// A listener without TLS for each name, and a backend that asks for it.
fn config(at: &str) -> String {
    let one = |name: &str| {
        format!(
            r#"
[[listener]]
name = "{name}"
address = "tcp:127.0.0.1:0"
[[route]]
listener = ["{name}"]
backend = "{name}"
[[backend]]
name = "{name}"
to = "tcp:{at}"
park = false
[backend.tls]
server_name = "localhost"
ca = "{{dir}}/ca.pem"
certificate = {{ chain = "{{dir}}/alice.pem", key = "{{dir}}/alice-key.pem" }}
[backend.tunnel]
authority = "{name}:1"
connections = 1
"#
        )
    };
    let runtime = "[runtime]\nworkers = 1\ndirectory = \"{dir}/run\"\nlog_format = \"json\"\n";
    runtime.to_owned() + &NAMES.map(one).concat()
}

/// A port where nobody listens.
async fn free() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.expect("a port").local_addr().expect("bound");
    address.port().to_string()
}

#[tokio::test]
async fn fifty_connections_of_256_kib_share_one_tunnel_of_ours() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        talk::echoes(&scene.doors["echo:1"], 50).await;
        scene.vestibule.ended("done", 50).await;
        match peer {
            Peer::Envoy => {
                let tunnels = "http.tunnels.downstream_cx_http2_total";
                envoy::counted(scene.site.directory.path(), tunnels, 1).await;
            }
            Peer::Node => assert_eq!(scene.sessions(), 1),
        }
    }
}

#[tokio::test]
async fn half_close_reaches_the_other_side_behind_a_peer() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        scene.way().client_ends_first().await;
        scene.vestibule.ended("done", 1).await;
        match peer {
            Peer::Node => {
                scene.way().server_ends_first().await;
                scene.vestibule.ended("done", 2).await;
            }
            // Envoy sends END_STREAM, then RST_STREAM, and reads no more.
            Peer::Envoy => {
                let (mut client, mut server) = scene.way().open().await;
                server.write_all(b"greeting").await.expect("room");
                server.shutdown().await.expect("open");
                let greeting = talk::rest(&mut client).await;
                assert_eq!(greeting.expect("an end"), b"greeting");
                let directory = scene.site.directory.path();
                envoy::counted(directory, "http2.tx_reset", 1).await;
                assert_eq!(talk::cut(&mut server).await, Cut::End);
            }
        }
    }
}

#[tokio::test]
async fn resets_reach_the_other_side_behind_a_peer() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        let (seen, server) = scene.way().client_resets().await;
        scene.vestibule.ended("client_reset", 1).await;
        match peer {
            // Envoy gets the reset, and ends its connection to the server in order.
            Peer::Envoy => {
                assert_eq!(seen, Cut::End);
                let resets = "http.tunnels.downstream_rq_rx_reset";
                envoy::counted(scene.site.directory.path(), resets, 1).await;
            }
            Peer::Node => assert_eq!(seen, Cut::Reset),
        }
        drop(server);
        let (seen, client) = scene.way().server_resets().await;
        match peer {
            Peer::Envoy => {
                assert_eq!(seen, Cut::Reset);
                scene.vestibule.ended("backend_reset", 1).await;
            }
            // Node.js sends END_STREAM before RST_STREAM, so the client may see the end first.
            Peer::Node => {
                scene.process.line("app:1 ended with 10").await;
            }
        }
        drop(client);
        // The tunnel has taken no harm.
        talk::echoes(&scene.doors["echo:1"], 1).await;
    }
}

#[tokio::test]
async fn refusals_of_a_peer_end_the_connection_without_a_byte() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        for (authority, count) in [("dead:1", 1), ("nothing:1", 2)] {
            let mut client = talk::dial(&scene.doors[authority]).await;
            assert_eq!(talk::cut(&mut client).await, Cut::Reset, "{authority}");
            scene.vestibule.ended("backend_refused", count).await;
        }
        talk::echoes(&scene.doors["echo:1"], 1).await;
    }
}

#[tokio::test]
async fn node_that_says_goaway_keeps_its_streams_and_gets_new_ones_in_another_tunnel() {
    let mut scene = Scene::new(Peer::Node).await;
    let (mut client, mut server) = scene.way().open().await;
    let stdin = scene.stdin.as_mut().expect("it listens");
    stdin.write_all(b"drain\n").await.expect("it reads");
    scene.process.line("said goaway").await;
    let (mut another, mut behind) = scene.way().open().await;
    talk::exchange(&mut another, &mut behind).await;
    talk::exchange(&mut client, &mut server).await;
    client.shutdown().await.expect("open");
    assert_eq!(talk::rest(&mut server).await.expect("an end"), b"");
    drop(server);
    assert_eq!(talk::cut(&mut client).await, Cut::End);
    scene.vestibule.ended("done", 1).await;
    assert_eq!(scene.sessions(), 2);
}
