//! How many handshakes may begin in a second: of each client, and of all together.
//!
//! A bucket holds what is due in a tenth of a second, at least one, and is filled evenly. A client's own comes first: what one
//! client has too many of takes nothing from what all have. What all have no more of has cost the
//! client its own, and nobody else anything.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::sharded::{SHARDS, Sharded, shrink};
use super::{Exceeded, LimitSettings};

/// The rates of one proxy. Unlimited ones are absent.
#[derive(Debug)]
pub(super) struct Rates {
    /// What the times of buckets count from, in nanoseconds.
    began: Instant,
    all: ArcSwapOption<Rate<AtomicU64>>,
    per_ip: ArcSwapOption<Rate<Buckets>>,
}

#[derive(Debug)]
struct Rate<B> {
    per_second: usize,
    quota: Quota,
    buckets: B,
}

impl Rates {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        let rates = Self {
            began: Instant::now(),
            all: ArcSwapOption::empty(),
            per_ip: ArcSwapOption::empty(),
        };
        rates.change(settings);
        rates
    }

    /// A rate that changes begins with full buckets; one that stays goes on with those it has.
    pub(super) fn change(&self, settings: &LimitSettings) {
        change(&self.all, settings.handshakes_per_second);
        change(&self.per_ip, settings.handshakes_per_second_per_ip);
    }

    /// One more handshake of this client, or which rate it is above.
    pub(super) fn take(&self, client: Option<IpAddr>, now: Instant) -> Result<(), Exceeded> {
        let now = now.saturating_duration_since(self.began).as_nanos() as u64;
        if let (Some(client), Some(rate)) = (client, &*self.per_ip.load()) {
            let taken = rate.buckets.take(client, rate.quota, now);
            taken.ok_or(Exceeded::HandshakesPerIp)?;
        }
        if let Some(rate) = &*self.all.load() {
            let next = |full| rate.quota.take(full, now);
            let taken = (rate.buckets).fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            taken.map_err(|_| Exceeded::Handshakes)?;
        }
        Ok(())
    }
}

fn change<B: Default>(rate: &ArcSwapOption<Rate<B>>, per_second: Option<usize>) {
    let before = rate.load().as_ref().map(|rate| rate.per_second);
    if before != per_second {
        rate.store(per_second.map(|per_second| {
            Arc::new(Rate {
                per_second,
                quota: Quota::new(per_second),
                buckets: B::default(),
            })
        }));
    }
}

/// The times of a rate, in nanoseconds.
///
/// A bucket is the time at which it will be full (the generic cell rate algorithm). A handshake moves that time
/// on, and nothing has to fill the bucket.
#[derive(Clone, Copy, Debug)]
struct Quota {
    /// From one handshake to the next: within 1 % up to ten million a second.
    each: u64,
    /// From an empty bucket to a full one.
    burst: u64,
}

impl Quota {
    fn new(per_second: usize) -> Self {
        let per_second = u64::from(u32::try_from(per_second).unwrap_or(u32::MAX)).max(1);
        let each = (1_000_000_000 / per_second).max(1);
        // A second's worth at once would be a second without turns for anybody else.
        let burst = each * per_second.div_ceil(10);
        Self { each, burst }
    }

    /// When a bucket that is full at `full` will be full if one is taken now; `None` if it is empty.
    fn take(self, full: u64, now: u64) -> Option<u64> {
        let next = full.max(now) + self.each;
        (next <= now + self.burst).then_some(next)
    }
}

/// The buckets of clients that are not full.
///
/// A client with a full bucket is the same as a new one, so a sweep forgets it. Every [`SWEEP`] handshakes, one
/// shard is swept. So the table never has more clients than came in the time that fills a bucket, plus the
/// last `SHARDS * SWEEP`, and no sweep is longer than a shard.
#[derive(Debug, Default)]
struct Buckets {
    full: Sharded<IpAddr, u64>,
    /// How many have asked for one.
    asked: AtomicUsize,
}

/// Handshakes from one sweep to the next.
const SWEEP: usize = 16;

impl Buckets {
    /// `None` if the client's is empty.
    fn take(&self, client: IpAddr, quota: Quota, now: u64) -> Option<()> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked.is_multiple_of(SWEEP) {
            self.sweep(asked / SWEEP, now);
        }
        let mut shard = self.full.of(&client);
        let full = shard.get(&client).copied().unwrap_or_default();
        shard.insert(client, quota.take(full, now)?);
        Some(())
    }

    fn sweep(&self, index: usize, now: u64) {
        let mut shard = self.full.at(index % SHARDS);
        shard.retain(|_, full| *full > now);
        shrink(&mut shard);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sharded::ROOM;
    use super::*;

    fn settings(all: Option<usize>, per_ip: Option<usize>) -> LimitSettings {
        LimitSettings {
            handshakes_per_second: all,
            handshakes_per_second_per_ip: per_ip,
            ..LimitSettings::default()
        }
    }

    /// Rates, and a clock that only the test moves.
    fn rates(all: Option<usize>, per_ip: Option<usize>) -> (Rates, Instant) {
        let rates = Rates::new(&settings(all, per_ip));
        let began = rates.began;
        (rates, began)
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(n.into()))
    }

    /// How many of so many attempts succeed.
    fn burst(rates: &Rates, attempts: usize, from: Option<IpAddr>, now: Instant) -> usize {
        let taken = |_: &usize| rates.take(from, now).is_ok();
        (0..attempts).filter(taken).count()
    }

    #[test]
    fn a_tenth_of_a_second_at_once_and_then_one_after_the_other() {
        for (n, tick) in [(1, 1_000), (4, 250), (1_000, 1)] {
            for (all, per_ip, key) in [
                (Some(n), None, Exceeded::Handshakes),
                (None, Some(n), Exceeded::HandshakesPerIp),
            ] {
                let (rates, mut now) = rates(all, per_ip);
                let at_once = n.div_ceil(10);
                assert_eq!(burst(&rates, at_once, client(1), now), at_once);
                assert_eq!(rates.take(client(1), now), Err(key));
                for _ in 0..3 {
                    now += Duration::from_millis(tick) - Duration::from_nanos(1);
                    assert_eq!(rates.take(client(1), now), Err(key));
                    now += Duration::from_nanos(1);
                    assert_eq!(burst(&rates, 2, client(1), now), 1);
                }
                // Who was away for longer has no more.
                now += Duration::from_secs(60);
                assert_eq!(burst(&rates, 3 * n, client(1), now), at_once);
            }
        }
    }

    #[test]
    fn a_client_above_its_rate_takes_nothing_from_the_others() {
        let (rates, now) = rates(Some(100), Some(20));
        assert_eq!(burst(&rates, 1_000, client(1), now), 2);
        for n in 2..=5 {
            assert_eq!(burst(&rates, 2, client(n), now), 2);
        }
        assert_eq!(rates.take(client(6), now), Err(Exceeded::Handshakes));
        assert_eq!(rates.take(client(1), now), Err(Exceeded::HandshakesPerIp));
    }

    #[test]
    fn who_has_no_address_is_held_by_the_rate_of_all_alone() {
        let (rates, now) = rates(Some(30), Some(10));
        assert_eq!(burst(&rates, 5, None, now), 3);
        assert_eq!(rates.take(None, now), Err(Exceeded::Handshakes));
    }

    #[test]
    fn a_changed_rate_holds_at_once_and_an_unchanged_one_forgets_nothing() {
        let (rates, now) = rates(None, Some(20));
        assert_eq!(burst(&rates, 9, client(1), now), 2);
        rates.change(&settings(Some(1_000), Some(20)));
        assert_eq!(rates.take(client(1), now), Err(Exceeded::HandshakesPerIp));
        rates.change(&settings(Some(1_000), Some(30)));
        assert_eq!(burst(&rates, 9, client(1), now), 3);
        rates.change(&settings(Some(40), None));
        assert_eq!(burst(&rates, 9, client(1), now), 4);
        rates.change(&settings(None, None));
        assert_eq!(burst(&rates, 9, client(1), now), 9);
    }

    #[test]
    fn clients_that_are_quiet_are_forgotten() {
        let (rates, mut now) = rates(None, Some(5));
        let kept = || {
            let rate = rates.per_ip.load_full().expect("a rate");
            length(&rate.buckets)
        };
        // A flood from ever other clients, ten thousand a second. Each has taken what comes back in
        // a fifth of a second.
        for n in 0..50_000 {
            rates.take(client(n), now).expect("its first");
            now += Duration::from_micros(100);
            if n % 1_000 == 0 {
                assert!(kept() <= 2_000 + SHARDS * SWEEP, "{} after {n}", kept());
            }
        }
        // And then one, who comes slowly.
        for _ in 0..SHARDS * SWEEP {
            now += Duration::from_secs(1);
            rates.take(client(7), now).expect("within its rate");
        }
        assert!(kept() <= 1, "{}", kept());
    }

    fn length(buckets: &Buckets) -> usize {
        (0..SHARDS).map(|index| buckets.full.at(index).len()).sum()
    }

    #[test]
    fn what_a_flood_took_is_given_back() {
        let buckets = Buckets::default();
        for n in 0..100_000 {
            let client = IpAddr::V4(u32::into(n));
            buckets.full.of(&client).insert(client, 1);
        }
        (0..SHARDS).for_each(|index| buckets.sweep(index, 0));
        assert_eq!(length(&buckets), 100_000, "not yet full");
        (0..SHARDS).for_each(|index| buckets.sweep(index, 1));
        assert_eq!(length(&buckets), 0);
        let capacities = (0..SHARDS).map(|index| buckets.full.at(index).capacity());
        let capacity: usize = capacities.sum();
        assert!(capacity <= SHARDS * 8 * ROOM, "{capacity}");
    }

    #[test]
    fn exact_under_concurrency() {
        let (rates, now) = rates(Some(10_000), Some(7_000));
        let from = |n: u32| {
            let rates = &rates;
            move || burst(rates, 2_000, client(n % 2), now)
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
