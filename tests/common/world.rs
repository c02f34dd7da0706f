//! A proxy with one backend, of which the test is the server, for each kind of backend.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::backend::Backend;
use super::client::{Client, Front, Socket};
use super::vestibule::Vestibule;
use super::{gate, soon};

/// Where the plaintext goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    Tcp,
    Unix,
    Gate,
    Registered,
}

pub const KINDS: [To; 4] = [To::Tcp, To::Unix, To::Gate, To::Registered];

/// A proxy with one backend, of which the test is the server.
pub struct World {
    pub vestibule: Vestibule,
    pub to: To,
    backend: Option<Backend>,
    _registration: Option<UnixStream>,
}

impl World {
    pub async fn new(to: To, timeouts: &str) -> Self {
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

    pub fn fronts(&self) -> [Front; 2] {
        [
            Front::Tcp(self.vestibule.tcp()),
            Front::Unix(self.vestibule.path("front.sock")),
        ]
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

    /// Both sides of a new connection, past their first words.
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

/// Runs a test over both listeners and all backends.
pub async fn everywhere<F>(timeouts: &str, outcome: &str, test: impl Fn(Client, Socket) -> F)
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
