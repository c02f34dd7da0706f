//! A point in time in eight bytes, for values that every connection has.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds since the first use in this process: an [`Instant`] takes sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Moment {
    pub(crate) fn now() -> Self {
        // The clock of tokio, which tests can stop.
        tokio::time::Instant::now().into()
    }

    /// The time since then; zero if that is in the future.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }

    /// A number that grows with time.
    pub(crate) fn rank(self) -> u64 {
        self.0
    }
}

impl From<tokio::time::Instant> for Moment {
    fn from(at: tokio::time::Instant) -> Self {
        let since = at.into_std().saturating_duration_since(*START);
        Self(since.as_secs() * NANOS + u64::from(since.subsec_nanos()))
    }
}

const NANOS: u64 = 1_000_000_000;

/// A moment that one thread moves and others read.
#[derive(Debug)]
pub(crate) struct SharedMoment(AtomicU64);

impl SharedMoment {
    pub(crate) fn set(&self, moment: Moment) {
        self.0.store(moment.0, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }
}

/// The current time.
impl Default for SharedMoment {
    fn default() -> Self {
        Self(AtomicU64::new(Moment::now().0))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_since_a_moment_is_that_of_the_clock() {
        let then = SharedMoment::default();
        let day = Duration::from_secs(24 * 60 * 60);
        advance(1_000 * day).await;
        assert_eq!(then.get().elapsed(), 1_000 * day);
        let earlier = then.get();
        then.set(Moment::now());
        assert!(then.get() > earlier);
        assert_eq!(then.get().elapsed(), Duration::ZERO);
    }
}
