//! The phases of a shutdown: first no new connections, then none at all.

use std::sync::Arc;

use crate::atomic_watch::AtomicWatch;

/// The state of the drain, shared by everything that must react to it. A clone is another handle to
/// the same drain.
///
/// Listeners read it between two connections, so it is an [`AtomicWatch`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<AtomicWatch>);

/// The phases; 0 means that no drain has begun.
const STARTED: usize = 1;
const CUT: usize = 2;

impl Drain {
    /// Starts the drain: no new connections are taken, and the open ones may end.
    pub(crate) fn start(&self) {
        self.0.change(|stage| stage.max(STARTED));
    }

    /// Ends the drain: what still runs is closed.
    pub(crate) fn cut(&self) {
        self.0.change(|_| CUT);
    }

    pub(crate) fn is_started(&self) -> bool {
        self.0.get() >= STARTED
    }

    pub(crate) async fn started(&self) {
        self.0.until(|stage| stage >= STARTED).await;
    }

    pub(crate) async fn time_is_up(&self) {
        self.0.until(|stage| stage >= CUT).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_cut_includes_a_start_and_a_late_start_changes_nothing() {
        let drain = Drain::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut started = pin!(drain.started());
        let mut cut = pin!(drain.time_is_up());
        assert!(started.as_mut().poll(&mut cx).is_pending());
        assert!(cut.as_mut().poll(&mut cx).is_pending());
        drain.cut();
        drain.start();
        assert!(drain.is_started());
        assert!(started.as_mut().poll(&mut cx).is_ready());
        assert!(cut.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn open_work_may_continue_after_the_start() {
        let drain = Drain::default();
        drain.clone().start();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(drain.started()).poll(&mut cx).is_ready());
        assert!(pin!(drain.time_is_up()).poll(&mut cx).is_pending());
    }
}
