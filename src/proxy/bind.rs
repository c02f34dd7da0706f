//! Binds all sockets of a configuration, or none.

mod activate;
mod admin;
mod advice;
mod gate;
mod listener;
mod revocations;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::warn;

pub(super) use self::activate::activate;
pub use self::admin::AdminListener;
pub(crate) use self::admin::AdminSocket;
use self::admin::bind_admin;
pub(super) use self::gate::{BoundGate, bind_gate};
pub(super) use self::listener::{Open, bind_listener};
use super::error::BindError;
use super::limits::EffectiveLimits;
use super::{Threads, WithAdmin, memory};
use crate::audit::AuditLog;
use crate::backend::claimer::Claimer;
use crate::backend::own_sockets;
use crate::backend::{BackendSettings, Surroundings, To};
use crate::config::{AdminSettings, Config, Listener, Runtime};
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::gate::GateSettings;
use crate::join::Share;
use crate::ledger::Ledger;
use crate::limits::{Gauge, Limits};
use crate::memory::MemoryBudget;
use crate::proxy_state::{Complaint, NetworkWorkers, ProxyState};
use crate::rendezvous::Rendezvous;
use crate::sys::descriptors::{Reserve, raise_limit};
use crate::sys::dumps;
use crate::sys::memory::MemoryMeter;
use crate::sys::usage::most_descriptors;
use crate::tls::tickets::TicketSecret;
use crate::worker::{Bound, ListenerSender, Worker, WorkerThread};

/// The parts that `start` starts, and those that have to outlive them.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The worker on the caller's runtime, if there is one.
    pub worker: Option<Worker>,
    pub threads: Vec<WorkerThread>,
    pub gate: Option<BoundGate>,
    pub admin: Option<AdminListener>,
    pub senders: Vec<ListenerSender>,
    pub listeners: HashMap<String, Open>,
    pub fixed: Fixed,
    pub limits: EffectiveLimits,
    /// Present if there is a maximum of memory.
    pub meter: Option<MemoryMeter>,
}

/// Settings that cannot change without a restart.
#[derive(Debug, PartialEq)]
pub(super) struct Fixed {
    pub runtime: Runtime,
    pub gate: Option<GateSettings>,
    pub admin: Option<AdminSettings>,
    pub unacknowledged: Option<Duration>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            runtime: config.runtime.clone(),
            gate: config.gate.clone(),
            admin: config.admin.clone(),
            unacknowledged: config.unacknowledged,
        }
    }
}

/// Called only if the process is the binary's own. The process has private keys in memory.
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
    with_admin: WithAdmin,
) -> Result<(Arc<ProxyState>, Assembly), BindError> {
    let (descriptors, workers) = match threads {
        Threads::Own => (raise_limit(), config.runtime.workers.unwrap_or_else(cpus)),
        Threads::Callers => (most_descriptors(), 1),
    };
    let limits = EffectiveLimits::new(&config, descriptors, workers);
    if threads == Threads::Own {
        forbid_dumps(&config.runtime);
        warn_if_unclaimable(&config);
    }

    let gate = bind_gate(&config)?;
    let (budget, meter) = memory::budget(&config)?;
    let state = Arc::new(share(&config, budget)?);
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
    let admin = bind_admin(with_admin, &config, gate.as_ref())?;
    let endpoints = admin.as_ref().map(|it| &it.endpoints[..]);
    let own = listening_sockets(&listeners, path, endpoints.unwrap_or_default());
    ensure_no_loop(&config, &own)?;
    state.own.replace(own);
    change_audit(&state, &config)?;

    let mut assembly = Assembly {
        worker: None,
        threads: Vec::new(),
        gate,
        admin,
        senders: Vec::new(),
        listeners,
        fixed: Fixed::of(&config),
        limits,
        meter,
    };
    for (share, sockets) in Share::all(workers).zip(bound) {
        let sender = match threads {
            Threads::Callers => {
                let worker = Worker::new(sockets, Arc::clone(&state), share);
                let (worker, sender) = worker.map_err(BindError::Worker)?;
                assembly.worker = Some(worker);
                sender
            }
            Threads::Own => {
                let thread = WorkerThread::spawn(share, sockets, Arc::clone(&state)).await;
                let (thread, sender) = thread.map_err(BindError::Worker)?;
                assembly.threads.push(thread);
                sender
            }
        };
        assembly.senders.push(sender);
    }
    Ok((state, assembly))
}

fn share(config: &Config, memory: MemoryBudget) -> Result<ProxyState, BindError> {
    let drain = Drain::default();
    let tickets =
        TicketSecret::random().map_err(|error| BindError::Worker(io::Error::other(error)))?;
    let (own, census) = (Arc::default(), Arc::default());
    let ledger = Arc::new(Ledger::default().with_log_of(config.runtime.access_log));
    let around = Surroundings {
        unacknowledged: config.unacknowledged,
        half_close: config.timeouts.relay.half_close,
        drain: &drain,
        own: &own,
        journal: &ledger.journal,
        census: &census,
    };
    let active = activate(config, None, &tickets, &around)?;
    Ok(ProxyState {
        config: ArcSwap::from_pointee(active),
        reloaded: watch::Sender::default(),
        limits: Limits::new(&config.limits),
        memory,
        tunnels: Limits::new(&config.limits),
        tickets,
        rendezvous: Rendezvous::confirmed_by(Claimer::tell),
        gate_places: Gauge::new(config.gate.clone().unwrap_or_default().max_clients),
        network_workers: NetworkWorkers::default(),
        audit: AuditLog::default(),
        revocations: revocations::stored(&config.runtime)?,
        journal: Arc::clone(&ledger.journal),
        ledger,
        drain,
        own,
        census,
        reserve: Reserve::new().map_err(BindError::Worker)?,
        complaint: Complaint::default(),
    })
}

/// Opens the audit log of the configuration, or closes that of the one before.
pub(super) fn change_audit(state: &ProxyState, config: &Config) -> Result<(), BindError> {
    let changed = state.audit.change(config.audit.as_ref(), &state.journal);
    changed.map_err(|source| BindError::Audit {
        path: config.audit_log().unwrap_or(Path::new("")).to_owned(),
        source,
    })
}

/// All sockets that the proxy listens on.
pub(super) fn listening_sockets<'a>(
    listeners: impl IntoIterator<Item = (&'a String, &'a Open)>,
    gate: Option<&Path>,
    admin: &[Endpoint],
) -> Vec<own_sockets::OwnSocket> {
    let listeners = listeners.into_iter().flat_map(|(name, open)| {
        let socket = move |endpoint: &Endpoint| own_sockets::OwnSocket {
            endpoint: endpoint.clone(),
            name: format!("the listener {name:?}"),
            listener: Some(name.clone()),
        };
        open.endpoints.iter().map(socket)
    });
    let gate = gate.map(|path| own_sockets::OwnSocket {
        endpoint: Endpoint::Unix(PathBuf::from(path)),
        name: "the gate".into(),
        listener: None,
    });
    let admin = admin.iter().map(|endpoint| own_sockets::OwnSocket {
        endpoint: endpoint.clone(),
        name: "the admin API".into(),
        listener: None,
    });
    listeners.chain(gate).chain(admin).collect()
}

/// Finds backends that lead back to this proxy. Only bound sockets show that, for example through a
/// symbolic link, so the configuration could not check it.
pub(super) fn ensure_no_loop(
    config: &Config,
    own: &[own_sockets::OwnSocket],
) -> Result<(), BindError> {
    let dialled = config.backends.iter().filter_map(|it| match &it.to {
        To::Dialled(addresses) => Some((&it.name, addresses)),
        To::Gate | To::Hello | To::Echo => None,
    });
    let joined = config.joins.iter().map(|it| (&it.backend, &it.to));
    for (backend, addresses) in dialled.chain(joined) {
        for address in addresses {
            if let Some(socket) = own.iter().find(|socket| socket.is_at(address)) {
                return Err(BindError::LeadsBack {
                    backend: backend.clone(),
                    address: address.clone(),
                    holder: socket.name.clone(),
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

/// Without a gate, only a program that embeds the proxy, or a worker in a tunnel, can serve a claimed backend.
fn warn_if_unclaimable(config: &Config) {
    if config.gate.is_some() {
        return;
    }
    let tunnels = config.listeners.iter().filter_map(|it| it.tunnel.as_ref());
    let has_workers = tunnels.into_iter().any(|it| it.workers);
    let is_deserted = |backend: &&BackendSettings| {
        backend.to == To::Gate && (backend.workers.is_empty() || !has_workers)
    };
    for backend in config.backends.iter().filter(is_deserted) {
        warn!(
            backend = backend.name,
            "no worker can claim the connections of this backend, because `gate.path` is \"none\""
        );
    }
}

/// The number of CPUs that this process may use; it respects cgroup quotas and affinity.
fn cpus() -> usize {
    available_parallelism().map_or(1, usize::from)
}
