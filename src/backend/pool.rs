//! The addresses of a backend: whose turn it is, who is well, and waiting until somebody is.

mod names;
mod race;
mod registry;
mod target;
mod tour;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use self::names::Resolver;
use self::race::Race;
pub(crate) use self::registry::{Registry, Withdrawn};
pub(crate) use self::target::Lease;
use self::target::{Answered, Target};
use self::tour::{NO_ANSWER, Tour};
use super::dial::{Reached, introduce};
use super::dial_error::DialError;
use super::own_sockets::OwnSockets;
use super::secure::Tls;
use super::whose::Expected;
use super::{Park, Unserved};
use crate::address::Address;
use crate::deadline::Deadline;

/// How the next address of a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// The one with the fewest open connections; ties in turn.
    LeastConnections,
    /// Each in its turn.
    RoundRobin,
    /// By the client's IP address; a change of the list moves only the clients it must.
    Source,
}

/// When an address counts as down, and as up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// So many failures in a row.
    pub fall: u32,
    /// So many connections in a row.
    pub rise: u32,
}

/// A backend's addresses.
///
/// A connection takes no lock here while all is well: the configured addresses never change, and
/// of an address without failures there is nothing to be looked up.
#[derive(Debug)]
pub(crate) struct Pool {
    balance: Balance,
    health: Health,
    unacknowledged: Option<Duration>,
    tls: Option<Arc<Tls>>,
    configured: Targets,
    resolver: Resolver,
    registry: Arc<Registry>,
    own: Arc<OwnSockets>,
    turn: AtomicUsize,
    /// Told when an address answers again, so that parked connections need not wait out their
    /// pause.
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
            health,
            unacknowledged,
            tls,
            configured: addresses.iter().map(|it| Target::new(it, None)).collect(),
            resolver: Resolver::default(),
            registry: Arc::default(),
            own: Arc::default(),
            turn: AtomicUsize::new(0),
            recovered: Arc::default(),
        }
    }

    /// Serves with the addresses of `registry` too.
    pub(crate) fn with(mut self, registry: Arc<Registry>) -> Self {
        self.registry = registry;
        self
    }

    /// Reaches none of these.
    pub(crate) fn beside(mut self, own: Arc<OwnSockets>) -> Self {
        self.own = own;
        self
    }

    /// Where workers register their addresses.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn has_addresses(&self) -> bool {
        !self.configured.is_empty() || self.registry.count().get() > 0
    }

    /// Waits until no registered address is left.
    pub(crate) async fn until_empty(&self) {
        self.registry.count().until(|count| count == 0).await;
    }

    /// Waits until an address is registered.
    pub(crate) async fn until_populated(&self) {
        self.registry.count().until(|count| count > 0).await;
    }

    fn targets(&self) -> Targets {
        if self.registry.count().get() == 0 {
            return Arc::clone(&self.configured);
        }
        let registered = self.registry.targets();
        let all = self.configured.iter().chain(registered.iter());
        all.map(Arc::clone).collect()
    }

    /// Connects to an address and sends it `greeting`, at most until `deadline`.
    ///
    /// Each is tried once a round, the best choice first. Between rounds of a parked connection
    /// there is a pause, which an address that answers again ends early.
    pub(crate) async fn dial(
        &self,
        source: Option<IpAddr>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
        park: Park,
    ) -> Result<(Reached, Lease), Unserved> {
        let rounds = async {
            let mut pause = SHORTEST_PAUSE;
            loop {
                let recovered = self.recovered.notified();
                let round = self.round(source, greeting, deadline).await;
                match round {
                    Round::Connected(reached, lease) => return Ok((reached, lease)),
                    // They have answered, and will not change their minds by being asked again.
                    Round::Reset => return Err(Unserved::Reset),
                    Round::Untrusted => return Err(Unserved::Refused),
                    // Silence until the deadline is no refusal, and ends the wait below.
                    Round::Down if park == Park::Refuse && !deadline.has_passed() => {
                        return Err(Unserved::Refused);
                    }
                    Round::Down => tokio::select! {
                        () = sleep(pause) => {}
                        () = recovered => {}
                    },
                    // Its queue is full of others like this one: all at once would not help.
                    Round::Busy => sleep(self.apart(pause)).await,
                }
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        };
        deadline
            .bound(rounds)
            .await
            .unwrap_or(Err(Unserved::TimedOut(deadline.scope())))
    }

    async fn round(
        &self,
        source: Option<IpAddr>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
    ) -> Round {
        let targets = self.found(deadline).await;
        let mut tour = Tour {
            pool: self,
            source,
            targets: &targets,
            tried: Vec::new(),
            race: Race::default(),
            busy: false,
            untrusted: 0,
        };
        while let Some((lease, socket)) = tour.connected(deadline).await {
            // A silent address must not use up the time of those that would answer.
            let share = deadline.remaining().map(|left| left / tour.rest());
            let address = &lease.target.address;
            let expected = Expected {
                registrant: lease.target.registrant,
                own: &self.own,
            };
            let introduction = async {
                expected.verify(&socket)?;
                introduce(socket, address, self.tls.as_ref(), greeting).await
            };
            match Deadline::after(share).bound(introduction).await {
                Ok(Ok(reached)) => {
                    self.answered(&lease.target);
                    return Round::Connected(reached, lease);
                }
                Ok(Err(DialError::Reset)) => return Round::Reset,
                Ok(Err(error)) => tour.failed(&lease, error),
                Err(_) => lease.target.failed(self.health, NO_ANSWER),
            }
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
        if target.answered(self.health) == Answered::Again {
            self.recovered.notify_waiters();
        }
    }

    /// A pause between a half and the whole of `pause`, another for each that asks.
    fn apart(&self, pause: Duration) -> Duration {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % 16;
        pause / 2 + pause / 32 * turn as u32
    }

    /// The next choice, which counts as tried from now on; addresses that are down come last.
    fn pick(
        &self,
        source: Option<IpAddr>,
        targets: &[Arc<Target>],
        tried: &mut Vec<usize>,
    ) -> Option<Lease> {
        let (mut choices, down): (Vec<usize>, Vec<usize>) = (0..targets.len())
            .filter(|index| !tried.contains(index) && !targets[*index].is_disowned())
            .partition(|index| !targets[*index].is_down());
        if choices.is_empty() {
            choices = down;
        }
        if choices.is_empty() {
            return None;
        }
        // Turns are taken among the choices: the turn of one that is down is not its neighbour's.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % choices.len();
        choices.rotate_left(turn);
        let rank = |index: &usize| match self.balance {
            Balance::LeastConnections => targets[*index].open.load(Ordering::Relaxed) as u64,
            Balance::RoundRobin => 0,
            Balance::Source => !targets[*index].weight(source),
        };
        // Of equals the first.
        let index = choices.into_iter().min_by_key(rank)?;
        tried.push(index);
        targets[index].begin();
        Some(Lease::new(Arc::clone(&targets[index])))
    }
}

type Targets = Arc<[Arc<Target>]>;

enum Round {
    Connected(Reached, Lease),
    /// Nobody answered, but at least one may at once.
    Busy,
    Down,
    /// One has taken the connection, and broken it.
    Reset,
    /// Every one has answered, and none is to be trusted or trusts us.
    Untrusted,
}

/// A restarted backend is found within a quarter of a second, and a thousand parked connections
/// cost four thousand attempts a second, not a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
