//! The Unix socket where workers come for connections.
//!
//! ```text
//! accept ─► credentials ─► a place ─► one line within 5 s ─► CLAIM, ACCEPT: handed over
//!                                                          └► WATCH, REGISTER: until closed
//! ```
//!
//! The line is read byte for byte and nothing behind it is touched: what follows is the
//! connection's stream, and goes with the socket.

pub(crate) mod line;
mod watch;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::pool::Registry;
use crate::deadline::Deadline;
use crate::id::Id;
use crate::limits::{Gauge, Slot};
use crate::rendezvous::wire::{LONGEST_LINE, Refusal, Request};
use crate::rendezvous::{Accepted, Rendezvous};
use crate::sys::descriptors::is_exhausted;
use crate::worker::Shared;

/// Where the gate is and who may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Absolute, or relative to the runtime directory.
    pub path: PathBuf,
    /// Beyond root and our own.
    pub allow_uids: HashSet<u32>,
    pub allow_gids: HashSet<u32>,
    /// Clients whose line is read, that wait, watch or are registered.
    pub max_clients: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("gate.sock"),
            allow_uids: HashSet::new(),
            allow_gids: HashSet::new(),
            max_clients: Some(1024),
        }
    }
}

impl Settings {
    /// The mode of the socket's file.
    ///
    /// A file has one owner and one group. For users of `allow_uids`, or of a second group, it is
    /// open to all, and who they are is asked of the kernel when they connect.
    pub(crate) fn mode(&self) -> u32 {
        match (self.allow_uids.len(), self.allow_gids.len()) {
            (0, 0) => 0o600,
            (0, 1) => 0o660,
            _ => 0o666,
        }
    }

    fn admits(&self, uid: u32, gid: u32) -> bool {
        uid == 0
            || uid == rustix::process::geteuid().as_raw()
            || self.allow_uids.contains(&uid)
            || self.allow_gids.contains(&gid)
    }
}

/// The open gate.
pub(crate) struct Gate {
    settings: Settings,
    shared: Arc<Shared>,
    places: Gauge,
    /// Those that are being told that they have no place.
    leaving: Gauge,
}

impl Gate {
    pub(crate) fn new(settings: Settings, shared: Arc<Shared>) -> Self {
        let places = Gauge::new(settings.max_clients);
        Self {
            settings,
            shared,
            places,
            leaving: Gauge::new(Some(MOST_LEAVING)),
        }
    }

    /// Serves clients until the drain starts, and tells those that wait that it has.
    pub(crate) async fn run(self, listener: UnixListener) {
        let gate = Arc::new(self);
        let clients = TaskTracker::new();
        let mut tick = interval(TIDY_UP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = gate.shared.drain.started() => break,
                _ = tick.tick() => gate.tidy_up(),
                client = gate.accept(&listener) => {
                    if let Some(client) = client {
                        clients.spawn(Arc::clone(&gate).serve(client));
                    }
                }
            }
        }
        // Until the last connection has ended: who comes now is told why it gets none.
        let late = async {
            loop {
                if let Some(client) = gate.accept(&listener).await {
                    let gate = Arc::clone(&gate);
                    clients.spawn(async move { gate.turn_away(client, Refusal::Draining).await });
                }
            }
        };
        tokio::select! {
            () = late => {}
            () = gate.shared.drain.time_is_up() => {}
        }
        clients.close();
        clients.wait().await;
    }

    /// Frees the places of claimers that are gone, and keeps a descriptor back again: until it next
    /// runs out of them, whoever has spent the reserve has no reason to.
    fn tidy_up(&self) {
        self.shared.rendezvous.prune(Claimer::is_alive);
        self.shared.reserve.refill();
    }

    /// The next client. Out of descriptors, the reserve lets one in at a time.
    async fn accept(&self, listener: &UnixListener) -> Option<UnixStream> {
        match listener.accept().await {
            Ok((client, _)) => Some(client),
            Err(error) if is_exhausted(&error) => {
                if !self.shared.reserve.spend() {
                    sleep(BACK_OFF).await;
                    self.shared.reserve.refill();
                }
                None
            }
            Err(error) => {
                warn!(%error, "the gate cannot accept; trying again");
                sleep(BACK_OFF).await;
                None
            }
        }
    }

    async fn serve(self: Arc<Self>, mut client: UnixStream) {
        let admitted = match client.peer_cred() {
            Ok(peer) if self.settings.admits(peer.uid(), peer.gid()) => self.places.take(),
            Ok(peer) => {
                debug!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    pid = peer.pid(),
                    "gate client forbidden"
                );
                return self.turn_away(client, Refusal::Forbidden).await;
            }
            Err(_) => return,
        };
        let Some(place) = admitted else {
            return self.turn_away(client, Refusal::Busy).await;
        };
        let line = tokio::select! {
            line = Deadline::after(LINE_BUDGET).bound(line::read(&client)) => line,
            () = self.shared.drain.time_is_up() => return,
        };
        let request = match line {
            Ok(Ok(Some(line))) => Request::parse(&line),
            // Too long, too slow, or ended in the middle.
            Ok(Ok(None) | Err(_)) | Err(_) => Err(Refusal::Malformed),
        };
        let refused = match request {
            Ok(Request::Claim(id)) => self.claim(id, client, place),
            Ok(Request::Accept(backend)) => self.wait(&backend, client, place),
            Ok(Request::Watch(backend)) => match self.watchable(&backend) {
                Ok(()) => return watch::serve(&self.shared, &backend, client).await,
                Err(refusal) => Err((refusal, detach(client))),
            },
            Ok(Request::Register(backend, address)) => {
                match self.register(&backend, &address, &mut client).await {
                    Ok(()) => return,
                    Err(refusal) => Err((refusal, detach(client))),
                }
            }
            Err(refusal) => Err((refusal, detach(client))),
        };
        if let Err((refusal, client)) = refused {
            refuse(client, refusal);
        }
    }

    /// Says no to a client that has not said its line yet. For a moment the line is still read: a
    /// client that writes into a closed socket would get a signal and not the answer.
    async fn turn_away(&self, mut client: UnixStream, refusal: Refusal) {
        let Some(_place) = self.leaving.take() else {
            return refuse(detach(client), refusal);
        };
        let goodbye = async {
            client.write_all(refusal.line().as_bytes()).await?;
            client.shutdown().await?;
            let mut line = client.take(LONGEST_LINE as u64);
            tokio::io::copy(&mut line, &mut tokio::io::sink()).await
        };
        // Whatever it says, the socket is closed next.
        let _ = Deadline::after(GOODBYE).bound(goodbye).await;
    }

    fn claim(&self, id: Id, client: UnixStream, place: Slot) -> Answered {
        let Some(stream) = detach(client) else {
            return Ok(());
        };
        match self
            .shared
            .rendezvous
            .claim(id, Claimer::Worker(stream, place))
        {
            Ok(()) => Ok(()),
            Err(unclaimed) => {
                let refusal = match self.shared.drain.is_started() {
                    true => Refusal::Draining,
                    false => Refusal::Unknown,
                };
                Err((refusal, untold(unclaimed.into_stream())))
            }
        }
    }

    fn wait(&self, backend: &str, client: UnixStream, place: Slot) -> Answered {
        let Some(stream) = detach(client) else {
            return Ok(());
        };
        if let Err(refusal) = self.registry(backend) {
            return Err((refusal, Some(stream)));
        }
        match self
            .shared
            .rendezvous
            .accept(backend, Claimer::Worker(stream, place))
        {
            Accepted::Matched(_) => Ok(()),
            Accepted::Queued => {
                // A reload may have come between, on another thread, and sent away those who waited.
                send_away(&self.shared, backend);
                Ok(())
            }
            Accepted::Drained(claimer) => Err((Refusal::Draining, untold(claimer))),
            // It left; there is nobody to tell.
            Accepted::Gone(_) => Ok(()),
        }
    }

    /// Serves at the address for as long as the client keeps its socket open, and the backend is one
    /// for workers.
    async fn register(
        &self,
        backend: &str,
        address: &Address,
        client: &mut UnixStream,
    ) -> Result<(), Refusal> {
        let registry = self.registry(backend)?;
        // Whoever may register could otherwise send the plaintext of others anywhere.
        if !address.is_local() {
            return Err(Refusal::Forbidden);
        }
        if self.shared.drain.is_started() {
            return Err(Refusal::Draining);
        }
        let registration = registry.register(address);
        debug!(backend, %address, "address registered");
        // If the answer cannot be written the client is gone, and the next read says so.
        let _ = client.write_all(b"OK {}\n").await;
        let mut rest = tokio::io::sink();
        tokio::select! {
            _ = tokio::io::copy(client, &mut rest) => {}
            // It notices, and can come again should the backend.
            () = registration.closed() => {}
            () = self.shared.drain.time_is_up() => {}
        }
        drop(registration);
        debug!(backend, %address, "address withdrawn");
        Ok(())
    }

    fn watchable(&self, backend: &str) -> Result<(), Refusal> {
        self.registry(backend)?;
        match self.shared.drain.is_started() {
            true => Err(Refusal::Draining),
            false => Ok(()),
        }
    }

    fn registry(&self, backend: &str) -> Result<Arc<Registry>, Refusal> {
        registry(&self.shared, backend)
    }
}

/// Where the backend's workers are registered, if it is one for workers.
fn registry(shared: &Shared, backend: &str) -> Result<Arc<Registry>, Refusal> {
    let setup = shared.setup.load();
    let backend = setup.backends.get(backend).ok_or(Refusal::Unknown)?;
    backend.registry().cloned().ok_or(Refusal::Forbidden)
}

/// Tells those who wait for connections of the backend, and watch it, if it is none for workers;
/// whether it is none.
pub(crate) fn send_away(shared: &Shared, backend: &str) -> bool {
    let Err(refusal) = registry(shared, backend) else {
        return false;
    };
    for claimer in shared.rendezvous.dismiss(backend) {
        refuse(untold(claimer), refusal);
    }
    true
}

/// Resolves all that waits at the rendezvous as drained, and sends the waiting workers away.
pub(crate) fn dismiss(rendezvous: &Rendezvous<Claimer>) {
    for claimer in rendezvous.drain() {
        refuse(untold(claimer), Refusal::Draining);
    }
}

/// `Err` is who is to be told no, and why.
type Answered = Result<(), (Refusal, Option<StdUnixStream>)>;

/// Takes the socket off this thread's reactor. `None` when the runtime is shutting down.
fn detach(client: UnixStream) -> Option<StdUnixStream> {
    client.into_std().ok()
}

fn untold(claimer: Claimer) -> Option<StdUnixStream> {
    match claimer {
        Claimer::Worker(stream, _) => Some(stream),
        Claimer::Handler(_) | Claimer::Told(_) => None,
    }
}

/// Says no and closes, without waiting for anything.
fn refuse(client: Option<StdUnixStream>, refusal: Refusal) {
    let Some(mut client) = client else {
        return;
    };
    debug!(%refusal, "gate client refused");
    // The first bytes on a socket with room for far more; if they fail the client is gone.
    let _ = client.write_all(refusal.line().as_bytes());
    // What the client had sent is read: closing over it would be a reset to the client.
    let _ = client.read(&mut [0; 4096]);
}

/// What a client has for its line, from connect on.
const LINE_BUDGET: Duration = Duration::from_secs(5);

/// What a client that is turned away has to hear so.
const GOODBYE: Duration = Duration::from_millis(500);
const MOST_LEAVING: usize = 64;

/// How long a claimer that is gone may keep its place, and the reserve may be spent.
const TIDY_UP_EVERY: Duration = Duration::from_secs(1);

const BACK_OFF: Duration = Duration::from_millis(50);
