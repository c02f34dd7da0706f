//! Keeps a proxy running: reloads its configuration, drains it, and executes commands.
//!
//! ```text
//! signals, an admin socket, a program ─► SupervisorHandle ─ commands ─┐
//! files that change ─────────────────────────────────────────────────┴─► Supervisor ─► Running
//! ```

mod addresses;
mod followed;
mod history;
mod revoke;
mod source;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use self::followed::Followed;
use self::history::History;
pub(crate) use self::history::PastReloads;
pub use self::source::{ConfigSource, ReadError};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::ledger::{ConnectionFilter, OpenConnection};
use crate::metrics::MetricsFormat;
use crate::outcome::Outcome;
use crate::proxy::{
    self, Drained, Entrance, Proxy, ReloadError, Reloaded, Running, ServeError, Statistics,
    with_causes,
};
use crate::proxy_state::ProxyState;

/// Keeps a proxy running until it has drained.
///
/// It reloads its configuration when one of its files changes, or on request. A reload is applied
/// completely or not at all. Its [`SupervisorHandle`] steers it; `vestibule run` calls the handle for
/// signals.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use vestibule::{ConfigSource, Proxy, Supervisor};
///
/// let source = ConfigSource::file("vestibule.toml");
/// let proxy = Proxy::builder(source.read()?).bind().await?;
/// let supervisor = Supervisor::start(proxy, source);
/// let handle = supervisor.handle();
/// tokio::spawn(async move {
///     let _ = tokio::signal::ctrl_c().await;
///     handle.drain();
/// });
/// let drained = supervisor.run().await;
/// println!("{} connections had to be cut", drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is reloaded or drained before `run`"]
pub struct Supervisor {
    running: Running,
    source: ConfigSource,
    followed: Followed,
    reloads: mpsc::Receiver<Reload>,
    handle: SupervisorHandle,
}

/// Steers a [`Supervisor`]. Clones steer the same one, from any thread.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    reloads: mpsc::Sender<Reload>,
    history: History,
    /// What the handles have requested. The proxy drains later, after the end of a reload.
    requested: Drain,
    entrance: Entrance,
}

/// A requested reload.
#[derive(Debug)]
struct Reload {
    number: u64,
    answer: oneshot::Sender<Result<Reloaded, ReloadFailure>>,
}

/// Why a reload has changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadFailure {
    /// The configuration cannot be read, or has problems.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The configuration cannot be applied.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The proxy is draining, or has ended.
    #[error("no reload during a drain")]
    Draining,
}

impl Supervisor {
    /// Starts to accept connections. `source` is where the proxy's configuration came from.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(proxy: Proxy, source: ConfigSource) -> Self {
        // Opens inotify before clients can use up all descriptors.
        let followed = Followed::new(proxy.files());
        let running = proxy.start();
        let (reload, reloads) = mpsc::channel(RELOADS);
        let handle = SupervisorHandle {
            reloads: reload,
            history: History::default(),
            requested: Drain::default(),
            entrance: running.entrance(),
        };
        Self {
            running,
            source,
            followed,
            reloads,
            handle,
        }
    }

    /// The running proxy.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// A handle that steers this supervisor.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Serves until a drain is requested, or until there has been no connection for `runtime.idle_exit`.
    /// Then drains, for at most `timeouts.drain` of the configuration that is active at that time.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future closes every connection at once.
    pub async fn run(mut self) -> Drained {
        let requested = self.handle.requested.clone();
        loop {
            let asked = tokio::select! {
                biased;
                () = requested.started() => break,
                Some(asked) = self.reloads.recv() => Some(asked),
                () = self.running.idle() => {
                    info!("no connection for the time of runtime.idle_exit: ending");
                    self.retire(&requested).await;
                    break;
                }
                () = self.followed.changed() => {
                    info!("a file changed: reloading");
                    None
                }
            };
            let Some(reloaded) = self.reload(&requested).await else {
                break;
            };
            let problems = reloaded.as_ref().map_err(|error| with_causes(error));
            if let Err(problems) = &problems {
                error!("reload failed, the old configuration stays: {problems}");
            }
            let result = problems.map(|reloaded| reloaded.revoked);
            let number = asked.as_ref().map(|asked| asked.number);
            self.handle.history.record(number, result);
            if let Some(asked) = asked {
                // The send fails if the caller no longer waits.
                let _ = asked.answer.send(reloaded);
            }
        }
        self.drain(&requested).await
    }

    /// Closes the listeners, and serves the clients that came just before. They may take as long as in a
    /// drain.
    async fn retire(&self, requested: &Drain) {
        let deadline = Deadline::after(self.running.drain_timeout());
        tokio::select! {
            biased;
            () = requested.started() => {}
            () = self.running.close_listeners() => {}
            () = deadline.passed() => {}
        }
        requested.start();
    }

    /// Reads the configuration again and applies it. `None` if a drain was requested during the read;
    /// then the read is given up.
    async fn reload(&mut self, requested: &Drain) -> Option<Result<Reloaded, ReloadFailure>> {
        // Taken before the read, so that a change during the read is noticed as a change.
        let served = self.followed.served();
        let again = tokio::select! {
            biased;
            () = requested.started() => return None,
            again = read(&self.source) => again,
        };
        // Not cancelled by a drain: a partly applied reload would be neither configuration.
        Some(match again {
            Ok(config) => {
                let files = config.files().to_vec();
                self.source.warn(&config);
                match self.running.reload(config).await {
                    Ok(reloaded) => {
                        self.followed.serve(&files);
                        Ok(reloaded)
                    }
                    Err(error) => {
                        self.followed.refuse(&files, served);
                        Err(error.into())
                    }
                }
            }
            Err(error) => {
                self.followed.refuse(error.files(), served);
                let unread = Err::<(), _>(&error);
                self.handle.state().ledger.metrics.reloaded(&unread);
                self.running.publish_reload(None, Some(&error));
                Err(error.into())
            }
        })
    }

    /// Lets connections end. Closes those that are left when a cut is requested or the time is up.
    async fn drain(self, requested: &Drain) -> Drained {
        let Self {
            running,
            mut reloads,
            handle: SupervisorHandle { history, .. },
            ..
        } = self;
        let timeout = running.drain_timeout();
        let open = running.statistics().open;
        // Logged after the drain has started: a reader of the line may rely on it that no connection is
        // accepted any more.
        let say = async {
            match timeout {
                Some(it) => info!(
                    "draining: {open} open; connections that are still open after {it:?} are cut \
                     (timeouts.drain)"
                ),
                None => info!("draining: {open} open; no time limit (timeouts.drain)"),
            }
        };
        let drain = running.drain_until(timeout, requested.time_is_up());
        let refuse = async {
            while let Some(asked) = reloads.recv().await {
                warn!("reload ignored: {}", ReloadFailure::Draining);
                history.record(Some(asked.number), Err(ReloadFailure::Draining.to_string()));
                let _ = asked.answer.send(Err(ReloadFailure::Draining));
            }
        };
        let mut drain = pin!(async { tokio::join!(biased; drain, say).0 });
        let drained = tokio::select! {
            biased;
            drained = &mut drain => drained,
            // All handles were dropped.
            () = refuse => drain.await,
        };
        match drained.cut {
            0 => info!("drained"),
            cut => warn!("drained; connections cut: {cut}"),
        }
        drained
    }
}

impl SupervisorHandle {
    /// Reads the configuration again and applies it: either all of it or, on an error, nothing. See
    /// [`Running::reload`].
    ///
    /// # Errors
    ///
    /// The reason why nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. If the future is dropped after the request was queued, the reload still happens.
    pub async fn reload(&self) -> Result<Reloaded, ReloadFailure> {
        let (sender, answer) = oneshot::channel();
        let asked = Reload {
            number: self.history.request(|_| true),
            answer: sender,
        };
        match self.reloads.send(asked).await {
            // The request is dropped when a drain begins, or with the supervisor.
            Ok(()) => answer.await.unwrap_or(Err(ReloadFailure::Draining)),
            Err(_) => Err(ReloadFailure::Draining),
        }
    }

    /// Requests a reload without waiting for it. The result is logged. If four reloads are queued
    /// already, it adds none: one of those will read the current configuration.
    pub fn request_reload(&self) {
        self.queue_reload();
    }

    /// As [`Self::request_reload`]. Returns the number of the request, which
    /// [`PastReloads::answered`] reaches.
    pub(crate) fn queue_reload(&self) -> u64 {
        let (answer, _) = oneshot::channel();
        self.history.request(|number| {
            let asked = Reload { number, answer };
            self.reloads.try_send(asked).is_ok()
        })
    }

    pub(crate) fn past_reloads(&self) -> PastReloads {
        self.history.snapshot()
    }

    /// Starts to drain: accepts no new connections, and lets open ones end. If a reload is reading its
    /// configuration, the reload is given up. Later calls change nothing.
    pub fn drain(&self) {
        self.requested.start();
    }

    /// Drains, and closes the open connections at once.
    pub fn cut(&self) {
        self.requested.cut();
    }

    /// Whether a drain was requested.
    pub fn is_draining(&self) -> bool {
        self.requested.is_started()
    }

    /// See [`Running::statistics`].
    pub fn statistics(&self) -> Statistics {
        Statistics::of(self.state())
    }

    /// See [`Running::metrics`].
    pub fn metrics(&self, format: MetricsFormat) -> String {
        proxy::scrape(self.state(), format)
    }

    /// See [`Running::connections`].
    pub fn connections(&self, filter: &ConnectionFilter) -> Vec<OpenConnection> {
        self.state().ledger.list(filter)
    }

    /// See [`Running::kill`].
    pub fn kill(&self, filter: &ConnectionFilter) -> usize {
        self.state().ledger.kill(filter)
    }

    /// See [`Running::reopen_audit_log`].
    pub fn reopen_audit_log(&self) -> bool {
        self.state().audit.reopen()
    }

    /// Serves a connection that the program has accepted itself. See [`Running::serve`].
    ///
    /// # Errors
    ///
    /// The connection was not served, and its stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future closes the connection at once, as [`Outcome::Aborted`].
    pub fn serve<IO, P>(
        &self,
        listener: &str,
        io: IO,
        peer: P,
    ) -> impl Future<Output = Result<Outcome, ServeError>> + Send + use<IO, P>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
        P: Into<Option<Endpoint>>,
    {
        self.entrance.serve(listener, io, peer)
    }

    pub(crate) fn state(&self) -> &Arc<ProxyState> {
        &self.entrance.state
    }
}

/// Reads on a blocking thread: thousands of certificates take time, and this thread may serve the gate.
///
/// # Cancel safety
///
/// Cancel safe: the read continues, and its result is dropped.
async fn read(source: &ConfigSource) -> Result<Config, ReadError> {
    let source = source.clone();
    let read = tokio::task::spawn_blocking(move || source.read());
    read.await.unwrap_or(Err(ReadError::Panicked))
}

/// How many reloads may be queued during a reload. Further callers of `reload` wait, and
/// `request_reload` adds none.
const RELOADS: usize = 4;
