//! The state of the whole process, and of its backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_millis;
use serde::Serialize;

use super::access::Writes;
use super::address::{Address, Tunnels};
use super::workers::{Join, Workers};
use crate::active_config::ListenerConfig;
use crate::backend::ActiveBackend;
use crate::ledger::ConnectionFilter;
use crate::outcome::Outcome;
use crate::proxy::{MemoryUse, of_listener};
use crate::proxy_state::ProxyState;
use crate::supervisor::{PastReloads, SupervisorHandle};
use crate::sys::usage;
use crate::time_slice::in_slices;
use crate::tls::certs::Certificate;

#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    pid: u32,
    started: String,
    /// Seconds.
    uptime: f64,
    /// `running` or `draining`.
    state: &'static str,
    /// Whether this client may change something.
    writes_allowed: bool,
    listeners: Vec<Listener>,
    backends: Vec<Backend>,
    joins: Vec<Join>,
    connections: Connections,
    traffic: Traffic,
    limits: Vec<Limit>,
    memory: Memory,
    descriptors: Descriptors,
    certificates: Vec<Dated>,
    reloads: Reloads,
    last_problem: Option<Problem>,
}

#[derive(Serialize)]
struct Listener {
    name: String,
    addresses: Vec<String>,
    tls: bool,
    /// Those that clients and workers have brought. `null` if it takes none.
    tunnels: Option<Tunnels>,
}

#[derive(Serialize)]
pub(super) struct Backend {
    name: String,
    /// `dialled`, `gate`, `hello` or `echo`.
    kind: &'static str,
    /// Open connections whose route chose it.
    connections: usize,
    addresses: Vec<Address>,
    /// Those that wait for its connections. `null` unless its kind is `gate`.
    workers: Option<Workers>,
}

#[derive(Serialize)]
struct Connections {
    open: usize,
    pending: usize,
    /// At the rendezvous.
    waiting: usize,
    /// Since the start, by outcome.
    ended: BTreeMap<&'static str, u64>,
}

/// Since the start.
#[derive(Serialize)]
struct Traffic {
    /// Connections.
    accepted: u64,
    /// With clients; successful ones.
    handshakes: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct Limit {
    name: &'static str,
    /// `null` is unlimited.
    limit: Option<u64>,
    used: u64,
    /// The most since the start.
    peak: u64,
}

#[derive(Serialize)]
struct Memory {
    /// Bytes.
    resident: Option<u64>,
    /// What `max` is compared with, in bytes.
    used: Option<u64>,
    /// Bytes. `null` is unlimited.
    max: Option<u64>,
    /// What is measured: `cgroup` or `process`.
    source: &'static str,
    pressure: &'static str,
    /// Bytes by kind.
    kinds: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Descriptors {
    open: Option<usize>,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Dated {
    listener: String,
    names: Vec<String>,
    not_after: String,
    /// Below zero after its end.
    days_left: i64,
}

#[derive(Serialize)]
struct Reloads {
    /// The number of the last request.
    requested: u64,
    /// Every request up to this number has its result.
    answered: u64,
    succeeded: u64,
    failed: u64,
    last: Option<Reload>,
}

#[derive(Serialize)]
struct Reload {
    time: String,
    /// `ok` or `failed`.
    result: &'static str,
    /// Connections that the new configuration does not admit.
    revoked: usize,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Problem {
    time: String,
    message: String,
}

impl Status {
    pub(super) fn of(handle: &SupervisorHandle, started: SystemTime, writes: Writes) -> Self {
        let state = handle.state();
        let past = handle.past_reloads();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: format_rfc3339_millis(started).to_string(),
            uptime: started.elapsed().unwrap_or_default().as_secs_f64(),
            state: match handle.is_draining() {
                true => "draining",
                false => "running",
            },
            writes_allowed: writes == Writes::Allowed,
            listeners: listeners(state),
            backends: backends(state),
            joins: Join::all(state),
            connections: connections(handle),
            traffic: traffic(state),
            limits: limits(state),
            memory: Memory::of(MemoryUse::of(state)),
            descriptors: Descriptors {
                open: usage::descriptors(),
                limit: usage::most_descriptors(),
            },
            certificates: certificates(state),
            last_problem: past.problem.as_ref().map(|(at, message)| Problem {
                time: format_rfc3339_millis(*at).to_string(),
                message: message.clone(),
            }),
            reloads: Reloads::of(past),
        }
    }
}

fn listeners(state: &ProxyState) -> Vec<Listener> {
    let config = state.config.load();
    let listener = |(name, listener): (&Arc<str>, &Arc<ListenerConfig>)| {
        let endpoints = state.own.of_listener(name).into_iter();
        Listener {
            name: name.to_string(),
            addresses: endpoints.map(|it| it.to_string()).collect(),
            tls: listener.tls.is_some(),
            tunnels: of_listener(listener, state).map(Tunnels::from),
        }
    };
    let mut all: Vec<Listener> = config.listeners.iter().map(listener).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// All backends, by name.
pub(super) fn backends(state: &ProxyState) -> Vec<Backend> {
    let config = state.config.load();
    let backends = config.backends.values();
    let mut all: Vec<Backend> = backends.map(|it| Backend::of(it, state)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

impl Backend {
    fn of(backend: &ActiveBackend, state: &ProxyState) -> Self {
        let own = ConnectionFilter::all().backend(backend.name());
        let addresses = backend.addresses().into_iter().map(Address::of);
        Self {
            name: backend.name().to_owned(),
            kind: backend.kind(),
            connections: in_slices(state.ledger.find(&own)).count(),
            addresses: addresses.collect(),
            workers: Workers::of(backend, state),
        }
    }
}

fn connections(handle: &SupervisorHandle) -> Connections {
    let statistics = handle.statistics();
    let ended = Outcome::ALL.map(|outcome| (outcome.as_str(), statistics.ended(outcome)));
    Connections {
        open: statistics.open,
        pending: statistics.pending,
        waiting: statistics.waiting,
        ended: ended.into_iter().filter(|(_, count)| *count > 0).collect(),
    }
}

fn traffic(state: &ProxyState) -> Traffic {
    let reading = state.ledger.reading();
    Traffic {
        accepted: reading.accepted,
        handshakes: reading.handshakes,
        bytes_in: reading.bytes_in,
        bytes_out: reading.bytes_out,
    }
}

fn limits(state: &ProxyState) -> Vec<Limit> {
    let usage = state.limits.usage();
    let limits = usage.map(|it| Limit {
        name: it.name,
        limit: it.limit,
        used: it.used,
        peak: it.peak,
    });
    limits.into()
}

impl Memory {
    fn of(memory: MemoryUse) -> Self {
        Self {
            resident: memory.resident,
            used: memory.used,
            max: memory.max,
            source: memory.source,
            pressure: memory.pressure.as_str(),
            kinds: memory.kinds.into(),
        }
    }
}

fn certificates(state: &ProxyState) -> Vec<Dated> {
    let config = state.config.load();
    let mut all = Vec::new();
    for (name, listener) in &config.listeners {
        let certificates = listener.tls.iter().flat_map(|tls| tls.certificates());
        all.extend(certificates.map(|it| Dated::of(name, it)));
    }
    // The listeners have no order of their own.
    all.sort_by(|a, b| (&a.not_after, &a.listener).cmp(&(&b.not_after, &b.listener)));
    all
}

impl Dated {
    fn of(listener: &str, certificate: &Certificate) -> Self {
        let end = *certificate.validity().end();
        let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
        Self {
            listener: listener.to_owned(),
            names: certificate.names().to_vec(),
            not_after: format_rfc3339_millis(end).to_string(),
            days_left: match end.duration_since(SystemTime::now()) {
                Ok(left) => days(left),
                Err(past) => -1 - days(past.duration()),
            },
        }
    }
}

impl Reloads {
    fn of(past: PastReloads) -> Self {
        let last = past.last.map(|last| {
            let (result, revoked, problems) = match last.result {
                Ok(revoked) => ("ok", revoked, Vec::new()),
                Err(text) => ("failed", 0, text.lines().map(str::to_owned).collect()),
            };
            Reload {
                time: format_rfc3339_millis(last.at).to_string(),
                result,
                revoked,
                problems,
            }
        });
        Self {
            requested: past.requested,
            answered: past.answered,
            succeeded: past.succeeded,
            failed: past.failed,
            last,
        }
    }
}

const DAY: u64 = 24 * 60 * 60;
