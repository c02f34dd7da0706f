//! A proxy that accepts connections, until its drain has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::START;
use super::bind::{BoundGate, Fixed, Open};
use super::checks::Checks;
use super::scrape::scrape;
use super::statistics::Statistics;
use crate::address::Address;
use crate::deadline::Deadline;
use crate::facts::Endpoint;
use crate::gate::{self, Gate};
use crate::journal::{Event, EventKind};
use crate::ledger::{ConnectionFilter, OpenConnection};
use crate::metrics::MetricsFormat;
use crate::proxy_state::ProxyState;
use crate::sys::directory::PrivateDirectory;
use crate::sys::unix::SocketFile;
use crate::worker::ListenerSender;

/// A proxy that accepts connections. Dropping it closes every connection at once.
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
    /// Ends the task that logs which clients were not served, and other tasks without an end.
    pub(super) refusal_log: CancellationToken,
    pub(super) checks: Checks,
    pub(super) senders: Vec<ListenerSender>,
    pub(super) fixed: Fixed,
    pub(super) listeners: HashMap<String, Open>,
    pub(super) gate: Option<OpenGate>,
    /// Where the admin API listens, if it is open.
    pub(super) admin: Vec<Endpoint>,
}

/// A gate that is being served. Its file is removed before its directory.
#[derive(Debug)]
pub(super) struct OpenGate {
    pub(super) file: SocketFile,
    _directory: Option<Arc<PrivateDirectory>>,
}

impl BoundGate {
    /// Spawns the task that serves the gate.
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
    /// The addresses of the listeners by name. If a port is configured as 0, the address has the port
    /// that the system chose.
    pub fn addresses(&self) -> &HashMap<String, Address> {
        &self.addresses
    }

    /// `timeouts.drain` of the active configuration: how long a drain may take. `None` is unlimited.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    /// The number of open connections, and of ended ones by outcome.
    pub fn statistics(&self) -> Statistics {
        Statistics::of(&self.state)
    }

    /// The metrics of this proxy: the answer to a scrape, with the `Content-Type` of
    /// [`MetricsFormat::content_type`]. docs/metrics.md lists them.
    ///
    /// It looks at every open connection on the caller's thread, which takes milliseconds for ten
    /// thousand. The workers do not wait for it.
    pub fn metrics(&self, format: MetricsFormat) -> String {
        scrape(&self.state, format)
    }

    /// The open connections that match `filter`, in no order.
    ///
    /// A query by id, identity, peer, backend or listener uses an index and takes microseconds. Other
    /// queries look at all connections, on the caller's thread and not on the workers'.
    pub fn connections(&self, filter: &ConnectionFilter) -> Vec<OpenConnection> {
        self.state.ledger.list(filter)
    }

    /// Ends the open connections that match `filter`, as [`Outcome::Killed`](crate::Outcome::Killed).
    /// Returns how many were told to end, without those that were ending already.
    ///
    /// Bytes in transit have one second to arrive.
    pub fn kill(&self, filter: &ConnectionFilter) -> usize {
        self.state.ledger.kill(filter)
    }

    /// Waits until there has been no connection for `runtime.idle_exit`. Never completes without one.
    pub(crate) async fn idle(&self) {
        match self.fixed.runtime.idle_exit {
            Some(time) => self.state.ledger.idle_for(time).await,
            None => std::future::pending().await,
        }
    }

    /// Closes the listeners, and waits until the connections that the kernel had queued there have ended.
    /// They are served as before: also the gate still gives them out.
    pub(crate) async fn close_listeners(&self) {
        let config = self.state.config.load_full();
        for open in self.listeners.values() {
            open.stop.stop(&config);
        }
        // Each listener of a worker holds one until it has taken what was queued.
        let is_taking = |open: &Open| Arc::strong_count(&open.stop) > 1;
        while self.listeners.values().any(is_taking) {
            tokio::time::sleep(LOOK).await;
        }
        self.state.ledger.emptied().await;
    }

    /// Opens `audit.path` again, after a program such as logrotate has moved the file away. Lines that
    /// are queued go to the old file. Returns false if the configuration has no audit log.
    pub fn reopen_audit_log(&self) -> bool {
        self.state.audit.reopen()
    }

    /// Stops accepting, refuses what waits at the rendezvous, and waits for the other connections to
    /// end. Connections that are still open after `timeout` are closed. `timeout` is a `Duration`, or
    /// `None` for no limit.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future closes every connection at once.
    pub async fn drain(self, timeout: impl Into<Option<Duration>>) -> Drained {
        self.drain_until(timeout, std::future::pending()).await
    }

    /// As [`Running::drain`], but also closes the open connections when `now` completes.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future closes every connection at once.
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
        // The futures of `serve` may not be polled any more, or not before this has ended.
        let _ = Deadline::after(MOST_TO_END).bound(self.served.wait()).await;
        // All connections have ended, so nothing more can be logged.
        self.refusal_log.cancel();
        self.tasks.wait().await;
        self.state
            .journal
            .publish(Event::now(EventKind::Stop { cut }));
        self.state.audit.finish().await;
        Drained { cut }
    }

    fn start_drain(&self) {
        self.state.drain.start();
        gate::dismiss(&self.state.rendezvous);
    }

    /// Closes the connections that are still open.
    fn cut(&self) {
        self.state.drain.cut();
        self.state.ledger.cut();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.start_drain();
        self.cut();
        self.refusal_log.cancel();
    }
}

/// How often to look whether a listener of a worker has ended, which takes milliseconds.
const LOOK: Duration = Duration::from_millis(5);

/// More than a connection that was cut takes to end (src/connection/teardown.rs, src/client.rs).
const MOST_TO_END: Duration = Duration::from_secs(5);

/// The result of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// The number of connections that were closed because the time was up.
    pub cut: usize,
}
