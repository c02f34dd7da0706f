//! The counters of one listener and of one backend, fetched by name once for a connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Label, register};
use crate::outcome::Outcome;
use crate::rendezvous::Resolution;
use crate::traffic::Traffic;

/// Handles by name, which are never removed: a name that a reload removes keeps its counts. A look-up
/// takes no lock.
pub(super) struct Handles<T>(ArcSwap<HashMap<Arc<str>, Arc<T>>>);

impl<T> Handles<T> {
    pub(super) fn get(&self, name: &str, make: impl Fn(&Arc<str>) -> T) -> Arc<T> {
        if let Some(known) = self.0.load().get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        let made = Arc::new(make(&name));
        self.0.rcu(|known| {
            let mut all = HashMap::clone(known);
            // Another thread may have added it.
            all.entry(Arc::clone(&name))
                .or_insert_with(|| Arc::clone(&made));
            all
        });
        self.0.load().get(&name).map_or(made, Arc::clone)
    }

    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let all = self.0.load();
        let all = all.iter();
        all.map(|(name, it)| (Arc::clone(name), Arc::clone(it)))
            .collect()
    }
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T> fmt::Debug for Handles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.load().keys()).finish()
    }
}

/// The metrics that handles are parts of.
#[derive(Debug)]
pub(super) struct Counts {
    connections: Family<[Label; 2], Counter>,
    connection_seconds: Family<[Label; 1], Histogram>,
    rendezvous: Family<[Label; 2], Counter>,
    wait_seconds: Family<[Label; 1], Histogram>,
    dial_seconds: Family<[Label; 1], Histogram>,
}

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let of = |make: fn() -> Histogram| Family::new_with_constructor(make);
        let counts = Self {
            connections: Family::default(),
            connection_seconds: of(connection_seconds),
            rendezvous: Family::default(),
            wait_seconds: of(wait_seconds),
            dial_seconds: of(wait_seconds),
        };
        for (name, family) in [
            ("connections", &counts.connections),
            ("rendezvous", &counts.rendezvous),
        ] {
            register(registry, name, Family::clone(family));
        }
        for (name, family) in [
            ("connection_seconds", &counts.connection_seconds),
            ("rendezvous_wait_seconds", &counts.wait_seconds),
            ("backend_dial_seconds", &counts.dial_seconds),
        ] {
            register(registry, name, Family::clone(family));
        }
        counts
    }
}

/// The metrics of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    seconds: Histogram,
    /// Bytes of connections that have ended, from clients and to clients.
    ended: Bytes,
    /// The most that a scrape has returned.
    reported: Bytes,
}

#[derive(Debug, Default)]
struct Bytes {
    from_clients: AtomicU64,
    to_clients: AtomicU64,
}

impl ListenerMetrics {
    pub(super) fn new(name: &Arc<str>, counts: &Counts) -> Self {
        let counter = |outcome: Outcome| {
            let labels = [
                ("listener", name.into()),
                ("outcome", outcome.as_str().into()),
            ];
            counts.connections.get_or_create(&labels).clone()
        };
        let seconds = counts
            .connection_seconds
            .get_or_create(&[("listener", name.into())])
            .clone();
        Self {
            outcomes: Outcome::ALL.map(counter),
            seconds,
            ended: Bytes::default(),
            reported: Bytes::default(),
        }
    }

    /// Counts a connection that was closed before it had a record.
    pub(crate) fn refused(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }

    /// Counts a connection that has ended. It must not be among the open connections any more: its
    /// bytes would count twice.
    pub(crate) fn closed(&self, outcome: Outcome, traffic: &Traffic, age: Duration) {
        self.outcomes[outcome as usize].inc();
        self.seconds.observe(age.as_secs_f64());
        let Bytes {
            from_clients,
            to_clients,
        } = &self.ended;
        from_clients.fetch_add(traffic.from_client.get(), Ordering::Release);
        to_clients.fetch_add(traffic.to_client.get(), Ordering::Release);
    }

    /// The bytes of ended connections: from clients, and to clients. To be read before the open
    /// connections are.
    pub(crate) fn ended_bytes(&self) -> [u64; 2] {
        let Bytes {
            from_clients,
            to_clients,
        } = &self.ended;
        [from_clients, to_clients].map(|bytes| bytes.load(Ordering::Acquire))
    }

    /// The counts for a scrape that has found `bytes`. A connection that ends meanwhile may be missing
    /// there, and a counter must never go down: that would mean a restart.
    pub(crate) fn report(&self, bytes: [u64; 2]) -> [u64; 2] {
        let [from_clients, to_clients] = bytes;
        let most = |reported: &AtomicU64, now| reported.fetch_max(now, Ordering::AcqRel).max(now);
        [
            most(&self.reported.from_clients, from_clients),
            most(&self.reported.to_clients, to_clients),
        ]
    }
}

/// The metrics of one backend.
#[derive(Debug)]
pub(crate) struct BackendMetrics {
    resolutions: [Counter; Resolution::ALL.len()],
    wait: Histogram,
    dial: Histogram,
}

impl BackendMetrics {
    pub(super) fn new(name: &Arc<str>, counts: &Counts) -> Self {
        let counter = |resolution: Resolution| {
            let labels = [
                ("backend", name.into()),
                ("resolution", resolution.as_str().into()),
            ];
            counts.rendezvous.get_or_create(&labels).clone()
        };
        let labels = [("backend", name.into())];
        Self {
            resolutions: Resolution::ALL.map(counter),
            wait: counts.wait_seconds.get_or_create(&labels).clone(),
            dial: counts.dial_seconds.get_or_create(&labels).clone(),
        }
    }

    /// Counts a connection that has waited for this backend.
    pub(crate) fn resolved(&self, resolution: Resolution, waited: Duration) {
        self.resolutions[resolution as usize].inc();
        self.wait.observe(waited.as_secs_f64());
    }

    /// Counts a dial that has succeeded.
    pub(crate) fn dialled(&self, took: Duration) {
        self.dial.observe(took.as_secs_f64());
    }
}

/// From a request to a day.
fn connection_seconds() -> Histogram {
    Histogram::new([
        0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0,
    ])
}

/// From a socket of this machine to twice the default of `timeouts.backend`.
fn wait_seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}
