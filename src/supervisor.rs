//! Keeps a proxy running: reloads its configuration, drains it, and does what it is told to.
//!
//! ```text
//! signals, an admin socket, a program ─► SupervisorHandle ─ commands ─┐
//! files that change ─────────────────────────────────────────────────┴─► Supervisor ─► Running
//! ```

mod followed;
mod source;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use self::followed::Followed;
pub use self::source::{ConfigSource, ReadError};
use crate::config::Config;
use crate::facts::Endpoint;
use crate::ledger::{ConnectionFilter, OpenConnection};
use crate::outcome::Outcome;
use crate::proxy::{
    Drained, Entrance, Proxy, ReloadError, Reloaded, Running, ServeError, Statistics,
};
use crate::proxy_state::ProxyState;

/// Keeps a proxy running until it has drained.
///
/// It reads its configuration again when one of its files changes or when it is told to, and puts it in
/// place whole or not at all. Whoever has its handle may steer it: `vestibule run` does so with signals.
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

/// Steers a [`Supervisor`]. Clones steer the same one.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    reloads: mpsc::Sender<Reload>,
    stage: Arc<watch::Sender<Stage>>,
    entrance: Entrance,
}

/// A reload that was asked for, and where its answer goes.
type Reload = oneshot::Sender<Result<Reloaded, ReloadFailure>>;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Draining,
    Cut,
}

/// Why a reload has changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadFailure {
    /// The configuration cannot be read, or has problems.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be put in place.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The proxy drains, or has ended.
    #[error("no reload during a drain")]
    Draining,
}

impl Supervisor {
    /// Begins to accept. `source` is where the proxy's configuration was read.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(proxy: Proxy, source: ConfigSource) -> Self {
        // Before clients can take all descriptors.
        let followed = Followed::new(proxy.files());
        let running = proxy.start();
        let (reload, reloads) = mpsc::channel(RELOADS);
        let handle = SupervisorHandle {
            reloads: reload,
            stage: Arc::new(watch::Sender::new(Stage::Serving)),
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

    /// What is running.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Steers this supervisor from anywhere.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Serves until a drain was asked for, and drains within `timeouts.drain` of the configuration that
    /// is served by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes every connection at once.
    pub async fn run(mut self) -> Drained {
        let mut stage = self.handle.stage.subscribe();
        loop {
            let asked = tokio::select! {
                biased;
                () = reached(&mut stage, Stage::Draining) => break,
                Some(asked) = self.reloads.recv() => Some(asked),
                () = self.followed.changed() => {
                    info!("a file changed: reloading");
                    None
                }
            };
            let Some(reloaded) = self.reload(&mut stage).await else {
                break;
            };
            if let Err(error) = &reloaded {
                error!(
                    "reload failed, the old configuration stays: {}",
                    chain(error)
                );
            }
            if let Some(asked) = asked {
                // Who has stopped to wait does not want to know.
                let _ = asked.send(reloaded);
            }
        }
        self.drain(stage).await
    }

    /// Reads the configuration anew and puts it in place; `None` when a drain was asked for before it
    /// was read, for which the reading is given up.
    async fn reload(
        &mut self,
        stage: &mut watch::Receiver<Stage>,
    ) -> Option<Result<Reloaded, ReloadFailure>> {
        // First, so that what comes between is a change.
        let served = self.followed.served();
        let again = tokio::select! {
            biased;
            () = reached(stage, Stage::Draining) => return None,
            again = read(&self.source) => again,
        };
        // Whole, since half of it in place would be neither configuration.
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
                Err(error.into())
            }
        })
    }

    /// Lets connections end; a cut, or the time that is up, closes what is left.
    async fn drain(self, mut stage: watch::Receiver<Stage>) -> Drained {
        let Self {
            running,
            mut reloads,
            ..
        } = self;
        let timeout = running.drain_timeout();
        let open = running.statistics().open;
        // Not before it is true: who reads it may rely on it that nothing new is taken.
        let say = async {
            match timeout {
                Some(it) => info!(
                    "draining: {open} open; connections that are still open after {it:?} are cut \
                     (timeouts.drain)"
                ),
                None => info!("draining: {open} open; no time limit (timeouts.drain)"),
            }
        };
        let drain = running.drain_until(timeout, reached(&mut stage, Stage::Cut));
        let refuse = async {
            while let Some(asked) = reloads.recv().await {
                warn!("reload ignored: {}", ReloadFailure::Draining);
                let _ = asked.send(Err(ReloadFailure::Draining));
            }
        };
        let mut drain = pin!(async { tokio::join!(biased; drain, say).0 });
        let drained = tokio::select! {
            biased;
            drained = &mut drain => drained,
            // Nobody asks any more.
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
    /// Reads the configuration again and puts it in place: all of it, or on an error none. See
    /// [`Running::reload`].
    ///
    /// # Errors
    ///
    /// Why nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Safe: once it was asked for the reload is done, whether or not somebody waits for the answer.
    pub async fn reload(&self) -> Result<Reloaded, ReloadFailure> {
        let (asked, answer) = oneshot::channel();
        match self.reloads.send(asked).await {
            // It is dropped with the supervisor, or for a drain that has begun meanwhile.
            Ok(()) => answer.await.unwrap_or(Err(ReloadFailure::Draining)),
            Err(_) => Err(ReloadFailure::Draining),
        }
    }

    /// Asks for a reload and does not wait for it: what came of it is in the log. Where enough of them are
    /// asked for already, one of those reads the configuration later than now.
    pub fn request_reload(&self) {
        let (asked, _) = oneshot::channel();
        let _ = self.reloads.try_send(asked);
    }

    /// Begins to drain: nothing new is accepted, and what is open may end. A reload that is only being
    /// read is given up. Later calls change nothing.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Drains, and closes what is open at once.
    pub fn cut(&self) {
        self.advance(Stage::Cut);
    }

    /// Whether a drain was asked for.
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() >= Stage::Draining
    }

    /// See [`Running::statistics`].
    pub fn statistics(&self) -> Statistics {
        Statistics::of(self.state())
    }

    /// See [`Running::connections`].
    pub fn connections(&self, filter: &ConnectionFilter) -> Vec<OpenConnection> {
        self.state().ledger.list(filter)
    }

    /// See [`Running::kill`].
    pub fn kill(&self, filter: &ConnectionFilter) -> usize {
        self.state().ledger.kill(filter)
    }

    /// See [`Running::serve`].
    ///
    /// # Errors
    ///
    /// The connection was not served, and its stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once, as [`Outcome::Aborted`].
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

    fn state(&self) -> &ProxyState {
        &self.entrance.state
    }

    fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let is_later = stage > *now;
            if is_later {
                *now = stage;
            }
            is_later
        });
    }
}

/// Waits until the end is so far.
///
/// # Cancel safety
///
/// Safe.
async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|now| *now >= wanted).await.is_err() {
        // The supervisor has a handle of its own.
        std::future::pending().await
    }
}

/// Thousands of certificates take their time, and the gate may be served on this thread.
///
/// # Cancel safety
///
/// Safe: the reading goes on, for nobody.
async fn read(source: &ConfigSource) -> Result<Config, ReadError> {
    let source = source.clone();
    let read = tokio::task::spawn_blocking(move || source.read());
    read.await.unwrap_or(Err(ReadError::Panicked))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Reloads that may be asked for while one is done; more wait where they are asked for.
const RELOADS: usize = 4;
