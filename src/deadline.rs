//! A point in time that bounds every wait of one phase.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// When a phase must have ended. Made once for the phase and passed down, so that retries and
/// slow steps share one budget.
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
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never comes.
    pub const NEVER: Self = Self(None);

    /// `budget` from now; `None` and what the clock cannot express mean never.
    pub fn after(budget: impl Into<Option<Duration>>) -> Self {
        Self(
            budget
                .into()
                .and_then(|budget| Instant::now().checked_add(budget)),
        )
    }

    /// Waits for `work` until the deadline.
    ///
    /// Work that is ready wins over a deadline that has come at the same time.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] when the deadline came first; the work is dropped.
    ///
    /// # Cancel safety
    ///
    /// As that of `work`.
    pub async fn bound<F: Future>(self, work: F) -> Result<F::Output, Elapsed> {
        match self.0 {
            Some(instant) => timeout_at(instant, work).await.map_err(|_| Elapsed),
            None => Ok(work.await),
        }
    }

    /// What is left, at least zero; `None` for [`Deadline::NEVER`].
    pub fn remaining(self) -> Option<Duration> {
        self.0
            .map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    /// The earlier of the two.
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// Waits for the deadline itself.
    pub(crate) async fn passed(self) {
        // Nothing else ends it.
        let _ = self.bound(std::future::pending::<()>()).await;
    }
}

/// The deadline came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// The budget starts now.
impl From<Duration> for Deadline {
    fn from(budget: Duration) -> Self {
        Self::after(budget)
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self(Some(instant))
    }
}

impl From<std::time::Instant> for Deadline {
    fn from(instant: std::time::Instant) -> Self {
        Self(Some(instant.into()))
    }
}
