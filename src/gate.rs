//! The Unix socket where workers come for connections.
//!
//! ```text
//! accept ─► credentials ─► a slot ─► one line within 5 s ─► CLAIM, ACCEPT: handed over
//!                                                        └► WATCH, REGISTER: until closed
//! ```
//!
//! The bytes after the line stay in the socket: they belong to the connection's stream, and move with
//! the socket.

mod admission;
pub(crate) mod line;
mod watch;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::admission::{AdmittedClient, RefusedClients};
use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::own_sockets::OwnSockets;
use crate::backend::pool::{Registry, Withdrawn};
use crate::deadline::Deadline;
use crate::id::Id;
use crate::limits::Slot;
use crate::proxy_state::ProxyState;
use crate::rendezvous::wire::{GateRefusal, Request};
use crate::rendezvous::{Accepted, Rendezvous};
use crate::sys::descriptors::is_exhausted;
use crate::sys::listeners;
use crate::sys::unix::{Access, BACKLOG};

/// The path of the gate, and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GateSettings {
    /// Absolute, or relative to the runtime directory.
    pub path: PathBuf,
    /// Users that may connect, beyond root and our own user.
    pub allow_uids: HashSet<u32>,
    pub allow_gids: HashSet<u32>,
    /// How many clients may be connected: those that send their line, wait, watch or are registered.
    /// `None` is unlimited.
    pub max_clients: Option<usize>,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("gate.sock"),
            allow_uids: HashSet::new(),
            allow_gids: HashSet::new(),
            max_clients: Some(1024),
        }
    }
}

impl GateSettings {
    /// The permissions of the socket's file. Its mode has room for one group; anything more needs an
    /// access control list.
    pub(crate) fn access(&self) -> Access {
        if let (true, 1) = (self.allow_uids.is_empty(), self.allow_gids.len()) {
            return Access {
                mode: 0o660,
                group: self.allow_gids.iter().next().copied(),
                ..Access::PRIVATE
            };
        }
        self.list()
    }

    /// How many clients may wait in the kernel for an accept. No more than `max_clients`: a longer
    /// queue would only delay the answer to clients that get no slot.
    pub(crate) fn backlog(&self) -> i32 {
        let places = self.max_clients.and_then(|most| i32::try_from(most).ok());
        places.unwrap_or(BACKLOG).clamp(LEAST_BACKLOG, BACKLOG)
    }

    /// As [`Self::access`], but always with an access control list: not every user may change the group
    /// of a file.
    pub(crate) fn list(&self) -> Access {
        Access {
            users: self.allow_uids.iter().copied().collect(),
            groups: self.allow_gids.iter().copied().collect(),
            ..Access::PRIVATE
        }
    }
}

/// The open gate.
pub(crate) struct Gate {
    settings: GateSettings,
    state: Arc<ProxyState>,
}

impl Gate {
    pub(crate) fn new(settings: GateSettings, state: Arc<ProxyState>) -> Self {
        Self { settings, state }
    }

    /// Serves clients until the drain starts. Then it answers every client with `draining` until the
    /// drain ends.
    pub(crate) async fn run(self, listener: UnixListener) {
        let gate = Arc::new(self);
        let clients = TaskTracker::new();
        let mut refused = RefusedClients::default();
        let mut tick = interval(TIDY_UP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = gate.state.drain.started() => break,
                _ = tick.tick() => {
                    gate.tidy_up();
                    refused.tick();
                }
                client = gate.accept(&listener) => {
                    let Some(client) = client else { continue };
                    match gate.admit(&client) {
                        Ok(admitted) => drop(clients.spawn(Arc::clone(&gate).serve(client, admitted))),
                        Err(Some(refusal)) => refused.tell(client, refusal),
                        Err(None) => {}
                    }
                }
            }
        }
        // Until the last connection has ended, clients that come now are told why they get none.
        let late = async {
            loop {
                if let Some(client) = gate.accept(&listener).await {
                    refused.tell(client, GateRefusal::Draining);
                }
            }
        };
        tokio::select! {
            () = late => {}
            () = gate.state.drain.time_is_up() => {}
        }
        clients.close();
        clients.wait().await;
    }

    /// Frees the slots of claimers that are gone, and refills the reserve of descriptors if it was
    /// spent.
    fn tidy_up(&self) {
        self.state.rendezvous.prune(Claimer::is_alive);
        self.state.reserve.refill();
    }

    /// Accepts the next client. Without free descriptors, the reserve admits one at a time.
    async fn accept(&self, listener: &UnixListener) -> Option<UnixStream> {
        match listener.accept().await {
            Ok((client, _)) => Some(client),
            Err(error) if is_exhausted(&error) => {
                if !self.state.reserve.spend() {
                    sleep(BACK_OFF).await;
                    self.state.reserve.refill();
                }
                None
            }
            Err(error) => {
                warn!(%error, "the gate cannot accept a worker; trying again");
                sleep(BACK_OFF).await;
                None
            }
        }
    }

    async fn serve(self: Arc<Self>, mut client: UnixStream, admitted: AdmittedClient) {
        let AdmittedClient { uid, slot } = admitted;
        let line = tokio::select! {
            line = Deadline::after(LINE_BUDGET).bound(line::read(&client)) => line,
            () = self.state.drain.time_is_up() => return,
        };
        let request = match line {
            Ok(Ok(Some(line))) => Request::parse(&line),
            // Too long, too slow, or closed before the end of the line.
            Ok(Ok(None) | Err(_)) | Err(_) => Err(GateRefusal::Malformed),
        };
        let refused = match request {
            Ok(Request::Claim(id)) => self.claim(id, client, slot),
            Ok(Request::Accept(backend)) => self.wait(&backend, client, slot),
            Ok(Request::Watch(backend)) => match self.watchable(&backend) {
                Ok(()) => return watch::serve(&self.state, &backend, client).await,
                Err(refusal) => Err((refusal, detach(client))),
            },
            Ok(Request::Register(backend, address)) => {
                match self.register(&backend, &address, uid, &mut client).await {
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

    fn claim(&self, id: Id, client: UnixStream, slot: Slot) -> Answered {
        let Some(stream) = detach(client) else {
            return Ok(());
        };
        match self
            .state
            .rendezvous
            .claim(id, Claimer::Worker(stream, slot))
        {
            Ok(()) => Ok(()),
            Err(unclaimed) => {
                let refusal = match self.state.drain.is_started() {
                    true => GateRefusal::Draining,
                    false => GateRefusal::Unknown,
                };
                Err((refusal, untold(unclaimed.into_stream())))
            }
        }
    }

    fn wait(&self, backend: &str, client: UnixStream, slot: Slot) -> Answered {
        let Some(stream) = detach(client) else {
            return Ok(());
        };
        if let Err(refusal) = self.registry(backend) {
            return Err((refusal, Some(stream)));
        }
        match self
            .state
            .rendezvous
            .accept(backend, Claimer::Worker(stream, slot))
        {
            Accepted::Matched(_) => Ok(()),
            Accepted::Queued => {
                // A reload on another thread may have removed the backend meanwhile, before this worker
                // waited.
                send_away(&self.state, backend);
                Ok(())
            }
            Accepted::Drained(claimer) => Err((GateRefusal::Draining, untold(claimer))),
            // The worker has left; nobody can be told.
            Accepted::Gone(_) => Ok(()),
        }
    }

    /// Registers the address for as long as the client keeps its socket open, the backend has `to =
    /// "gate"`, and the listener at the address belongs to the client's user.
    async fn register(
        &self,
        backend: &str,
        address: &Address,
        uid: u32,
        client: &mut UnixStream,
    ) -> Result<(), GateRefusal> {
        let registry = self.registry(backend)?;
        // Otherwise a worker could send the plaintext of other clients to any address.
        if !address.is_local() || !is_fit(address, uid, &self.state.own) {
            return Err(GateRefusal::Forbidden);
        }
        if self.state.drain.is_started() {
            return Err(GateRefusal::Draining);
        }
        let registration = registry.register(address, uid);
        debug!(backend, %address, "address registered");
        // If the answer cannot be written, the client is gone, and the next read fails.
        let _ = client.write_all(b"OK {}\n").await;
        let mut rest = tokio::io::sink();
        let withdrawn = tokio::select! {
            _ = tokio::io::copy(client, &mut rest) => None,
            // After a reload the client notices the close, and may register again.
            withdrawn = registration.closed() => Some(withdrawn),
            () = self.state.drain.time_is_up() => None,
        };
        drop(registration);
        debug!(backend, %address, "address withdrawn");
        match withdrawn {
            Some(Withdrawn::AsForeign) => Err(GateRefusal::Forbidden),
            Some(Withdrawn::ByReload) | None => Ok(()),
        }
    }

    fn watchable(&self, backend: &str) -> Result<(), GateRefusal> {
        self.registry(backend)?;
        match self.state.drain.is_started() {
            true => Err(GateRefusal::Draining),
            false => Ok(()),
        }
    }

    fn registry(&self, backend: &str) -> Result<Arc<Registry>, GateRefusal> {
        registry(&self.state, backend)
    }
}

/// Whether a user may register the address, as far as it can be checked before the first dial. The
/// listener at the address is checked again at each dial.
fn is_fit(address: &Address, uid: u32, own: &OwnSockets) -> bool {
    if own.at(address).is_some() {
        return false;
    }
    let Address::Tcp { host, port } = address else {
        return true;
    };
    let ips = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip.to_canonical()],
        // The address is local, so this is the name `localhost`.
        Err(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    };
    let owners = ips
        .into_iter()
        .map(|ip| listeners::owner(SocketAddr::new(ip, *port)));
    owners.flatten().flatten().all(|owner| owner == uid)
}

/// The registry of the backend's workers, if the backend has `to = "gate"`.
fn registry(state: &ProxyState, backend: &str) -> Result<Arc<Registry>, GateRefusal> {
    let config = state.config.load();
    let backend = config.backends.get(backend).ok_or(GateRefusal::Unknown)?;
    backend.registry().cloned().ok_or(GateRefusal::Forbidden)
}

/// Refuses the workers that wait for the backend, and ends its watchers, if it no longer has `to =
/// "gate"`. Returns whether that is so.
pub(crate) fn send_away(state: &ProxyState, backend: &str) -> bool {
    let Err(refusal) = registry(state, backend) else {
        return false;
    };
    for claimer in state.rendezvous.dismiss(backend) {
        refuse(untold(claimer), refusal);
    }
    true
}

/// Refuses the workers in tunnels that may not serve their backend any more.
pub(crate) fn send_network_workers_away(state: &ProxyState) {
    let config = state.config.load();
    state.rendezvous.prune(|claimer| {
        let worker = claimer.in_tunnel();
        worker.is_none_or(|(host, backend)| config.admit_worker(host, backend).is_ok())
    });
}

/// Resolves all that waits at the rendezvous as drained, and refuses the waiting workers.
pub(crate) fn dismiss(rendezvous: &Rendezvous<Claimer>) {
    for claimer in rendezvous.drain() {
        refuse(untold(claimer), GateRefusal::Draining);
    }
}

/// An error has the refusal, and the socket to send it to.
type Answered = Result<(), (GateRefusal, Option<StdUnixStream>)>;

/// Takes the socket off this thread's reactor. `None` when the runtime is shutting down.
fn detach(client: UnixStream) -> Option<StdUnixStream> {
    client.into_std().ok()
}

fn untold(claimer: Claimer) -> Option<StdUnixStream> {
    match claimer {
        Claimer::Worker(stream, _) => Some(stream),
        // The task of a worker in a tunnel finds the reason itself.
        Claimer::Network(_) | Claimer::Promised(_) => None,
        Claimer::Handler(_) | Claimer::Answered(_) => None,
    }
}

/// Sends the refusal and closes, without waiting.
fn refuse(client: Option<StdUnixStream>, refusal: GateRefusal) {
    let Some(mut client) = client else {
        return;
    };
    debug!(%refusal, "gate client refused");
    // These are the first bytes on a socket with much more room; if the write fails, the client is
    // gone.
    let _ = client.write_all(refusal.line().as_bytes());
    // Read what the client has sent: a close with unread bytes would be a reset for the client.
    let _ = client.read(&mut [0; 4096]);
}

/// How long a client may take for its line, from the connect on.
const LINE_BUDGET: Duration = Duration::from_secs(5);

/// How long a claimer that is gone may keep its slot, and how long the reserve may stay spent.
const TIDY_UP_EVERY: Duration = Duration::from_secs(1);

/// A few workers that come at the same moment must fit.
const LEAST_BACKLOG: i32 = 128;

const BACK_OFF: Duration = Duration::from_millis(50);
