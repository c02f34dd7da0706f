//! The addresses of a backend: whose turn it is, who is well, and waiting until somebody is.

mod registry;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

pub(crate) use self::registry::Registry;
use super::dial::{DialError, Reached, reach};
use super::secure::Tls;
use super::{Park, Unserved};
use crate::address::Address;
use crate::deadline::Deadline;

/// How the next address is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
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
    registry: Arc<Registry>,
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
            configured: addresses.iter().map(Target::new).collect(),
            registry: Arc::default(),
            turn: AtomicUsize::new(0),
            recovered: Arc::default(),
        }
    }

    /// Serves with the addresses of `registry` too.
    pub(crate) fn with(mut self, registry: Arc<Registry>) -> Self {
        self.registry = registry;
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
            .unwrap_or(Err(Unserved::TimedOut))
    }

    async fn round(
        &self,
        source: Option<IpAddr>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
    ) -> Round {
        let targets = self.targets();
        let mut tried = Vec::new();
        let mut busy = false;
        let mut untrusted = 0;
        while let Some(lease) = self.pick(source, &targets, &mut tried) {
            // A silent address must not use up the time of those that would answer.
            let untried = targets.len() - tried.len();
            let share = deadline.remaining().map(|left| left / (untried as u32 + 1));
            let address = &lease.target.address;
            let tls = self.tls.as_ref();
            let attempt = reach(address, self.unacknowledged, tls, greeting);
            match Deadline::after(share).bound(attempt).await {
                Ok(Ok(reached)) => {
                    if lease.target.answered(self.health) == Answered::Again {
                        self.recovered.notify_waiters();
                    }
                    return Round::Connected(reached, lease);
                }
                Ok(Err(DialError::Reset)) => return Round::Reset,
                Ok(Err(DialError::Busy)) => busy = true,
                Ok(Err(DialError::Down(error))) => {
                    lease.target.failed(self.health, &error.to_string())
                }
                Ok(Err(DialError::Untrusted(error))) => {
                    untrusted += 1;
                    lease.target.failed(self.health, &error);
                }
                Err(_) => lease.target.failed(self.health, "no answer in time"),
            }
        }
        match busy {
            true => Round::Busy,
            false if untrusted > 0 && untrusted == tried.len() => Round::Untrusted,
            false => Round::Down,
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
            .filter(|index| !tried.contains(index))
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
            Balance::Source => !weight(source, &targets[*index].address),
        };
        // Of equals the first.
        let index = choices.into_iter().min_by_key(rank)?;
        tried.push(index);
        targets[index].begin();
        Some(Lease::new(Arc::clone(&targets[index])))
    }
}

type Targets = Arc<[Arc<Target>]>;

/// Rendezvous hashing: the address with the highest weight for a client is the client's own.
fn weight(source: Option<IpAddr>, address: &Address) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((source, address))
}

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

/// What an answer says of its address.
#[derive(PartialEq, Eq)]
enum Answered {
    Still,
    /// It had failed before.
    Again,
}

/// One address and what is known of it, which is not how many failures make it count as down: a
/// reload may change that.
#[derive(Debug)]
struct Target {
    address: Address,
    open: AtomicUsize,
    /// Whether there is anything to be read in `state`: while all is well nobody locks it.
    has_failed: AtomicBool,
    state: Mutex<TargetState>,
}

#[derive(Debug, Default)]
struct TargetState {
    failures: u32,
    successes: u32,
    /// When a connection may be tried again. `Some` means down.
    retry_at: Option<Instant>,
}

impl Target {
    fn new(address: &Address) -> Arc<Self> {
        Arc::new(Self {
            address: address.clone(),
            open: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Down, and not due to be tried.
    fn is_down(&self) -> bool {
        if self.is_well() {
            return false;
        }
        self.state()
            .retry_at
            .is_some_and(|retry_at| Instant::now() < retry_at)
    }

    /// One connection at a time finds out whether an address that is down answers again: if it is
    /// silent, the others do not wait for it.
    fn begin(&self) {
        if self.is_well() {
            return;
        }
        let mut state = self.state();
        if state.retry_at.is_some() {
            state.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    fn answered(&self, limits: Health) -> Answered {
        if self.is_well() {
            return Answered::Still;
        }
        let mut state = self.state();
        let answered = match state.failures {
            0 => Answered::Still,
            _ => Answered::Again,
        };
        if state.retry_at.is_some() {
            state.successes += 1;
            if state.successes < limits.rise {
                // Its failures stand: one more on its way up, and it is passed over again. Until
                // then it is due at once.
                state.retry_at = Some(Instant::now());
                return answered;
            }
            state.retry_at = None;
            info!(address = %self.address, "backend address is up");
        }
        state.failures = 0;
        self.has_failed.store(false, Ordering::Release);
        answered
    }

    fn failed(&self, limits: Health, error: &str) {
        let mut state = self.state();
        self.has_failed.store(true, Ordering::Release);
        state.successes = 0;
        state.failures = state.failures.saturating_add(1);
        if state.failures >= limits.fall {
            if state.retry_at.is_none() {
                warn!(address = %self.address, error, "backend address is down");
            }
            state.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// Whether it has not failed since it last answered.
    fn is_well(&self) -> bool {
        !self.has_failed.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, TargetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's share of an address. Dropping it says that the connection has ended.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lease {
    target: Arc<Target>,
}

impl Lease {
    /// Counted from the choice on, not from the connect: a burst must not go to one address.
    fn new(target: Arc<Target>) -> Self {
        target.open.fetch_add(1, Ordering::Relaxed);
        Self { target }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A restarted backend is found within a quarter of a second, and a thousand parked connections
/// cost four thousand attempts a second, not a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long an address that is down is passed over while another one is up.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
