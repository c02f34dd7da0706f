//! A proxy that accepts, until its drain has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::START;
use super::bind::{BoundGate, Fixed, Open};
use super::statistics::Statistics;
use crate::address::Address;
use crate::deadline::Deadline;
use crate::gate::{self, Gate};
use crate::ledger::{ConnectionFilter, OpenConnection};
use crate::proxy_state::ProxyState;
use crate::sys::directory::PrivateDirectory;
use crate::sys::unix::SocketFile;
use crate::worker::ListenerSender;

/// A proxy that accepts. Dropping it closes every connection at once.
#[derive(Debug)]
#[must_use = "dropping it closes every connection"]
pub struct Running {
    pub(super) state: Arc<ProxyState>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) addresses: HashMap<String, Address>,
    pub(super) workers: TaskTracker,
    /// The connections that the program runs itself.
    pub(super) served: TaskTracker,
    pub(super) tasks: TaskTracker,
    /// Ends the task that says who was not served.
    pub(super) spoken: CancellationToken,
    pub(super) doors: Vec<ListenerSender>,
    pub(super) fixed: Fixed,
    pub(super) listeners: HashMap<String, Open>,
    pub(super) gate: Option<OpenGate>,
}

/// The gate that is served. Its file is removed before its directory.
#[derive(Debug)]
pub(super) struct OpenGate {
    pub(super) file: SocketFile,
    _directory: Option<PrivateDirectory>,
}

impl BoundGate {
    /// Serves it, as one of the tasks.
    pub(super) fn open(self, state: &Arc<ProxyState>, tasks: &TaskTracker) -> OpenGate {
        info!(target: START, "gate at unix:{}", self.file.path().display());
        tasks.spawn(Gate::new(self.settings, Arc::clone(state)).run(self.listener));
        OpenGate {
            file: self.file,
            _directory: self.directory,
        }
    }
}

impl Running {
    /// The addresses of the listeners by name, with the port that the system chose for port 0.
    pub fn addresses(&self) -> &HashMap<String, Address> {
        &self.addresses
    }

    /// How long a drain may take, `timeouts.drain` of the configuration that is served; `None` is
    /// unlimited.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    /// How many connections are open, and how those that are not have ended.
    pub fn statistics(&self) -> Statistics {
        Statistics::of(&self.state)
    }

    /// The open connections that are meant, in no order.
    ///
    /// A query by id, identity, peer, backend or listener takes microseconds; one that has to look at
    /// all connections does so on the caller's thread, not on the workers'.
    pub fn connections(&self, filter: &ConnectionFilter) -> Vec<OpenConnection> {
        self.state.ledger.list(filter)
    }

    /// Ends the open connections that are meant, as [`Outcome::Killed`](crate::Outcome::Killed); how many
    /// were told so.
    ///
    /// Bytes that are on their way have one second to arrive. A connection that is to end already is not
    /// counted.
    pub fn kill(&self, filter: &ConnectionFilter) -> usize {
        self.state.ledger.kill(filter)
    }

    /// Stops accepting, resolves what waits at the rendezvous, and lets the rest end; after
    /// `timeout` what is left is closed. A `Duration` or `None`, which is without end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes every connection at once.
    pub async fn drain(self, timeout: impl Into<Option<Duration>>) -> Drained {
        self.drain_until(timeout, std::future::pending()).await
    }

    /// As [`Running::drain`], and `now` ends the patience early.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes every connection at once.
    pub async fn drain_until(
        self,
        timeout: impl Into<Option<Duration>>,
        now: impl Future<Output = ()>,
    ) -> Drained {
        let deadline = Deadline::after(timeout);
        self.start_drain();
        let ended = async { tokio::join!(self.workers.wait(), self.served.wait()) };
        let cut = tokio::select! {
            biased;
            _ = ended => 0,
            () = deadline.passed() => self.state.ledger.open_connections(),
            () = now => self.state.ledger.open_connections(),
        };
        self.cut();
        self.workers.wait().await;
        // Of these nobody knows whether they are polled any more; perhaps not before this has ended.
        let _ = Deadline::after(LAST_WORDS).bound(self.served.wait()).await;
        // Now all have ended of whom there is something to say.
        self.spoken.cancel();
        self.tasks.wait().await;
        Drained { cut }
    }

    fn start_drain(&self) {
        self.state.drain.start();
        gate::dismiss(&self.state.rendezvous);
    }

    /// Closes what is still open.
    fn cut(&self) {
        self.state.drain.cut();
        self.state.ledger.cut();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.start_drain();
        self.cut();
        self.spoken.cancel();
    }
}

/// More than a connection takes to end that was cut (src/connection/teardown.rs, src/client.rs).
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// How many connections were closed because time was up.
    pub cut: usize,
}
