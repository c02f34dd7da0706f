//! How many handshakes may begin in a second: of each client, and of all together.
//!
//! A bucket holds what is due in a tenth of a second, at least one, and is filled evenly. A client's own comes first: what one
//! client has too many of takes nothing from what all have. What all have no more of has cost the
//! client its own, and nobody else anything.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::shares::{SHARDS, shrink};
use super::{Exceeded, Settings};

/// The rates of one proxy. Unlimited ones are absent.
#[derive(Debug)]
pub(super) struct Rates<C: Clock> {
    clock: C,
    all: ArcSwapOption<Rate<NotKeyed, InMemoryState, C>>,
    per_ip: ArcSwapOption<Rate<IpAddr, Buckets, C>>,
    /// How many have asked for a client's bucket.
    asked: AtomicUsize,
}

#[derive(Debug)]
struct Rate<K, S: StateStore<Key = K>, C: Clock> {
    per_second: usize,
    limiter: RateLimiter<K, S, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock + Clone> Rates<C> {
    pub(super) fn new(settings: &Settings, clock: C) -> Self {
        let rates = Self {
            clock,
            all: ArcSwapOption::empty(),
            per_ip: ArcSwapOption::empty(),
            asked: AtomicUsize::new(0),
        };
        rates.change(settings);
        rates
    }

    /// A rate that changes begins with full buckets; one that stays goes on with those it has.
    pub(super) fn change(&self, settings: &Settings) {
        change(&self.all, settings.handshakes_per_second, &self.clock);
        let per_ip = settings.handshakes_per_second_per_ip;
        change(&self.per_ip, per_ip, &self.clock);
    }

    /// One more handshake of this client, or which rate it is above.
    pub(super) fn take(&self, client: Option<IpAddr>) -> Result<(), Exceeded> {
        if let (Some(client), Some(rate)) = (client, &*self.per_ip.load()) {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if asked.is_multiple_of(SWEEP) {
                rate.limiter.retain_recent();
            }
            rate.limiter
                .check_key(&client)
                .map_err(|_| Exceeded::HandshakesPerIp)?;
        }
        match &*self.all.load() {
            Some(rate) => rate.limiter.check().map_err(|_| Exceeded::Handshakes),
            None => Ok(()),
        }
    }
}

fn change<K, S, C>(rate: &ArcSwapOption<Rate<K, S, C>>, per_second: Option<usize>, clock: &C)
where
    S: StateStore<Key = K> + Default,
    C: Clock + Clone,
{
    let before = rate.load().as_ref().map(|rate| rate.per_second);
    if before != per_second {
        rate.store(per_second.map(|per_second| {
            Arc::new(Rate {
                per_second,
                limiter: RateLimiter::new(quota(per_second), S::default(), clock.clone()),
            })
        }));
    }
}

/// Of whole nanoseconds between two: within 1 % up to ten million a second.
fn quota(per_second: usize) -> Quota {
    let most = u32::try_from(per_second).unwrap_or(u32::MAX);
    let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    // A second's worth at once would be a second without turns for anybody else.
    Quota::per_second(at_least_one(most)).allow_burst(at_least_one(most.div_ceil(10)))
}

/// The time since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// The buckets of clients that are not full: until when each will be, plus one drop.
///
/// A client that is quiet for a tenth of a second has a full one, as somebody who was never here, and is
/// forgotten at the latest when the tenth after that is over: each [`SWEEP`] handshakes sweep one
/// shard. So never more are kept than came in two of these and with the last `SHARDS * SWEEP`
/// handshakes, and no sweep is longer than a shard.
#[derive(Debug)]
struct Buckets {
    /// Chosen by a keyed hash, as those of the connections.
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, Nanos>>; SHARDS],
    next_swept: AtomicUsize,
}

/// Handshakes from one sweep to the next.
const SWEEP: usize = 16;

impl Default for Buckets {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            next_swept: AtomicUsize::new(0),
        }
    }
}

impl Buckets {
    fn shard(&self, index: usize) -> MutexGuard<'_, HashMap<IpAddr, Nanos>> {
        let shard = &self.shards[index % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Buckets {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(self.hasher.hash_one(client) as usize);
        let (decision, full) = decide(shard.get(client).copied())?;
        shard.insert(*client, full);
        Ok(decision)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Buckets {
    /// Forgets those of one shard, another each time.
    fn retain_recent(&self, full: Nanos) {
        let mut shard = self.shard(self.next_swept.fetch_add(1, Ordering::Relaxed));
        shard.retain(|_, until| *until > full);
        shrink(&mut shard);
    }

    fn len(&self) -> usize {
        (0..SHARDS).map(|index| self.shard(index).len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::super::shares::ROOM;
    use super::*;

    fn settings(all: Option<usize>, per_ip: Option<usize>) -> Settings {
        Settings {
            handshakes_per_second: all,
            handshakes_per_second_per_ip: per_ip,
            ..Settings::default()
        }
    }

    fn rates(
        all: Option<usize>,
        per_ip: Option<usize>,
    ) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Rates::new(&settings(all, per_ip), clock.clone()), clock)
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(n.into()))
    }

    /// How many of so many attempts succeed.
    fn burst(rates: &Rates<FakeRelativeClock>, attempts: usize, from: Option<IpAddr>) -> usize {
        (0..attempts).filter(|_| rates.take(from).is_ok()).count()
    }

    #[test]
    fn a_tenth_of_a_second_at_once_and_then_one_after_the_other() {
        for (n, tick) in [(1, 1_000), (4, 250), (1_000, 1)] {
            for (all, per_ip, key) in [
                (Some(n), None, Exceeded::Handshakes),
                (None, Some(n), Exceeded::HandshakesPerIp),
            ] {
                let (rates, clock) = rates(all, per_ip);
                let at_once = n.div_ceil(10);
                assert_eq!(burst(&rates, at_once, client(1)), at_once);
                assert_eq!(rates.take(client(1)), Err(key));
                for _ in 0..3 {
                    clock.advance(Duration::from_millis(tick) - Duration::from_nanos(1));
                    assert_eq!(rates.take(client(1)), Err(key));
                    clock.advance(Duration::from_nanos(1));
                    assert_eq!(burst(&rates, 2, client(1)), 1);
                }
                // Who was away for longer has no more.
                clock.advance(Duration::from_secs(60));
                assert_eq!(burst(&rates, 3 * n, client(1)), at_once);
            }
        }
    }

    #[test]
    fn a_client_above_its_rate_takes_nothing_from_the_others() {
        let (rates, _clock) = rates(Some(100), Some(20));
        assert_eq!(burst(&rates, 1_000, client(1)), 2);
        for n in 2..=5 {
            assert_eq!(burst(&rates, 2, client(n)), 2);
        }
        assert_eq!(rates.take(client(6)), Err(Exceeded::Handshakes));
        assert_eq!(rates.take(client(1)), Err(Exceeded::HandshakesPerIp));
    }

    #[test]
    fn who_has_no_address_is_held_by_the_rate_of_all_alone() {
        let (rates, _clock) = rates(Some(30), Some(10));
        assert_eq!(burst(&rates, 5, None), 3);
        assert_eq!(rates.take(None), Err(Exceeded::Handshakes));
    }

    #[test]
    fn a_changed_rate_holds_at_once_and_an_unchanged_one_forgets_nothing() {
        let (rates, _clock) = rates(None, Some(20));
        assert_eq!(burst(&rates, 9, client(1)), 2);
        rates.change(&settings(Some(1_000), Some(20)));
        assert_eq!(rates.take(client(1)), Err(Exceeded::HandshakesPerIp));
        rates.change(&settings(Some(1_000), Some(30)));
        assert_eq!(burst(&rates, 9, client(1)), 3);
        rates.change(&settings(Some(40), None));
        assert_eq!(burst(&rates, 9, client(1)), 4);
        rates.change(&settings(None, None));
        assert_eq!(burst(&rates, 9, client(1)), 9);
    }

    #[test]
    fn clients_that_are_quiet_are_forgotten() {
        let (rates, clock) = rates(None, Some(5));
        let kept = || rates.per_ip.load_full().expect("a rate").limiter.len();
        // A flood from ever other clients, ten thousand a second. Each has taken what comes back in
        // a fifth of a second, and governor keeps it for another fifth.
        for n in 0..50_000 {
            rates.take(client(n)).expect("its first");
            clock.advance(Duration::from_micros(100));
            if n % 1_000 == 0 {
                assert!(kept() <= 4_000 + SHARDS * SWEEP, "{} after {n}", kept());
            }
        }
        // And then one, who comes slowly.
        for _ in 0..SHARDS * SWEEP {
            clock.advance(Duration::from_secs(1));
            rates.take(client(7)).expect("within its rate");
        }
        assert!(kept() <= 1, "{}", kept());
    }

    #[test]
    fn what_a_flood_took_is_given_back() {
        let buckets = Buckets::default();
        let full = |at: u64| Nanos::from(Duration::from_secs(at));
        for n in 0..100_000 {
            let client = IpAddr::V4(u32::into(n));
            let taken = buckets.measure_and_replace(&client, |_| Ok::<_, ()>(((), full(1))));
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(buckets.len(), 100_000);
        (0..SHARDS).for_each(|_| buckets.retain_recent(full(0)));
        assert_eq!(buckets.len(), 100_000, "not yet full");
        (0..SHARDS).for_each(|_| buckets.retain_recent(full(1)));
        assert!(buckets.is_empty());
        let capacity: usize = (0..SHARDS).map(|n| buckets.shard(n).capacity()).sum();
        assert!(capacity <= SHARDS * 8 * ROOM, "{capacity}");
    }

    #[test]
    fn exact_under_concurrency() {
        let (rates, _clock) = rates(Some(10_000), Some(7_000));
        let from = |n: u32| {
            let rates = &rates;
            move || burst(rates, 2_000, client(n % 2))
        };
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(from(n))).collect();
            let counts = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            counts.sum()
        });
        assert_eq!(admitted, 1_000);
    }
}
