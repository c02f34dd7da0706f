//! What a proxy has for its workers: the state with two backends, in memory.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::step::{BACKENDS, PLACES};
use crate::active_config::{ActiveConfig, ListenerConfig, Timeouts};
use crate::backend::claimer::Claimer;
use crate::backend::{ActiveBackend, BackendSettings, Surroundings, To};
use crate::drain::Drain;
use crate::identity::Rule;
use crate::ledger::Ledger;
use crate::limits::{AdmissionSettings, Gauge, Limits};
use crate::memory::MemoryBudget;
use crate::proxy_state::{Complaint, NetworkWorkers, ProxyState};
use crate::relay::InactivityTimeouts;
use crate::rendezvous::Rendezvous;
use crate::revocations::Revocations;
use crate::route::Routes;
use crate::sys::descriptors::Reserve;
use crate::tls::tickets::TicketSecret;
use crate::tunnel::TunnelSettings;

pub(super) const LISTENER: &str = "tunnels";

pub(super) fn settings() -> TunnelSettings {
    TunnelSettings {
        alpn: "h2".into(),
        streams: 64,
        workers: true,
    }
}

pub(super) fn state() -> ProxyState {
    let drain = Drain::default();
    let (own, census) = (Arc::default(), Arc::default());
    let ledger = Arc::new(Ledger::default());
    let around = Surroundings {
        unacknowledged: None,
        half_close: None,
        drain: &drain,
        own: &own,
        journal: &ledger.journal,
        census: &census,
    };
    let active = config(&around);
    let limits = AdmissionSettings::default();
    ProxyState {
        config: ArcSwap::from_pointee(active),
        reloaded: Default::default(),
        limits: Limits::new(&limits),
        memory: MemoryBudget::new(None, 0, ""),
        tunnels: Limits::new(&limits),
        tickets: TicketSecret::new(&[7; 32]).expect("it is long enough"),
        rendezvous: Rendezvous::confirmed_by(Claimer::tell),
        gate_places: Gauge::new(Some(PLACES)),
        network_workers: NetworkWorkers::default(),
        journal: Arc::clone(&ledger.journal),
        ledger,
        audit: Default::default(),
        revocations: Revocations::stored(None).expect("none is stored"),
        drain,
        own,
        census,
        reserve: Reserve::new().expect("a descriptor"),
        complaint: Complaint::default(),
    }
}

fn config(around: &Surroundings<'_>) -> ActiveConfig {
    let backend = |(rule, name): (&str, &str)| {
        let settings = BackendSettings {
            workers: vec![rule.parse::<Rule>().expect("a rule")],
            ..BackendSettings::new(name, To::Gate)
        };
        let backend = ActiveBackend::new(&settings, None, around);
        (name.to_owned(), Arc::new(backend))
    };
    let listener = ListenerConfig {
        name: LISTENER.into(),
        tls: None,
        proxies: None,
        tunnel: Some(settings()),
    };
    ActiveConfig {
        timeouts: Timeouts {
            handshake: None,
            backend: None,
            relay: InactivityTimeouts {
                idle: None,
                half_close: None,
                unacknowledged: None,
            },
            lifetime: None,
        },
        drain: None,
        routes: Routes::default(),
        backends: ["dns:*.workers", "dns:all.workers"]
            .into_iter()
            .zip(BACKENDS)
            .map(backend)
            .collect(),
        listeners: [(LISTENER.into(), Arc::new(listener))].into(),
        joins: Vec::new(),
    }
}

/// The identity of the workers in a tunnel.
pub(super) fn identity(tunnel: usize) -> &'static str {
    ["dns:all.workers", "dns:all.workers", "dns:some.workers"][tunnel]
}
