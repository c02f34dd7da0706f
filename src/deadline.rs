//! A point in time that bounds all waits of one phase.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The time by which a phase must end. It is made once for a phase and passed down, so that retries
/// and slow steps share one budget.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use std::time::Duration;
/// use vestibule::Deadline;
///
/// let deadline = Deadline::after(Duration::from_millis(1));
/// assert!(deadline.bound(std::future::pending::<()>()).await.is_err());
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// `None` means never.
    at: Option<Instant>,
    scope: Scope,
}

/// What a deadline bounds, which tells what its end means. When the lifetime of the connection cuts
/// a phase short, the deadline keeps that in its scope. A later look at the clock could not tell,
/// because both times may have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One phase.
    Phase,
    /// The whole connection.
    Lifetime,
}

impl Deadline {
    /// The deadline that never passes.
    pub const NEVER: Self = Self {
        at: None,
        scope: Scope::Phase,
    };

    /// A deadline in `budget` from now. `None`, and a budget that overflows the clock, mean never.
    pub fn after(budget: impl Into<Option<Duration>>) -> Self {
        let at = budget
            .into()
            .and_then(|budget| Instant::now().checked_add(budget));
        Self { at, ..Self::NEVER }
    }

    /// The deadline for a whole connection with this lifetime.
    pub(crate) fn of_lifetime(lifetime: Option<Duration>) -> Self {
        Self {
            scope: Scope::Lifetime,
            ..Self::after(lifetime)
        }
    }

    /// What it bounds.
    pub(crate) fn scope(self) -> Scope {
        self.scope
    }

    /// Whether it never passes.
    pub(crate) fn is_never(self) -> bool {
        self.at.is_none()
    }

    /// Runs `work` until the deadline. If both are ready at the same time, the work wins.
    ///
    /// With a deadline other than [`Deadline::NEVER`] this needs a tokio runtime with its timer
    /// enabled.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] if the deadline passed first. The work is dropped.
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as `work`, which is dropped together with this future.
    pub async fn bound<F: Future>(self, work: F) -> Result<F::Output, Elapsed> {
        match self.at {
            Some(instant) => timeout_at(instant, work).await.map_err(|_| Elapsed),
            None => Ok(work.await),
        }
    }

    /// The remaining time, zero if the deadline has passed; `None` for [`Deadline::NEVER`].
    pub fn remaining(self) -> Option<Duration> {
        self.at
            .map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// The earlier of the two.
    pub fn earlier(self, other: Self) -> Self {
        match (self.at, other.at) {
            (Some(ours), Some(theirs)) if theirs < ours => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }

    /// The deadline later by `by`. A lifetime is not postponed.
    pub(crate) fn postponed(self, by: Duration) -> Self {
        match self.scope {
            Scope::Phase => Self {
                at: self.at.and_then(|instant| instant.checked_add(by)),
                ..self
            },
            Scope::Lifetime => self,
        }
    }

    /// Waits until the deadline has passed.
    pub(crate) async fn passed(self) {
        // Only the deadline can end this.
        let _ = self.bound(std::future::pending::<()>()).await;
    }
}

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// The budget starts at the conversion.
impl From<Duration> for Deadline {
    fn from(budget: Duration) -> Self {
        Self::after(budget)
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self {
            at: Some(instant),
            ..Self::NEVER
        }
    }
}

impl From<std::time::Instant> for Deadline {
    fn from(instant: std::time::Instant) -> Self {
        Instant::from_std(instant).into()
    }
}

/// Lets `work` end by itself. When it is `told` to end, it has [`HURRY`] left.
pub(crate) async fn hurried<T>(work: impl Future<Output = ()>, told: impl Future<Output = T>) {
    let mut work = pin!(work);
    let is_told = tokio::select! {
        biased;
        () = &mut work => false,
        _ = told => true,
    };
    if is_told {
        // If it is too slow, it is dropped.
        let _ = Deadline::after(HURRY).bound(work).await;
    }
}

/// How long bytes may take to arrive on a connection that must end now.
pub(crate) const HURRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn work_that_is_ready_wins_over_a_deadline_that_has_passed() {
        let deadline = Deadline::after(SECOND);
        advance(2 * SECOND).await;
        assert_eq!(deadline.bound(ready(1)).await, Ok(1));
        assert_eq!(deadline.bound(pending::<()>()).await, Err(Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_ready_at_the_deadline_wins() {
        let deadline = Deadline::after(SECOND);
        assert_eq!(deadline.bound(sleep(SECOND)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_steps_of_a_phase_share_one_budget() {
        let start = Instant::now();
        let deadline = Deadline::after(3 * SECOND);
        assert_eq!(deadline.bound(sleep(2 * SECOND)).await, Ok(()));
        assert_eq!(deadline.bound(sleep(2 * SECOND)).await, Err(Elapsed));
        let late = start.elapsed().checked_sub(3 * SECOND);
        assert!(late.is_some_and(|late| late < Duration::from_millis(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn never_does_not_pass() {
        let century = 100 * 365 * 24 * 60 * 60 * SECOND;
        for never in [
            Deadline::NEVER,
            Deadline::after(None),
            Deadline::after(Duration::MAX),
        ] {
            assert_eq!(never, Deadline::NEVER);
            assert_eq!(never.remaining(), None);
            assert!(!never.has_passed());
            assert_eq!(never.bound(sleep(century)).await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_remaining_time_is_never_negative() {
        let deadline = Deadline::after(2 * SECOND);
        assert_eq!(deadline.remaining(), Some(2 * SECOND));
        advance(SECOND).await;
        assert_eq!(deadline.remaining(), Some(SECOND));
        assert!(!deadline.has_passed());
        advance(5 * SECOND).await;
        assert_eq!(deadline.remaining(), Some(Duration::ZERO));
        assert!(deadline.has_passed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_is_the_one_that_comes_first() {
        let (soon, late) = (Deadline::after(SECOND), Deadline::after(2 * SECOND));
        let never = Deadline::NEVER;
        for (a, b, earlier) in [
            (soon, late, soon),
            (late, soon, soon),
            (soon, never, soon),
            (never, soon, soon),
            (never, never, never),
        ] {
            assert_eq!(a.earlier(b), earlier);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_a_phase_and_a_lifetime_says_which_it_was() {
        let phase = Deadline::after(2 * SECOND);
        for (lifetime, scope) in [
            (None, Scope::Phase),
            (Some(3 * SECOND), Scope::Phase),
            (Some(2 * SECOND), Scope::Phase),
            (Some(SECOND), Scope::Lifetime),
        ] {
            let budget = phase.earlier(Deadline::of_lifetime(lifetime));
            assert_eq!(budget.scope(), scope, "{lifetime:?}");
        }
        let lifetime = Deadline::of_lifetime(Some(SECOND));
        assert_eq!(lifetime.postponed(SECOND), lifetime);
        assert_eq!(phase.postponed(SECOND).remaining(), Some(3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn passed_waits_for_the_deadline() {
        let start = Instant::now();
        Deadline::after(SECOND).passed().await;
        assert!(start.elapsed() >= SECOND);
        Deadline::from(start).passed().await;
        Deadline::from(start.into_std()).passed().await;
        assert!(start.elapsed() < 2 * SECOND);
    }
}
