//! The state that all connections of a proxy share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::warn;

use crate::active_config::ActiveConfig;
use crate::audit::AuditLog;
use crate::backend::claimer::Claimer;
use crate::backend::own_sockets::OwnSockets;
use crate::backend::tunnels::Census;
use crate::drain::Drain;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::limits::{Gauge, Limits};
use crate::memory::MemoryBudget;
use crate::pace::Pace;
use crate::rendezvous::Rendezvous;
use crate::revocations::Revocations;
use crate::sys::descriptors::Reserve;
use crate::tls::tickets::TicketSecret;

/// What all connections of a proxy share.
#[derive(Debug)]
pub(crate) struct ProxyState {
    pub config: ArcSwap<ActiveConfig>,
    /// Notified when `config` was replaced.
    pub reloaded: watch::Sender<()>,
    pub limits: Limits,
    pub memory: MemoryBudget,
    /// Of the connections that carry tunnels, which do not count against `limits`: their streams do.
    pub tunnels: Limits,
    /// Encrypts session tickets that only this process can decrypt. A reload keeps it.
    pub tickets: TicketSecret,
    pub rendezvous: Rendezvous<Claimer>,
    /// The workers that wait, watch or are registered, at the gate and in tunnels.
    pub gate_places: Gauge,
    pub network_workers: NetworkWorkers,
    pub ledger: Arc<Ledger>,
    /// The same as the ledger's.
    pub journal: Arc<Journal>,
    pub audit: AuditLog,
    pub revocations: Revocations,
    pub drain: Drain,
    /// The sockets that this proxy listens on, which it must not dial.
    pub own: Arc<OwnSockets>,
    /// The tunnels to backends.
    pub census: Arc<Census>,
    pub reserve: Reserve,
    pub complaint: Complaint,
}

/// How many workers have come through tunnels.
#[derive(Debug, Default)]
pub(crate) struct NetworkWorkers {
    /// Tunnels with at least one stream of a worker.
    pub tunnels: Arc<AtomicUsize>,
    /// Streams of workers: those that wait or watch, and those that are a connection.
    pub streams: Arc<AtomicUsize>,
}

/// Counts one until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits the log line about failed accepts to one a second, over all listeners and workers:
/// without descriptors they all fail together, and on a large machine a line for each would be a
/// flood.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Pace);

impl Complaint {
    pub(crate) fn say(&self, listener: &str, error: &io::Error) {
        if self.0.is_due() {
            warn!(listener, %error, "cannot accept connections; trying again (compare `ulimit -n` \
             with the limits in the log at start)");
        }
    }
}
