//! The memory budget of a proxy: how much is used, whether a new connection fits, and how many
//! connections must go.
//!
//! ```text
//! measured bytes ─► Controller ─ at each sample ─┬─► MemoryBudget, which every accept reads
//!                                                ├─► how many idle connections to close
//!                                                └─► what to log
//! ```
//!
//! It measures and closes nothing itself.

mod controller;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

pub(crate) use self::controller::{Controller, Decision, Remark};

/// How near the memory is to its maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    None,
    /// From 80 % on, until it is below 75 %.
    High,
    /// From 90 % on: new connections are closed.
    Refusing,
    /// From 95 % on, until it is below 90 %: idle connections are closed too.
    Shedding,
}

impl Pressure {
    const ALL: [Self; 4] = [Self::None, Self::High, Self::Refusing, Self::Shedding];

    /// The word for the admin API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::High => "high",
            Self::Refusing => "refusing",
            Self::Shedding => "shedding",
        }
    }
}

/// The state of the memory at the last sample.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// Bytes. `None`: no maximum, and nothing is sampled.
    max: Option<u64>,
    /// What was used before the first connection.
    base: u64,
    source: &'static str,
    used: AtomicU64,
    pressure: AtomicU8,
    /// How many connections without a backend there may be.
    most_pending: AtomicU64,
}

impl MemoryBudget {
    /// `base` is what is used without connections, in bytes, and `source` what is measured.
    pub(crate) fn new(max: Option<u64>, base: u64, source: &'static str) -> Self {
        Self {
            max,
            base,
            source,
            used: AtomicU64::new(base),
            pressure: AtomicU8::new(Pressure::None as u8),
            most_pending: AtomicU64::new(UNBOUNDED),
        }
    }

    /// Whether there is memory for one more connection beside `pending`, the number of those that have no
    /// backend yet. One load, unless a bound is near.
    pub(crate) fn admits(&self, pending: impl FnOnce() -> usize) -> bool {
        match self.most_pending.load(Ordering::Relaxed) {
            UNBOUNDED => true,
            0 => false,
            most => (pending() as u64) < most,
        }
    }

    pub(crate) fn publish(&self, used: u64, decision: &Decision) {
        self.used.store(used, Ordering::Relaxed);
        let pressure = decision.pressure as u8;
        self.pressure.store(pressure, Ordering::Relaxed);
        let most = decision.most_pending.unwrap_or(UNBOUNDED);
        self.most_pending.store(most, Ordering::Relaxed);
    }

    /// Bytes. `None` is unlimited.
    pub(crate) fn max(&self) -> Option<u64> {
        self.max
    }

    /// What is measured: `cgroup` or `process`.
    pub(crate) fn source(&self) -> &'static str {
        self.source
    }

    /// What was used before the first connection, in bytes.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes at the last sample. `None` if nothing is sampled, because there is no maximum.
    pub(crate) fn used(&self) -> Option<u64> {
        self.max.map(|_| self.used.load(Ordering::Relaxed))
    }

    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::ALL[usize::from(self.pressure.load(Ordering::Relaxed))]
    }
}

const UNBOUNDED: u64 = u64::MAX;

/// What a connection needs at most until it has a backend: a ClientHello of 64 KiB, and the state of its
/// handshake (`tests/strangers.rs` measures it).
pub(crate) const PENDING_AT_MOST: u64 = 80 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn decision(pressure: Pressure, most_pending: Option<u64>) -> Decision {
        Decision {
            pressure,
            most_pending,
            shed: 0,
            next: Duration::ZERO,
            remark: None,
        }
    }

    #[test]
    fn connections_are_admitted_up_to_the_bound_and_not_counted_without_one() {
        let budget = MemoryBudget::new(Some(1000), 100, "process");
        assert!(budget.admits(|| unreachable!("no bound")));
        budget.publish(700, &decision(Pressure::None, Some(3)));
        assert!(budget.admits(|| 2));
        assert!(!budget.admits(|| 3));
        budget.publish(900, &decision(Pressure::Refusing, Some(0)));
        assert!(!budget.admits(|| unreachable!("none fits")));
        assert_eq!(
            (budget.used(), budget.pressure()),
            (Some(900), Pressure::Refusing)
        );
        budget.publish(100, &decision(Pressure::None, None));
        assert!(budget.admits(|| unreachable!("no bound")));
    }

    #[test]
    fn without_a_maximum_everything_is_admitted() {
        let budget = MemoryBudget::new(None, 100, "process");
        assert!(budget.admits(|| unreachable!("no bound")));
        assert_eq!((budget.used(), budget.max()), (None, None));
    }
}
