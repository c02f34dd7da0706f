//! How long there has been no connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Ledger;

/// The time of the last end of a connection.
#[derive(Debug)]
pub(super) struct LastEnd {
    start: Instant,
    /// Milliseconds after the start; 0 if none has ended.
    after: AtomicU64,
}

impl Default for LastEnd {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            after: AtomicU64::new(0),
        }
    }
}

impl LastEnd {
    /// Notes an end. This comes before the connection is taken off the number of open ones, so that a
    /// reader who sees that none is open sees the time of the last end too.
    pub(super) fn note(&self) {
        let after = self.start.elapsed().as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.after.store(after, Ordering::Release);
    }

    fn elapsed(&self) -> Duration {
        let after = Duration::from_millis(self.after.load(Ordering::Acquire));
        self.start.elapsed().saturating_sub(after)
    }
}

impl Ledger {
    /// Waits until there has been no connection for this time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call counts from the last end too.
    pub(crate) async fn idle_for(&self, time: Duration) {
        loop {
            // If a connection is open now, the time cannot be over before all of it has passed.
            let mut left = time;
            if self.open.load(Ordering::Acquire) == 0 {
                left = time.saturating_sub(self.last_end.elapsed());
            }
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn emptied(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            sleep(LOOK).await;
        }
    }
}

/// Short beside the life of a process, long beside a look. Only a process that is about to end looks.
const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::timeout;

    use super::*;
    use crate::facts::Facts;
    use crate::ledger::Via;

    const IDLE: Duration = Duration::from_secs(600);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_start_and_again_from_the_last_end() {
        let ledger = Arc::new(Ledger::default());
        let open = || ledger.open(Facts::new("app"), Via::Direct);
        let is_idle = async |within| timeout(within, ledger.idle_for(IDLE)).await.is_ok();
        assert!(!is_idle(IDLE - SECOND).await);
        let (first, second) = (open(), open());
        assert!(!is_idle(10 * IDLE).await);
        drop(first);
        assert!(!is_idle(10 * IDLE).await);
        drop(second);
        assert!(!is_idle(IDLE - SECOND).await);
        drop(open());
        assert!(!is_idle(IDLE - SECOND).await);
        assert!(is_idle(2 * SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_opens_and_stays_holds_the_end_up() {
        let ledger = Arc::new(Ledger::default());
        let mut idle = Box::pin(ledger.idle_for(IDLE));
        assert!(timeout(IDLE / 2, idle.as_mut()).await.is_err());
        let record = ledger.open(Facts::new("app"), Via::Direct);
        assert!(timeout(10 * IDLE, idle.as_mut()).await.is_err());
        drop(record);
        assert!(timeout(IDLE - SECOND, idle.as_mut()).await.is_err());
        assert!(timeout(2 * SECOND, idle.as_mut()).await.is_ok());
    }
}
