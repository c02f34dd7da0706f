//! A tunnel to a front, and how many streams it still takes.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Front, SLOW};
use crate::active_config::OneMore;
use crate::backend::carrier::Refusal;
use crate::join::dial::{Dialled, MOST_STREAMS, NoTunnel};
use crate::tunnel::Originated;

/// A tunnel to a front.
pub(super) struct Tunnel {
    /// `None`: it takes no further streams, and ends with its last one.
    pub requests: Option<Arc<Originated>>,
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

impl Front {
    /// The end of a dial.
    pub(super) fn dialled(&mut self, dialled: Result<Box<Dialled>, NoTunnel>) {
        let Dialled {
            requests,
            mut driver,
            refusal,
        } = match dialled {
            Ok(dialled) => *dialled,
            Err(error) => {
                match error.is_about_configuration() {
                    true => self.dial_pause.begin_with(SLOW),
                    false => self.dial_pause.begin(),
                }
                return self.says_no_tunnel(&error);
            }
        };
        self.unclear = 0;
        self.last_tunnel += 1;
        let id = self.last_tunnel;
        driver.grow_within(&self.state.census.windows);
        let patience = self.state.config.load().timeouts.relay.into();
        let (requests, closed) = (Arc::new(requests), Arc::clone(&self.closed));
        let noticing = Arc::downgrade(&requests);
        self.drivers.spawn(async move {
            let closed = || closed.notify_one();
            (id, driver.run_noticing(&patience, noticing, closed).await)
        });
        let tunnel = Tunnel {
            requests: Some(requests),
            refusal,
            born: Instant::now(),
            offers: Arc::default(),
            connections: Arc::default(),
            _count: self.front().tunnels.one_more(),
            usable: Some(self.front().usable.one_more()),
        };
        self.tunnels.insert(id, tunnel);
        self.says_joined();
    }
}
