//! Puts a proxy together, starts it, and ends it.
//!
//! ```text
//! Config ─► Builder ─ bind ─► Proxy ─ start ─► Running ─ drain ─► Drained
//!                   addresses known,      accepting      nothing new, then nothing
//!                   errors early
//! ```

mod bind;
mod error;
mod limits;
mod reload;
mod serve;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::bind::{Assembly, BoundGate, Fixed, Open};
pub use self::error::{BindError, PathError};
pub use self::reload::{ReloadError, Reloaded};
pub(crate) use self::serve::Entrance;
pub use self::serve::ServeError;
use crate::address::Address;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::gate::{self, Gate};
use crate::handler::Backend;
use crate::ledger::{ConnectionFilter, OpenConnection};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;
use crate::sys::directory::PrivateDirectory;
use crate::sys::unix::SocketFile;
use crate::watch::FileState;
use crate::worker::{Door, Worker};

/// A proxy whose addresses are bound and which does not accept yet.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let config: vestibule::Config = r#"
///     [[listener]]
///     name = "plain"
///     address = "tcp:127.0.0.1:0"
///     [[backend]]
///     name = "app"
///     to = "gate"
/// "#
/// .parse()?;
///
/// let proxy = vestibule::Proxy::builder(config).bind().await?;
/// let address = proxy.addresses()["plain"].to_string();
/// let mut app = proxy.backend("app");
/// let running = proxy.start();
///
/// let mut client = tokio::net::TcpStream::connect(address.trim_start_matches("tcp:")).await?;
/// client.write_all(b"hello").await?;
///
/// let mut connection = app.accept().await.expect("the proxy is not draining");
/// let mut word = [0; 5];
/// connection.read_exact(&mut word).await?;
/// assert_eq!(&word, b"hello");
/// assert_eq!(connection.facts().backend, "app");
///
/// drop((client, connection));
/// running.drain(Duration::from_secs(30)).await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is accepted before `start`"]
pub struct Proxy {
    state: Arc<ProxyState>,
    drain_timeout: Option<Duration>,
    files: Vec<FileState>,
    addresses: HashMap<String, Address>,
    assembly: Assembly,
}

/// Prepares a [`Proxy`].
#[derive(Debug)]
#[must_use = "nothing is bound before `bind`"]
pub struct Builder {
    config: Config,
    threads: Threads,
}

/// Where connections are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    Callers,
    Own,
}

impl Builder {
    /// Serves connections on `runtime.workers` threads of their own instead of the caller's
    /// runtime, and raises the process's limit of file descriptors to what it may be. This is
    /// what the binary does.
    pub fn on_worker_threads(mut self) -> Self {
        self.threads = Threads::Own;
        self
    }

    /// Binds every address and the gate. Clients can connect from now on, and wait.
    ///
    /// # Errors
    ///
    /// Names the address or path that cannot be bound; nothing is left behind then.
    pub async fn bind(self) -> Result<Proxy, BindError> {
        let (drain_timeout, files) = (self.config.drain_timeout(), self.config.files().to_vec());
        let (state, assembly) = bind::assemble(self.config, self.threads).await?;
        let addresses = addresses(&assembly.listeners);
        Ok(Proxy {
            state,
            drain_timeout,
            files,
            addresses,
            assembly,
        })
    }
}

impl Proxy {
    /// Begins to prepare a proxy.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            threads: Threads::Callers,
        }
    }

    /// The addresses of the listeners by name, with the port that the system chose for port 0.
    pub fn addresses(&self) -> &HashMap<String, Address> {
        &self.addresses
    }

    /// The files of the configuration, as they were when it was read.
    pub(crate) fn files(&self) -> &[FileState] {
        &self.files
    }

    /// A handle that accepts the connections of a backend with `to = "gate"` in this process.
    ///
    /// # Panics
    ///
    /// When the configuration has no such backend: its connections would wait for ever.
    pub fn backend(&self, name: &str) -> Backend {
        let config = self.state.config.load();
        assert!(
            config
                .backends
                .get(name)
                .is_some_and(|backend| backend.registry().is_some()),
            "the configuration has no backend {name:?} with `to = \"gate\"`"
        );
        Backend::new(name, Arc::clone(&self.state))
    }

    /// Begins to accept.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Running {
        let Self {
            state,
            drain_timeout,
            addresses,
            assembly,
            ..
        } = self;
        for (name, open) in &assembly.listeners {
            open.announce(name);
        }
        assembly.limits.warn_if_unreachable();
        info!(target: START, "{}", assembly.limits);
        let tasks = TaskTracker::new();
        let spoken = speak(&tasks, &state);
        let gate = assembly.gate.map(|gate| gate.open(&state, &tasks));
        let workers = TaskTracker::new();
        if let Some(worker) = assembly.worker {
            workers.spawn(Worker::run(worker));
        }
        for thread in assembly.threads {
            workers.spawn(thread.start());
        }
        workers.close();
        tasks.close();
        Running {
            state,
            drain_timeout,
            addresses,
            workers,
            tasks,
            spoken,
            doors: assembly.doors,
            fixed: assembly.fixed,
            listeners: assembly.listeners,
            gate,
        }
    }
}

/// A proxy that accepts. Dropping it closes every connection at once.
#[derive(Debug)]
#[must_use = "dropping it closes every connection"]
pub struct Running {
    state: Arc<ProxyState>,
    drain_timeout: Option<Duration>,
    addresses: HashMap<String, Address>,
    workers: TaskTracker,
    tasks: TaskTracker,
    /// Ends the task that says who was not served.
    spoken: CancellationToken,
    doors: Vec<Door>,
    fixed: Fixed,
    listeners: HashMap<String, Open>,
    gate: Option<OpenGate>,
}

/// The gate that is served. Its file is removed before its directory.
#[derive(Debug)]
struct OpenGate {
    file: SocketFile,
    _directory: Option<PrivateDirectory>,
}

impl BoundGate {
    /// Serves it, as one of the tasks.
    fn open(self, state: &Arc<ProxyState>, tasks: &TaskTracker) -> OpenGate {
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

    pub(crate) fn state(&self) -> &Arc<ProxyState> {
        &self.state
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

    /// Ends the open connections that are meant, as [`Outcome::Killed`]; how many were told so.
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
        let cut = tokio::select! {
            biased;
            () = self.workers.wait() => 0,
            () = deadline.passed() => self.state.ledger.open_connections(),
            () = now => self.state.ledger.open_connections(),
        };
        self.cut();
        self.workers.wait().await;
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

/// Lets a task say who is not served and why, until it is told that there is no more to say.
fn speak(tasks: &TaskTracker, state: &Arc<ProxyState>) -> CancellationToken {
    let (end, state) = (CancellationToken::new(), Arc::clone(state));
    let ended = end.clone();
    tasks.spawn(async move { state.ledger.refusals.speak(ended.cancelled()).await });
    end
}

impl Open {
    fn announce(&self, name: &str) {
        let Self {
            actual, has_tls, ..
        } = self;
        // One line a listener; a name may have several addresses.
        let others = self.endpoints.iter().skip(1).map(ToString::to_string);
        match others.reduce(|all, other| format!("{all}, {other}")) {
            None => info!(target: START, listener = name, tls = has_tls, "listening on {actual}"),
            Some(also) => {
                info!(target: START, listener = name, tls = has_tls, also, "listening on {actual}");
            }
        }
    }
}

fn addresses(listeners: &HashMap<String, Open>) -> HashMap<String, Address> {
    let listeners = listeners.iter();
    listeners
        .map(|(name, open)| (name.clone(), open.actual.clone()))
        .collect()
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// How many connections were closed because time was up.
    pub cut: usize,
}

/// A moment's view of a running proxy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Connections from accept to close.
    pub open: usize,
    /// Of these, those that no backend has yet.
    pub pending: usize,
    /// Of these, those that wait at the rendezvous.
    pub waiting: usize,
    ended: [(Outcome, u64); Outcome::ALL.len()],
}

impl Statistics {
    pub(crate) fn of(state: &ProxyState) -> Self {
        Self {
            open: state.ledger.open_connections(),
            pending: state.limits.pending(),
            waiting: state.rendezvous.len(),
            ended: Outcome::ALL.map(|outcome| (outcome, state.ledger.ended(outcome))),
        }
    }

    /// How many connections have ended in this way.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended
            .iter()
            .find(|(this, _)| *this == outcome)
            .map_or(0, |(_, count)| *count)
    }
}

/// Start-up is logged under this target, which the binary shows whatever the filter is.
const START: &str = "vestibule::start";
