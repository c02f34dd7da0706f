//! Keys: every suite carries bytes in both directions, and a connection outlives its keys.

mod common;

use common::bytes::Bytes;
use common::client::Socket;
use common::process::{Process, curl, run, s_client};
use common::soon;
use common::vestibule::RELAYS;
use common::world::{To, World, all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

const MIB: usize = 1024 * 1024;

/// The options for `openssl` and `curl` that select the version and the suite.
struct Suite {
    name: &'static str,
    openssl: [&'static str; 2],
    curl: [&'static str; 2],
}

const TLS12: Suite = Suite {
    name: "",
    openssl: ["-tls1_2", "-cipher"],
    curl: ["--tls-max=1.2", "--ciphers"],
};

const TLS13: Suite = Suite {
    name: "",
    openssl: ["-tls1_3", "-ciphersuites"],
    curl: ["--tlsv1.3", "--tls13-ciphers"],
};

const SUITES: [Suite; 6] = [
    Suite {
        name: "TLS_AES_128_GCM_SHA256",
        ..TLS13
    },
    Suite {
        name: "TLS_AES_256_GCM_SHA384",
        ..TLS13
    },
    Suite {
        name: "TLS_CHACHA20_POLY1305_SHA256",
        ..TLS13
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        ..TLS12
    },
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        ..TLS12
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        ..TLS12
    },
];

fn mebibyte(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    Bytes::seeded(seed).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn openssl_sends_and_gets_a_mebibyte_with_every_suite() {
    let (question, answer) = (mebibyte(1), mebibyte(2));
    for relay in RELAYS {
        let world = World::new((relay, To::Unix), "").await;
        for (number, suite) in SUITES.iter().enumerate() {
            let mut command = s_client(&world.vestibule.tcp());
            command.arg("-quiet").args(suite.openssl).arg(suite.name);
            let serve = async {
                let mut server = world.server().await;
                expect(&mut server, &question).await;
                server.write_all(&answer).await.expect("a client");
                server.shutdown().await.expect("a client");
                // A Unix socket that is closed with unread bytes would reset its peer.
                let _ = server.read_to_end(&mut Vec::new()).await;
            };
            let (done, ()) = tokio::join!(run(command, &question), soon(suite.name, serve));
            assert!(done.ok() == answer, "{relay:?} {}", suite.name);
            world.ended("done", number + 1).await;
        }
    }
}

#[tokio::test]
async fn curl_sends_and_gets_a_mebibyte_with_every_suite() {
    let (question, answer) = (mebibyte(3), mebibyte(4));
    for relay in RELAYS {
        let world = World::new((relay, To::Unix), "").await;
        let url = format!(
            "https://{}/",
            world.vestibule.tcp().replace("127.0.0.1", "localhost")
        );
        for (number, suite) in SUITES.iter().enumerate() {
            let mut command: Command = curl();
            let [version, ciphers] = suite.curl;
            command
                .args(version.split('='))
                .args([ciphers, suite.name])
                // Without waiting for `100 Continue`.
                .args(["-H", "Expect:", "--data-binary", "@-", &url]);
            let serve = async {
                let mut server = world.server().await;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(server.read_u8().await.expect("a head"));
                }
                expect(&mut server, &question).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n");
                server.write_all(head.as_bytes()).await.expect("a client");
                server.write_all(&answer).await.expect("a client");
                let end = server.read(&mut [0]).await;
                assert_eq!(end.expect("an end in order"), 0);
            };
            let (done, ()) = tokio::join!(run(command, &question), soon(suite.name, serve));
            assert!(done.ok() == answer, "{relay:?} {}", suite.name);
            world.ended("done", number + 1).await;
        }
    }
}

/// Reads as many bytes as `expected` has, and compares them.
async fn expect(server: &mut Socket, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    server.read_exact(&mut heard).await.expect("more bytes");
    assert!(heard == expected, "other bytes than were sent");
}

#[tokio::test]
async fn openssl_updates_its_keys_and_ours_and_continues() {
    /// Key updates with and without a request for ours.
    const COMMANDS: [&str; 6] = ["K", "k", "K", "K", "k", "K"];
    for relay in RELAYS {
        let world = World::new((relay, To::Unix), "").await;
        let of_1_3 = SUITES.iter().filter(|suite| suite.openssl[0] == "-tls1_3");
        for (number, suite) in of_1_3.enumerate() {
            let (client, mut stdin, mut server) = converse(&world, suite).await;
            say_and_hear(&client, &mut stdin, &mut server, 0).await;
            let mut answers = 0;
            for (turn, command) in COMMANDS.iter().enumerate() {
                tell(&mut stdin, command).await;
                client.lines("KEYUPDATE", turn + 1).await;
                // openssl changes its keys with its next write, and we change ours no later than
                // that (RFC 8446 §4.6.3).
                say_and_hear(&client, &mut stdin, &mut server, turn + 1).await;
                answers += usize::from(*command == "K");
                let update = "<<< TLS 1.3, Handshake [length 0005], KeyUpdate";
                assert_eq!(client.lines(update, answers).await.len(), answers);
            }
            // Enough bytes for records of every size.
            let answer = vec![b'a'; 100_000];
            server.write_all(&answer).await.expect("a client");
            server.write_all(b"\nall of it\n").await.expect("a client");
            client.line("all of it").await;

            tell(&mut stdin, "Q").await;
            let end = soon("the end", server.read(&mut [0])).await;
            assert_eq!(end.expect("close_notify"), 0);
            drop(server);
            world.ended("done", number + 1).await;
        }
    }
}

/// The client of openssl gives up when its renegotiation is refused. The promise is that it gets
/// the alert, and that no other connection is affected.
#[tokio::test]
async fn renegotiation_by_openssl_is_refused_with_an_alert() {
    for relay in RELAYS {
        let world = World::new((relay, To::Unix), "").await;
        let of_1_2 = SUITES.iter().filter(|suite| suite.openssl[0] == "-tls1_2");
        for (number, suite) in of_1_2.enumerate() {
            let (other, mut others_stdin, mut others_server) = converse(&world, suite).await;
            let (client, mut stdin, mut server) = converse(&world, suite).await;
            say_and_hear(&client, &mut stdin, &mut server, 0).await;
            tell(&mut stdin, "R").await;
            client.line("RENEGOTIATING").await;
            // It asks with its next write. One that asked without this write may be gone by now.
            let _ = stdin.write_all(b"never heard\n").await;
            let told = "<<< TLS 1.2, Alert [length 0002], warning no_renegotiation";
            client.line(told).await;
            let (status, said) = client.wait().await;
            assert!(!status.success(), "{said:?}");
            let end = soon("the end", server.read(&mut [0])).await;
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            world.ended("client_reset", number + 1).await;

            say_and_hear(&other, &mut others_stdin, &mut others_server, 0).await;
            tell(&mut others_stdin, "Q").await;
            let end = soon("the end", others_server.read(&mut [0])).await;
            assert_eq!(end.expect("close_notify"), 0);
            drop(others_server);
            world.ended("done", number + 1).await;
        }
    }
}

/// `openssl s_client` that accepts commands, and the backend's end of its connection.
async fn converse(world: &World, suite: &Suite) -> (Process, ChildStdin, Socket) {
    let mut command = s_client(&world.vestibule.tcp());
    command.arg("-msg").args(suite.openssl).arg(suite.name);
    let (client, stdin) = Process::start_listening(command);
    (client, stdin, world.server().await)
}

/// A word from the client, and one back.
async fn say_and_hear(
    client: &Process,
    stdin: &mut ChildStdin,
    server: &mut Socket,
    number: usize,
) {
    let (word, answer) = (format!("word {number}"), format!("answer {number}"));
    tell(stdin, &word).await;
    let line = format!("{word}\n");
    soon("a word", expect(server, line.as_bytes())).await;
    let line = format!("{answer}\n");
    server.write_all(line.as_bytes()).await.expect("a client");
    client.line(&answer).await;
}

/// Sends a line in one write: the first letter of each read is a command.
async fn tell(stdin: &mut ChildStdin, line: &str) {
    let line = format!("{line}\n");
    stdin.write_all(line.as_bytes()).await.expect("a client");
    stdin.flush().await.expect("a client");
}

#[tokio::test]
async fn rustls_changes_all_keys_again_and_again_while_bytes_pass() {
    const TURNS: usize = 40;
    for (relay, to) in all() {
        let world = World::new((relay, to), "").await;
        for (number, front) in world.fronts().iter().enumerate() {
            let (mut client, mut server) = world.pair(front).await;
            let turns = async {
                for turn in 0..TURNS {
                    let connection = client.get_mut().1;
                    connection.refresh_traffic_keys().expect("TLS 1.3");
                    let words = vec![turn as u8; 1 + turn * 1_000];
                    client.write_all(&words).await.expect("a relay");
                    client.flush().await.expect("a relay");
                    expect(&mut server, &words).await;
                    server.write_all(&words).await.expect("a relay");
                    let mut heard = vec![0; words.len()];
                    client.read_exact(&mut heard).await.expect("a relay");
                    assert!(heard == words, "other bytes than were sent");
                }
                client.shutdown().await.expect("a relay");
                assert_eq!(server.read(&mut [0]).await.expect("an end"), 0);
            };
            soon("all turns", turns).await;
            drop(server);
            assert_eq!(client.read(&mut [0]).await.expect("close_notify"), 0);
            world.ended("done", number + 1).await;
        }
    }
}
