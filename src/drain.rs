//! The end of a proxy: first nothing new, then nothing at all.

use tokio_util::sync::CancellationToken;

/// Shared by all that must know of the end. Cloning gives another handle to the same drain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    started: CancellationToken,
    cut: CancellationToken,
}

impl Drain {
    /// From now on nothing new is taken; what runs may end.
    pub(crate) fn start(&self) {
        self.started.cancel();
    }

    /// Time is up: what still runs is closed.
    pub(crate) fn cut(&self) {
        self.started.cancel();
        self.cut.cancel();
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.is_cancelled()
    }

    pub(crate) async fn started(&self) {
        self.started.cancelled().await;
    }

    pub(crate) async fn time_is_up(&self) {
        self.cut.cancelled().await;
    }
}
