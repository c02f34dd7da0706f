//! Behind a load balancer: the PROXY protocol header says whose connection it is.

mod common;

use std::net::SocketAddr;

use common::balancer::{
    Joined, LINE, LOCAL, all_fronts, assert_closed, assert_echoes, from, fronts, sent, start,
    unix_addresses, v2,
};
use common::client::{self, Front, Socket, handshake};
use common::vestibule::{RELAYS, Vestibule};
use common::{gate, soon, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;

const GATE: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";
const ECHO: &str = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";

#[tokio::test]
async fn facts_limits_and_logs_use_the_client_in_the_header() {
    let mapped = [&[0; 10][..], &[0xFF, 0xFF, 192, 0, 2, 7]].concat();
    let mapped = v2(0x21, &[&mapped[..], &mapped, &[0, 80, 1, 0xBB]].concat());
    for relay in RELAYS {
        let vestibule = start(&(relay.config() + GATE)).await;
        for front in fronts(&vestibule) {
            for (header, peer, local) in [
                (LINE, json!("192.0.2.7:51234"), json!("198.51.100.1:443")),
                (
                    b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
                    json!("[2001:db8::1]:1"),
                    json!("[::1]:2"),
                ),
                (&mapped, json!("192.0.2.7:80"), json!("192.0.2.7:443")),
                (
                    &unix_addresses(),
                    json!("unix:/run/client"),
                    json!("unix:/run/front"),
                ),
            ] {
                let facts = facts_of(&vestibule, &front, header).await;
                assert_eq!((&facts["peer"], &facts["local"]), (&peer, &local));
            }
        }
        vestibule.ended_over(relay, "done", 8).await;
        for closed in vestibule.closed() {
            assert_eq!(
                (&closed["bytes_in"], &closed["bytes_out"]),
                (&json!(1), &json!(1))
            );
        }
    }
}

/// The facts that a worker gets about a client with this header.
async fn facts_of(vestibule: &Vestibule, front: &Front, header: &[u8]) -> Value {
    let client = async {
        let mut client = handshake(sent(front, header).await).await.expect("TLS");
        client.write_all(b"?").await.expect("open");
        assert_eq!(
            soon("an answer", client.read_u8()).await.expect("one"),
            b'!'
        );
        client.shutdown().await.expect("open");
    };
    let worker = async {
        let (facts, mut socket) = gate::accept(&vestibule.gate(), "app").await;
        assert_eq!(socket.read_u8().await.expect("a word"), b'?');
        socket.write_u8(b'!').await.expect("open");
        facts
    };
    soon("a conversation", async { tokio::join!(client, worker).1 }).await
}

#[tokio::test]
async fn without_addresses_in_the_header_those_of_the_socket_are_used() {
    let vestibule = start(GATE).await;
    let local = vestibule.tcp();
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN whatever it is\r\n",
        LOCAL,
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0C0123456789AB",
        &v2(0x00, b""),
        &v2(0x12, &[1; 12]),
    ] {
        let [tcp, unix] = fronts(&vestibule);
        let facts = facts_of(&vestibule, &tcp, header).await;
        let peer = facts["peer"].as_str().expect("an address");
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        assert_eq!(facts["local"], local.as_str());
        let facts = facts_of(&vestibule, &unix, header).await;
        assert_eq!(facts["peer"], Value::Null);
        let path = vestibule.path("front.sock");
        assert_eq!(facts["local"], format!("unix:{}", path.display()));
    }
}

#[tokio::test]
async fn a_plaintext_client_is_known_by_its_header_too() {
    let vestibule = start(GATE).await;
    let front = Front::Tcp(vestibule.address("plain"));
    let mut client = sent(&front, &[LINE, b"hello"].concat()).await;
    let (facts, mut worker) = soon("a claim", gate::accept(&vestibule.gate(), "app")).await;
    assert_eq!(facts["peer"], "192.0.2.7:51234");
    client.shutdown().await.expect("open");
    let mut said = String::new();
    worker.read_to_string(&mut said).await.expect("text");
    assert_eq!(said, "hello");
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    for relay in RELAYS {
        let vestibule = start(&(relay.config() + ECHO)).await;
        for front in fronts(&vestibule) {
            for header in [LINE, LOCAL, &unix_addresses()] {
                let mut socket = front.socket().await.expect("a connection");
                for byte in header {
                    socket.write_all(&[*byte]).await.expect("open");
                    tokio::task::yield_now().await;
                }
                assert_echoes(handshake(socket).await.expect("a handshake")).await;
            }
        }
        vestibule.ended_over(relay, "done", 6).await;
    }
}

#[tokio::test]
async fn a_header_and_the_first_payload_may_come_in_one_segment() {
    for relay in RELAYS {
        let vestibule = start(&(relay.config() + ECHO)).await;
        for front in fronts(&vestibule) {
            for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
                for header in [LINE, LOCAL, &unix_addresses()] {
                    let joined = Joined {
                        first: header.to_vec(),
                        socket: front.socket().await.expect("a connection"),
                    };
                    let connector = TlsConnector::from(client::config(&[version]));
                    let name = "localhost".try_into().expect("a name");
                    let client = connector.connect(name, joined).await;
                    assert_echoes(client.expect("a handshake")).await;
                }
            }
        }
        vestibule.ended_over(relay, "done", 12).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_or_right_after_the_header_is_client_gone() {
    let vestibule = start(ECHO).await;
    let mut gone = 0;
    for front in fronts(&vestibule) {
        for header in [LINE, LOCAL] {
            for length in 0..=header.len() {
                let mut socket = sent(&front, &header[..length]).await;
                socket.shutdown().await.expect("open");
                assert_closed(socket).await;
                gone += 1;
            }
        }
    }
    vestibule.ended("client_gone", gone).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
}

#[tokio::test]
async fn an_invalid_header_is_closed_without_an_answer() {
    let vestibule = start(ECHO).await;
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    let checksum = [
        &[192, 0, 2, 7, 198, 51, 100, 1, 200, 34, 1, 187][..],
        b"\x03\0\x04sums",
    ]
    .concat();
    let wrong: [&[u8]; 9] = [
        &hello,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 +443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n",
        &[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(),
        &v2(0x11, b""),
        &v2(0x00, &[0; 521]),
        &v2(0x11, &checksum),
        b"\r\n\r\n\0\r\nQUIT\n\x11",
    ];
    let mut failed = 0;
    for front in all_fronts(&vestibule) {
        for bytes in wrong {
            assert_closed(sent(&front, bytes).await).await;
            failed += 1;
        }
    }
    vestibule.ended("handshake_failed", failed).await;
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
}

#[tokio::test]
async fn an_untrusted_peer_is_denied_before_it_sends_anything() {
    let vestibule = start(ECHO).await;
    let address: SocketAddr = vestibule.tcp().parse().expect("an address");
    for header in [LINE, LOCAL, b""] {
        let mut socket = stranger(address).await;
        // It may be closed already.
        let _ = socket.write_all(header).await;
        assert_closed(socket).await;
    }
    vestibule.ended("denied", 3).await;
    let closed = &vestibule.closed()[0]["span"];
    let proxy = closed["proxy"].as_str().expect("who was denied");
    assert!(proxy.starts_with("127.0.0.2:"), "{closed}");
    assert_eq!(closed["peer"], Value::Null, "{closed}");
    // Trusted peers are admitted as before.
    let front = Front::Tcp(vestibule.tcp());
    let client = handshake(sent(&front, LINE).await).await;
    assert_echoes(client.expect("a handshake")).await;
    vestibule.ended("done", 1).await;
    let closed = &vestibule.closed()[3]["span"];
    assert_eq!(closed["peer"], "192.0.2.7:51234", "{closed}");
}

#[tokio::test]
async fn untrusted_peers_take_no_room_from_trusted_ones() {
    const MOST: usize = 3;
    let vestibule = start(&format!(
        "[limits]\npending = {MOST}\nhandshaking = {MOST}\n{ECHO}"
    ))
    .await;
    let [tcp, _, plain] = all_fronts(&vestibule);
    let addresses = [vestibule.tcp(), vestibule.address("plain")];
    // They stay until the end, whatever happens to them on the other side.
    let mut strangers = Vec::new();
    for address in addresses.map(|address| address.parse().expect("an address")) {
        for _ in 0..4 * MOST {
            strangers.push(stranger(address).await);
        }
    }
    let client = handshake(sent(&tcp, LINE).await).await;
    assert_echoes(client.expect("a handshake")).await;
    assert_echoes_plain(sent(&plain, &[LINE, b"word"].concat()).await).await;
    vestibule.ended("done", 2).await;
    vestibule.ended("denied", strangers.len()).await;
    assert_eq!(vestibule.outcomes().len(), 2, "{:?}", vestibule.outcomes());
}

/// A connection from an address that is not trusted.
async fn stranger(address: SocketAddr) -> Socket {
    let socket = TcpSocket::new_v4().expect("a socket");
    let source = "127.0.0.2:0".parse().expect("an address");
    socket.bind(source).expect("an address of this machine");
    Socket::Tcp(socket.connect(address).await.expect("a connection"))
}

#[tokio::test]
async fn header_and_handshake_share_one_time_limit() {
    let vestibule = start(&format!("[timeouts]\nhandshake = \"500ms\"\n{ECHO}")).await;
    let [tcp, unix, plain] = all_fronts(&vestibule);
    let mut open = Vec::new();
    for front in [&tcp, &unix, &plain] {
        for part in [&b""[..], &LINE[..20], &LOCAL[..15]] {
            open.push(sent(front, part).await);
        }
    }
    // A complete header and then silence, on the listeners where a handshake must follow.
    for front in [&tcp, &unix] {
        open.push(sent(front, LINE).await);
    }
    let count = open.len();
    for socket in open {
        assert_closed(socket).await;
    }
    vestibule.ended("handshake_timeout", count).await;
    let client = sent(&plain, &[LINE, b"word"].concat()).await;
    assert_echoes_plain(client).await;
}

async fn assert_echoes_plain(mut client: Socket) {
    client.shutdown().await.expect("open");
    let mut answer = Vec::new();
    let read = soon("the echo", client.read_to_end(&mut answer)).await;
    read.expect("a clean end");
    assert_eq!(answer, b"word");
}

#[tokio::test]
async fn each_client_behind_the_load_balancer_has_its_own_share() {
    const MOST: usize = 3;
    let limits = format!("[limits]\nconnections_per_ip = {MOST}\nconnections = 8\n");
    let vestibule = start(&(limits + ECHO)).await;
    for (round, front) in fronts(&vestibule).into_iter().enumerate() {
        let connect = async |host| handshake(sent(&front, &from(host)).await).await;
        // Connections without a header do not count for any client: a load balancer may open any
        // number.
        let alone = vestibule.descriptors();
        let mut early = Vec::new();
        for _ in 0..=MOST {
            early.push(sent(&front, b"").await);
        }
        until("all are in", || vestibule.descriptors() > alone + MOST).await;
        for (socket, host) in early.iter_mut().zip(11..) {
            socket.write_all(&from(host)).await.expect("room");
        }
        for socket in early {
            assert_echoes(handshake(socket).await.expect("room")).await;
        }
        vestibule.ended("done", 13 * round + 4).await;
        let mut open = Vec::new();
        for host in [1, 2] {
            for _ in 0..MOST {
                open.push(connect(host).await.expect("room"));
            }
            assert_closed(sent(&front, &from(host)).await).await;
        }
        vestibule.ended("over_limit", 4 * round + 2).await;
        assert_eq!(last_limit(&vestibule), "limits.connections_per_ip");
        // The end of one makes room for the same client, and for one connection only.
        assert_echoes(open.remove(0)).await;
        vestibule.ended("done", 13 * round + 5).await;
        open.push(connect(1).await.expect("room"));
        assert_closed(sent(&front, &from(1)).await).await;
        vestibule.ended("over_limit", 4 * round + 3).await;
        // The total counts from the accept on, before the client is known.
        for _ in 0..2 {
            open.push(connect(3).await.expect("room"));
        }
        assert_closed(sent(&front, b"").await).await;
        vestibule.ended("over_limit", 4 * round + 4).await;
        assert_eq!(last_limit(&vestibule), "limits.connections");
        for client in open {
            assert_echoes(client).await;
        }
        vestibule.ended("done", 13 * round + 13).await;
    }
}

fn last_limit(vestibule: &Vestibule) -> String {
    let log = vestibule.log();
    let last = log.iter().rfind(|event| event["limit"].is_string());
    last.expect("a limit")["limit"]
        .as_str()
        .expect("a key")
        .to_owned()
}

#[tokio::test]
async fn routes_match_the_client_and_not_the_load_balancer() {
    let routes = "[[route]]\nfrom = [\"127.0.0.0/8\", \"192.0.2.9\"]\ndeny = true\n\
                  [[route]]\nfrom = \"192.0.2.0/24\"\nbackend = \"app\"\n";
    let vestibule = start(&format!("{routes}{ECHO}")).await;
    let mut times = 0;
    for front in fronts(&vestibule) {
        times += 1;
        let client = handshake(sent(&front, &from(7)).await).await;
        assert_echoes(client.expect("a handshake")).await;
        vestibule.ended("done", times).await;
        let refused = handshake(sent(&front, &from(9)).await).await;
        assert!(refused.is_err());
        vestibule.ended("denied", times).await;
        let strange = b"PROXY TCP4 203.0.113.1 198.51.100.1 51234 443\r\n";
        assert!(handshake(sent(&front, strange).await).await.is_err());
        vestibule.ended("no_route", times).await;
    }
}
