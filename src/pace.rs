//! Limits how often a log line is written that could otherwise be written for every connection.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Allows one line a second.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Whether a second has passed since this last returned true.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_let_through_and_then_one_each_second() {
        let pace = Pace::default();
        assert!(pace.is_due());
        assert!(!pace.is_due());
        *pace.0.lock().expect("no panic") = Instant::now().checked_sub(INTERVAL);
        assert!(pace.is_due());
        assert!(!pace.is_due());
    }
}
