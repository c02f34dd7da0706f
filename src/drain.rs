//! The end of a proxy: first it accepts nothing more, then it closes everything.

use tokio::sync::watch;

/// The stage of the end, for everything that has to know it. A clone is a handle to the same drain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(watch::Sender<Stage>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Serving,
    Draining,
    Cut,
}

impl Drain {
    /// From now on nothing new is accepted. Open connections may end by themselves.
    pub(crate) fn start(&self) {
        self.advance(Stage::Draining);
    }

    /// The time is up: open connections are closed.
    pub(crate) fn cut(&self) {
        self.advance(Stage::Cut);
    }

    pub(crate) fn is_started(&self) -> bool {
        *self.0.borrow() >= Stage::Draining
    }

    /// Waits for [`Self::start`] or [`Self::cut`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn started(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits for [`Self::cut`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn time_is_up(&self) {
        self.reached(Stage::Cut).await;
    }

    async fn reached(&self, wanted: Stage) {
        // Fails only without a sender, and this is one.
        let _ = self.0.subscribe().wait_for(|stage| *stage >= wanted).await;
    }

    fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let is_later = stage > *now;
            if is_later {
                *now = stage;
            }
            is_later
        });
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
