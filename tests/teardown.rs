//! How connections end, over every kind of listener and every kind of backend.

mod common;

use std::io;
use std::path::Path;

use common::backend::Backend;
use common::client::{self, Client, Front, Socket};
use common::vestibule::Vestibule;
use common::{bytes, gate, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where the plaintext goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Tcp,
    Unix,
    Gate,
    Registered,
}

const KINDS: [To; 4] = [To::Tcp, To::Unix, To::Gate, To::Registered];

/// A proxy with one backend, of which the test is the server.
struct World {
    vestibule: Vestibule,
    to: To,
    backend: Option<Backend>,
    _registration: Option<UnixStream>,
}

impl World {
    async fn new(to: To, timeouts: &str) -> Self {
        let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
        let path = directory.path().join("backend.sock");
        let backend = match to {
            To::Tcp => Some(Backend::tcp().await),
            To::Unix | To::Registered => Some(Backend::unix(&path)),
            To::Gate => None,
        };
        let address = match (&backend, to) {
            (Some(backend), To::Tcp | To::Unix) => backend.address(),
            _ => "gate".into(),
        };
        let config =
            format!("[timeouts]\n{timeouts}\n[[backend]]\nname = \"app\"\nto = \"{address}\"\n");
        let vestibule = Vestibule::start_in(directory, &config).await;
        let mut registration = None;
        if to == To::Registered {
            let address = backend.as_ref().expect("made above").address();
            let mut socket =
                gate::send(&vestibule.gate(), &format!("REGISTER app {address}")).await;
            assert_eq!(gate::line(&mut socket).await.expect("an answer"), "OK {}");
            registration = Some(socket);
        }
        Self {
            vestibule,
            to,
            backend,
            _registration: registration,
        }
    }

    fn fronts(&self) -> [Front; 2] {
        [
            Front::Tcp(self.vestibule.tcp()),
            Front::Unix(self.vestibule.path("front.sock")),
        ]
    }

    /// The backend's side of the next connection.
    async fn server(&self) -> Socket {
        match &self.backend {
            Some(backend) => soon("a dial", backend.accept())
                .await
                .expect("a connection"),
            None => {
                let accepted = soon("a claim", gate::accept(&self.vestibule.gate(), "app")).await;
                Socket::Unix(accepted.1)
            }
        }
    }

    /// Both sides of a new connection, past their first words.
    async fn pair(&self, front: &Front) -> (Client, Socket) {
        let (client, mut server) = tokio::join!(
            async {
                let mut client = front.connect().await.expect("a handshake");
                client.write_all(b"?").await.expect("an open connection");
                client
            },
            self.server()
        );
        assert_eq!(
            soon("a word", server.read_u8()).await.expect("a word"),
            b'?'
        );
        (client, server)
    }
}

/// Runs a test over both listeners and all backends.
async fn everywhere<F>(timeouts: &str, outcome: &str, test: impl Fn(Client, Socket) -> F)
where
    F: Future<Output = ()>,
{
    for to in KINDS {
        let world = World::new(to, timeouts).await;
        for (number, front) in world.fronts().iter().enumerate() {
            let (client, server) = world.pair(front).await;
            soon(
                &format!("{front:?} to {:?}", world.to),
                test(client, server),
            )
            .await;
            world.vestibule.ended(outcome, number + 1).await;
        }
        assert_eq!(
            world.vestibule.outcomes().len(),
            1,
            "{:?}",
            world.vestibule.outcomes()
        );
    }
}

/// The rest of a stream whose end must be a clean one.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("a clean end");
    rest
}

#[tokio::test]
async fn bytes_pass_both_ways_whole_and_once() {
    const BYTES: usize = 8 * 1024 * 1024 + 3;
    everywhere("", "done", |client, server| async move {
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut server_reader, mut server_writer) = tokio::io::split(server);
        let (up, down, (), ()) = tokio::join!(
            bytes::send(&mut client_writer, 1, BYTES),
            bytes::send(&mut server_writer, 2, BYTES),
            bytes::expect(&mut server_reader, 1, BYTES),
            bytes::expect(&mut client_reader, 2, BYTES),
        );
        up.and(down).expect("open connections");
    })
    .await;
}

#[tokio::test]
async fn sixty_four_mebibytes_each_way_on_one_claimed_connection() {
    const BYTES: usize = 64 * 1024 * 1024;
    let world = World::new(To::Gate, "").await;
    let (client, server) = world.pair(&world.fronts()[0]).await;
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut server_reader, mut server_writer) = tokio::io::split(server);
    let (up, down, (), ()) = soon("64 MiB", async {
        tokio::join!(
            bytes::send(&mut client_writer, 1, BYTES),
            bytes::send(&mut server_writer, 2, BYTES),
            bytes::expect(&mut server_reader, 1, BYTES),
            bytes::expect(&mut client_reader, 2, BYTES),
        )
    })
    .await;
    up.and(down).expect("open connections");
    world.vestibule.ended("done", 1).await;
    let closed = &world.vestibule.closed()[0];
    assert_eq!(
        (closed["bytes_in"].as_u64(), closed["bytes_out"].as_u64()),
        (Some(BYTES as u64 + 1), Some(BYTES as u64))
    );
}

#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_whole_answer() {
    const ANSWER: usize = 10 * 1024 * 1024;
    everywhere("", "done", |mut client, mut server| async move {
        client.shutdown().await.expect("close_notify");
        assert!(rest(&mut server).await.is_empty());
        let answer = bytes::send(&mut server, 7, ANSWER);
        let ((), sent) = tokio::join!(bytes::expect(&mut client, 7, ANSWER), answer);
        sent.expect("an open connection");
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_closed_its_side_gets_the_whole_rest() {
    const REST: usize = 10 * 1024 * 1024;
    everywhere("", "done", |mut client, mut server| async move {
        server.shutdown().await.expect("an open connection");
        assert!(rest(&mut client).await.is_empty());
        let sending = bytes::send(&mut client, 9, REST);
        let ((), sent) = tokio::join!(bytes::expect(&mut server, 9, REST), sending);
        sent.expect("an open connection");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_ends_without_close_notify_is_a_truncation_and_aborts_the_backend() {
    everywhere("", "client_truncated", |client, mut server| async move {
        // What it sent before is in the backend's hands or is not; there is no clean end after.
        let (mut socket, _) = client.into_inner();
        socket.shutdown().await.expect("an open connection");
        aborted(&mut server).await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_the_client_resets_the_backend() {
    for to in KINDS {
        let world = World::new(to, "").await;
        let (client, mut server) = world.pair(&world.fronts()[0]).await;
        client::reset(client);
        soon("the backend's end", aborted(&mut server)).await;
        world.vestibule.ended("client_reset", 1).await;
    }
}

/// TCP says reset. A Unix socket has no reset but the one that closing over unread bytes makes, and
/// the relay reads everything: there it is an end.
async fn aborted(server: &mut Socket) {
    let read = server.read(&mut [0; 16]).await;
    match server {
        Socket::Tcp(_) => {
            assert_eq!(
                read.expect_err("a reset").kind(),
                io::ErrorKind::ConnectionReset
            );
        }
        Socket::Unix(_) => assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
    }
}

#[tokio::test]
async fn a_reset_of_the_backend_resets_the_client() {
    for to in KINDS {
        let world = World::new(to, "").await;
        let (mut client, server) = world.pair(&world.fronts()[0]).await;
        fail(server, &mut client).await;
        // Neither a clean end nor a truncation that could be taken for one: the socket is reset.
        let end = soon("the client's end", client.read_to_end(&mut Vec::new())).await;
        let kind = end.map_err(|error| error.kind());
        assert_eq!(
            kind,
            Err(io::ErrorKind::ConnectionReset),
            "{to:?} {:?}",
            world.vestibule.closed()
        );
        world.vestibule.ended("backend_reset", 1).await;
    }
}

/// Ends the backend's side with a reset: by itself on TCP, over unread bytes on a Unix socket.
async fn fail(server: Socket, client: &mut Client) {
    match server {
        Socket::Tcp(stream) => stream.set_zero_linger().expect("an open socket"),
        Socket::Unix(mut stream) => {
            client
                .write_all(b"unread")
                .await
                .expect("an open connection");
            // The first byte is here, and the others with it.
            stream.read_u8().await.expect("an open socket");
        }
    }
}

#[tokio::test]
async fn an_answer_given_before_the_question_was_heard_out_arrives_whole() {
    // What a server has not sent when it closes over unread bytes is lost in its own kernel.
    const ANSWER: usize = 16 * 1024;
    // On a Unix socket a close over unread bytes is a reset to whoever reads the answer, and no
    // end can be told from a broken one.
    let world = World::new(To::Tcp, "").await;
    for (number, front) in world.fronts().iter().enumerate() {
        let (client, mut server) = world.pair(front).await;
        let (mut reader, mut writer) = tokio::io::split(client);
        // An upload that nobody reads, as a server treats one that is too large: it answers,
        // closes its side, and leaves.
        let upload = async {
            while writer.write_all(&[0; 64 * 1024]).await.is_ok() {}
            // Sent away; the answer is still to be read.
            std::future::pending::<()>().await;
        };
        let answer = async {
            bytes::send(&mut server, 5, ANSWER)
                .await
                .expect("an open connection");
            drop(server);
        };
        let read = bytes::expect(&mut reader, 5, ANSWER);
        soon("the answer", async {
            tokio::select! {
                ((), ()) = async { tokio::join!(read, answer) } => {}
                () = upload => {}
            }
        })
        .await;
        world.vestibule.ended("backend_reset", number + 1).await;
    }
}

#[tokio::test]
async fn a_quiet_connection_is_closed_in_order_at_its_idle_timeout() {
    everywhere(
        "idle = \"200ms\"",
        "idle",
        |mut client, mut server| async move {
            assert!(rest(&mut client).await.is_empty(), "close_notify");
            // Nothing of it was unread, so it is an end for TCP too.
            assert!(rest(&mut server).await.is_empty());
        },
    )
    .await;
}

#[tokio::test]
async fn a_half_closed_connection_on_which_nothing_moves_is_closed_at_its_timeout() {
    let timeouts = "half_close = \"200ms\"";
    everywhere(
        timeouts,
        "half_closed",
        |mut client, mut server| async move {
            client.shutdown().await.expect("close_notify");
            assert!(rest(&mut server).await.is_empty());
            assert!(rest(&mut client).await.is_empty(), "close_notify");
        },
    )
    .await;
}

#[tokio::test]
async fn a_connection_ends_at_its_lifetime_though_bytes_move() {
    everywhere(
        "lifetime = \"400ms\"",
        "lifetime",
        |client, mut server| async move {
            let (mut reader, mut writer) = tokio::io::split(client);
            let (mut server_reader, mut server_writer) = tokio::io::split(&mut server);
            let chatter = async {
                while writer.write_all(b"x").await.is_ok() {
                    tokio::task::yield_now().await;
                }
                std::future::pending().await
            };
            let echo = async {
                // It ends in whatever way its socket does; the client's end is what is looked at.
                let _ = tokio::io::copy(&mut server_reader, &mut server_writer).await;
                std::future::pending().await
            };
            let mut echoed = Vec::new();
            tokio::select! {
                () = chatter => {}
                () = echo => {}
                read = reader.read_to_end(&mut echoed) => {
                    read.expect("close_notify");
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_stalled_backend_stops_the_client_and_a_stalled_client_the_backend() {
    /// More than all the sockets in between hold.
    const ENOUGH: usize = 64 * 1024 * 1024;
    for to in KINDS {
        let world = World::new(to, "").await;
        let (client, server) = world.pair(&world.fronts()[0]).await;
        let before = world.vestibule.memory();
        let (_, mut client_writer) = tokio::io::split(client);
        let (_, mut server_writer) = tokio::io::split(server);
        let (up, down) = tokio::join!(
            fill(&mut client_writer, ENOUGH),
            fill(&mut server_writer, ENOUGH)
        );
        assert!(
            up < ENOUGH && down < ENOUGH,
            "{to:?}: {up} and {down} bytes went nowhere"
        );
        let grown = world.vestibule.memory().saturating_sub(before);
        assert!(
            grown < 2 * 1024 * 1024,
            "{to:?}: {grown} bytes held for two stalled sides"
        );
    }
}

/// Writes until nothing more is taken for a moment, at most `most` bytes.
async fn fill(writer: &mut (impl AsyncWriteExt + Unpin), most: usize) -> usize {
    let block = [0; 64 * 1024];
    let mut written = 0;
    while written < most {
        let write =
            tokio::time::timeout(std::time::Duration::from_millis(500), writer.write(&block));
        match write.await {
            Ok(count) => written += count.expect("an open connection"),
            Err(_) => break,
        }
    }
    written
}

#[tokio::test]
async fn a_missing_backend_is_refused_or_waited_for_as_configured() {
    for (extra, outcome) in [
        ("park = false", "backend_refused"),
        ("park = true", "backend_timeout"),
    ] {
        let config = format!(
            "[timeouts]\nbackend = \"300ms\"\n[[backend]]\nname = \"app\"\nto = \"unix:{{dir}}/none\"\n{extra}\n"
        );
        let vestibule = Vestibule::start(&config).await;
        for front in [
            Front::Tcp(vestibule.tcp()),
            Front::Unix(vestibule.path("front.sock")),
        ] {
            let mut client = front.connect().await.expect("a handshake");
            client
                .write_all(b"question")
                .await
                .expect("an open connection");
            assert!(soon("an end", rest(&mut client)).await.is_empty());
        }
        vestibule.ended(outcome, 2).await;
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    }
}

#[tokio::test]
async fn plain_listeners_relay_as_tls_ones_do() {
    let config = r#"
[[listener]]
name = "tcp"
address = "127.0.0.1:0"
[[listener]]
name = "unix"
address = "unix:{dir}/plain.sock"
[[backend]]
name = "app"
to = "echo"
"#;
    let directory = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
    let vestibule = Vestibule::start_whole(directory, config).await;
    let path: &Path = &vestibule.path("plain.sock");
    for front in [Front::Tcp(vestibule.tcp()), Front::Unix(path.to_owned())] {
        let socket = front.socket().await.expect("a connection");
        let (mut reader, mut writer) = tokio::io::split(socket);
        const BYTES: usize = 3 * 1024 * 1024;
        let ((), sent) = soon("the echo", async {
            tokio::join!(
                bytes::expect(&mut reader, 3, BYTES),
                bytes::send(&mut writer, 3, BYTES)
            )
        })
        .await;
        sent.expect("an open connection");
    }
    vestibule.ended("done", 2).await;
}
