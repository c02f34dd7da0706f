//! The PROXY protocol headers for dialled backends, read by a decoder from another project.

mod common;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use common::backend::Backend;
use common::client::{self, Client, Front, Socket};
use common::process::{Process, python, run, vestibule};
use common::vestibule::{LISTENERS, RELAYS, Relay, Vestibule};
use common::{gate, project, soon};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// The way from Vestibule to the backend.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Tcp,
    Unix,
    Registered,
}

/// A proxy in front of a backend that expects headers.
struct World {
    vestibule: Vestibule,
    backend: Backend,
    _registration: Option<UnixStream>,
}

impl World {
    async fn new(relay: Relay, to: To, version: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let backend = match to {
            To::Tcp => Backend::tcp().await,
            To::Unix | To::Registered => Backend::unix(&directory.path().join("backend.sock")),
        };
        let address = match to {
            To::Registered => "gate".into(),
            To::Tcp | To::Unix => backend.address(),
        };
        let listeners = LISTENERS.replace("[listener.tls]\n", "[listener.tls]\nalpn = \"h2\"\n");
        let config = format!(
            "{}[[backend]]\nname = \"app\"\nto = \"{address}\"\nproxy_protocol = \"{version}\"\n\
             {listeners}{PLAIN}",
            relay.config()
        );
        let vestibule = Vestibule::start_whole(directory, &config).await;
        let mut registration = None;
        if to == To::Registered {
            let line = format!("REGISTER app {}", backend.address());
            let mut socket = gate::send(&vestibule.gate(), &line).await;
            assert_eq!(gate::line(&mut socket).await.expect("an answer"), "OK {}");
            registration = Some(socket);
        }
        Self {
            vestibule,
            backend,
            _registration: registration,
        }
    }

    /// The backend's side of the next connection, and its header.
    async fn server(&self) -> (Vec<u8>, Socket) {
        let mut socket = soon("a dial", self.backend.accept()).await.expect("one");
        (header(&mut socket).await, socket)
    }
}

const PLAIN: &str = "\n[[listener]]\nname = \"plain\"\naddress = \"tcp:127.0.0.1:0\"\n";

/// The bytes of the header, whose length is in the header itself.
async fn header(socket: &mut Socket) -> Vec<u8> {
    let mut header = vec![0; 1];
    let read = async {
        socket.read_exact(&mut header).await.expect("a header");
        if header[0] == b'P' {
            while !header.ends_with(b"\r\n") {
                header.push(socket.read_u8().await.expect("a line"));
            }
            return;
        }
        header.resize(16, 0);
        socket.read_exact(&mut header[1..]).await.expect("a header");
        let length = u16::from_be_bytes([header[14], header[15]]);
        header.resize(16 + usize::from(length), 0);
        socket
            .read_exact(&mut header[16..])
            .await
            .expect("a header");
    };
    soon("a header", read).await;
    header
}

/// The header as decoded by the Python package `proxy-protocol`.
async fn decode(header: &[u8]) -> Value {
    let mut command = python();
    command.args(["-c", DECODER]);
    let decoded = run(command, header).await.text();
    serde_json::from_str(&decoded).expect("JSON")
}

const DECODER: &str = r#"
import json, sys, uuid
from proxyprotocol.detect import ProxyProtocolDetect
header = sys.stdin.buffer.read()
read = ProxyProtocolDetect().unpack(header)
tlv, ssl = read.tlv, read.tlv.ssl
address = lambda pair: list(map(str, pair)) if isinstance(pair, tuple) else pair
print(json.dumps({
    "type": read.type.name, "proxied": read.proxied,
    "source": address(read.source), "dest": address(read.dest),
    "alpn": tlv.alpn and tlv.alpn.decode(), "authority": tlv.authority,
    "id": str(uuid.UUID(bytes=tlv.unique_id)) if tlv.unique_id else None,
    "tls": ssl.has_ssl, "cert_conn": ssl.has_cert_conn, "cert_sess": ssl.has_cert_sess,
    "verified": ssl.verified, "version": ssl.version, "cipher": ssl.cipher, "cn": ssl.cn,
}))
"#;

/// The addresses of a client, as the decoder shows them; `None` without an address.
fn addresses(client: &Socket) -> Option<(Value, Value)> {
    let Socket::Tcp(stream) = client else {
        return None;
    };
    let pair = |address: std::net::SocketAddr| {
        json!([address.ip().to_string(), address.port().to_string()])
    };
    let (ours, theirs) = (stream.local_addr(), stream.peer_addr());
    Some((pair(ours.expect("open")), pair(theirs.expect("open"))))
}

/// A conversation in which every byte is checked.
async fn talk(mut client: Client, mut server: Socket) {
    client.write_all(b"question").await.expect("open");
    client.shutdown().await.expect("open");
    let mut heard = Vec::new();
    let read = soon("the question", server.read_to_end(&mut heard)).await;
    read.expect("a clean end");
    assert_eq!(
        heard, b"question",
        "the client's first byte follows the header"
    );
    server.write_all(b"answer").await.expect("open");
    server.shutdown().await.expect("open");
    heard.clear();
    let read = soon("the answer", client.read_to_end(&mut heard)).await;
    read.expect("a clean end");
    assert_eq!(heard, b"answer");
}

#[tokio::test]
async fn every_dialled_backend_is_told_who_its_client_is() {
    for relay in RELAYS {
        for to in [To::Tcp, To::Unix, To::Registered] {
            for version in ["v1", "v2"] {
                let world = World::new(relay, to, version).await;
                let vestibule = &world.vestibule;
                let fronts = [
                    Front::Tcp(vestibule.tcp()),
                    Front::Unix(vestibule.path("front.sock")),
                ];
                for front in fronts {
                    let (client, (header, server)) = tokio::join!(front.connect(), world.server());
                    let client = client.expect("a handshake");
                    let decoded = decode(&header).await;
                    match (addresses(client.get_ref().0), version) {
                        (Some((source, dest)), _) => {
                            assert_eq!(decoded["type"], "IPv4");
                            assert_eq!((&decoded["source"], &decoded["dest"]), (&source, &dest));
                        }
                        (None, "v1") => assert_eq!(header, b"PROXY UNKNOWN\r\n"),
                        (None, _) => {
                            assert_eq!(decoded["type"], "LOCAL");
                            assert_eq!(decoded["authority"], "localhost");
                            assert!(decoded["id"].is_string(), "{decoded}");
                        }
                    }
                    talk(client, server).await;
                }
                vestibule.ended_over(relay, "done", 2).await;
                for closed in vestibule.closed() {
                    let bytes = (&closed["bytes_in"], &closed["bytes_out"]);
                    assert_eq!(
                        bytes,
                        (&json!(8), &json!(6)),
                        "no header is traffic: {closed}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn version_2_contains_the_result_of_the_tls_handshake() {
    for relay in RELAYS {
        let world = World::new(relay, To::Tcp, "v2").await;
        for (version, name, cipher) in [
            (&TLS12, "TLSv1.2", "ECDHE-ECDSA-"),
            (&TLS13, "TLSv1.3", "TLS_"),
        ] {
            let front = Front::Tcp(world.vestibule.tcp());
            let (client, (header, server)) =
                tokio::join!(with_alpn(&front, version), world.server());
            let decoded = decode(&header).await;
            for (key, expected) in [
                ("alpn", json!("h2")),
                ("authority", json!("localhost")),
                ("tls", json!(true)),
                ("cert_conn", json!(false)),
                ("cert_sess", json!(false)),
                ("verified", json!(false)),
                ("version", json!(name)),
                ("cn", Value::Null),
            ] {
                assert_eq!(decoded[key], expected, "{key}: {decoded}");
            }
            let suite = decoded["cipher"].as_str().expect("a cipher");
            assert!(suite.starts_with(cipher), "{suite}");
            // The log has the beginning of the same id.
            let id = decoded["id"].as_str().expect("an id").to_owned();
            talk(client, server).await;
            let closed = world
                .vestibule
                .event(|event| event["span"]["id"] == id[..8] && event["outcome"] == "done");
            closed.await;
        }
    }
}

async fn with_alpn(
    front: &Front,
    version: &'static tokio_rustls::rustls::SupportedProtocolVersion,
) -> Client {
    let mut config = (*client::config(&[version])).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().expect("a name");
    let socket = front.socket().await.expect("a connection");
    connector.connect(name, socket).await.expect("a handshake")
}

#[tokio::test]
async fn a_plaintext_client_has_an_address_and_no_tls() {
    let world = World::new(Relay::Auto, To::Tcp, "v2").await;
    let front = Front::Tcp(world.vestibule.address("plain"));
    let (client, (header, _server)) = tokio::join!(front.socket(), world.server());
    let (source, dest) = addresses(&client.expect("a connection")).expect("TCP");
    let decoded = decode(&header).await;
    assert_eq!((&decoded["source"], &decoded["dest"]), (&source, &dest));
    assert_eq!(
        (&decoded["tls"], &decoded["version"]),
        (&json!(false), &Value::Null)
    );
    assert!(decoded["id"].is_string(), "{decoded}");
}

#[tokio::test]
async fn the_backend_gets_its_header_before_the_client_sends_anything() {
    for to in [To::Tcp, To::Unix, To::Registered] {
        let world = World::new(Relay::Auto, to, "v2").await;
        let front = Front::Tcp(world.vestibule.tcp());
        let (client, (_, mut server)) = tokio::join!(front.connect(), world.server());
        let mut client = client.expect("a handshake");
        server.write_all(b"220 ready").await.expect("open");
        let mut greeting = [0; 9];
        let read = soon("the greeting", client.read_exact(&mut greeting)).await;
        read.expect("open");
        assert_eq!(&greeting, b"220 ready");
    }
}

#[tokio::test]
async fn a_worker_that_claims_gets_no_header() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config = "[[backend]]\nname = \"app\"\nto = \"gate\"\nproxy_protocol = \"v2\"\n";
    let vestibule = Vestibule::start_in(directory, config).await;
    let front = Front::Tcp(vestibule.tcp());
    let path = vestibule.gate();
    let (client, (_, worker)) = tokio::join!(front.connect(), gate::accept(&path, "app"));
    talk(client.expect("a handshake"), Socket::Unix(worker)).await;
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn a_backend_that_is_started_late_gets_one_header() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config = "[[backend]]\nname = \"app\"\nto = \"unix:{dir}/late.sock\"\n\
                  proxy_protocol = \"v1\"\n[timeouts]\nbackend = \"50s\"\n";
    let vestibule = Vestibule::start_in(Arc::clone(&directory), config).await;
    let client = client::connect(&vestibule.tcp())
        .await
        .expect("a handshake");
    let backend = Backend::unix(&directory.path().join("late.sock"));
    let mut server = soon("a dial", backend.accept()).await.expect("one");
    assert!(
        header(&mut server)
            .await
            .starts_with(b"PROXY TCP4 127.0.0.1 ")
    );
    talk(client, server).await;
    vestibule.ended("done", 1).await;
}

#[tokio::test]
async fn the_address_from_a_load_balancer_is_passed_on() {
    let backend = Backend::tcp().await;
    let config = format!(
        "[[listener]]\nname = \"tcp\"\naddress = \"tcp:127.0.0.1:0\"\n\
         accept_proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [[backend]]\nname = \"app\"\nto = \"{}\"\nproxy_protocol = \"v2\"\n",
        backend.address()
    );
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_whole(directory, &config).await;
    let front = Front::Tcp(vestibule.tcp());
    for (line, kind, source, dest) in [
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n",
            "IPv6",
            "2001:db8::7",
            "2001:db8::1",
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 443\r\n",
            "IPv4",
            "192.0.2.7",
            "198.51.100.1",
        ),
        (
            "PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 51234 443\r\n",
            "IPv6",
            "2001:db8::7",
            "::ffff:198.51.100.1",
        ),
    ] {
        let mut socket = front.socket().await.expect("a connection");
        socket.write_all(line.as_bytes()).await.expect("open");
        let mut server = soon("a dial", backend.accept()).await.expect("one");
        let decoded = decode(&header(&mut server).await).await;
        assert_eq!(decoded["type"], kind);
        // Versions of Python differ in how they write a mapped address.
        let is = |end: &str, ip: &str, port: &str| {
            let found = decoded[end][0].as_str().expect("an address");
            let found: IpAddr = found.parse().expect("an address");
            assert_eq!(
                (found.to_string(), &decoded[end][1]),
                (ip.to_owned(), &json!(port))
            );
        };
        is("source", source, "51234");
        is("dest", dest, "443");
    }
}

#[tokio::test]
async fn the_short_form_greets_the_backend_too() {
    let directory: TempDir = tempfile::tempdir().expect("a directory");
    for (version, start) in [
        ("v1", &b"PROXY TCP4 "[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"),
    ] {
        let backend = Backend::tcp().await;
        let mut command = vestibule();
        command
            .args(["run", "--listen", "127.0.0.1:0", "--to", &backend.address()])
            .args(["--proxy-protocol", version])
            .args(["--cert", &project("certs/server.pem")])
            .args(["--key", &project("certs/server-key.pem")])
            .current_dir(Path::new(directory.path()));
        let running = Process::start(command);
        let line = running.line("listening on tcp:").await;
        let address = line.split("tcp:").nth(1).expect("an address");
        let address = address.split(' ').next().expect("an address").to_owned();
        let (client, server) = tokio::join!(client::connect(&address), backend.accept());
        let mut server = server.expect("a dial");
        assert!(header(&mut server).await.starts_with(start), "{version}");
        talk(client.expect("a handshake"), server).await;
    }
}
