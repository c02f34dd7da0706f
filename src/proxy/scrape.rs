//! Answers a scrape: reads what connections, limits and backends are now, beside what was counted.
//!
//! It runs on the caller's thread. Locks that a worker may want are held for one entry, or for one of
//! the 16 shards of the ledger's index.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::memory::MemoryUse;
use super::tunnels;
use crate::active_config::ActiveConfig;
use crate::backend::ActiveBackend;
use crate::backend::claimer::Claimer;
use crate::facts::Facts;
use crate::ledger::ConnectionState;
use crate::lost_lines;
use crate::metrics::{Label, ListenerMetrics, MetricsFormat, PREFIX, Text, register};
use crate::proxy_state::ProxyState;
use crate::sys::usage;
use crate::time_slice::in_slices;
use crate::tls::TlsAcceptor;

/// The text of all metrics.
pub(crate) fn scrape(state: &ProxyState, format: MetricsFormat) -> String {
    let config = state.config.load_full();
    let metrics = &state.ledger.metrics;
    // So that their counters are there before their first connection.
    config
        .listeners
        .keys()
        .for_each(|name| drop(metrics.listener(name)));
    config
        .backends
        .keys()
        .for_each(|name| drop(metrics.backend(name)));
    let mut registry = Registry::with_prefix(PREFIX);
    connections(&mut registry, state, &config);
    backends(&mut registry, &config);
    expiries(&mut registry, &config);
    limits(&mut registry, state);
    workers(&mut registry, state, &config);
    tunnels::scrape(&mut registry, state, &config);
    let build: [Label; 2] = [("version", VERSION.into()), ("commit", COMMIT.into())];
    register(&mut registry, "build", Info::new(build));
    metrics.text(&registry, format)
}

type Gauges<const N: usize> = Family<[Label; N], Gauge>;
type Counters<const N: usize> = Family<[Label; N], Counter>;

/// Open connections and their bytes.
fn connections(registry: &mut Registry, state: &ProxyState, config: &ActiveConfig) {
    // Before the open connections are read: see `ended_bytes`.
    let mut listeners: BTreeMap<Arc<str>, (Arc<ListenerMetrics>, [u64; 2])> = BTreeMap::new();
    for (name, metrics) in state.ledger.metrics.listeners() {
        let ended = metrics.ended_bytes();
        listeners.insert(name, (metrics, ended));
    }
    let mut open = Open::default();
    let (mut tunnels, mut streams) = (0, 0);
    // A graph of all connections has a value before the first one.
    for name in config.listeners.keys() {
        open.add(name, "", ConnectionState::Handshaking, 0);
    }
    for entry in in_slices(state.ledger.all()) {
        let facts = entry.facts();
        let listener = facts.listener.as_ref();
        open.add_one(&facts, entry.state());
        streams += i64::from(facts.tunnel().is_some());
        tunnels += i64::from(config.is_carrier(&facts));
        if let Some((_, bytes)) = listener.and_then(|name| listeners.get_mut(name)) {
            bytes[0] += entry.traffic.from_client.get();
            bytes[1] += entry.traffic.to_client.get();
        }
    }
    register(registry, "connections_open", open.gauges());
    let joined = open.joined(config);
    tunnels_by_role(registry, state, [tunnels, streams], joined);

    let bytes = Counters::<2>::default();
    for (name, (metrics, found)) in &listeners {
        let found = metrics.report(*found);
        for (direction, found) in ["in", "out"].into_iter().zip(found) {
            let labels = [("listener", name.into()), ("direction", direction.into())];
            bytes.get_or_create(&labels).inc_by(found);
        }
    }
    register(registry, "bytes", bytes);
    let pending: Gauge = Gauge::default();
    pending.set(state.limits.pending() as i64);
    register(registry, "pending", pending);
}

/// Tunnels and their streams. `open` are the tunnels that clients have brought, and the streams of clients in them.
fn tunnels_by_role(registry: &mut Registry, state: &ProxyState, open: [i64; 2], joined: [i64; 2]) {
    let of_workers = &state.network_workers;
    let workers = [&of_workers.tunnels, &of_workers.streams];
    let workers = workers.map(|it| saturating(it.load(Ordering::Relaxed) as u64));
    let clients = [state.census.tunnels(), state.census.streams()];
    // A tunnel is counted once, and these counts are taken at different times.
    let servers = [(open[0] - workers[0]).max(0), open[1]];
    for (index, name) in ["tunnels", "tunnel_streams"].into_iter().enumerate() {
        let gauges = Gauges::<1>::default();
        for (role, count) in [
            ("server", servers[index]),
            ("worker", workers[index]),
            ("client", saturating(clients[index] as u64)),
            ("join", joined[index]),
        ] {
            gauges.get_or_create(&[("role", role.into())]).set(count);
        }
        register(registry, name, gauges);
    }
}

/// The number of open connections by listener, backend and state.
#[derive(Default)]
struct Open(BTreeMap<Arc<str>, BTreeMap<Arc<str>, [i64; ConnectionState::ALL.len()]>>);

impl Open {
    fn add_one(&mut self, facts: &Facts, state: ConnectionState) {
        if let Some(listener) = &facts.listener {
            self.add(listener, &facts.backend, state, 1);
        }
    }

    fn add(&mut self, listener: &Arc<str>, backend: &str, state: ConnectionState, count: i64) {
        if !self.0.contains_key(listener) {
            self.0.insert(Arc::clone(listener), BTreeMap::new());
        }
        let backends = self.0.get_mut(listener).expect("inserted above");
        if !backends.contains_key(backend) {
            backends.insert(backend.into(), [0; ConnectionState::ALL.len()]);
        }
        let states = backends.get_mut(backend).expect("inserted above");
        states[state as usize] += count;
    }

    /// The tunnels to fronts, and the connections in them.
    fn joined(&self, config: &ActiveConfig) -> [i64; 2] {
        let tunnels: usize = config.joins.iter().map(|it| it.open_tunnels()).sum();
        let names = config.joins.iter().map(|it| &it.listener.name);
        let names: std::collections::BTreeSet<_> = names.collect();
        let open = names.into_iter().filter_map(|name| self.0.get(name));
        let open = open.flat_map(BTreeMap::values).flatten();
        [saturating(tunnels as u64), open.sum()]
    }

    /// Without zeros, except for connections that have no backend yet.
    fn gauges(&self) -> Gauges<3> {
        let gauges = Gauges::<3>::default();
        for (listener, backends) in &self.0 {
            for (backend, counts) in backends {
                for (state, count) in ConnectionState::ALL.iter().zip(counts) {
                    let is_first = backend.is_empty() && *state == ConnectionState::Handshaking;
                    if *count == 0 && !is_first {
                        continue;
                    }
                    let labels = [
                        ("listener", listener.into()),
                        ("backend", backend.into()),
                        ("state", state.as_str().into()),
                    ];
                    gauges.get_or_create(&labels).set(*count);
                }
            }
        }
        gauges
    }
}

fn backends(registry: &mut Registry, config: &ActiveConfig) {
    let (up, open) = (Gauges::<2>::default(), Gauges::<2>::default());
    for (name, backend) in &config.backends {
        for (address, is_up, count) in addresses(backend) {
            let labels = [("backend", Text::from(name.clone())), ("address", address)];
            up.get_or_create(&labels).set(is_up.into());
            open.get_or_create(&labels).set(count as i64);
        }
    }
    register(registry, "backend_up", up);
    register(registry, "backend_connections", open);
}

/// The addresses of a backend, whether they answer, and their connections. The registered addresses
/// are one: users of the gate choose them, so there is no end to their names.
fn addresses(backend: &ActiveBackend) -> Vec<(Text, bool, usize)> {
    let (registered, configured): (Vec<_>, Vec<_>) =
        (backend.addresses().into_iter()).partition(|status| status.registrant.is_some());
    let configured = configured.into_iter();
    let mut all: Vec<_> = configured
        .map(|status| (status.address.into(), status.is_up, status.open))
        .collect();
    if !registered.is_empty() {
        let is_up = registered.iter().any(|status| status.is_up);
        let open = registered.iter().map(|status| status.open).sum();
        all.push(("registered".into(), is_up, open));
    }
    all
}

/// When certificates and revocation lists expire.
fn expiries(registry: &mut Registry, config: &ActiveConfig) {
    let mut listeners: Vec<(&Arc<str>, &TlsAcceptor)> = config
        .listeners
        .iter()
        .filter_map(|(name, listener)| Some((name, listener.tls.as_ref()?)))
        .collect();
    // So that the same names have a label at every scrape.
    listeners.sort_by_key(|(name, _)| Arc::clone(name));
    let (mut certificates, mut lists) = (Earliest::default(), Earliest::default());
    for (listener, tls) in listeners {
        for certificate in tls.certificates() {
            let name = certificate.names().first().map_or("", String::as_str);
            certificates.add(listener, name, *certificate.validity().end());
        }
        for list in tls.revocation_lists() {
            if let Some(end) = list.next_update() {
                lists.add(listener, list.issuer(), end);
            }
        }
    }
    let name = "certificate_expiry_timestamp_seconds";
    register(registry, name, certificates.gauges("name"));
    let name = "crl_next_update_timestamp_seconds";
    register(registry, name, lists.gauges("issuer"));
}

/// The earliest time for each name of a listener, in seconds. Only the first names have a label of
/// their own.
#[derive(Default)]
struct Earliest<'a>(BTreeMap<(&'a Arc<str>, &'a str), i64>);

impl<'a> Earliest<'a> {
    fn add(&mut self, listener: &'a Arc<str>, name: &'a str, end: SystemTime) {
        let end = match end.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs() as i64,
            Err(before) => -(before.duration().as_secs() as i64),
        };
        let has_room = self.0.len() < MOST_NAMES || self.0.contains_key(&(listener, name));
        let name = if has_room { name } else { "other" };
        let earliest = self.0.entry((listener, name)).or_insert(end);
        *earliest = end.min(*earliest);
    }

    fn gauges(&self, label: &'static str) -> Gauges<2> {
        let gauges = Gauges::<2>::default();
        for ((listener, name), end) in &self.0 {
            let name = Text::from((*name).to_owned());
            let labels = [("listener", (*listener).into()), (label, name)];
            gauges.get_or_create(&labels).set(*end);
        }
        gauges
    }
}

/// How many names of certificates, and of issuers, have a label of their own.
const MOST_NAMES: usize = 200;

/// The limits, and what of the process they protect.
fn limits(registry: &mut Registry, state: &ProxyState) {
    let (limits, used) = (Gauges::<1>::default(), Gauges::<1>::default());
    let peaks = Gauges::<1>::default();
    let set = |gauges: &Gauges<1>, name: &'static str, value: Option<u64>| {
        if let Some(value) = value {
            let labels = [("name", name.into())];
            gauges.get_or_create(&labels).set(saturating(value));
        }
    };
    for usage in state.limits.usage() {
        set(&limits, usage.name, usage.limit);
        set(&used, usage.name, Some(usage.used));
        set(&peaks, usage.name, Some(usage.peak));
    }
    for (name, limit) in state.limits.others() {
        set(&limits, name, limit);
    }
    let descriptors = usage::descriptors().map(|count| count as u64);
    set(&limits, "descriptors", usage::most_descriptors());
    set(&used, "descriptors", descriptors);
    register(registry, "limit", limits);
    register(registry, "limit_used", used);
    register(registry, "limit_peak", peaks);
    if let Some(count) = descriptors {
        register(registry, "open_fds", gauge(count));
    }
    MemoryUse::of(state).register(registry);
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(saturating(value));
    gauge
}

fn saturating(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The worker threads, the workers at the gate, and what observers have lost.
fn workers(registry: &mut Registry, state: &ProxyState, config: &ActiveConfig) {
    let busy = Family::<[Label; 1], Gauge<f64, AtomicU64>>::default();
    for (index, ratio) in state.ledger.metrics.workers.ratios() {
        let labels = [("worker", index.to_string().into())];
        busy.get_or_create(&labels).set(ratio);
    }
    register(registry, "worker_busy_ratio", busy);

    let is_at_the_gate =
        |claimer: &Claimer| matches!(claimer, Claimer::Worker(..) | Claimer::Network(_));
    let (accept, watch) = state.rendezvous.clients(is_at_the_gate);
    let registered = config.backends.values().filter_map(|it| it.registry());
    let registered: usize = registered.map(|registry| registry.len()).sum();
    let clients = Gauges::<1>::default();
    for (kind, count) in [
        ("accept", accept),
        ("watch", watch),
        ("register", registered),
    ] {
        let labels = [("kind", kind.into())];
        clients.get_or_create(&labels).set(count as i64);
    }
    register(registry, "gate_clients", clients);

    let dropped = Counters::<1>::default();
    let watchers = state.ledger.metrics.dropped_watchers.get();
    for (what, count) in [
        ("log", lost_lines::total()),
        ("audit", state.journal.dropped("audit")),
        ("events", state.journal.dropped("events")),
        ("watch", watchers),
    ] {
        let labels = [("what", what.into())];
        dropped.get_or_create(&labels).inc_by(count);
    }
    register(registry, "dropped", dropped);
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The environment variable is for builds of packages: a source archive does not contain its commit.
const COMMIT: &str = match option_env!("VESTIBULE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
