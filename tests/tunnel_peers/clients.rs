//! Envoy and Node.js as clients of tunnels.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::talk::{self, Cut, Way};
use super::{Doors, envoy, node, port, terminator};
use crate::common::admin::ask;
use crate::common::backend::Backend;
use crate::common::changing::Site;
use crate::common::process::Process;
use crate::common::soon;
use crate::common::vestibule::{Vestibule, message};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Peer {
    Envoy,
    Node,
}

const PEERS: [Peer; 2] = [Peer::Envoy, Peer::Node];

/// A peer that carries TCP connections to a Vestibule.
struct Scene {
    process: Process,
    doors: Doors,
    site: Site,
    vestibule: Vestibule,
    app: Backend,
}

impl Scene {
    async fn new(peer: Peer) -> Self {
        let (site, vestibule, app) = terminator().await;
        let port = port(&vestibule);
        let authorities = ["echo:1", "app:1", "dead:1", "nothing:1", "bad"];
        let (process, doors) = match peer {
            Peer::Envoy => envoy::client(site.directory.path(), port, &authorities).await,
            Peer::Node => node::client(site.directory.path(), port, &authorities).await,
        };
        Self {
            process,
            doors,
            site,
            vestibule,
            app,
        }
    }

    fn way(&self) -> Way<'_> {
        Way {
            near: self.doors["app:1"].clone(),
            far: &self.app,
        }
    }

    async fn metrics(&self) -> String {
        let admin = self.vestibule.path("run/admin.sock");
        ask(&admin, "/metrics", &[]).await.body
    }
}

#[tokio::test]
async fn fifty_connections_of_256_kib_share_one_tunnel() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        talk::echoes(&scene.doors["echo:1"], 50).await;
        scene.vestibule.ended("done", 50).await;
        let metrics = scene.metrics().await;
        let one = "vestibule_tunnels{role=\"server\"} 1";
        assert!(metrics.lines().any(|it| it == one), "{peer:?}: {metrics}");
    }
}

#[tokio::test]
async fn half_close_reaches_the_other_side_in_both_directions() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        scene.way().client_ends_first().await;
        scene.way().server_ends_first().await;
        scene.vestibule.ended("done", 2).await;
    }
}

#[tokio::test]
async fn resets_reach_the_other_side_in_both_directions() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        let (seen, server) = scene.way().client_resets().await;
        match peer {
            Peer::Envoy => assert_eq!(seen, Cut::Reset),
            // Node.js sends END_STREAM before RST_STREAM, so the server may see the end first.
            Peer::Node => {}
        }
        scene.vestibule.ended("client_reset", 1).await;
        drop(server);
        let (seen, client) = scene.way().server_resets().await;
        scene.vestibule.ended("backend_reset", 1).await;
        match peer {
            // Envoy gets the reset, and ends its client's connection in order.
            Peer::Envoy => {
                assert_eq!(seen, Cut::End);
                let resets = "cluster.vestibule.http2.rx_reset";
                envoy::counted(scene.site.directory.path(), resets, 1).await;
            }
            Peer::Node => {
                assert_eq!(seen, Cut::Reset);
                scene.process.line("app:1 ended with 10").await;
            }
        }
        drop(client);
        // The tunnel has taken no harm.
        talk::echoes(&scene.doors["echo:1"], 1).await;
    }
}

#[tokio::test]
async fn refusals_are_statuses_and_the_client_gets_no_byte() {
    for peer in PEERS {
        let scene = Scene::new(peer).await;
        for (authority, status) in [("dead:1", 502), ("nothing:1", 404), ("bad", 400)] {
            let mut client = talk::dial(&scene.doors[authority]).await;
            let said = match peer {
                Peer::Envoy => format!("ended {authority} tunnel_response:{status}"),
                Peer::Node => format!("answer {authority} {status}"),
            };
            scene.process.line(&said).await;
            talk::cut(&mut client).await;
        }
        scene.vestibule.ended("backend_refused", 1).await;
        scene.vestibule.ended("no_route", 1).await;
        talk::echoes(&scene.doors["echo:1"], 1).await;
    }
}

#[tokio::test]
async fn a_drain_lets_the_connections_of_the_peer_end() {
    for peer in PEERS {
        let mut scene = Scene::new(peer).await;
        let (mut client, mut server) = scene.way().open().await;
        scene.vestibule.signal(Signal::TERM);
        let draining = |it: &_| message(it).starts_with("draining");
        scene.vestibule.event(draining).await;
        match peer {
            Peer::Envoy => {
                let notices = "cluster.vestibule.upstream_cx_close_notify";
                envoy::counted(scene.site.directory.path(), notices, 1).await;
            }
            Peer::Node => {
                scene.process.line("goaway 0").await;
            }
        }
        client.write_all(b"during").await.expect("room");
        let mut bytes = [0; 6];
        soon("bytes", server.read_exact(&mut bytes))
            .await
            .expect("bytes");
        server.write_all(b"answer").await.expect("room");
        server.shutdown().await.expect("open");
        assert_eq!(talk::rest(&mut client).await.expect("an end"), b"answer");
        client.shutdown().await.expect("open");
        assert_eq!(talk::rest(&mut server).await.expect("an end"), b"");
        let status = scene.vestibule.wait().await;
        assert_eq!(status.code(), Some(0), "{peer:?}");
    }
}
