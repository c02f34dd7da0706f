//! The reloads so far, for those who have requested one or want to know of the last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The reloads of one supervisor. A clone is a handle to the same history.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Arc<Mutex<PastReloads>>);

/// The reloads so far, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastReloads {
    /// The number of the last request. Reloads because of a changed file have no number.
    pub requested: u64,
    /// Every request up to this number has its result.
    pub answered: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub last: Option<PastReload>,
    /// The last failure, also after a reload that has succeeded.
    pub problem: Option<(SystemTime, String)>,
}

/// The result of a reload.
#[derive(Clone, Debug)]
pub(crate) struct PastReload {
    pub at: SystemTime,
    /// The number of connections that were told to end, or the problems, one a line.
    pub result: Result<usize, String>,
}

impl History {
    /// Numbers a request, if `send` succeeds. Otherwise the queue is full, and the last request in it
    /// reads the current configuration too: that one's number.
    pub(super) fn request(&self, send: impl FnOnce(u64) -> bool) -> u64 {
        let mut past = self.past();
        let number = past.requested + 1;
        if send(number) {
            past.requested = number;
        }
        past.requested
    }

    /// Records a result, with the number of the request that it answers.
    pub(super) fn record(&self, answers: Option<u64>, result: Result<usize, String>) {
        let mut past = self.past();
        let at = SystemTime::now();
        match &result {
            Ok(_) => past.succeeded += 1,
            Err(problems) => {
                past.failed += 1;
                past.problem = Some((at, problems.clone()));
            }
        }
        past.answered = past.answered.max(answers.unwrap_or_default());
        past.last = Some(PastReload { at, result });
    }

    pub(super) fn snapshot(&self) -> PastReloads {
        self.past().clone()
    }

    fn past(&self) -> MutexGuard<'_, PastReloads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_which_the_queue_has_no_room_gets_the_number_of_the_last_one_in_it() {
        let history = History::default();
        assert_eq!(history.request(|number| number == 1), 1);
        assert_eq!(history.request(|_| false), 1);
        assert_eq!(history.request(|number| number == 2), 2);
        history.record(Some(2), Ok(0));
        // Of two requests at the same time, the first may be answered last.
        history.record(Some(1), Err("why".into()));
        history.record(None, Ok(3));
        let past = history.snapshot();
        assert_eq!((past.answered, past.succeeded, past.failed), (2, 2, 1));
        assert_eq!(past.last.map(|it| it.result), Some(Ok(3)));
    }
}
