//! The client's sessions with a backend. Each is resumed only while its certificate is still
//! accepted.
//!
//! ```text
//! connect ─► Attempt ─ take ─► Sessions ─► verified again ─► offered
//!               ▲                            └─ not accepted: forgotten, a full handshake follows
//!               └─ ticket, with the chain that this connection has verified ─► Sessions
//! ```
//!
//! rustls verifies a server only in a full handshake, and gives a session store the tickets without
//! their chains. So each connection has its own view of the store, which knows the chain.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{
    ClientConnectionData, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use tokio_rustls::rustls::kernel::KernelConnection;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::record::{Keeper, Unreadable};
use crate::residue;

/// The sessions of one backend.
#[derive(Debug)]
pub(super) struct Sessions {
    verifier: Arc<dyn ServerCertVerifier>,
    clock: fn() -> UnixTime,
    servers: Mutex<VecDeque<Server>>,
}

impl Sessions {
    pub(super) fn new(verifier: Arc<dyn ServerCertVerifier>, clock: fn() -> UnixTime) -> Self {
        Self {
            verifier,
            clock,
            servers: Mutex::default(),
        }
    }

    /// Whether a server with this chain would be accepted now.
    fn admits(&self, name: &ServerName<'_>, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, intermediates)) = chain.split_first() else {
            return false;
        };
        let now = (self.clock)();
        let verified = (self.verifier).verify_server_cert(own, intermediates, name, &[], now);
        verified.is_ok()
    }

    /// Changes the entry of a server. If the table is full, a new server replaces the oldest entry.
    fn with<T>(&self, name: &ServerName<'_>, change: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = lock(&self.servers);
        let index = match servers.iter().position(|server| server.name == *name) {
            Some(index) => index,
            None => {
                if servers.len() == MOST_SERVERS {
                    servers.pop_front();
                }
                servers.push_back(Server::new(name.to_owned()));
                servers.len() - 1
            }
        };
        change(&mut servers[index])
    }

    /// The newest session of `take` whose server is still trusted. If one is not, all sessions with
    /// the same chain are forgotten with it.
    fn still_good<T>(
        &self,
        name: &ServerName<'_>,
        take: impl Fn(&mut Server) -> Option<Session<T>>,
    ) -> Option<T> {
        // Without the lock: a verification takes a considerable part of the time of a handshake.
        while let Some(session) = self.with(name, &take) {
            if self.admits(name, &session.chain) {
                return Some(session.value);
            }
            self.with(name, |server| server.forget(&session.chain));
        }
        None
    }
}

/// The sessions with the servers of one name.
#[derive(Debug)]
struct Server {
    name: ServerName<'static>,
    group: Option<NamedGroup>,
    tls12: Option<Session<Tls12ClientSessionValue>>,
    /// In order of age, the newest last.
    tls13: VecDeque<Session<Tls13ClientSessionValue>>,
}

impl Server {
    fn new(name: ServerName<'static>) -> Self {
        Self {
            name,
            group: None,
            tls12: None,
            tls13: VecDeque::new(),
        }
    }

    fn add(&mut self, chain: &Chain, ticket: Ticket) {
        let chain = Arc::clone(chain);
        match ticket {
            Ticket::Tls12(value) => self.tls12 = Some(Session { chain, value }),
            Ticket::Tls13(value) => {
                if self.tls13.len() == MOST_TICKETS {
                    self.tls13.pop_front();
                }
                self.tls13.push_back(Session { chain, value });
            }
        }
    }

    fn forget(&mut self, chain: &Chain) {
        self.tls12.take_if(|session| session.chain == *chain);
        self.tls13.retain(|session| session.chain != *chain);
    }

    /// An equal chain that is stored already, so that all connections to one server share one chain
    /// in memory.
    fn same_chain(&self, chain: &[CertificateDer<'_>]) -> Option<Chain> {
        let tls12 = self.tls12.iter().map(|session| &session.chain);
        let tls13 = self.tls13.iter().map(|session| &session.chain);
        let found = tls12.chain(tls13).find(|known| ***known == *chain);
        found.map(Arc::clone)
    }
}

/// The server's own certificate first.
type Chain = Arc<[CertificateDer<'static>]>;

#[derive(Clone, Debug)]
struct Session<T> {
    chain: Chain,
    value: T,
}

#[derive(Debug)]
enum Ticket {
    Tls12(Tls12ClientSessionValue),
    Tls13(Tls13ClientSessionValue),
}

/// The session store as one connection sees it.
#[derive(Debug)]
pub(super) struct Attempt {
    sessions: Arc<Sessions>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    /// The tickets that have arrived so far: one in TLS 1.2; in TLS 1.3 those of a server that
    /// sends them early.
    Handshaking(Vec<Ticket>),
    Done(Chain),
}

impl Attempt {
    pub(super) fn new(sessions: &Arc<Sessions>) -> Self {
        Self {
            sessions: Arc::clone(sessions),
            progress: Mutex::new(Progress::Handshaking(Vec::new())),
        }
    }

    /// The handshake with a server of this chain is done. After a resumption, it is the chain of
    /// the session.
    pub(super) fn done(&self, name: &ServerName<'_>, chain: &[CertificateDer<'_>]) {
        let known = self.sessions.with(name, |server| server.same_chain(chain));
        let owned = || chain.iter().map(|it| it.clone().into_owned()).collect();
        let chain = known.unwrap_or_else(owned);
        let done = Progress::Done(Arc::clone(&chain));
        let before = mem::replace(&mut *lock(&self.progress), done);
        if let Progress::Handshaking(early) = before {
            self.sessions.with(name, |server| {
                (early.into_iter()).for_each(|ticket| server.add(&chain, ticket));
            });
        }
    }

    fn add(&self, name: &ServerName<'_>, ticket: Ticket) {
        match &mut *lock(&self.progress) {
            Progress::Handshaking(early) if early.len() < MOST_TICKETS => early.push(ticket),
            Progress::Handshaking(_) => {}
            Progress::Done(chain) => self.sessions.with(name, |server| server.add(chain, ticket)),
        }
    }
}

impl ClientSessionStore for Attempt {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        (self.sessions).with(&name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.with(name, |server| server.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.add(&name, Ticket::Tls12(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let session = |server: &mut Server| server.tls12.clone();
        self.sessions.still_good(name, session)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.sessions.with(name, |server| server.tls12 = None);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.add(&name, Ticket::Tls13(value));
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let newest = |server: &mut Server| server.tls13.pop_back();
        self.sessions.still_good(name, newest)
    }
}

/// The part of a connection that rustls needs to read later tickets.
pub(super) struct Later(KernelConnection<ClientConnectionData>);

impl Later {
    pub(super) fn new(connection: KernelConnection<ClientConnectionData>) -> Self {
        Self(connection)
    }
}

impl Keeper for Later {
    /// Adds the ticket to the store of the connection's configuration, which is its [`Attempt`].
    fn keep(&mut self, ticket: &[u8]) -> Result<(), Unreadable> {
        let kept = self.0.handle_new_session_ticket(ticket);
        // The secret of the session was derived on this stack.
        residue::wipe();
        kept.map_err(|_| Unreadable)
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same number as in rustls's own store. A session has a few KiB.
const MOST_SERVERS: usize = 32;
const MOST_TICKETS: usize = 8;
