//! Builds, starts and ends a proxy.
//!
//! ```text
//! Config ─► Builder ─ bind ─► Proxy ─ start ─► Running ─ drain ─► Drained
//!                   addresses known,      accepting      no new connections,
//!                   errors early                         then none at all
//! ```

mod addresses;
mod bind;
mod checks;
mod error;
mod heartbeat;
mod limits;
mod memory;
mod reload;
mod revoke;
mod running;
mod scrape;
mod serve;
mod statistics;
mod tunnels;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(crate) use self::addresses::set as set_address_state;
pub use self::addresses::{AddressChange, UnknownAddress};
pub use self::bind::AdminListener;
pub(crate) use self::bind::AdminSocket;
use self::bind::{Assembly, Open};
use self::checks::Checks;
pub use self::error::{BindError, PathError};
pub(crate) use self::memory::MemoryUse;
pub(crate) use self::reload::with_causes;
pub use self::reload::{ReloadError, Reloaded};
pub(crate) use self::revoke::{remove, revoke};
pub use self::running::{Drained, Running};
pub(crate) use self::scrape::scrape;
pub(crate) use self::serve::Entrance;
pub use self::serve::ServeError;
pub use self::statistics::Statistics;
pub(crate) use self::tunnels::{WaitingWorkers, of_listener};
use crate::active_config::{ActiveJoin, JoinSettings};
use crate::address::Address;
use crate::config::Config;
use crate::facts::Endpoint;
use crate::handler::Backend;
use crate::journal::{Event, EventKind};
use crate::proxy_state::ProxyState;
use crate::watch::FileState;
use crate::worker::Worker;

/// A proxy whose addresses are bound, but which does not accept yet.
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
    /// Where the admin API listens, once the program has taken it.
    admin: Vec<Endpoint>,
    assembly: Assembly,
}

/// Prepares a [`Proxy`].
#[derive(Debug)]
#[must_use = "nothing is bound before `bind`"]
pub struct Builder {
    config: Config,
    threads: Threads,
    with_admin: WithAdmin,
}

/// The threads that serve connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    Callers,
    Own,
}

/// Whether the admin API of the configuration is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithAdmin {
    No,
    Yes,
}

impl Builder {
    /// Serves connections on `runtime.workers` threads of the proxy's own, instead of the caller's
    /// runtime. Also raises the process's soft limit of file descriptors to the hard limit, and turns
    /// core dumps off unless `runtime.core_dumps` is set. The binary does this.
    pub fn on_worker_threads(mut self) -> Self {
        self.threads = Threads::Own;
        self
    }

    /// Also opens the admin API at `admin.address`. [`Proxy::take_admin`] returns its sockets, which the
    /// program serves. The binary does this; without it, `[admin]` has no effect.
    pub fn with_admin(mut self) -> Self {
        self.with_admin = WithAdmin::Yes;
        self
    }

    /// Binds the addresses of all listeners and the gate. From now on clients can connect, and wait
    /// until [`Proxy::start`].
    ///
    /// # Errors
    ///
    /// The address or path that cannot be bound, with the reason. Then nothing stays bound.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was bound so far.
    pub async fn bind(self) -> Result<Proxy, BindError> {
        let (drain_timeout, files) = (self.config.drain_timeout(), self.config.files().to_vec());
        let (state, assembly) = bind::assemble(self.config, self.threads, self.with_admin).await?;
        let addresses = addresses(&assembly.listeners);
        Ok(Proxy {
            state,
            drain_timeout,
            files,
            addresses,
            admin: Vec::new(),
            assembly,
        })
    }
}

impl Proxy {
    /// Makes a builder for a proxy with this configuration.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            threads: Threads::Callers,
            with_admin: WithAdmin::No,
        }
    }

    /// The addresses of the listeners by name. If a port is configured as 0, the address has the port
    /// that the system chose.
    pub fn addresses(&self) -> &HashMap<String, Address> {
        &self.addresses
    }

    /// The sockets of the admin API, to be served with [`AdminListener::serve`]. `None` if the builder did
    /// not ask for them, if the configuration switches them off, or at the second call. If they are not
    /// taken, [`Proxy::start`] closes them.
    pub fn take_admin(&mut self) -> Option<AdminListener> {
        let admin = self.assembly.admin.take()?;
        self.admin.clone_from(&admin.endpoints);
        Some(admin)
    }

    /// The files of the configuration, in the state in which they were read.
    pub(crate) fn files(&self) -> &[FileState] {
        &self.files
    }

    /// A handle that accepts the connections of a backend with `to = "gate"` in this process.
    ///
    /// # Panics
    ///
    /// If the configuration has no such backend: its connections would wait for ever.
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

    /// Starts to accept connections.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Running {
        let Self {
            state,
            drain_timeout,
            addresses,
            admin,
            assembly,
            ..
        } = self;
        for (name, open) in &assembly.listeners {
            open.announce(name);
        }
        announce_joins(&state.config.load().joins, &[]);
        assembly.limits.warn_if_unreachable();
        info!(target: START, "{}", assembly.limits);
        state.journal.publish(Event::now(EventKind::Start {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
        }));
        let tasks = TaskTracker::new();
        let refusal_log = log_refusals(&tasks, &state);
        if let Some(path) = assembly.fixed.runtime.heartbeat.clone() {
            let (end, ledger) = (refusal_log.clone(), Arc::clone(&state.ledger));
            tasks.spawn(end.run_until_cancelled_owned(heartbeat::beat(path, ledger)));
        }
        if let Some(meter) = assembly.meter {
            memory::warn_if_pointless(&state.memory, &meter);
            let (end, state) = (refusal_log.clone(), Arc::clone(&state));
            tasks.spawn(end.run_until_cancelled_owned(memory::watch(state, meter)));
        }
        let gate = assembly.gate.map(|gate| gate.open(&state, &tasks));
        let mut checks = Checks::new(refusal_log.clone());
        checks.follow(&state.config.load_full(), &tasks);
        let workers = TaskTracker::new();
        if let Some(worker) = assembly.worker {
            workers.spawn(Worker::run(worker));
        }
        for thread in assembly.threads {
            workers.spawn(thread.start());
        }
        workers.close();
        let served = TaskTracker::new();
        served.close();
        tasks.close();
        Running {
            state,
            drain_timeout,
            addresses,
            workers,
            served,
            tasks,
            refusal_log,
            checks,
            senders: assembly.senders,
            fixed: assembly.fixed,
            listeners: assembly.listeners,
            gate,
            admin,
        }
    }
}

/// Spawns the tasks that log which clients are not served, and why, and what moves in a minute. They end
/// when the token is cancelled.
fn log_refusals(tasks: &TaskTracker, state: &Arc<ProxyState>) -> CancellationToken {
    let end = CancellationToken::new();
    let (ended, ledger) = (end.clone(), Arc::clone(&state.ledger));
    tasks.spawn(async move { ledger.say_refusals(ended.cancelled()).await });
    let (ended, ledger) = (end.clone(), Arc::clone(&state.ledger));
    tasks.spawn(async move { ledger.log_minutes(ended.cancelled()).await });
    end
}

impl Open {
    fn announce(&self, name: &str) {
        let Self {
            actual, has_tls, ..
        } = self;
        // One line for each listener; a name may have several addresses.
        let others = self.endpoints.iter().skip(1).map(ToString::to_string);
        match others.reduce(|all, other| format!("{all}, {other}")) {
            None => info!(target: START, listener = name, tls = has_tls, "listening on {actual}"),
            Some(also) => {
                info!(target: START, listener = name, tls = has_tls, also, "listening on {actual}");
            }
        }
    }
}

/// One line for each join that was not there before.
fn announce_joins(joins: &[Arc<ActiveJoin>], before: &[Arc<ActiveJoin>]) {
    let is_old = |join: &Arc<ActiveJoin>| before.iter().any(|it| Arc::ptr_eq(it, join));
    for join in joins.iter().filter(|join| !is_old(join)) {
        let JoinSettings {
            fronts,
            backend,
            to,
            ..
        } = &join.settings;
        let list = |all: &[Address]| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join(", ")
        };
        info!(target: START, backend, to = list(to), "joining {}", list(fronts));
    }
}

fn addresses(listeners: &HashMap<String, Open>) -> HashMap<String, Address> {
    let listeners = listeners.iter();
    listeners
        .map(|(name, open)| (name.clone(), open.actual.clone()))
        .collect()
}

/// The target of start-up lines. The binary shows them with any filter.
pub(crate) const START: &str = "vestibule::start";
