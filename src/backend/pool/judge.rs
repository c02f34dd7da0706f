//! Decides when an address is down and up again, and tells who has to know.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::{Health, Target};
use crate::journal::{Event, EventKind, Journal};

/// The bounds of a backend's health, and the name and the journal for its changes.
#[derive(Debug)]
pub(super) struct Judge {
    pub limits: Health,
    backend: String,
    /// Where changes are published.
    journal: Arc<Journal>,
}

impl Judge {
    pub(super) fn new(limits: Health) -> Self {
        Self {
            limits,
            backend: String::new(),
            journal: Arc::default(),
        }
    }

    pub(super) fn for_backend(self, backend: &str, journal: &Arc<Journal>) -> Self {
        Self {
            backend: backend.to_owned(),
            journal: Arc::clone(journal),
            ..self
        }
    }

    /// The address has answered often enough.
    pub(super) fn say_up(&self, target: &Target) {
        let (backend, address) = (&*self.backend, &target.address);
        // If the name answers, the state of one of its several addresses is a detail.
        if target.is_of_name {
            let place = &target.place;
            debug!(backend, %address, ?place, "one address of a host name is up");
            return;
        }
        info!(backend, %address, "backend address is up");
        self.publish(target, "up", None);
    }

    /// The address has failed too often, most recently with this error.
    pub(super) fn say_down(&self, target: &Target, error: &str) {
        let (backend, address) = (&*self.backend, &target.address);
        if target.is_of_name {
            let place = &target.place;
            debug!(backend, %address, ?place, error, "one address of a host name is down");
            return;
        }
        warn!(backend, %address, error, "backend address is down");
        self.publish(target, "down", Some(error));
    }

    fn publish(&self, target: &Target, health: &'static str, reason: Option<&str>) {
        if self.journal.is_observed() {
            self.journal.publish(Event::now(EventKind::Backend {
                backend: self.backend.clone(),
                address: target.address.to_string(),
                state: target.order.state().as_str(),
                health,
                reason: reason.map(str::to_owned),
            }));
        }
    }
}
