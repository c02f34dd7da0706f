//! One `[[join]]`: fronts elsewhere, and the local server for the connections that they offer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::front::ActiveFront;
use super::{ActiveConfig, ListenerConfig, Timeouts};
use crate::address::Address;
use crate::backend::{ActiveBackend, BackendSettings, Park, Surroundings, To};
use crate::route::{Action, Routes, Rule};
use crate::tls::connector::{ConnectorSettings, TlsConnector};

/// One `[[join]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinSettings {
    pub fronts: Vec<Address>,
    /// The name of the backend at the fronts.
    pub backend: String,
    /// The local server.
    pub to: Vec<Address>,
    /// The number of connections to wait for at each front.
    pub offers: usize,
    pub tls: ConnectorSettings,
}

/// A `[[join]]` of the running configuration.
#[derive(Debug)]
pub(crate) struct ActiveJoin {
    pub settings: JoinSettings,
    pub fronts: Vec<ActiveFront>,
    pub connector: TlsConnector,
    /// The local server.
    pub server: Arc<ActiveBackend>,
    /// Stands in for the listener that its connections do not have.
    pub listener: Arc<ListenerConfig>,
    /// Whether the local server does not answer: then nothing is offered.
    pub is_down: watch::Sender<bool>,
}

impl ActiveJoin {
    pub(crate) fn new(settings: &JoinSettings, around: &Surroundings<'_>) -> Self {
        let server = BackendSettings {
            // Otherwise a connection would wait here that another worker may serve.
            park: Park::Refuse,
            ..BackendSettings::new(&settings.backend, To::Dialled(settings.to.clone()))
        };
        Self {
            settings: settings.clone(),
            fronts: settings.fronts.iter().map(ActiveFront::new).collect(),
            connector: TlsConnector::new(&settings.tls),
            server: Arc::new(ActiveBackend::new(&server, None, around)),
            listener: Arc::new(ListenerConfig {
                // No listener has this name, because `:` is not allowed there.
                name: format!("join:{}", settings.backend).into(),
                tls: None,
                proxies: None,
                tunnel: None,
            }),
            is_down: watch::Sender::new(false),
        }
    }

    /// What its connections are served by: everything goes to the local server. Its time is shorter than the one
    /// that a front gives a worker to take a connection.
    pub(crate) fn config(&self, timeouts: Timeouts) -> ActiveConfig {
        let name = &self.settings.backend;
        let rule = Rule {
            action: Action::Backend(name.clone()),
            ..Rule::default()
        };
        let backend = timeouts.backend.unwrap_or(DIAL_BUDGET);
        ActiveConfig {
            timeouts: Timeouts {
                backend: Some(backend.min(DIAL_BUDGET)),
                ..timeouts
            },
            drain: None,
            routes: Routes::new(vec![rule]),
            backends: HashMap::from([(name.clone(), Arc::clone(&self.server))]),
            listeners: HashMap::new(),
            joins: Vec::new(),
        }
    }

    /// The number of its open tunnels, on all threads.
    pub(crate) fn open_tunnels(&self) -> usize {
        self.fronts.iter().map(|it| it.tunnels.count()).sum()
    }
}

/// A front waits for two seconds until a worker has taken a connection.
pub(crate) const DIAL_BUDGET: Duration = Duration::from_millis(1500);
