//! The line of a client that leaves at once.

use crate::*;

/// As log shippers do: a line, and nobody stays for an answer. Unread tickets make a reset of the close.
#[tokio::test]
async fn a_line_of_a_client_that_leaves_arrives() {
    for relay in RELAYS {
        for to in [To::Tcp, To::Gate] {
            for waits in [true, false] {
                let world = World::new((relay, to), "").await;
                for says_so in [true, false] {
                    let lines = lines(&world, to, waits, says_so).await;
                    let expected: Vec<String> = (0..how_many()).map(line).collect();
                    assert!(
                        lines == expected,
                        "{relay:?} {to:?} {waits} {says_so}: {lines:?}"
                    );
                }
            }
        }
    }
}

/// What arrives of so many clients, each of which says a line and closes, with `close_notify` or without.
/// The backend `waits` for them, or comes when all have left.
async fn lines(world: &World, to: To, waits: bool, says_so: bool) -> Vec<String> {
    let clients = async {
        for number in 0..how_many() {
            let mut client = world.fronts()[0].connect().await.expect("a handshake");
            let line = line(number);
            client
                .write_all(line.as_bytes())
                .await
                .expect("a connection");
            if says_so {
                client.shutdown().await.expect("a connection");
            }
        }
    };
    let backend = async {
        let mut lines = Vec::new();
        for _ in 0..how_many() {
            let mut server = world.server().await;
            let mut said = Vec::new();
            // How it ends is not what this is about.
            let _ = soon("an end", server.read_to_end(&mut said)).await;
            lines.push(String::from_utf8(said).expect("a line"));
        }
        lines
    };
    let mut lines = match waits || to == To::Tcp {
        true => tokio::join!(clients, backend).1,
        false => {
            clients.await;
            backend.await
        }
    };
    lines.sort();
    lines
}

/// As many clients as lines, of each kind.
fn how_many() -> usize {
    match runs() {
        1 => 25,
        _ => 200,
    }
}

fn line(number: usize) -> String {
    format!("line {number:03}\n")
}
