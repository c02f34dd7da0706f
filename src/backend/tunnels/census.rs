//! The tunnels that this process has opened, of all backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::task::TaskTracker;

use crate::tunnel::WindowBudget;

/// The number of open tunnels and of their streams, and the tasks that drive them.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(super) tasks: TaskTracker,
    /// Of health checks, which do not run on a worker. Each ends soon after its check.
    pub(super) of_checks: TaskTracker,
    tunnels: AtomicUsize,
    streams: AtomicUsize,
    /// Of these tunnels, and of those of clients, workers and fronts.
    pub(crate) windows: Arc<WindowBudget>,
}

/// Open tunnels and their streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TunnelCounts {
    pub tunnels: usize,
    pub streams: usize,
}

impl std::iter::Sum for TunnelCounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            tunnels: sum.tunnels + it.tunnels,
            streams: sum.streams + it.streams,
        })
    }
}

impl Census {
    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Waits until no tunnel is open. In a drain they end by themselves.
    pub(crate) async fn emptied(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn add(self: &Arc<Self>, what: Counted) -> Count {
        self.of(what).fetch_add(1, Ordering::Relaxed);
        Count {
            census: Arc::clone(self),
            what,
        }
    }

    fn of(&self, what: Counted) -> &AtomicUsize {
        match what {
            Counted::Tunnel => &self.tunnels,
            Counted::Stream => &self.streams,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Counted {
    Tunnel,
    Stream,
}

/// One that is counted, until this is dropped.
#[must_use]
pub(super) struct Count {
    census: Arc<Census>,
    what: Counted,
}

impl Count {
    /// Counts one more.
    pub(super) fn and(&self, what: Counted) -> Self {
        self.census.add(what)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.census.of(self.what).fetch_sub(1, Ordering::Relaxed);
    }
}
