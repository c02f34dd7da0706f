//! The addresses of a backend: whose turn it is, who is well, and waiting until somebody is.

mod names;
mod race;
mod registry;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::names::{Found, Resolver};
use self::race::{Connected, Race};
pub(crate) use self::registry::{Registry, Withdrawn};
use super::dial::{DialError, Place, Reached, connect_tcp, connect_unix, introduce};
use super::own::Own;
use super::secure::Tls;
use super::whose::Expected;
use super::{Park, Unserved};
use crate::address::Address;
use crate::deadline::Deadline;
use crate::sys::socket::Socket;

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
    resolver: Resolver,
    registry: Arc<Registry>,
    own: Arc<Own>,
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
    pub(crate) fn beside(mut self, own: Arc<Own>) -> Self {
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
            .unwrap_or(Err(Unserved::TimedOut))
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

/// One round over the addresses.
struct Tour<'a> {
    pool: &'a Pool,
    source: Option<IpAddr>,
    targets: &'a [Arc<Target>],
    tried: Vec<usize>,
    race: Race,
    busy: bool,
    untrusted: usize,
}

impl Tour<'_> {
    /// The next connection to one of the addresses; `None` when all have been tried.
    async fn connected(&mut self, deadline: Deadline) -> Option<(Lease, Socket)> {
        loop {
            let (lease, connected) = match self.begin() {
                Begun::Ended(lease, connected) => (lease, connected),
                Begun::Running => match self.race.next().await {
                    Some(ended) => ended,
                    None => continue,
                },
                Begun::Nothing if self.race.len() == 0 => return None,
                Begun::Nothing => match self.patience(deadline).bound(self.race.ended()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        for lease in self.race.give_up() {
                            lease.target.failed(self.pool.health, NO_ANSWER);
                        }
                        return None;
                    }
                },
            };
            match connected {
                Ok(socket) => {
                    for late in self.race.late() {
                        late.target.failed(self.pool.health, LATE);
                    }
                    return Some((lease, socket));
                }
                Err(error) => self.failed(&lease, error),
            }
        }
    }

    /// Begins to connect to the next address.
    fn begin(&mut self) -> Begun {
        let picked = self.pool.pick(self.source, self.targets, &mut self.tried);
        let Some(lease) = picked else {
            return Begun::Nothing;
        };
        match &lease.target.place {
            Some(Place::Unix(path)) => {
                let connected = connect_unix(path);
                Begun::Ended(lease, connected)
            }
            Some(Place::Tcp(address)) => {
                let connect = connect_tcp(*address, self.pool.unacknowledged);
                self.race.begin(lease, Box::pin(connect));
                Begun::Running
            }
            // A name is not picked: its addresses are.
            None => Begun::Nothing,
        }
    }

    /// How long to wait for connects when there is no other address to begin with. Where one has failed
    /// for sure it may be back before the others answer, and is tried again in the next round.
    fn patience(&self, deadline: Deadline) -> Deadline {
        match self.race.has_failed {
            true => deadline.earlier(Deadline::after(SILENCE)),
            false => deadline,
        }
    }

    fn failed(&mut self, lease: &Lease, error: DialError) {
        let health = self.pool.health;
        self.race.has_failed = true;
        match error {
            DialError::Busy => self.busy = true,
            DialError::Down(error) => lease.target.failed(health, &error.to_string()),
            DialError::Untrusted(error) => {
                self.untrusted += 1;
                lease.target.failed(health, &error);
            }
            DialError::Foreign(owner) => self.pool.registry.disown(&lease.target, owner),
            DialError::Ours => {
                self.untrusted += 1;
                lease.target.failed(health, LEADS_BACK);
            }
            // It is for the round to end.
            DialError::Reset => {}
        }
    }

    /// Over how many what is left of the time is divided.
    fn rest(&self) -> u32 {
        let untried = self.targets.len() - self.tried.len() + self.race.len();
        untried as u32 + 1
    }
}

type Targets = Arc<[Arc<Target>]>;

/// What came of beginning with an address.
enum Begun {
    Running,
    /// At once: a Unix socket connects or does not.
    Ended(Lease, Connected),
    /// There is none left.
    Nothing,
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
    /// As it is configured or registered.
    address: Address,
    /// `None` is a name, which stands for the addresses that it has at the time.
    place: Option<Place>,
    /// Whether it is one of those.
    is_of_name: bool,
    found: Found,
    /// The user who registered it, and whose listener must be there; `None` if it is configured.
    registrant: Option<u32>,
    /// The listener is another user's: it is not dialled again.
    disowned: CancellationToken,
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
    last_error: Option<String>,
}

impl Target {
    fn new(address: &Address, registrant: Option<u32>) -> Arc<Self> {
        let disowned = CancellationToken::new();
        Arc::new(Self::with(
            address,
            Place::of(address),
            registrant,
            disowned,
        ))
    }

    /// One of the addresses of a name.
    fn at(&self, place: Place) -> Arc<Self> {
        Arc::new(Self {
            is_of_name: true,
            // If one of them is another user's, none is dialled any more.
            ..Self::with(
                &self.address,
                Some(place),
                self.registrant,
                self.disowned.clone(),
            )
        })
    }

    fn with(
        address: &Address,
        place: Option<Place>,
        registrant: Option<u32>,
        disowned: CancellationToken,
    ) -> Self {
        Self {
            address: address.clone(),
            place,
            is_of_name: false,
            found: Found::default(),
            registrant,
            disowned,
            open: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Why it failed last, since it last answered.
    fn last_error(&self) -> Option<String> {
        match self.is_well() {
            true => None,
            false => self.state().last_error.clone(),
        }
    }

    /// Rendezvous hashing: the address with the highest weight for a client is the client's own.
    fn weight(&self, source: Option<IpAddr>) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        match self.is_of_name {
            true => hasher.hash_one((source, &self.place)),
            false => hasher.hash_one((source, &self.address)),
        }
    }

    fn is_disowned(&self) -> bool {
        self.registrant.is_some() && self.disowned.is_cancelled()
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
            match self.is_of_name {
                // Of a name that answers, one of several addresses is a detail.
                true => {
                    debug!(address = %self.address, place = ?self.place, "an address of a name is up")
                }
                false => info!(address = %self.address, "backend address is up"),
            }
        }
        state.failures = 0;
        state.last_error = None;
        self.has_failed.store(false, Ordering::Release);
        answered
    }

    fn failed(&self, limits: Health, error: &str) {
        let mut state = self.state();
        self.has_failed.store(true, Ordering::Release);
        state.successes = 0;
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(error.to_owned());
        if state.failures >= limits.fall {
            match (state.retry_at, self.is_of_name) {
                (Some(_), _) => {}
                (None, true) => {
                    debug!(address = %self.address, place = ?self.place, error, "an address of a name is down");
                }
                (None, false) => {
                    warn!(address = %self.address, error, "backend address is down");
                }
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

/// How long silent addresses are waited for where another has failed for sure: a lost SYN is sent again
/// after a second (RFC 6298 §2).
const SILENCE: Duration = Duration::from_secs(1);

const NO_ANSWER: &str = "no answer in time";
const LATE: &str = "no answer in 250 ms, in which another address answered";
const LEADS_BACK: &str = "it leads back to this Vestibule";

/// How long an address that is down is passed over while another one is up.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
