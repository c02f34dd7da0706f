//! Client mode: TLS towards a backend, for clients with TLS and for those without.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::bytes;
use common::client::{Front, Socket};
use common::site::server;
use common::site::{API, Door, IN_THE_CLEAR, Kind, Peer, Server, Site, TLS, certificates};
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::{gate, soon, until, within};
use rustix::io::ioctl_fionread;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ALL_VERSIONS, HandshakeKind, ServerConfig};

const MIB: usize = 1024 * 1024;

/// A site for each relay and each kind of backend.
async fn everywhere(serve: impl Fn(&TempDir) -> ServerConfig) -> Vec<Site> {
    let mut sites = Vec::new();
    for (relay, kind) in RELAYS
        .into_iter()
        .flat_map(|r| [(r, Kind::Tcp), (r, Kind::Unix)])
    {
        let directory = certificates();
        let config = serve(&directory);
        sites.push(Site::start(directory, relay, kind, config, "").await);
    }
    sites
}

#[tokio::test]
async fn every_byte_arrives_and_half_close_is_kept_whoever_closes_first() {
    for version in [&TLS12, &TLS13] {
        for site in everywhere(|d| server(d.path(), "api", &[version])).await {
            for door in site.doors() {
                let (client, server) = site.pair(&door).await;
                soon("client first", one_after_the_other(client, server)).await;
                let (client, server) = site.pair(&door).await;
                soon("backend first", one_after_the_other(server, client)).await;
                let (client, server) = site.pair(&door).await;
                soon("both at once", at_once(client, server)).await;
            }
            site.vestibule.ended("done", 12).await;
        }
    }
}

#[tokio::test]
async fn the_debug_log_names_the_kind_of_both_sides() {
    for relay in RELAYS {
        let directory = certificates();
        let api = server(directory.path(), "api", ALL_VERSIONS);
        let site = Site::start(directory, relay, Kind::Tcp, api, "").await;
        for (index, (door, client)) in site
            .doors()
            .iter()
            .zip([relay.side(), relay.side(), "plain", "plain"])
            .enumerate()
        {
            let (client_end, server) = site.pair(door).await;
            soon("an end", one_after_the_other(client_end, server)).await;
            site.vestibule.ended("done", index + 1).await;
            let sides = site.vestibule.sides();
            let expected = (client.to_owned(), relay.side().to_owned());
            assert_eq!(sides.last(), Some(&expected), "{door:?}");
        }
    }
}

/// The second party sends after the first one has closed its side.
async fn one_after_the_other(mut first: impl Peer, mut second: impl Peer) {
    tokio::join!(
        async { bytes::send(&mut first, 1, MIB).await.expect("open") },
        bytes::expect(&mut second, 1, MIB)
    );
    tokio::join!(
        async { bytes::send(&mut second, 2, MIB).await.expect("open") },
        bytes::expect(&mut first, 2, MIB)
    );
}

async fn at_once(client: impl Peer, server: impl Peer) {
    let (mut up, mut down) = tokio::io::split(client);
    let (mut out, mut back) = tokio::io::split(server);
    tokio::join!(
        async { bytes::send(&mut down, 3, MIB).await.expect("open") },
        async { bytes::send(&mut back, 4, MIB).await.expect("open") },
        bytes::expect(&mut up, 4, MIB),
        bytes::expect(&mut out, 3, MIB),
    );
}

/// Bytes that the socket did not accept are in TLS buffers. Since the client's own side is closed
/// and the backend is not read any more, only the socket can wake the relay. This includes a client
/// on a Unix socket, where the kernel sends a reset only if bytes are unread.
#[tokio::test]
async fn a_plaintext_client_is_reset_after_a_truncated_answer() {
    for site in everywhere(|d| server(d.path(), "api", ALL_VERSIONS)).await {
        for door in &site.doors()[2..] {
            let (mut client, mut server) = site.pair(door).await;
            client.write_all(b"question").await.expect("open");
            server.read_exact(&mut [0; 8]).await.expect("the question");
            server.write_all(b"half an answer").await.expect("open");
            server.flush().await.expect("open");
            // Only the socket ends, not the TLS stream.
            let mut socket = server.into_inner().0;
            socket.shutdown().await.expect("open");
            let mut heard = Vec::new();
            let end = soon("no end", client.read_to_end(&mut heard)).await;
            assert_eq!(heard, b"half an answer");
            let kind = end.map_err(|error| error.kind());
            assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset), "{door:?}");
        }
        site.vestibule.ended("backend_reset", 2).await;
    }
}

#[tokio::test]
async fn a_plaintext_client_is_reset_at_its_idle_timeout() {
    let app = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";
    let config = format!("[timeouts]\nidle = \"200ms\"\n{IN_THE_CLEAR}{app}");
    let vestibule = Vestibule::start(&config).await;
    let unix = Front::Unix(vestibule.path("clear.sock"));
    for front in [Front::Tcp(vestibule.address("clear")), unix] {
        let mut client = front.socket().await.expect("a listener");
        client.write_all(b"question").await.expect("open");
        let mut heard = Vec::new();
        let end = soon("no end", client.read_to_end(&mut heard)).await;
        let kind = end.map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::ConnectionReset), "{front:?}");
        assert_eq!(heard, b"question");
    }
    vestibule.ended("idle", 2).await;
}

#[tokio::test]
async fn a_slow_backend_gets_every_byte_after_it_closed_its_own_side() {
    for relay in RELAYS {
        let directory = certificates();
        let config = server(directory.path(), "api", ALL_VERSIONS);
        // Otherwise the end of that timeout would flush too, a minute later.
        let timeouts = "[timeouts]\nhalf_close = \"unlimited\"\n";
        // A Unix socket accepts the same number of bytes each time.
        let site = Site::start(directory, relay, Kind::Unix, config, timeouts).await;
        let [tls, _, clear, _] = site.doors();
        // From less than the socket accepts to more than the socket and TLS buffers accept.
        for size in (144..=304).step_by(16).map(|kib| kib * 1024) {
            for door in [&tls, &clear] {
                let (mut client, mut server) = site.pair(door).await;
                server.shutdown().await.expect("open");
                let ended = soon("its end", client.read(&mut [0])).await;
                assert_eq!(ended.expect("a clean end"), 0);
                let written = async {
                    client.write_all(&vec![7; size]).await.expect("open");
                    client.flush().await.expect("open");
                };
                soon("room for it", written).await;
                until_full(&server).await;
                let mut read = vec![0; size];
                let all = soon("all of it", server.read_exact(&mut read)).await;
                all.expect("more bytes");
                client.shutdown().await.expect("open");
                let ended = soon("its end", server.read(&mut [0])).await;
                assert_eq!(ended.expect("a clean end"), 0);
            }
        }
        site.vestibule.ended("done", 22).await;
        assert_eq!(site.vestibule.outcomes().len(), 1);
    }
}

/// Waits until the server's socket has no room left.
async fn until_full(server: &Server) {
    let Socket::Unix(socket) = server.get_ref().0 else {
        panic!("a Unix socket");
    };
    let mut before = 0;
    until("a full socket", || {
        let now = ioctl_fionread(socket).expect("open");
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_reads_everything_and_leaves_has_the_outcome_done() {
    for site in everywhere(|d| server(d.path(), "api", ALL_VERSIONS)).await {
        for door in site.doors() {
            let (mut client, mut server) = site.pair(&door).await;
            client.write_all(b"?").await.expect("open");
            client.flush().await.expect("open");
            let asked = soon("a question", server.read_u8()).await;
            assert_eq!(asked.expect("a question"), b'?');
            server.write_all(b"!").await.expect("open");
            server.shutdown().await.expect("open");
            drop(server);
            let mut answer = Vec::new();
            let end = soon("an answer", client.read_to_end(&mut answer)).await;
            end.expect("a clean end");
            assert_eq!(answer, b"!");
            client.shutdown().await.expect("open");
        }
        site.vestibule.ended("done", 4).await;
    }
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_its_client() {
    for site in everywhere(|d| server(d.path(), "api", ALL_VERSIONS)).await {
        for door in site.doors() {
            let (mut client, mut server) = site.pair(&door).await;
            let before = site.vestibule.memory();
            let mut taken = 0;
            let block = vec![9; MIB];
            let full = Duration::from_millis(500);
            while let Ok(written) = tokio::time::timeout(full, client.write(&block)).await {
                taken += written.expect("open");
                assert!(taken < 64 * MIB, "{door:?} takes all of it");
            }
            let grown = site.vestibule.memory().saturating_sub(before);
            assert!(grown < 8 * MIB, "{grown} bytes for one connection");
            let mut rest = vec![0; taken];
            let (flushed, read) = tokio::join!(
                soon("room for the rest", client.flush()),
                soon("what was taken", server.read_exact(&mut rest))
            );
            flushed.expect("open");
            read.expect("more bytes");
        }
    }
}

#[tokio::test]
async fn a_resumed_session_has_the_identity_of_the_first_handshake() {
    for version in [&TLS12, &TLS13] {
        for relay in RELAYS {
            let directory = certificates();
            let config = server(directory.path(), "api", &[version]);
            let allow = "allow = \"uri:spiffe://corp/ns/*/sa/api\"\n";
            let site = Site::start(directory, relay, Kind::Tcp, config, allow).await;
            let [door, ..] = site.doors();
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (client, server) = site.pair(&door).await;
                let kind = server.get_ref().1.handshake_kind();
                // Including the retry, if the first key share was not one that the server supports.
                assert_eq!(
                    kind == Some(HandshakeKind::Resumed),
                    expected == HandshakeKind::Resumed
                );
                one_after_the_other(client, server).await;
            }
            site.vestibule.ended("done", 2).await;
            for event in site.vestibule.closed() {
                let identity = &event["span"]["backend_identity"];
                assert_eq!(identity, &format!("uri:{API}"), "{event}");
            }
        }
    }
}

#[tokio::test]
async fn a_registered_address_gets_tls_and_a_claimer_plaintext() {
    let directory = certificates();
    let acceptor = server(directory.path(), "api", ALL_VERSIONS);
    let site = Site::start(directory, Relay::Auto, Kind::Unix, acceptor, "").await;
    let config = format!("{IN_THE_CLEAR}[[backend]]\nname = \"app\"\nto = \"gate\"\n{TLS}");
    let other = certificates();
    let path = site.vestibule.path("ca.pem").display().to_string();
    let vestibule = Vestibule::start_in(other, &config.replace("ca.pem", &path)).await;
    let door = Door::Clear(Front::Unix(vestibule.path("clear.sock")));

    let gate = vestibule.gate();
    let claim = gate::accept(&gate, "app");
    let (mut client, (_, mut worker)) = tokio::join!(door.enter(), claim);
    client.write_all(b"plain").await.expect("open");
    let mut said = [0; 5];
    soon("its words", worker.read_exact(&mut said))
        .await
        .expect("open");
    assert_eq!(&said, b"plain");

    let line = format!("REGISTER app {}", site.backend.address());
    let mut registration = gate::send(&vestibule.gate(), &line).await;
    assert_eq!(
        gate::line(&mut registration).await.expect("an answer"),
        "OK {}"
    );
    let (client, server) = tokio::join!(door.enter(), site.server());
    one_after_the_other(client, server).await;
    vestibule.ended("done", 1).await;
}

/// A plaintext Unix socket, TLS between two Vestibules, and a plaintext Unix socket again.
#[tokio::test]
async fn a_pair_of_vestibules_is_a_tunnel() {
    const MUCH: usize = 64 * MIB;
    for relay in RELAYS {
        let backend = common::backend::Backend::unix;
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let backend = backend(&directory.path().join("app.sock"));
        let config = format!(
            "{}[[backend]]\nname = \"app\"\nto = \"{}\"\n",
            relay.config(),
            backend.address()
        );
        let far = Vestibule::start_in(directory, &config).await;
        let config = format!(
            "{IN_THE_CLEAR}[[backend]]\nname = \"far\"\nto = \"{}\"\n[backend.tls]\n\
             server_name = \"localhost\"\nca = \"{{certs}}/ca.pem\"\n",
            far.tcp()
        );
        let near = Vestibule::start(&config).await;
        let front = Front::Unix(near.path("clear.sock"));
        let (client, server) = tokio::join!(front.socket(), backend.accept());
        let (mut client, mut server) = (client.expect("a listener"), server.expect("a dial"));
        let both_ways = async {
            tokio::join!(
                async { bytes::send(&mut client, 5, MUCH).await.expect("open") },
                bytes::expect(&mut server, 5, MUCH)
            );
            tokio::join!(
                async { bytes::send(&mut server, 6, MUCH).await.expect("open") },
                bytes::expect(&mut client, 6, MUCH)
            );
        };
        within(Duration::from_secs(240), "the bytes", both_ways).await;
        near.ended("done", 1).await;
        far.ended("done", 1).await;
    }
}
