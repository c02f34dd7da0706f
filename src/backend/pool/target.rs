//! One address of a backend, and what is known about it.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::judge::Judge;
use super::names::Found;
use super::order::{AddressState, Order};
use crate::address::Address;
use crate::backend::dial::Place;

/// What the answer of an address means.
#[derive(PartialEq, Eq)]
pub(super) enum Answered {
    Still,
    /// It answers again after a failure.
    Again,
}

/// One address and its state. The number of failures after which it counts as down is not part of
/// it, because a reload may change that number.
#[derive(Debug)]
pub(super) struct Target {
    /// As configured or registered.
    pub address: Address,
    /// `None` for a host name, which stands for its current socket addresses.
    pub place: Option<Place>,
    /// Whether it is a socket address of a host name.
    pub is_of_name: bool,
    pub found: Found,
    /// The uid that registered it, which must own the listener there; `None` if it is configured.
    pub registrant: Option<u32>,
    /// Cancelled when the listener belongs to another uid: the address is not dialled any more.
    pub disowned: CancellationToken,
    pub open: AtomicUsize,
    pub order: Arc<Order>,
    /// The order for the host name that it is a socket address of.
    of_name: Option<Arc<Order>>,
    /// Whether `state` has anything to read: nobody locks it while there are no failures.
    has_failed: AtomicBool,
    state: Mutex<TargetState>,
}

#[derive(Debug, Default)]
pub(super) struct TargetState {
    pub failures: u32,
    successes: u32,
    /// When a connection may be tried again. `Some` means that the address is down.
    pub retry_at: Option<Instant>,
    last_error: Option<String>,
    /// A failure that no connection has seen: see [`super::site`].
    pub unseen: Option<String>,
    answers: Answers,
}

/// What health checks with `expect` say.
#[derive(Debug, Default)]
struct Answers {
    /// In a row, while it is unfit.
    right: u32,
    /// In a row.
    wrong: u32,
    is_unfit: bool,
    last_error: Option<String>,
}

impl TargetState {
    /// Whether connections and health checks both say so.
    pub(super) fn is_up(&self) -> bool {
        self.retry_at.is_none() && !self.answers.is_unfit
    }

    fn last_error(&self) -> Option<String> {
        let of_checks = self.answers.last_error.as_ref().or(self.unseen.as_ref());
        self.last_error.as_ref().or(of_checks).cloned()
    }
}

impl Target {
    pub(super) fn new(address: &Address, registrant: Option<u32>) -> Arc<Self> {
        let disowned = CancellationToken::new();
        Arc::new(Self::with(
            address,
            Place::of(address),
            registrant,
            disowned,
        ))
    }

    /// The same configured address after a reload.
    pub(super) fn renewed(&self) -> Arc<Self> {
        let (place, disowned) = (self.place.clone(), CancellationToken::new());
        Arc::new(Self {
            order: Arc::clone(&self.order),
            ..Self::with(&self.address, place, None, disowned)
        })
    }

    /// One socket address of a host name.
    pub(super) fn at(&self, place: Place) -> Arc<Self> {
        Arc::new(Self {
            is_of_name: true,
            order: self.order.of(&place),
            of_name: Some(Arc::clone(&self.order)),
            // If one of them belongs to another uid, none is dialled any more.
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
            order: Arc::default(),
            of_name: None,
            has_failed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// The latest error since the address last answered.
    pub(super) fn last_error(&self) -> Option<String> {
        match self.is_well() {
            true => None,
            false => self.state().last_error(),
        }
    }

    /// Rendezvous hashing: a client goes to the address with the highest weight for it.
    pub(super) fn weight(&self, source: Option<IpAddr>) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        match self.is_of_name {
            true => hasher.hash_one((source, &self.place)),
            false => hasher.hash_one((source, &self.address)),
        }
    }

    /// Whether it may have new connections, by order of an operator.
    pub(super) fn is_in_service(&self) -> bool {
        self.pass().is_some()
    }

    /// How often the address, or its name, was put down, if it may have a new connection.
    fn pass(&self) -> Option<u32> {
        let of_name = self.of_name.as_ref().map_or(Some(0), |it| it.pass())?;
        Some(self.order.pass()?.wrapping_add(of_name))
    }

    fn downs(&self) -> u32 {
        let of_name = self.of_name.as_ref().map_or(0, |it| it.downs());
        self.order.downs().wrapping_add(of_name)
    }

    pub(super) fn state_ordered(&self) -> AddressState {
        self.order.state()
    }

    pub(super) fn is_disowned(&self) -> bool {
        self.registrant.is_some() && self.disowned.is_cancelled()
    }

    /// Whether the address is down and not yet due for a retry.
    pub(super) fn is_down(&self) -> bool {
        if self.is_well() {
            return false;
        }
        self.state()
            .retry_at
            .is_some_and(|retry_at| Instant::now() < retry_at)
    }

    /// Only one connection at a time tests whether an address that is down answers again: if it is
    /// silent, the others do not wait for it.
    pub(super) fn begin(&self) {
        if self.is_well() {
            return;
        }
        let mut state = self.state();
        if state.retry_at.is_some() {
            state.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    pub(super) fn answered(&self, judge: &Judge) -> Answered {
        if self.is_well() {
            return Answered::Still;
        }
        let mut state = self.state();
        let answered = match state.failures {
            0 => Answered::Still,
            _ => Answered::Again,
        };
        let was_up = state.is_up();
        if state.retry_at.is_some() {
            state.successes += 1;
            if state.successes < judge.limits.rise {
                // The count of failures stays: one more on its way up, and it counts as down again.
                // Until then it is due for a retry at once.
                state.retry_at = Some(Instant::now());
                return answered;
            }
            state.retry_at = None;
        }
        state.failures = 0;
        (state.last_error, state.unseen) = (None, None);
        self.conclude(judge, was_up, state);
        answered
    }

    pub(super) fn failed(&self, judge: &Judge, error: &str) {
        let mut state = self.state();
        let was_up = state.is_up();
        state.successes = 0;
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(error.to_owned());
        if state.failures >= judge.limits.fall {
            state.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
        self.conclude(judge, was_up, state);
    }

    /// Records what a health check says of the answer. Connections do not count here: they do not
    /// know whether the answer is right.
    pub(super) fn checked(&self, judge: &Judge, verdict: Result<(), String>) -> Answered {
        if verdict.is_ok() && self.is_well() {
            return Answered::Still;
        }
        let mut state = self.state();
        let was_up = state.is_up();
        let answers = &mut state.answers;
        match verdict {
            Ok(()) => {
                answers.right = answers.right.saturating_add(1);
                if !answers.is_unfit || answers.right >= judge.limits.rise {
                    *answers = Answers::default();
                }
            }
            Err(error) => {
                answers.right = 0;
                answers.wrong = answers.wrong.saturating_add(1);
                answers.is_unfit |= answers.wrong >= judge.limits.fall;
                answers.last_error = Some(error);
            }
        }
        let is_up = state.is_up();
        self.conclude(judge, was_up, state);
        match !was_up && is_up {
            true => Answered::Again,
            false => Answered::Still,
        }
    }

    /// Health checks of the address have ended. This is no change of its health.
    pub(super) fn forget_verdicts(&self) {
        let mut state = self.state();
        state.answers = Answers::default();
        let has_failed = state.last_error().is_some();
        self.has_failed.store(has_failed, Ordering::Release);
    }

    /// A name is as its socket addresses are: down with this error, or up.
    pub(super) fn follow(&self, judge: &Judge, error: Option<String>) {
        if error.is_none() && self.is_well() {
            return;
        }
        let mut state = self.state();
        let was_up = state.is_up();
        *state = TargetState::default();
        if error.is_some() {
            state.failures = judge.limits.fall;
            state.retry_at = Some(Instant::now() + RETRY_AFTER);
            state.last_error = error;
        }
        self.conclude(judge, was_up, state);
    }

    /// Ends a change of the state: tells of it if the address has come up or gone down.
    fn conclude(&self, judge: &Judge, was_up: bool, state: MutexGuard<'_, TargetState>) {
        let error = state.last_error();
        let is_up = state.is_up();
        self.has_failed.store(error.is_some(), Ordering::Release);
        drop(state);
        match (was_up, is_up) {
            (true, false) => judge.say_down(self, &error.unwrap_or_default()),
            (false, true) => judge.say_up(self),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether health checks say that its answers are wrong: then it gets no connection at all.
    pub(super) fn is_unfit(&self) -> bool {
        !self.is_well() && self.state().answers.is_unfit
    }

    /// Notes a failure that is judged later.
    pub(super) fn fails_unseen(&self, error: String) {
        self.state().unseen = Some(error);
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether it has not failed since it last answered.
    pub(super) fn is_well(&self) -> bool {
        !self.has_failed.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, TargetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place at an address. Dropping it means that the connection has ended.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lease {
    pub(super) target: Arc<Target>,
    /// How often the address had been put down when it was chosen.
    downs: u32,
}

impl Lease {
    /// The count includes attempts, from the choice of the address on: otherwise a burst would go
    /// to one address.
    ///
    /// `None` if an operator has just taken the address out of service.
    pub(super) fn new(target: Arc<Target>) -> Option<Self> {
        let downs = target.pass()?;
        target.open.fetch_add(1, Ordering::Relaxed);
        Some(Self { target, downs })
    }

    /// Names the address in the ledger.
    pub(crate) fn number(&self) -> u32 {
        self.target.order.number
    }

    /// Whether the address was put down since it was chosen.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.target.downs() != self.downs
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long an address that is down is skipped while another one is up.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
