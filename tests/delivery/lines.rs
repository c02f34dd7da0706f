//! Clients that send one line and leave at once.

use crate::*;

/// Log shippers do this: they send a line and do not wait for an answer. The unread tickets turn
/// their close into a reset.
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

/// The lines that arrive from several clients, each of which sends a line and closes, with
/// `close_notify` or without. The backend is there first if it `waits`; otherwise it comes after
/// all clients have left.
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
            // The kind of the end does not matter here.
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

/// The number of clients of each kind.
fn how_many() -> usize {
    match runs() {
        1 => 25,
        _ => 200,
    }
}

fn line(number: usize) -> String {
    format!("line {number:03}\n")
}
