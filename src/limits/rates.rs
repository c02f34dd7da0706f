//! Limits how many handshakes begin in a second, for each client and in total.
//!
//! A bucket holds the handshakes of a tenth of a second, at least one, and refills evenly. A
//! client's own bucket is asked first, so that a client above its own rate takes nothing from the
//! total. A handshake that the total refuses has still used up one of its client's own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::sharded::{SHARDS, Sharded, shrink};
use super::{AdmissionSettings, Exceeded};

/// The two rates; an unlimited one is absent.
#[derive(Debug)]
pub(super) struct Rates {
    /// The zero point of all times of buckets, which are in nanoseconds.
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
    pub(super) fn new(settings: &AdmissionSettings) -> Self {
        let rates = Self {
            began: Instant::now(),
            all: ArcSwapOption::empty(),
            per_ip: ArcSwapOption::empty(),
        };
        rates.change(settings);
        rates
    }

    /// Replaces the rates. A rate that changes starts with full buckets; one that stays the same
    /// keeps its buckets.
    pub(super) fn change(&self, settings: &AdmissionSettings) {
        change(&self.all, settings.handshakes_per_second);
        change(&self.per_ip, settings.handshakes_per_second_per_ip);
    }

    /// The two rates, of all clients and of each one; `None` is unlimited.
    pub(super) fn per_second(&self) -> (Option<u64>, Option<u64>) {
        let (all, per_ip) = (self.all.load(), self.per_ip.load());
        let all = all.as_ref().map(|rate| rate.per_second as u64);
        (all, per_ip.as_ref().map(|rate| rate.per_second as u64))
    }

    /// Counts one more handshake of this client, or returns the rate that it exceeds.
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

/// One rate, as durations in nanoseconds.
///
/// A bucket is stored as the time at which it will be full (generic cell rate algorithm). A
/// handshake moves that time forward, and nothing has to refill the bucket.
#[derive(Clone, Copy, Debug)]
struct Quota {
    /// Between two handshakes. The rounding error is at most 1 % up to ten million handshakes a
    /// second.
    each: u64,
    /// To fill an empty bucket.
    burst: u64,
}

impl Quota {
    fn new(per_second: usize) -> Self {
        let per_second = u64::from(u32::try_from(per_second).unwrap_or(u32::MAX)).max(1);
        let each = (1_000_000_000 / per_second).max(1);
        // A bucket for a whole second would let one burst occupy the workers for a second.
        let burst = each * per_second.div_ceil(10);
        Self { each, burst }
    }

    /// The new time at which the bucket is full, after one handshake is taken from it; `None` if it
    /// is empty.
    fn take(self, full: u64, now: u64) -> Option<u64> {
        let next = full.max(now) + self.each;
        (next <= now + self.burst).then_some(next)
    }
}

/// The buckets of clients that are not full.
///
/// A client with a full bucket is like a new client, so a sweep removes it. Every [`SWEEP`]
/// handshakes, one shard is swept. The table therefore never has more clients than came in the time
/// that fills a bucket, plus the last `SHARDS * SWEEP`, and no sweep is longer than one shard.
#[derive(Debug, Default)]
struct Buckets {
    full: Sharded<IpAddr, u64>,
    /// The number of handshakes, which says when to sweep.
    asked: AtomicUsize,
}

/// The number of handshakes between two sweeps.
const SWEEP: usize = 16;

impl Buckets {
    /// Takes one handshake from the client's bucket; `None` if it is empty.
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

    fn settings(all: Option<usize>, per_ip: Option<usize>) -> AdmissionSettings {
        AdmissionSettings {
            handshakes_per_second: all,
            handshakes_per_second_per_ip: per_ip,
            ..AdmissionSettings::default()
        }
    }

    /// Rates, and a time that only the test moves.
    fn rates(all: Option<usize>, per_ip: Option<usize>) -> (Rates, Instant) {
        let rates = Rates::new(&settings(all, per_ip));
        let began = rates.began;
        (rates, began)
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(n.into()))
    }

    /// The number of successful attempts.
    fn burst(rates: &Rates, attempts: usize, from: Option<IpAddr>, now: Instant) -> usize {
        let taken = |_: &usize| rates.take(from, now).is_ok();
        (0..attempts).filter(taken).count()
    }

    #[test]
    fn a_burst_of_a_tenth_of_a_second_is_followed_by_an_even_rate() {
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
                // A longer pause does not add to the burst.
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
    fn clients_without_an_address_count_for_the_total_rate_only() {
        let (rates, now) = rates(Some(30), Some(10));
        assert_eq!(burst(&rates, 5, None, now), 3);
        assert_eq!(rates.take(None, now), Err(Exceeded::Handshakes));
    }

    #[test]
    fn a_changed_rate_applies_at_once_and_an_unchanged_one_keeps_its_buckets() {
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
        // A flood of ten thousand new clients a second. Each client's bucket is full again after a
        // fifth of a second.
        for n in 0..50_000 {
            rates.take(client(n), now).expect("its first");
            now += Duration::from_micros(100);
            if n % 1_000 == 0 {
                assert!(kept() <= 2_000 + SHARDS * SWEEP, "{} after {n}", kept());
            }
        }
        // Then a single client, at a slow rate.
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
    fn the_memory_of_a_flood_is_returned() {
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
