//! From a configuration to bound sockets, all or nothing.

mod advice;
mod gate;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::warn;

pub(super) use self::gate::{BoundGate, bind_gate};
use super::Threads;
use super::error::{BindError, PathError};
use super::limits::EffectiveLimits;
use crate::active_config::ActiveConfig;
use crate::active_config::ListenerConfig;
use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::own::{self, Own};
use crate::backend::{self, Backend, To};
use crate::config::{Config, Listener, Runtime};
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::gate::Settings as GateSettings;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::listener::Stop;
use crate::proxy_state::{Complaint, ProxyState};
use crate::rendezvous::Rendezvous;
use crate::sys::descriptors::{Reserve, raise_limit};
use crate::sys::dumps;
use crate::sys::unix::{Access, SocketFile};
use crate::sys::{tcp, unix};
use crate::tls::TlsAcceptor;
use crate::tls::tickets::Secret;
use crate::worker::{Bound, Door, Socket, Worker, WorkerThread};

/// The parts that `start` sets in motion, and what must outlive them.
#[derive(Debug)]
pub(super) struct Assembly {
    /// On the caller's runtime, or none.
    pub worker: Option<Worker>,
    pub threads: Vec<WorkerThread>,
    pub gate: Option<BoundGate>,
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
    /// All that it is bound to.
    pub endpoints: Vec<Endpoint>,
    /// Who may connect to a Unix socket.
    pub access: Access,
    pub stop: Arc<Stop>,
    pub file: Option<SocketFile>,
}

/// What stays as it is until a restart.
#[derive(Debug, PartialEq)]
pub(super) struct Fixed {
    pub runtime: Runtime,
    pub gate: Option<GateSettings>,
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
        warn!(%error, "cannot turn core dumps off (runtime.core_dumps); a core dump would contain \
         private keys");
    }
}

pub(super) async fn assemble(
    config: Config,
    threads: Threads,
) -> Result<(Arc<ProxyState>, Assembly), BindError> {
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

    let gate = bind_gate(&config)?;
    let state = Arc::new(share(&config)?);
    let mut listeners = HashMap::new();
    let mut bound: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let (open, sockets) = bind_listener(listener, &config, workers)?;
        warn_if_for_development(listener);
        for (worker, sockets) in bound.iter_mut().zip(sockets) {
            worker.extend(sockets);
        }
        listeners.insert(listener.name.clone(), open);
    }
    let path = gate.as_ref().map(|gate| gate.file.path());
    let own = doors(&listeners, path);
    ensure_no_loop(&config, &own)?;
    state.own.replace(own);

    let mut assembly = Assembly {
        worker: None,
        threads: Vec::new(),
        gate,
        doors: Vec::new(),
        listeners,
        fixed: Fixed::of(&config),
        limits,
    };
    for (index, sockets) in bound.into_iter().enumerate() {
        let door = match threads {
            Threads::Callers => {
                let worker = Worker::new(sockets, Arc::clone(&state));
                let (worker, door) = worker.map_err(BindError::Worker)?;
                assembly.worker = Some(worker);
                door
            }
            Threads::Own => {
                let thread = WorkerThread::spawn(index, sockets, Arc::clone(&state)).await;
                let (thread, door) = thread.map_err(BindError::Worker)?;
                assembly.threads.push(thread);
                door
            }
        };
        assembly.doors.push(door);
    }
    Ok((state, assembly))
}

fn share(config: &Config) -> Result<ProxyState, BindError> {
    let drain = Drain::default();
    let tickets = Secret::random().map_err(|error| BindError::Worker(io::Error::other(error)))?;
    let own = Arc::default();
    let active = activate(config, None, &tickets, &drain, &own)?;
    Ok(ProxyState {
        config: ArcSwap::from_pointee(active),
        limits: Limits::new(&config.limits),
        tickets,
        rendezvous: Rendezvous::confirmed_by(Claimer::tell),
        ledger: Arc::new(Ledger::default()),
        drain,
        own,
        reserve: Reserve::new().map_err(BindError::Worker)?,
        complaint: Complaint::default(),
    })
}

/// What connections are to be served by. A backend that is configured as before is the one from
/// `before`, and one that is not has at least the workers that are registered there.
pub(super) fn activate(
    config: &Config,
    before: Option<&ActiveConfig>,
    tickets: &Secret,
    drain: &Drain,
    own: &Arc<Own>,
) -> Result<ActiveConfig, BindError> {
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
        Arc::new(Backend::new(settings, registry, unacknowledged, drain, own))
    };
    let backends = config.backends.iter();
    let listeners: Result<_, BindError> = config
        .listeners
        .iter()
        .map(|listener| {
            let active = Arc::new(activate_listener(listener, tickets)?);
            Ok((Arc::clone(&active.name), active))
        })
        .collect();
    Ok(ActiveConfig {
        timeouts: config.timeouts,
        routes: config.routes.clone(),
        backends: backends
            .map(|settings| (settings.name.clone(), backend(settings)))
            .collect(),
        listeners: listeners?,
    })
}

fn activate_listener(listener: &Listener, tickets: &Secret) -> Result<ListenerConfig, BindError> {
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
    Ok(ListenerConfig {
        name: listener.name.as_str().into(),
        tls,
        proxies: listener.proxies.clone(),
    })
}

/// The listener, and what of it each worker has.
pub(super) fn bind_listener(
    listener: &Listener,
    config: &Config,
    workers: usize,
) -> Result<(Open, Vec<Vec<Bound>>), BindError> {
    let stop = Arc::<Stop>::default();
    let (endpoints, file, sockets) = match &listener.address {
        Address::Tcp { host, port } => {
            let sockets = tcp::bind(host, *port, workers, config.unacknowledged);
            let sockets = sockets.map_err(|error| {
                let tcp::Unbound { address, error } = error;
                cannot(
                    listener,
                    match address {
                        Some(address) => advice::of_port(error, address),
                        None => advice::of_name(error, host),
                    },
                )
            })?;
            let addresses = sockets.iter().map(|(address, _)| Endpoint::Tcp(*address));
            (addresses.collect(), None, of_tcp(sockets, workers))
        }
        Address::Unix(path) => {
            let cannot = |error| cannot(listener, advice::of_path(error, path));
            let unix::Bound {
                listener: socket,
                file,
                ..
            } = unix::bind(path, &listener.access, unix::BACKLOG).map_err(cannot)?;
            // Unix sockets have no SO_REUSEPORT: the workers share one.
            let share = || {
                let socket = socket.try_clone().map_err(|error| cannot(error.into()))?;
                Ok(vec![Socket::Unix(socket, Endpoint::Unix(path.clone()))])
            };
            let sockets: Result<_, BindError> = (0..workers).map(|_| share()).collect();
            (vec![Endpoint::Unix(path.clone())], Some(file), sockets?)
        }
    };
    let actual = match endpoints.first() {
        Some(Endpoint::Tcp(address)) => Address::from(*address),
        Some(Endpoint::Unix(_)) | None => listener.address.clone(),
    };
    let open = Open {
        address: listener.address.clone(),
        actual,
        has_tls: listener.tls.is_some(),
        endpoints,
        access: listener.access.clone(),
        stop,
        file,
    };
    let bound = sockets
        .into_iter()
        .map(|sockets| open.bound(&listener.name, sockets));
    let bound = bound.collect();
    Ok((open, bound))
}

fn cannot(listener: &Listener, source: PathError) -> BindError {
    BindError::Listener {
        listener: listener.name.clone(),
        address: listener.address.clone(),
        source,
    }
}

/// Of each address a socket for each worker.
fn of_tcp(sockets: Vec<(SocketAddr, Vec<TcpListener>)>, workers: usize) -> Vec<Vec<Socket>> {
    let mut all: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    for (address, sockets) in sockets {
        let local = (!address.ip().is_unspecified()).then_some(Endpoint::Tcp(address));
        for (worker, socket) in all.iter_mut().zip(sockets) {
            worker.push(Socket::Tcp(socket, local.clone()));
        }
    }
    all
}

impl Open {
    fn bound(&self, name: &str, sockets: Vec<Socket>) -> Vec<Bound> {
        let name: Arc<str> = name.into();
        let bound = |socket| Bound {
            socket,
            name: Arc::clone(&name),
            stop: Arc::clone(&self.stop),
        };
        sockets.into_iter().map(bound).collect()
    }

    /// Lets other users connect from now on, where it is a Unix socket.
    pub(super) fn change(&mut self, listener: &Listener) -> Result<(), BindError> {
        if let Some(file) = &self.file
            && self.access != listener.access
        {
            let changed = file.open_to(&listener.access);
            changed.map_err(|error| cannot(listener, PathError::Io(error)))?;
            self.access = listener.access.clone();
        }
        Ok(())
    }
}

/// All that is listened on.
pub(super) fn doors<'a>(
    listeners: impl IntoIterator<Item = (&'a String, &'a Open)>,
    gate: Option<&Path>,
) -> Vec<own::Door> {
    let listeners = listeners.into_iter().flat_map(|(name, open)| {
        let door = move |endpoint: &Endpoint| own::Door {
            endpoint: endpoint.clone(),
            name: format!("the listener {name:?}"),
        };
        open.endpoints.iter().map(door)
    });
    let gate = gate.map(|path| own::Door {
        endpoint: Endpoint::Unix(PathBuf::from(path)),
        name: "the gate".into(),
    });
    listeners.chain(gate).collect()
}

/// What the configuration could not tell, as where a link leads to.
pub(super) fn ensure_no_loop(config: &Config, doors: &[own::Door]) -> Result<(), BindError> {
    for backend in &config.backends {
        let To::Dialled(addresses) = &backend.to else {
            continue;
        };
        for address in addresses {
            if let Some(door) = doors.iter().find(|door| door.is_at(address)) {
                return Err(BindError::LeadsBack {
                    backend: backend.name.clone(),
                    address: address.clone(),
                    holder: door.name.clone(),
                });
            }
        }
    }
    Ok(())
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
            "other machines can reach a listener with the development certificate, whose private \
             key is public; use your own certificate"
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
            "no worker can claim the connections of this backend, because `gate.path` is \"none\""
        );
    }
}

/// Usable by what this process may run on, cgroup and affinity included.
fn cpus() -> usize {
    available_parallelism().map_or(1, usize::from)
}
