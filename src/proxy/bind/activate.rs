//! Makes an active configuration from a configuration and the one that is active now.

use std::sync::Arc;

use crate::active_config::{ActiveConfig, ActiveJoin, JoinSettings, ListenerConfig};
use crate::backend::{self, ActiveBackend, Surroundings};
use crate::config::{Config, Listener};
use crate::proxy::error::BindError;
use crate::tls::TlsAcceptor;
use crate::tls::tickets::TicketSecret;

/// Makes an active configuration. A backend with unchanged settings is taken over from `before`. A
/// changed one takes over the workers that are registered.
pub(in crate::proxy) fn activate(
    config: &Config,
    before: Option<&ActiveConfig>,
    tickets: &TicketSecret,
    around: &Surroundings<'_>,
) -> Result<ActiveConfig, BindError> {
    let backend = |settings: &backend::BackendSettings| {
        let before = before.and_then(|before| before.backends.get(&settings.name));
        if let Some(backend) = before
            && backend.settings() == settings
        {
            return Arc::clone(backend);
        }
        let before = before.map(|before| &**before);
        Arc::new(ActiveBackend::new(settings, before, around))
    };
    let join = |settings: &JoinSettings| {
        let mut before = before.iter().flat_map(|before| &before.joins);
        match before.find(|it| it.settings == *settings) {
            Some(same) => Arc::clone(same),
            None => Arc::new(ActiveJoin::new(settings, around)),
        }
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
        drain: config.drain_timeout(),
        routes: config.routes.clone(),
        backends: backends
            .map(|settings| (settings.name.clone(), backend(settings)))
            .collect(),
        listeners: listeners?,
        joins: config.joins.iter().map(join).collect(),
    })
}

fn activate_listener(
    listener: &Listener,
    tickets: &TicketSecret,
) -> Result<ListenerConfig, BindError> {
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
        tunnel: listener.tunnel.clone(),
    })
}
