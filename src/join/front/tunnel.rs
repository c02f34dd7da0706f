//! A tunnel to a front, and how many streams it still takes.

use std::sync::Arc;

use tokio::time::Instant;

use crate::active_config::OneMore;
use crate::backend::carrier::Refusal;
use crate::join::dial::MOST_STREAMS;
use crate::tunnel::Originated;

/// A tunnel to a front.
pub(super) struct Tunnel {
    /// `None`: it takes no further streams, and ends with its last one.
    pub requests: Option<Originated>,
    pub refusal: Refusal,
    pub born: Instant,
    /// Each offer has a clone, and each connection.
    pub offers: Arc<()>,
    pub connections: Arc<()>,
    pub _count: OneMore,
    /// While it takes further streams.
    pub usable: Option<OneMore>,
}

impl Tunnel {
    /// Takes no further streams.
    pub(super) fn retire(&mut self) {
        self.requests = None;
        self.usable = None;
    }

    pub(super) fn offers(&self) -> usize {
        Arc::strong_count(&self.offers) - 1
    }

    pub(super) fn streams(&self) -> usize {
        self.offers() + Arc::strong_count(&self.connections) - 1
    }

    pub(super) fn room(&self) -> Option<&Originated> {
        let requests = self.requests.as_ref()?;
        let most = requests.allowed().min(MOST_STREAMS);
        (self.streams() < most).then_some(requests)
    }
}
