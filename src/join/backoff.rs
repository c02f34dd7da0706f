//! Pauses that grow, and that are different for each process.

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The pauses between attempts, which double.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn to(longest: Duration) -> Self {
        Self {
            next: SHORTEST,
            longest,
        }
    }

    /// When to try again.
    pub(super) fn step(&mut self) -> Instant {
        let pause = spread(self.next);
        self.next = (2 * self.next).min(self.longest);
        Instant::now() + pause
    }

    /// It has worked.
    pub(super) fn reset(&mut self) {
        self.next = SHORTEST;
    }
}

/// A pause before the next attempt.
#[derive(Debug)]
pub(super) struct Pause {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            backoff: Backoff::to(LONGEST),
            until: None,
        }
    }
}

impl Pause {
    /// Begins a pause, longer than the last one. One that is on stays as it is.
    pub(super) fn begin(&mut self) {
        if self.until.is_none() {
            self.until = Some(self.backoff.step());
        }
    }

    /// Begins a pause of about this length, or prolongs the one that is on.
    pub(super) fn begin_with(&mut self, pause: Duration) {
        let until = Instant::now() + spread(pause);
        self.until = self.until.max(Some(until));
    }

    /// The last attempt has worked: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
    }

    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Waits for the end of the pause. Never completes without one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn passed(&mut self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
        self.until = None;
    }
}

/// Between half of `pause` and `pause`, at random: workers that have lost the same front come back one by one.
pub(super) fn spread(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0);
    pause / 2 + pause.mul_f64((random % 1024) as f64 / 2048.0)
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::to(Duration::from_millis(300));
        let pause = |backoff: &mut Backoff| backoff.step() - Instant::now();
        for longest in [100, 200, 300, 300] {
            let pause = pause(&mut backoff);
            let longest = Duration::from_millis(longest);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?}");
        }
        backoff.reset();
        assert!(pause(&mut backoff) <= SHORTEST);
    }
}
