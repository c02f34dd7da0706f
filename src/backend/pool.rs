//! The addresses of a backend: whose turn it is, which are healthy, and the wait until one is.

mod check;
mod checks;
mod judge;
mod names;
mod order;
mod race;
mod registry;
mod service;
mod site;
mod status;
mod target;
mod tour;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub(crate) use self::check::{CheckSettings, Checker};
use self::judge::Judge;
use self::names::Resolver;
pub use self::order::AddressState;
use self::race::Race;
pub(crate) use self::registry::{Registry, Withdrawn};
pub(crate) use self::service::Ordered;
pub(crate) use self::status::AddressStatus;
pub(crate) use self::target::Lease;
use self::target::{Answered, Target};
use self::tour::{NO_ANSWER, Tour};
use super::dial::Reached;
use super::dial_error::DialError;
use super::own_sockets::OwnSockets;
use super::secure::Tls;
use super::tunnels::Tunnels;
use super::{Park, Unserved};
use crate::address::Address;
use crate::deadline::Deadline;
use crate::journal::Journal;

/// How a backend chooses among its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// The address with the fewest open connections. Addresses with equal counts take turns.
    LeastConnections,
    /// Each address in turn.
    RoundRobin,
    /// By a hash of the client's IP address. A change of the list moves only the clients of
    /// addresses that were added or removed.
    Source,
}

/// When an address counts as down, and as up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// The number of failures in a row after which an address counts as down.
    pub fall: u32,
    /// The number of successful connections in a row after which it counts as up again.
    pub rise: u32,
}

/// The addresses of one backend.
///
/// While all addresses are healthy, a connection takes no lock here: the configured addresses never
/// change, and an address without failures has no state to read.
#[derive(Debug)]
pub(crate) struct Pool {
    balance: Balance,
    judge: Judge,
    checker: Option<Checker>,
    /// Whether its checks have ended for ever.
    is_retired: AtomicBool,
    unacknowledged: Option<Duration>,
    tls: Option<Arc<Tls>>,
    /// Present if connections are streams in tunnels.
    tunnels: Option<Tunnels>,
    configured: Targets,
    resolver: Resolver,
    registry: Arc<Registry>,
    own: Arc<OwnSockets>,
    turn: AtomicUsize,
    /// Notified when an address answers again, to end the pause of parked connections early.
    recovered: Arc<Notify>,
}

impl Pool {
    pub(crate) fn new(
        addresses: &[Address],
        balance: Balance,
        health: Health,
        unacknowledged: Option<Duration>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self {
            balance,
            judge: Judge::new(health),
            checker: None,
            is_retired: AtomicBool::new(false),
            unacknowledged,
            tls,
            tunnels: None,
            configured: addresses.iter().map(|it| Target::new(it, None)).collect(),
            resolver: Resolver::default(),
            registry: Arc::default(),
            own: Arc::default(),
            turn: AtomicUsize::new(0),
            recovered: Arc::default(),
        }
    }

    /// Adds the addresses in `registry`.
    pub(crate) fn with(mut self, registry: Arc<Registry>) -> Self {
        self.registry = registry;
        self
    }

    /// Tells of changes in the name of this backend.
    pub(crate) fn reporting(mut self, backend: &str, journal: &Arc<Journal>) -> Self {
        self.judge = self.judge.for_backend(backend, journal);
        self
    }

    /// Checks its addresses while [`Pool::check_all`] runs.
    pub(crate) fn checked_by(mut self, checker: Option<Checker>) -> Self {
        self.checker = checker;
        self
    }

    /// Reaches its addresses through tunnels.
    pub(crate) fn through(mut self, tunnels: Option<Tunnels>) -> Self {
        self.tunnels = tunnels;
        self
    }

    /// Refuses to connect to any of the sockets in `own`.
    pub(crate) fn beside(mut self, own: Arc<OwnSockets>) -> Self {
        self.own = own;
        self
    }

    /// Takes over the orders for the addresses that `before` has as well.
    pub(crate) fn after(mut self, before: &Self) -> Self {
        let renewed = |target: &Arc<Target>| {
            let known = before.configured.iter();
            let mut same = known.filter(|it| it.address == target.address);
            same.next()
                .map_or_else(|| Arc::clone(target), |it| it.renewed())
        };
        self.configured = self.configured.iter().map(renewed).collect();
        self
    }

    /// Where workers register their addresses.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn has_addresses(&self) -> bool {
        !self.configured.is_empty() || !self.registry.is_empty()
    }

    /// Waits until no registered address is left.
    pub(crate) async fn until_empty(&self) {
        self.registry.until_empty().await;
    }

    /// Waits until an address is registered.
    pub(crate) async fn until_populated(&self) {
        self.registry.until_populated().await;
    }

    fn targets(&self) -> Targets {
        if self.registry.is_empty() {
            return Arc::clone(&self.configured);
        }
        let registered = self.registry.targets();
        let all = self.configured.iter().chain(registered.iter());
        all.map(Arc::clone).collect()
    }

    /// Connects to an address and sends it `greeting`. Gives up at `deadline`.
    ///
    /// Each address is tried once a round, the best choice first. A parked connection pauses
    /// between rounds; an address that answers again ends the pause early.
    pub(crate) async fn dial(
        &self,
        source: Option<IpAddr>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
        park: Park,
    ) -> Result<Dialled, Unserved> {
        let rounds = async {
            let mut pause = SHORTEST_PAUSE;
            loop {
                let recovered = self.recovered.notified();
                let began = Instant::now();
                let round = self.round(source, greeting, deadline).await;
                match round {
                    Round::Connected(reached, lease) => {
                        return Ok(Dialled {
                            reached,
                            lease,
                            took: began.elapsed(),
                        });
                    }
                    // Another attempt would have the same result.
                    Round::Reset => return Err(Unserved::Reset),
                    Round::Untrusted => return Err(Unserved::Refused),
                    // If addresses are silent until the deadline, this is not a refusal but a
                    // timeout, which ends the wait below.
                    Round::OutOfService if park == Park::Refuse => {
                        return Err(Unserved::OutOfService(None));
                    }
                    Round::Down if park == Park::Refuse && !deadline.has_passed() => {
                        return Err(Unserved::Refused);
                    }
                    Round::Down | Round::OutOfService => tokio::select! {
                        () = sleep(pause) => {}
                        () = recovered => {}
                    },
                    // The queue is full of other connections that wait as well: retries at the same
                    // time would not help.
                    Round::Busy => tokio::select! {
                        () = sleep(self.apart(pause)) => {}
                        () = self.freed() => {}
                    },
                }
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        };
        let scope = deadline.scope();
        match deadline.bound(rounds).await {
            Ok(dialled) => dialled,
            Err(_) if self.is_out_of_service() => Err(Unserved::OutOfService(Some(scope))),
            Err(_) => Err(Unserved::TimedOut(scope)),
        }
    }

    async fn round(
        &self,
        source: Option<IpAddr>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
    ) -> Round {
        let targets = self.found(deadline).await;
        if self.tunnels.is_some() {
            targets.iter().for_each(|it| it.judge_unseen(&self.judge));
        }
        let mut tour = Tour {
            pool: self,
            source,
            targets: &targets,
            tried: Vec::new(),
            race: Race::default(),
            busy: false,
            untrusted: 0,
        };
        while let Some((lease, link)) = tour.connected(deadline).await {
            // A silent address must not use up the time for addresses that would answer.
            let share = deadline.remaining().map(|left| left / tour.rest());
            let share = Deadline::after(share);
            let introduced = self.introduce(&lease, link, greeting, deadline, share);
            match introduced.await {
                // The client has sent nothing there, and another address may take it.
                Ok(Ok(_)) if lease.is_overtaken() => {}
                Ok(Ok(reached)) => {
                    self.answered(&lease.target);
                    return Round::Connected(reached, lease);
                }
                Ok(Err(DialError::Reset)) => return Round::Reset,
                Ok(Err(error @ DialError::Lost(_))) => {
                    tour.failed(&lease, error);
                    return Round::Reset;
                }
                Ok(Err(error)) => tour.failed(&lease, error),
                Err(_) => {
                    lease.target.failed(&self.judge, NO_ANSWER);
                    // A stream that may have been looked at is not asked for again.
                    if self.tunnels.is_some() {
                        break;
                    }
                }
            }
        }
        if self.is_out_of_service() {
            return Round::OutOfService;
        }
        self.missed();
        match tour {
            Tour { busy: true, .. } => Round::Busy,
            Tour {
                untrusted, tried, ..
            } if untrusted > 0 && untrusted == tried.len() => Round::Untrusted,
            Tour { .. } => Round::Down,
        }
    }

    fn note_answer(&self, target: &Target) {
        if target.answered(&self.judge) == Answered::Again {
            self.recovered.notify_waiters();
        }
    }

    /// A pause between half of `pause` and `pause`, different for each caller, so that retries
    /// spread out.
    fn apart(&self, pause: Duration) -> Duration {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % 16;
        pause / 2 + pause / 32 * turn as u32
    }

    /// Picks the next address and marks it as tried. Addresses that are down come last.
    fn pick(
        &self,
        source: Option<IpAddr>,
        targets: &[Arc<Target>],
        tried: &mut Vec<usize>,
    ) -> Option<Lease> {
        loop {
            let index = self.choose(source, targets, tried)?;
            tried.push(index);
            if let Some(lease) = Lease::new(Arc::clone(&targets[index])) {
                targets[index].begin();
                return Some(lease);
            }
        }
    }

    fn choose(
        &self,
        source: Option<IpAddr>,
        targets: &[Arc<Target>],
        tried: &[usize],
    ) -> Option<usize> {
        let is_usable = |it: &Target| it.is_in_service() && !it.is_disowned() && !it.is_unfit();
        let (mut choices, down): (Vec<usize>, Vec<usize>) = (0..targets.len())
            .filter(|index| !tried.contains(index) && is_usable(&targets[*index]))
            .partition(|index| !targets[*index].is_down());
        if choices.is_empty() {
            choices = down;
        }
        if choices.is_empty() {
            return None;
        }
        // The turn counts only the choices: otherwise the address behind one that is down would get
        // two turns.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % choices.len();
        choices.rotate_left(turn);
        let rank = |index: &usize| match self.balance {
            Balance::LeastConnections => targets[*index].open.load(Ordering::Relaxed) as u64,
            Balance::RoundRobin => 0,
            Balance::Source => !targets[*index].weight(source),
        };
        // The first one wins a tie.
        choices.into_iter().min_by_key(rank)
    }
}

type Targets = Arc<[Arc<Target>]>;

/// A connection to one of the addresses.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub reached: Reached,
    pub lease: Lease,
    /// The time of the round that found it, without those before and the pauses between them.
    pub took: Duration,
}

enum Round {
    Connected(Reached, Lease),
    /// No address accepted the connection, but at least one may at any moment.
    Busy,
    Down,
    /// An operator has taken every address out of service.
    OutOfService,
    /// An address accepted the connection and reset it.
    Reset,
    /// Every address answered, but none can be used: it has a certificate that we do not accept,
    /// leads back to this Vestibule, or does not accept our certificate.
    Untrusted,
}

/// A restarted backend is found within a quarter of a second. A thousand parked connections make
/// four thousand attempts a second, not a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
