//! The server of a connection: a dialled address, a claimer at the rendezvous, or a built-in one.

pub(crate) mod carrier;
pub(crate) mod claimer;
pub(crate) mod dial;
pub(crate) mod dial_error;
pub(crate) mod echo;
mod greeting;
pub(crate) mod hello;
pub(crate) mod network_worker;
pub(crate) mod own_sockets;
pub(crate) mod pool;
mod probe;
mod secure;
mod served;
mod status;
mod taken;
pub(crate) mod tunnels;
pub(crate) mod upstream;
pub(crate) mod whose;

use std::sync::Arc;
use std::time::Duration;

use self::claimer::Claimer;
use self::own_sockets::OwnSockets;
pub use self::pool::AddressState;
use self::pool::{Balance, CheckSettings, Checker, Health, Pool, Registry};
pub(crate) use self::pool::{Lease, Ordered};
use self::secure::Tls;
pub(crate) use self::served::{Served, Service};
pub(crate) use self::status::AddressStatus;
use self::taken::{Departures, READ_BUDGET, Taken, taken};
use self::tunnels::{Census, OriginateSettings, Tunnels};
pub(crate) use self::upstream::Upstream;
use crate::address::Address;
use crate::deadline::{Deadline, Scope};
use crate::drain::Drain;
use crate::facts::Facts;
use crate::identity::{Identity, Rule};
use crate::journal::Journal;
use crate::outcome::EndCause;
use crate::proxy_protocol::{ProxyProtocol, header, own_header};
use crate::rendezvous::{Place, Rendezvous, Resolution, Ticket, Unredeemed};
use crate::tls::connector;

/// One `[[backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendSettings {
    pub name: String,
    pub to: To,
    pub balance: Balance,
    pub park: Park,
    pub health: Health,
    /// Health checks; `None` if only connections tell how an address is.
    pub check: Option<CheckSettings>,
    /// The PROXY protocol header that is sent first to a dialled address.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TLS towards dialled addresses; claimers get plain sockets.
    pub tls: Option<connector::ConnectorSettings>,
    /// Connections are streams in tunnels, which have this `tls`.
    pub tunnel: Option<OriginateSettings>,
    /// Which workers may serve it through tunnels.
    pub workers: Vec<Rule>,
}

impl BackendSettings {
    /// With the defaults of the configuration.
    pub(crate) fn new(name: &str, to: To) -> Self {
        Self {
            name: name.to_owned(),
            to,
            balance: Balance::LeastConnections,
            park: Park::Hold,
            health: Health::default(),
            check: None,
            proxy_protocol: None,
            tls: None,
            tunnel: None,
            workers: Vec::new(),
        }
    }

    fn checker(&self) -> Option<Checker> {
        let tls = self.tls.as_ref();
        Some(Checker {
            settings: self.check.clone()?,
            greeting: self.proxy_protocol.map(own_header),
            tls: tls.map(|tls| Tls::for_checks(&self.name, tls)),
        })
    }
}

/// What the backends of a proxy share.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// TCP_USER_TIMEOUT of the connections that are dialled.
    pub unacknowledged: Option<Duration>,
    pub half_close: Option<Duration>,
    pub drain: &'a Drain,
    pub own: &'a Arc<OwnSockets>,
    pub journal: &'a Arc<Journal>,
    pub census: &'a Arc<Census>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Dialled(Vec<Address>),
    Gate,
    Hello,
    Echo,
}

impl To {
    /// Whether the backend runs in this process and needs no socket.
    pub(crate) fn is_built_in(&self) -> bool {
        matches!(self, Self::Hello | Self::Echo)
    }
}

/// What to do while no address answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Park {
    /// Hold the connection and try again until `timeouts.backend`.
    Hold,
    /// Refuse the connection.
    Refuse,
}

/// A backend of the running configuration.
#[derive(Debug)]
pub(crate) struct ActiveBackend {
    settings: BackendSettings,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dialled(Arc<Pool>, Park),
    /// The pool has the addresses that workers registered.
    Claimed(Arc<Pool>),
    Hello(Drain),
    Echo,
}

impl ActiveBackend {
    /// `before` is the backend of this name in the configuration before: its workers stay, and the
    /// orders for its addresses.
    pub(crate) fn new(
        settings: &BackendSettings,
        before: Option<&Self>,
        around: &Surroundings<'_>,
    ) -> Self {
        let pool = |addresses: &[Address]| {
            let tls = settings.tls.as_ref();
            let tls = tls.map(|tls| Tls::new(&settings.name, tls));
            let tunnels = Tunnels::of(settings, tls.as_ref(), around);
            let BackendSettings {
                balance, health, ..
            } = *settings;
            let pool = Pool::new(addresses, balance, health, around.unacknowledged, tls)
                .beside(Arc::clone(around.own))
                .reporting(&settings.name, around.journal)
                .checked_by(settings.checker())
                .through(tunnels);
            match before.map(|before| &before.kind) {
                Some(Kind::Dialled(before, _)) => pool.after(before),
                _ => pool,
            }
        };
        let registry = || before.and_then(Self::registry).map(Arc::clone);
        let kind = match &settings.to {
            To::Dialled(addresses) => Kind::Dialled(pool(addresses).into(), settings.park),
            To::Gate => {
                let pool = pool(&[]).with(registry().unwrap_or_default());
                Kind::Claimed(pool.into())
            }
            To::Hello => Kind::Hello(around.drain.clone()),
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

    /// Whether a worker with this identity may serve it through a tunnel.
    pub(crate) fn admits_worker(&self, identity: Option<&Identity>) -> bool {
        let mut rules = self.settings.workers.iter();
        identity.is_some_and(|identity| rules.any(|rule| rule.admits(identity)))
    }

    /// The registered addresses, if this is a claimed backend.
    pub(crate) fn registry(&self) -> Option<&Arc<Registry>> {
        match &self.kind {
            Kind::Claimed(pool) => Some(pool.registry()),
            Kind::Dialled(..) | Kind::Hello(_) | Kind::Echo => None,
        }
    }

    /// Finds a server for the connection, until `deadline` or until the connection is `ended`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the connection as "client gone". Nothing keeps a part of it.
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

    /// Connects to one of the addresses and sends the PROXY protocol header, if one is configured.
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

    fn expired(&self, registered: &Pool, deadline: Deadline) -> Unserved {
        registered.registry().missed(self.name());
        Unserved::Expired(deadline.scope())
    }

    /// Dials while an address is registered, and waits for a claim while none is.
    async fn find_claimer(
        &self,
        registered: &Pool,
        facts: &Arc<Facts>,
        deadline: Deadline,
        waiting: &mut Waiting<'_>,
    ) -> Result<Served, Unserved> {
        let (mut place, mut deadline, mut is_postponed) = (None, deadline, false);
        let mut departures = Departures::default();
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
                // A claim that came before the withdrawal is valid.
                Err(resolution) => match waiting.withdraw(resolution) {
                    Some(claimer) => claimer,
                    None if resolution == Resolution::Expired => {
                        return Err(self.expired(registered, deadline));
                    }
                    None => continue,
                },
            };
            match taken(claimer).await {
                Taken::Served(served) => {
                    registered.registry().taken(self.name());
                    return Ok(served);
                }
                Taken::Gone => {}
                Taken::Hung(culprit) => {
                    registered.registry().hung(self.name(), culprit);
                    // What else waits of the same process or tunnel would hang as well.
                    if let Some(culprit) = culprit {
                        waiting.rendezvous.prune(|claimer| !claimer.is_of(culprit));
                    }
                    // The hung worker used up the connection's time. This happens only once.
                    if !is_postponed {
                        deadline = deadline.postponed(READ_BUDGET);
                    }
                    is_postponed = true;
                }
            }
            // This claimer never had the connection, which waits again in its old place.
            let stays = departures.noted(deadline).await;
            stays.map_err(|_| self.expired(registered, deadline))?;
        }
    }
}

/// A connection's place at the rendezvous, if it has one. It is separate from the future that waits
/// there: an ended connection needs another resolution than a dropped future has.
struct Waiting<'a> {
    rendezvous: &'a Rendezvous<Claimer>,
    ticket: Option<Ticket<Claimer>>,
}

impl Waiting<'_> {
    fn announce(&mut self, facts: Arc<Facts>, place: Option<Place>) -> &mut Ticket<Claimer> {
        let ticket = self.rendezvous.announce_again(facts, place);
        self.ticket.insert(ticket)
    }

    /// Ends the wait, unless a claim came first.
    fn withdraw(&mut self, resolution: Resolution) -> Option<Claimer> {
        self.ticket.take()?.withdraw(resolution)
    }

    /// Ends the wait of a connection that was ended. At the end of a drain nothing waits, so this
    /// is a client that may not stay. A claimer that came at the same time gets nothing.
    fn refuse(&mut self) {
        drop(self.withdraw(Resolution::Refused));
    }
}

/// Why no backend serves a connection. The first word says who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The backend: no address accepted the connection, and the backend does not park connections.
    Refused,
    /// The backend: no address accepted the connection in time.
    TimedOut(Scope),
    /// The operator: every address is drained or down by order. `None` if the backend does not park
    /// connections; otherwise the time was up.
    OutOfService(Option<Scope>),
    /// The backend: it reset the connection before it had read the PROXY protocol header.
    Reset,
    /// The workers: none claimed the connection in time.
    Expired(Scope),
    /// Vestibule: it is shutting down.
    Drained,
    /// The connection was ended from outside.
    Ended(EndCause),
}

impl From<Unredeemed> for Unserved {
    fn from(unredeemed: Unredeemed) -> Self {
        match unredeemed {
            // The ticket has no deadline of its own; the wait is bounded here.
            Unredeemed::Expired => Self::Expired(Scope::Phase),
            // Only the connection itself announces its random id, so a duplicate is Vestibule's
            // fault.
            Unredeemed::Drained | Unredeemed::Duplicate => Self::Drained,
        }
    }
}

/// The backends of a proxy, by name.
pub(crate) type Backends = std::collections::HashMap<String, Arc<ActiveBackend>>;
