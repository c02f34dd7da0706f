//! A proxy whose only backend is the test, for each relay and each kind of backend.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::backend::Backend;
use super::client::{Client, Front, Socket};
use super::vestibule::{RELAYS, Relay, Vestibule};
use super::{gate, soon};

/// The kind of backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    Tcp,
    Unix,
    Gate,
    Registered,
}

const KINDS: [To; 4] = [To::Tcp, To::Unix, To::Gate, To::Registered];

/// Every relay with every kind of backend.
pub fn all() -> impl Iterator<Item = (Relay, To)> {
    RELAYS
        .into_iter()
        .flat_map(|relay| KINDS.map(|to| (relay, to)))
}

/// A proxy whose only backend is the test.
pub struct World {
    pub vestibule: Vestibule,
    relay: Relay,
    backend: Option<Backend>,
    _registration: Option<UnixStream>,
}

impl World {
    pub async fn new((relay, to): (Relay, To), timeouts: &str) -> Self {
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
        let config = format!(
            "{}[timeouts]\n{timeouts}\n[[backend]]\nname = \"app\"\nto = \"{address}\"\n",
            relay.config()
        );
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
            relay,
            backend,
            _registration: registration,
        }
    }

    pub fn fronts(&self) -> [Front; 2] {
        [
            Front::Tcp(self.vestibule.tcp()),
            Front::Unix(self.vestibule.path("front.sock")),
        ]
    }

    /// Waits until `count` connections have ended with `outcome`, and checks the relay of all.
    pub async fn ended(&self, outcome: &str, count: usize) {
        self.vestibule.ended_over(self.relay, outcome, count).await;
    }

    /// The backend's side of the next connection.
    pub async fn server(&self) -> Socket {
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

    /// Both sides of a new connection, after a first exchange.
    pub async fn pair(&self, front: &Front) -> (Client, Socket) {
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

/// Runs a test over both relays, both listeners and all kinds of backends.
pub async fn everywhere<F>(timeouts: &str, outcome: &str, test: impl Fn(Client, Socket) -> F)
where
    F: Future<Output = ()>,
{
    for (relay, to) in all() {
        let world = World::new((relay, to), timeouts).await;
        for (number, front) in world.fronts().iter().enumerate() {
            let (client, server) = world.pair(front).await;
            soon(
                &format!("{front:?} to {to:?} over {relay:?}"),
                test(client, server),
            )
            .await;
            world.ended(outcome, number + 1).await;
        }
        assert_eq!(
            world.vestibule.outcomes().len(),
            1,
            "{:?}",
            world.vestibule.outcomes()
        );
    }
}

/// On TCP this is a reset. A Unix socket is reset only by a close with unread bytes, and the relay
/// reads everything, so on a Unix socket this is an end.
pub async fn aborted(server: &mut Socket) {
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
