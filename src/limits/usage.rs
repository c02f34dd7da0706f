//! How much of each limit is used now.

use std::sync::atomic::Ordering;

use super::Limits;

/// A limit and its use at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitUsage {
    /// The key under `[limits]`.
    pub name: &'static str,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    pub used: u64,
}

impl Limits {
    /// The limits that all clients share.
    pub(crate) fn usage(&self) -> [LimitUsage; 3] {
        let now = self.now();
        let of = |name, most: u64, used| LimitUsage {
            name,
            limit: (most != u64::MAX).then_some(most),
            used,
        };
        let open = self.most_open.load(Ordering::Relaxed);
        let pending = self.most_pending.load(Ordering::Relaxed);
        [
            of("connections", open, now.open),
            of("pending", pending, now.pending),
            of("handshaking", self.handshakes.most(), self.handshakes.now()),
        ]
    }
}
