//! Who serves a connection: a dialled address, a claimer at the rendezvous, or something built in.

pub(crate) mod claimer;
pub(crate) mod dial;
mod dial_error;
pub(crate) mod echo;
mod greeting;
pub(crate) mod hello;
pub(crate) mod own_sockets;
pub(crate) mod pool;
mod secure;
pub(crate) mod upstream;
pub(crate) mod whose;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use self::claimer::Claimer;
use self::dial::Reached;
use self::own_sockets::OwnSockets;
pub(crate) use self::pool::Lease;
use self::pool::{Balance, Health, Pool, Registry};
use self::secure::Tls;
pub(crate) use self::upstream::Upstream;
use crate::address::Address;
use crate::deadline::{Deadline, Scope};
use crate::drain::Drain;
use crate::facts::Facts;
use crate::identity::Identity;
use crate::outcome::EndCause;
use crate::proxy_protocol::{ProxyProtocol, header};
use crate::rendezvous::{Place, Rendezvous, Resolution, Ticket, Unredeemed};
use crate::sys::socket::Socket;
use crate::sys::unix_stream;
use crate::tls::connector;

/// One `[[backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendSettings {
    pub name: String,
    pub to: To,
    pub balance: Balance,
    pub park: Park,
    pub health: Health,
    /// What a dialled address is sent first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Towards its addresses; not towards who claims.
    pub tls: Option<connector::ConnectorSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Dialled(Vec<Address>),
    Gate,
    Hello,
    Echo,
}

impl To {
    /// Whether it is served without a socket.
    pub(crate) fn is_built_in(&self) -> bool {
        matches!(self, Self::Hello | Self::Echo)
    }
}

/// What to do while no address answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Park {
    /// Hold the connection and try again until its budget is used up.
    Hold,
    /// Refuse it.
    Refuse,
}

/// A backend that connections can be given to.
#[derive(Debug)]
pub(crate) struct ActiveBackend {
    settings: BackendSettings,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dialled(Pool, Park),
    /// The pool has the addresses that workers have registered.
    Claimed(Pool),
    Hello(Drain),
    Echo,
}

impl ActiveBackend {
    /// A claimed one has the workers of `registry`. `unacknowledged` is TCP_USER_TIMEOUT of the
    /// connections that it dials.
    pub(crate) fn new(
        settings: &BackendSettings,
        registry: Arc<Registry>,
        unacknowledged: Option<Duration>,
        drain: &Drain,
        own: &Arc<OwnSockets>,
    ) -> Self {
        let pool = |addresses: &[Address]| {
            let tls = settings.tls.as_ref();
            let tls = tls.map(|tls| Tls::new(&settings.name, tls));
            let BackendSettings {
                balance, health, ..
            } = *settings;
            Pool::new(addresses, balance, health, unacknowledged, tls).beside(Arc::clone(own))
        };
        let kind = match &settings.to {
            To::Dialled(addresses) => Kind::Dialled(pool(addresses), settings.park),
            To::Gate => Kind::Claimed(pool(&[]).with(registry)),
            To::Hello => Kind::Hello(drain.clone()),
            To::Echo => Kind::Echo,
        };
        Self {
            settings: settings.clone(),
            kind,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn settings(&self) -> &BackendSettings {
        &self.settings
    }

    /// The registered addresses, if this is a claimed backend.
    pub(crate) fn registry(&self) -> Option<&Arc<Registry>> {
        match &self.kind {
            Kind::Claimed(pool) => Some(pool.registry()),
            Kind::Dialled(..) | Kind::Hello(_) | Kind::Echo => None,
        }
    }

    /// Finds somebody to serve the connection, at most until `deadline` or until it is `ended`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the connection, as one whose client is gone; nobody is left
    /// with half of it.
    pub(crate) async fn obtain(
        &self,
        facts: &Arc<Facts>,
        deadline: Deadline,
        rendezvous: &Rendezvous<Claimer>,
        ended: impl Future<Output = EndCause>,
    ) -> Result<Served, Unserved> {
        let mut waiting = Waiting {
            rendezvous,
            ticket: None,
        };
        tokio::select! {
            biased;
            served = self.find(facts, deadline, &mut waiting) => served,
            cause = ended => {
                waiting.refuse();
                Err(Unserved::Ended(cause))
            }
        }
    }

    async fn find(
        &self,
        facts: &Arc<Facts>,
        deadline: Deadline,
        waiting: &mut Waiting<'_>,
    ) -> Result<Served, Unserved> {
        match &self.kind {
            Kind::Dialled(pool, park) => self.dial(pool, facts, deadline, *park).await,
            Kind::Claimed(registered) => {
                self.find_claimer(registered, facts, deadline, waiting)
                    .await
            }
            Kind::Hello(drain) => Ok(Served::built_in(|stream| {
                hello::serve(stream, Arc::clone(facts), drain.clone())
            })),
            Kind::Echo => Ok(Served::built_in(echo::serve)),
        }
    }

    /// Connects to one of the addresses, and says whose the connection is.
    async fn dial(
        &self,
        pool: &Pool,
        facts: &Facts,
        deadline: Deadline,
        park: Park,
    ) -> Result<Served, Unserved> {
        let greeting = self.settings.proxy_protocol.map(|it| header(it, facts));
        let greeting = greeting.as_deref();
        let dialled = pool.dial(facts.peer_ip(), greeting, deadline, park).await;
        dialled.map(Served::dialled)
    }

    /// Dials while any address is registered, and waits for a claim while none is.
    async fn find_claimer(
        &self,
        registered: &Pool,
        facts: &Arc<Facts>,
        deadline: Deadline,
        waiting: &mut Waiting<'_>,
    ) -> Result<Served, Unserved> {
        let mut place = None;
        let mut deadline = deadline;
        let mut is_postponed = false;
        loop {
            if registered.has_addresses() {
                tokio::select! {
                    biased;
                    dialled = self.dial(registered, facts, deadline, Park::Hold) => {
                        if dialled.is_ok() {
                            registered.registry().taken(self.name());
                        }
                        return dialled;
                    }
                    () = registered.until_empty() => continue,
                }
            }
            let ticket = waiting.announce(Arc::clone(facts), place);
            place = ticket.place();
            let ended = tokio::select! {
                biased;
                redeemed = ticket.wait() => Ok(redeemed?),
                () = registered.until_populated() => Err(Resolution::Dialled),
                () = deadline.passed() => Err(Resolution::Expired),
            };
            let claimer = match ended {
                Ok(claimer) => claimer,
                // A claim that came first is honoured.
                Err(resolution) => match waiting.withdraw(resolution) {
                    Some(claimer) => claimer,
                    None if resolution == Resolution::Expired => {
                        registered.registry().missed(self.name());
                        return Err(Unserved::Expired(deadline.scope()));
                    }
                    None => continue,
                },
            };
            match taken(claimer).await {
                Taken::Read(stream) => {
                    registered.registry().taken(self.name());
                    return Ok(Served::claimed(stream));
                }
                // It has resolved nothing: the connection waits again, in its old place.
                Taken::Gone => {}
                Taken::Hung(pid) => {
                    registered.registry().hung(self.name(), pid);
                    // The next one that it waits with would take as long.
                    if let Some(pid) = pid {
                        waiting.rendezvous.prune(|claimer| !claimer.is_of(pid));
                    }
                    // The time is not the connection's fault, once.
                    if !is_postponed {
                        deadline = deadline.postponed(READ_BUDGET);
                    }
                    is_postponed = true;
                }
            }
        }
    }
}

/// A connection's place at the rendezvous, if it has one. Kept apart from the future that waits
/// there: what that is dropped for may have to be said.
struct Waiting<'a> {
    rendezvous: &'a Rendezvous<Claimer>,
    ticket: Option<Ticket<Claimer>>,
}

impl Waiting<'_> {
    fn announce(&mut self, facts: Arc<Facts>, place: Option<Place>) -> &mut Ticket<Claimer> {
        let ticket = self.rendezvous.announce_again(facts, place);
        self.ticket.insert(ticket)
    }

    /// Ends the waiting, unless a claim came first.
    fn withdraw(&mut self, resolution: Resolution) -> Option<Claimer> {
        self.ticket.take()?.withdraw(resolution)
    }

    /// Ends the waiting of a connection that is ended. At the end of a drain nothing waits any
    /// more, so this is about a client that may not stay. Who claimed it just now has nothing.
    fn refuse(&mut self) {
        drop(self.withdraw(Resolution::Refused));
    }
}

/// What became of a claimer that was told.
enum Taken {
    Read(UnixStream),
    /// It died before it had read its answer.
    Gone,
    /// It has not read its answer in time. Its socket is closed; the process is named, where it is known.
    Hung(Option<i32>),
}

/// A claimer has time of its own to read its answer: a claim at the last moment is a claim.
async fn taken(claimer: Claimer) -> Taken {
    let Some(told) = claimer.into_answered() else {
        return Taken::Gone;
    };
    let pid = told.process();
    match Deadline::after(READ_BUDGET).bound(told.until_read()).await {
        Ok(Ok(stream)) => Taken::Read(stream),
        Ok(Err(_)) => Taken::Gone,
        Err(_) => Taken::Hung(pid),
    }
}

/// A backend's side of a connection.
pub(crate) struct Served {
    pub stream: Upstream,
    /// What must run beside the relay for the stream to be served.
    pub service: Option<Service>,
    /// The connection's share of its address; dropped when the connection has ended.
    pub lease: Option<Lease>,
    /// Who it is, where TLS says so.
    pub identity: Option<Box<Identity>>,
}

pub(crate) type Service = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Served {
    fn dialled((reached, lease): (Reached, Lease)) -> Self {
        Self {
            stream: reached.stream,
            service: None,
            lease: Some(lease),
            identity: reached.identity,
        }
    }

    fn claimed(stream: UnixStream) -> Self {
        Self {
            stream: Socket::Unix(unix_stream::UnixStream::claimed(stream)).into(),
            service: None,
            lease: None,
            identity: None,
        }
    }

    fn built_in<F>(serve: impl FnOnce(tokio::io::DuplexStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, theirs) = tokio::io::duplex(BUILT_IN_BUFFER);
        let service: Service = Box::pin(serve(theirs));
        Self {
            stream: ours.into(),
            service: Some(service),
            lease: None,
            identity: None,
        }
    }
}

/// Why nobody serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The backend: no address took it, and it is not to be parked.
    Refused,
    /// The backend: no address took it in time.
    TimedOut(Scope),
    /// The backend: it took the connection and reset it before it had read whose it is.
    Reset,
    /// The workers: nobody claimed it in time.
    Expired(Scope),
    /// Us: we are ending.
    Drained,
    /// It was ended from outside, whoever would serve it.
    Ended(EndCause),
}

impl From<Unredeemed> for Unserved {
    fn from(unredeemed: Unredeemed) -> Self {
        match unredeemed {
            // The ticket has no deadline: what it waits for is bounded here.
            Unredeemed::Expired => Self::Expired(Scope::Phase),
            // Ids are random and announced by their own connection alone, so a duplicate is ours.
            Unredeemed::Drained | Unredeemed::Duplicate => Self::Drained,
        }
    }
}

/// What a worker has to read that a connection is its own, before it counts as hung.
/// Less than `timeouts.backend`, so that another worker can still come.
const READ_BUDGET: Duration = Duration::from_secs(2);

/// One TLS record (RFC 8446 §5.1).
const BUILT_IN_BUFFER: usize = 16 * 1024;

/// The backends of a proxy, by name.
pub(crate) type Backends = std::collections::HashMap<String, Arc<ActiveBackend>>;
