//! From a configuration to bound sockets, all or nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::net::UnixListener;
use tracing::warn;

use super::Threads;
use super::error::BindError;
use super::limits::EffectiveLimits;
use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::{Backend, Backends, To};
use crate::config::{Config, Listener, Runtime};
use crate::connection::Front;
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::gate;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::listener::Complaint;
use crate::rendezvous::Rendezvous;
use crate::sys::descriptors::{Reserve, raise_limit};
use crate::sys::directory::{PrivateDirectory, ensure_private};
use crate::sys::lock::LockError;
use crate::sys::unix::SocketFile;
use crate::sys::{tcp, unix};
use crate::tls::TlsAcceptor;
use crate::worker::{Bound, Shared, Socket, Worker, WorkerThread};

/// The parts that `start` sets in motion, and what must outlive them.
#[derive(Debug)]
pub(super) struct Assembly {
    /// On the caller's runtime, or none.
    pub worker: Option<Worker>,
    pub threads: Vec<WorkerThread>,
    pub gate: Option<(gate::Settings, UnixListener, SocketFile)>,
    pub files: Vec<SocketFile>,
    pub directory: Option<PrivateDirectory>,
    /// The names of the listeners that speak TLS.
    pub tls: HashSet<String>,
    pub limits: EffectiveLimits,
}

pub(super) async fn assemble(
    config: Config,
    threads: Threads,
) -> Result<(Arc<Shared>, HashMap<String, Address>, Assembly), BindError> {
    let (descriptors, workers) = match threads {
        Threads::Own => (raise_limit(), config.runtime.workers.unwrap_or_else(cpus)),
        Threads::Callers => (
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            1,
        ),
    };
    let limits = EffectiveLimits::new(&config, descriptors, workers);
    limits.warn_if_unreachable();
    if threads == Threads::Own {
        warn_if_unclaimable(&config);
    }

    let (gate, directory) = bind_gate(&config)?;
    let shared = Arc::new(share(&config)?);
    let mut addresses = HashMap::new();
    let mut files = Vec::new();
    let mut bound: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let front = Arc::new(front(listener)?);
        let (address, file) = bind_listener(listener, &front, &config, &mut bound)?;
        warn_if_for_development(listener);
        addresses.insert(listener.name.clone(), address);
        files.extend(file);
    }

    let mut assembly = Assembly {
        worker: None,
        threads: Vec::new(),
        gate,
        files,
        directory,
        tls: config
            .listeners
            .iter()
            .filter(|l| l.tls.is_some())
            .map(|l| l.name.clone())
            .collect(),
        limits,
    };
    match threads {
        Threads::Callers => {
            let listeners = bound.into_iter().flatten().collect();
            let worker = Worker::new(listeners, Arc::clone(&shared)).map_err(BindError::Worker)?;
            assembly.worker = Some(worker);
        }
        Threads::Own => {
            for (index, listeners) in bound.into_iter().enumerate() {
                let thread = WorkerThread::spawn(index, listeners, Arc::clone(&shared));
                assembly
                    .threads
                    .push(thread.await.map_err(BindError::Worker)?);
            }
        }
    }
    Ok((shared, addresses, assembly))
}

fn share(config: &Config) -> Result<Shared, BindError> {
    let drain = Drain::default();
    let backends: Backends = config
        .backends
        .iter()
        .map(|settings| {
            let backend = Backend::new(settings, config.unacknowledged, &drain);
            (settings.name.clone(), Arc::new(backend))
        })
        .collect();
    Ok(Shared {
        limits: Limits::new(&config.limits),
        timeouts: config.timeouts.clone(),
        routes: config.routes.clone(),
        backends,
        rendezvous: Rendezvous::confirmed_by(Claimer::tell),
        ledger: Arc::new(Ledger::default()),
        drain,
        reserve: Reserve::new().map_err(BindError::Worker)?,
        complaint: Complaint::default(),
    })
}

fn front(listener: &Listener) -> Result<Front, BindError> {
    let tls = match &listener.tls {
        Some(settings) => Some(TlsAcceptor::new(settings).map_err(|error| BindError::Tls {
            listener: listener.name.clone(),
            source: Box::new(error),
        })?),
        None => None,
    };
    Ok(Front {
        name: listener.name.clone(),
        tls,
        proxies: listener.proxies.clone(),
    })
}

/// Adds a socket of the listener to each worker.
fn bind_listener(
    listener: &Listener,
    front: &Arc<Front>,
    config: &Config,
    workers: &mut [Vec<Bound>],
) -> Result<(Address, Option<SocketFile>), BindError> {
    let cannot = |error: LockError| BindError::Listener {
        listener: listener.name.clone(),
        address: listener.address.clone(),
        source: error.into(),
    };
    match &listener.address {
        Address::Tcp { host, port } => {
            let sockets = tcp::bind(host, *port, workers.len(), config.unacknowledged)
                .map_err(|error| cannot(error.into()))?;
            let address = sockets[0]
                .local_addr()
                .map_err(|error| cannot(error.into()))?;
            let local = (!address.ip().is_unspecified()).then_some(Endpoint::Tcp(address));
            for (worker, socket) in workers.iter_mut().zip(sockets) {
                let socket = Socket::Tcp(socket, local.clone());
                worker.push(Bound {
                    socket,
                    front: Arc::clone(front),
                });
            }
            Ok((address.into(), None))
        }
        Address::Unix(path) => {
            let unix::Bound {
                listener: socket,
                file,
            } = unix::bind(path, LISTENER_MODE, None).map_err(cannot)?;
            // Unix sockets have no SO_REUSEPORT: the workers share one.
            for worker in workers {
                let socket = socket.try_clone().map_err(|error| cannot(error.into()))?;
                let socket = Socket::Unix(socket, Endpoint::Unix(path.clone()));
                worker.push(Bound {
                    socket,
                    front: Arc::clone(front),
                });
            }
            Ok((listener.address.clone(), Some(file)))
        }
    }
}

type BoundGate = (gate::Settings, UnixListener, SocketFile);

fn bind_gate(config: &Config) -> Result<(Option<BoundGate>, Option<PrivateDirectory>), BindError> {
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
    Ok((Some((settings.clone(), listener, file)), directory))
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

fn warn_if_for_development(listener: &Listener) {
    let known_key = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.certificate.is_for_development());
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
