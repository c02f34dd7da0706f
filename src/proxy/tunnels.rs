//! What of tunnels, workers and fronts is there now, for scrapes and for the admin API.

use std::collections::{BTreeMap, HashSet};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::backend::ActiveBackend;
use crate::backend::claimer::Claimer;
use crate::backend::tunnels::TunnelCounts;
use crate::ledger::ConnectionFilter;
use crate::metrics::{Label, Text, register};
use crate::proxy_state::ProxyState;
use crate::time_slice::in_slices;

/// The workers that wait for connections of one backend, or watch it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitingWorkers {
    /// At the gate.
    pub local: usize,
    /// The offers of network workers.
    pub network: usize,
    /// The tunnels with these offers.
    pub tunnels: usize,
    pub watching: usize,
    /// Addresses that were registered at the gate.
    pub registered: usize,
}

impl WaitingWorkers {
    /// `None` if the backend has no workers.
    pub(crate) fn of(backend: &ActiveBackend, state: &ProxyState) -> Option<Self> {
        let registered = backend.registry()?.len();
        let (mut local, mut network) = (0, 0);
        let mut tunnels = HashSet::new();
        let look = |claimer: &Claimer| match claimer {
            Claimer::Worker(..) => local += 1,
            Claimer::Network(worker) => {
                network += 1;
                tunnels.insert(worker.host.tunnel);
            }
            Claimer::Promised(_) | Claimer::Handler(_) | Claimer::Answered(_) => {}
        };
        let watching = state.rendezvous.clients_of(backend.name(), look);
        Some(Self {
            local,
            network,
            tunnels: tunnels.len(),
            watching,
            registered,
        })
    }
}

/// The tunnels that clients and workers have brought to a listener, and their streams. `None` if it takes none.
pub(crate) fn of_listener(listener: &ListenerConfig, state: &ProxyState) -> Option<TunnelCounts> {
    listener.tunnel.as_ref()?;
    let own = ConnectionFilter::all().listener(&*listener.name);
    let carriers = in_slices(state.ledger.find(&own)).filter_map(|it| it.carried());
    let each = carriers.map(|streams| TunnelCounts {
        tunnels: 1,
        streams: usize::from(streams),
    });
    Some(each.sum())
}

/// Tunnels by listener and by address of a backend, waiting workers, and fronts.
pub(super) fn scrape(registry: &mut Registry, state: &ProxyState, config: &ActiveConfig) {
    let (tunnels, streams) = (Gauges::<1>::default(), Gauges::<1>::default());
    for (name, listener) in &config.listeners {
        if let Some(counts) = of_listener(listener, state) {
            let labels = [("listener", Text::from(name))];
            set(&tunnels, &labels, counts.tunnels);
            set(&streams, &labels, counts.streams);
        }
    }
    register(registry, "listener_tunnels", tunnels);
    register(registry, "listener_tunnel_streams", streams);

    let (tunnels, streams) = (Gauges::<2>::default(), Gauges::<2>::default());
    let waiting = Gauges::<2>::default();
    for (name, backend) in &config.backends {
        let of_backend = ("backend", Text::from(name.clone()));
        for address in backend.addresses() {
            let labels = [of_backend.clone(), ("address", address.address.into())];
            if let Some(counts) = address.tunnels {
                set(&tunnels, &labels, counts.tunnels);
                set(&streams, &labels, counts.streams);
            }
        }
        if let Some(workers) = WaitingWorkers::of(backend, state) {
            for (kind, count) in [("local", workers.local), ("network", workers.network)] {
                set(
                    &waiting,
                    &[of_backend.clone(), ("kind", kind.into())],
                    count,
                );
            }
        }
    }
    register(registry, "backend_tunnels", tunnels);
    register(registry, "backend_tunnel_streams", streams);
    register(registry, "backend_workers_waiting", waiting);
    fronts(registry, config);
}

/// Several tables `[[join]]` may name the same front for the same backend: their counts add up.
fn fronts(registry: &mut Registry, config: &ActiveConfig) {
    let (joined, offers) = (Gauges::<2>::default(), Gauges::<2>::default());
    let given = Family::<[Label; 2], Counter>::default();
    let mut servers: BTreeMap<&str, bool> = BTreeMap::new();
    for join in &config.joins {
        let backend = &join.settings.backend;
        let is_up = servers.entry(backend).or_insert(true);
        *is_up &= !*join.is_down.borrow();
        for front in &join.fronts {
            let labels = [
                ("backend", Text::from(backend.clone())),
                ("front", front.address.to_string().into()),
            ];
            let is_first = joined.get(&labels).is_none();
            let is_joined = front.status().is_joined();
            let gauge = joined.get_or_create(&labels);
            gauge.set((is_joined && (is_first || gauge.get() == 1)).into());
            drop(gauge);
            let waiting = i64::try_from(front.offers.count()).unwrap_or(i64::MAX);
            offers.get_or_create(&labels).inc_by(waiting);
            given.get_or_create(&labels).inc_by(front.given());
        }
    }
    register(registry, "join_front_up", joined);
    register(registry, "join_offers", offers);
    register(registry, "join_connections", given);
    let up = Gauges::<1>::default();
    for (backend, is_up) in servers {
        set(&up, &[("backend", backend.to_owned().into())], is_up.into());
    }
    register(registry, "join_server_up", up);
}

fn set<const N: usize>(gauges: &Gauges<N>, labels: &[Label; N], count: usize) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    gauges.get_or_create(labels).set(count);
}

type Gauges<const N: usize> = Family<[Label; N], Gauge>;
