//! The state that all connections of a proxy share.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::warn;

use crate::active_config::ActiveConfig;
use crate::audit::AuditLog;
use crate::backend::claimer::Claimer;
use crate::backend::own_sockets::OwnSockets;
use crate::backend::tunnels::Census;
use crate::drain::Drain;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::limits::Limits;
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
    pub limits: Limits,
    pub memory: MemoryBudget,
    /// Of the connections that carry tunnels, which do not count against `limits`: their streams do.
    pub tunnels: Limits,
    /// Encrypts session tickets that only this process can decrypt. A reload keeps it.
    pub tickets: TicketSecret,
    pub rendezvous: Rendezvous<Claimer>,
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
