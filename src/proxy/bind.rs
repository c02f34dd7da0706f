//! From a configuration to bound sockets, all or nothing.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Threads;
use super::error::BindError;
use super::limits::EffectiveLimits;
use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::{self, Backend, To};
use crate::config::{Config, Listener, Runtime};
use crate::connection::Front;
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::gate;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::listener::Complaint;
use crate::rendezvous::Rendezvous;
use crate::setup::Setup;
use crate::sys::descriptors::{Reserve, raise_limit};
use crate::sys::directory::{PrivateDirectory, ensure_private};
use crate::sys::dumps;
use crate::sys::lock::LockError;
use crate::sys::unix::SocketFile;
use crate::sys::{tcp, unix};
use crate::tls::TlsAcceptor;
use crate::tls::tickets::Secret;
use crate::worker::{Bound, Door, Shared, Socket, Worker, WorkerThread};

/// The parts that `start` sets in motion, and what must outlive them.
#[derive(Debug)]
pub(super) struct Assembly {
    /// On the caller's runtime, or none.
    pub worker: Option<Worker>,
    pub threads: Vec<WorkerThread>,
    pub gate: Option<(gate::Settings, UnixListener, SocketFile)>,
    pub directory: Option<PrivateDirectory>,
    pub doors: Vec<Door>,
    pub listeners: HashMap<String, Open>,
    pub fixed: Fixed,
    pub limits: EffectiveLimits,
}

/// A listener that is bound.
#[derive(Debug)]
pub(super) struct Open {
    /// As configured.
    pub address: Address,
    /// With the port that the system chose.
    pub actual: Address,
    pub has_tls: bool,
    pub stop: CancellationToken,
    pub _file: Option<SocketFile>,
}

/// What stays as it is until a restart.
#[derive(Debug, PartialEq)]
pub(super) struct Fixed {
    pub runtime: Runtime,
    pub gate: Option<gate::Settings>,
    pub unacknowledged: Option<Duration>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            runtime: config.runtime.clone(),
            gate: config.gate.clone(),
            unacknowledged: config.unacknowledged,
        }
    }
}

/// The process is the program's own, and its keys are in memory.
fn forbid_dumps(runtime: &Runtime) {
    if !runtime.core_dumps
        && let Err(error) = dumps::forbid()
    {
        warn!(%error, "cannot forbid core dumps (runtime.core_dumps); one would show private keys");
    }
}

pub(super) async fn assemble(
    config: Config,
    threads: Threads,
) -> Result<(Arc<Shared>, Assembly), BindError> {
    let (descriptors, workers) = match threads {
        Threads::Own => (raise_limit(), config.runtime.workers.unwrap_or_else(cpus)),
        Threads::Callers => (
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            1,
        ),
    };
    let limits = EffectiveLimits::new(&config, descriptors, workers);
    if threads == Threads::Own {
        forbid_dumps(&config.runtime);
        warn_if_unclaimable(&config);
    }

    // In this order: should something fail below, the gate's file goes before its directory.
    let (directory, gate) = bind_gate(&config)?;
    let shared = Arc::new(share(&config)?);
    let mut listeners = HashMap::new();
    let mut bound: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let (open, sockets) = bind_listener(listener, &config, workers)?;
        warn_if_for_development(listener);
        for (worker, socket) in bound.iter_mut().zip(sockets) {
            worker.push(socket);
        }
        listeners.insert(listener.name.clone(), open);
    }

    let mut assembly = Assembly {
        worker: None,
        threads: Vec::new(),
        gate,
        directory,
        doors: Vec::new(),
        listeners,
        fixed: Fixed::of(&config),
        limits,
    };
    for (index, sockets) in bound.into_iter().enumerate() {
        let door = match threads {
            Threads::Callers => {
                let worker = Worker::new(sockets, Arc::clone(&shared));
                let (worker, door) = worker.map_err(BindError::Worker)?;
                assembly.worker = Some(worker);
                door
            }
            Threads::Own => {
                let thread = WorkerThread::spawn(index, sockets, Arc::clone(&shared)).await;
                let (thread, door) = thread.map_err(BindError::Worker)?;
                assembly.threads.push(thread);
                door
            }
        };
        assembly.doors.push(door);
    }
    Ok((shared, assembly))
}

fn share(config: &Config) -> Result<Shared, BindError> {
    let drain = Drain::default();
    let tickets = Secret::random().map_err(|error| BindError::Worker(io::Error::other(error)))?;
    let setup = setup(config, None, &tickets, &drain)?;
    Ok(Shared {
        setup: ArcSwap::from_pointee(setup),
        limits: Limits::new(&config.limits),
        tickets,
        rendezvous: Rendezvous::confirmed_by(Claimer::tell),
        ledger: Arc::new(Ledger::default()),
        drain,
        reserve: Reserve::new().map_err(BindError::Worker)?,
        complaint: Complaint::default(),
    })
}

/// What connections are to be served by. A backend that is configured as before is the one from
/// `before`, and one that is not has at least the workers that are registered there.
pub(super) fn setup(
    config: &Config,
    before: Option<&Setup>,
    tickets: &Secret,
    drain: &Drain,
) -> Result<Setup, BindError> {
    let backend = |settings: &backend::Settings| {
        let before = before.and_then(|before| before.backends.get(&settings.name));
        if let Some(backend) = before
            && backend.settings() == settings
        {
            return Arc::clone(backend);
        }
        let registry = before.and_then(|backend| backend.registry());
        let registry = registry.map(Arc::clone).unwrap_or_default();
        let unacknowledged = config.unacknowledged;
        Arc::new(Backend::new(settings, registry, unacknowledged, drain))
    };
    let backends = config.backends.iter();
    let fronts: Result<_, BindError> = config
        .listeners
        .iter()
        .map(|listener| Ok((listener.name.clone(), Arc::new(front(listener, tickets)?))))
        .collect();
    Ok(Setup {
        timeouts: config.timeouts,
        routes: config.routes.clone(),
        backends: backends
            .map(|settings| (settings.name.clone(), backend(settings)))
            .collect(),
        fronts: fronts?,
    })
}

fn front(listener: &Listener, tickets: &Secret) -> Result<Front, BindError> {
    let tls = match &listener.tls {
        Some(settings) => {
            let acceptor = TlsAcceptor::new(settings, tickets);
            Some(acceptor.map_err(|error| BindError::Tls {
                listener: listener.name.clone(),
                source: Box::new(error),
            })?)
        }
        None => None,
    };
    Ok(Front {
        name: listener.name.clone(),
        tls,
        proxies: listener.proxies.clone(),
    })
}

/// The listener, and a socket of it for each worker.
pub(super) fn bind_listener(
    listener: &Listener,
    config: &Config,
    workers: usize,
) -> Result<(Open, Vec<Bound>), BindError> {
    let cannot = |error: LockError| BindError::Listener {
        listener: listener.name.clone(),
        address: listener.address.clone(),
        source: error.into(),
    };
    let name: Arc<str> = listener.name.as_str().into();
    let stop = CancellationToken::new();
    let bound = |socket| Bound {
        socket,
        name: Arc::clone(&name),
        stop: stop.clone(),
    };
    let (actual, file, sockets) = match &listener.address {
        Address::Tcp { host, port } => {
            let sockets = tcp::bind(host, *port, workers, config.unacknowledged)
                .map_err(|error| cannot(error.into()))?;
            let address = sockets[0]
                .local_addr()
                .map_err(|error| cannot(error.into()))?;
            let local = (!address.ip().is_unspecified()).then_some(Endpoint::Tcp(address));
            let sockets = sockets.into_iter();
            let sockets = sockets.map(|socket| bound(Socket::Tcp(socket, local.clone())));
            (address.into(), None, sockets.collect())
        }
        Address::Unix(path) => {
            let unix::Bound {
                listener: socket,
                file,
            } = unix::bind(path, LISTENER_MODE, None).map_err(cannot)?;
            // Unix sockets have no SO_REUSEPORT: the workers share one.
            let share = || {
                let socket = socket.try_clone().map_err(|error| cannot(error.into()))?;
                Ok(bound(Socket::Unix(socket, Endpoint::Unix(path.clone()))))
            };
            let sockets: Result<_, BindError> = (0..workers).map(|_| share()).collect();
            (listener.address.clone(), Some(file), sockets?)
        }
    };
    let open = Open {
        address: listener.address.clone(),
        actual,
        has_tls: listener.tls.is_some(),
        stop,
        _file: file,
    };
    Ok((open, sockets))
}

type BoundGate = (gate::Settings, UnixListener, SocketFile);

fn bind_gate(config: &Config) -> Result<(Option<PrivateDirectory>, Option<BoundGate>), BindError> {
    let Some(settings) = &config.gate else {
        return Ok((None, None));
    };
    let (path, directory) = if settings.path.is_absolute() {
        let parent = settings.path.parent().unwrap_or(Path::new("/"));
        if !parent.exists() {
            drop(private_directory(parent)?);
        }
        ensure_private(parent).map_err(|error| BindError::directory(parent, error))?;
        (settings.path.clone(), None)
    } else {
        let directory = runtime_directory(&config.runtime)?;
        (directory.path().join(&settings.path), Some(directory))
    };
    let group = settings.allow_gids.iter().min().copied();
    let cannot = |error: LockError| BindError::Gate {
        path: path.clone(),
        source: error.into(),
    };
    let unix::Bound { listener, file } =
        unix::bind(&path, settings.mode(), group).map_err(cannot)?;
    let listener = UnixListener::from_std(listener).map_err(|error| cannot(error.into()))?;
    Ok((directory, Some((settings.clone(), listener, file))))
}

fn runtime_directory(runtime: &Runtime) -> Result<PrivateDirectory, BindError> {
    let users = || {
        let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
        Some(Path::new(&directory).join("vestibule"))
    };
    match runtime.directory.clone().or_else(users) {
        Some(path) => private_directory(&path),
        None => PrivateDirectory::fresh()
            .map_err(|error| BindError::directory(&std::env::temp_dir(), error)),
    }
}

fn private_directory(path: &Path) -> Result<PrivateDirectory, BindError> {
    PrivateDirectory::named(path).map_err(|error| BindError::directory(path, error))
}

pub(super) fn warn_if_for_development(listener: &Listener) {
    let known_key = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.hosts.is_for_development());
    if known_key && !listener.address.is_local() {
        warn!(
            listener = listener.name,
            address = %listener.address,
            "the development certificate is in use beyond this machine, and everybody has its \
             private key; use a certificate of your own"
        );
    }
}

/// Without a gate only a program that embeds the proxy can serve a claimed backend.
fn warn_if_unclaimable(config: &Config) {
    if config.gate.is_some() {
        return;
    }
    for backend in config
        .backends
        .iter()
        .filter(|backend| backend.to == To::Gate)
    {
        warn!(
            backend = backend.name,
            "`gate.path` is \"none\", so nobody can claim the connections of this backend"
        );
    }
}

/// Usable by what this process may run on, cgroup and affinity included.
fn cpus() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Anyone may connect, as to a TCP port; the directory says who may reach it.
const LISTENER_MODE: u32 = 0o666;
