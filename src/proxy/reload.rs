//! Reloads a running proxy: prepares a new configuration completely, then swaps it in.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use tracing::{info, warn};

use super::bind::{self, BoundGate, Fixed, Open};
use super::bind::{bind_gate, bind_listener, warn_if_for_development};
use super::{Running, START, addresses, announce_joins};
use crate::active_config::ActiveConfig;
use crate::address::Address;
use crate::backend::{Surroundings, own_sockets};
use crate::config::{Config, Listener};
use crate::gate;
use crate::journal::{Event, EventKind};
use crate::ledger::{ConnectionFilter, Entry};
use crate::outcome::EndCause;
use crate::proxy::BindError;
use crate::proxy_state::ProxyState;
use crate::worker::Bound;

impl Running {
    /// Serves by another configuration from now on. Either all of it is applied or, on an error,
    /// nothing.
    ///
    /// Open connections keep the settings with which they started. But a connection is closed as
    /// [`Outcome::Revoked`](crate::Outcome::Revoked) if its client certificate is revoked now, or if no
    /// route accepts it any more. Connections of a listener that was removed stay open.
    ///
    /// Workers stay registered, and keep waiting and watching, as long as their backend exists and has
    /// `to = "gate"`. Backends with unchanged settings keep the health of their addresses. Session
    /// tickets stay valid.
    ///
    /// # Errors
    ///
    /// The reason why the configuration cannot be applied. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the new configuration may be applied in part, and open connections may not have
    /// been checked.
    pub async fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let reloaded = self.apply(config).await;
        self.state.ledger.metrics.reloaded(&reloaded);
        let (revoked, error) = match &reloaded {
            Ok(reloaded) => (Some(reloaded.revoked), None),
            Err(error) => (None, Some(error as &dyn Error)),
        };
        self.publish_reload(revoked, error);
        reloaded
    }

    /// `error` is why nothing has changed.
    pub(crate) fn publish_reload(&self, revoked: Option<usize>, error: Option<&dyn Error>) {
        self.state.journal.publish(Event::now(EventKind::Reload {
            result: if error.is_none() { "ok" } else { "failed" },
            revoked,
            error: error.map(with_causes),
        }));
    }

    async fn apply(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        self.fixed.is_as_in(&config)?;
        self.names_are_kept(&config)?;
        let before = self.state.config.load_full();
        let active = self.prepare(&config, &before)?;
        let added = self.added(&config)?;
        // There is no gate as long as no backend is claimed.
        let gate = match &self.gate {
            Some(_) => None,
            None => bind_gate(&config)?,
        };
        let own = self.sockets_with(&config, &added, gate.as_ref());
        bind::ensure_no_loop(&config, &own)?;
        self.change_access(&config)?;
        bind::change_audit(&self.state, &config)?;

        self.state.limits.change(&config.limits);
        self.state.tunnels.change(&config.limits);
        self.state.own.replace(own);
        if let Some(gate) = gate {
            self.gate = Some(gate.open(&self.state, &self.tasks));
        }
        self.remove(&config, &before);
        self.state.config.store(Arc::new(active));
        self.state.reloaded.send_replace(());
        let active = self.state.config.load_full();
        self.checks.follow(&active, &self.tasks);
        announce_joins(&active.joins, &before.joins);
        send_workers_away(&self.state, &before);
        retire_tunnels(&active, &before);
        drop(before);
        for (name, open, sockets) in added {
            for (sender, sockets) in self.senders.iter().zip(sockets) {
                for socket in sockets {
                    // Fails if the worker is draining. Then nothing is accepted, and the socket is
                    // closed.
                    let _ = sender.send(socket).await;
                }
            }
            open.announce(&name);
            self.listeners.insert(name, open);
        }
        for listener in &config.listeners {
            warn_if_for_development(listener);
        }
        self.addresses = addresses(&self.listeners);
        self.drain_timeout = config.drain_timeout();

        let state = Arc::clone(&self.state);
        // This verifies a signature for each certificate, so it does not run on a thread that serves
        // connections.
        let revoked = tokio::task::spawn_blocking(move || revoke(&state)).await;
        let revoked = revoked.unwrap_or_else(|error| {
            warn!(%error, "cannot check whether open connections may stay");
            0
        });
        info!(revoked, "reloaded");
        Ok(Reloaded { revoked })
    }

    /// Makes the configuration that follows `before`. Nothing has changed after an error.
    fn prepare(&self, config: &Config, before: &ActiveConfig) -> Result<ActiveConfig, BindError> {
        let ProxyState {
            tickets,
            drain,
            own,
            journal,
            census,
            ..
        } = &*self.state;
        let around = Surroundings {
            unacknowledged: config.unacknowledged,
            half_close: config.timeouts.relay.half_close,
            drain,
            own,
            journal,
            census,
        };
        bind::activate(config, Some(before), tickets, &around)
    }

    /// Refuses a configuration that gives the address of an open listener to another name. The old
    /// listener is closed only after every step that can fail, and until then its address is in use.
    fn names_are_kept(&self, config: &Config) -> Result<(), ReloadError> {
        for listener in &config.listeners {
            let has_it = |(name, open): &(&String, &Open)| {
                **name != listener.name && open.address == listener.address
            };
            if listener.address.is_one()
                && let Some((holder, _)) = self.listeners.iter().find(has_it)
            {
                return Err(ReloadError::AnothersAddress {
                    listener: listener.name.clone(),
                    address: listener.address.clone(),
                    holder: holder.clone(),
                });
            }
        }
        Ok(())
    }

    /// Binds the listeners of the configuration that are not open yet.
    fn added(&self, config: &Config) -> Result<Vec<Added>, BindError> {
        let listeners = config.listeners.iter();
        listeners
            .filter(|listener| self.kept(listener).is_none())
            .map(|listener| {
                let (open, sockets) = bind_listener(listener, config, self.senders.len())?;
                Ok((listener.name.clone(), open, sockets))
            })
            .collect()
    }

    /// The open listener that continues as this one.
    fn kept(&self, listener: &Listener) -> Option<&Open> {
        let open = self.listeners.get(&listener.name);
        open.filter(|open| open.address == listener.address)
    }

    /// All sockets that the proxy listens on with this configuration.
    fn sockets_with(
        &self,
        config: &Config,
        added: &[Added],
        gate: Option<&BoundGate>,
    ) -> Vec<own_sockets::OwnSocket> {
        let kept = config.listeners.iter();
        let kept = kept.filter_map(|it| Some((&it.name, self.kept(it)?)));
        let added = added.iter().map(|(name, open, _)| (name, open));
        let open = self.gate.as_ref().map(|gate| gate.file.path());
        bind::listening_sockets(
            kept.chain(added),
            open.or(gate.map(|gate| gate.file.path())),
            &self.admin,
        )
    }

    /// Updates the permissions of the Unix listeners that stay.
    fn change_access(&mut self, config: &Config) -> Result<(), BindError> {
        for listener in &config.listeners {
            if let Some(open) = self.listeners.get_mut(&listener.name)
                && open.address == listener.address
            {
                open.change(listener)?;
            }
        }
        Ok(())
    }

    /// Closes the listeners that the configuration no longer has. Their last connections are served by
    /// `before`.
    fn remove(&mut self, config: &Config, before: &Arc<ActiveConfig>) {
        let wanted: HashMap<_, _> = config
            .listeners
            .iter()
            .map(|listener| (&listener.name, &listener.address))
            .collect();
        self.listeners.retain(|name, open| {
            let is_wanted = wanted.get(name) == Some(&&open.address);
            if !is_wanted {
                open.stop.stop(before);
                info!(target: START, listener = name, "closed {}", open.actual);
            }
            is_wanted
        });
    }
}

/// Lets the tunnels of backends that are no longer as they were end with their streams.
fn retire_tunnels(active: &ActiveConfig, before: &ActiveConfig) {
    for (name, backend) in &before.backends {
        let now = active.backends.get(name);
        if !now.is_some_and(|now| Arc::ptr_eq(now, backend)) {
            backend.retire_tunnels();
        }
    }
}

/// A listener that a reload adds, with the sockets of each worker.
type Added = (String, Open, Vec<Vec<Bound>>);

impl Fixed {
    fn is_as_in(&self, config: &Config) -> Result<(), ReloadError> {
        let other = Self::of(config);
        let differs = |key, is_same| match is_same {
            true => Ok(()),
            false => Err(ReloadError::NeedsRestart(key)),
        };
        differs("[runtime]", self.runtime == other.runtime)?;
        differs("[gate]", self.gate == other.gate)?;
        differs("[admin]", self.admin == other.admin)?;
        differs(
            "timeouts.unacknowledged",
            self.unacknowledged == other.unacknowledged,
        )
    }
}

/// Closes the registries of backends that are removed or no longer claimed, and refuses their waiting
/// workers. Called after the new configuration is active, so that a worker that returns gets an answer
/// by the new one.
fn send_workers_away(state: &ProxyState, before: &ActiveConfig) {
    for (name, backend) in &before.backends {
        if let Some(registry) = backend.registry()
            && gate::send_away(state, name)
        {
            registry.close();
        }
    }
    gate::send_network_workers_away(state);
}

/// Ends the connections that the new configuration would not admit. Returns how many were told to end
/// now.
///
/// Connections of a listener that was removed stay: there is no configuration left to check them
/// against.
fn revoke(state: &ProxyState) -> usize {
    if let Err(error) = state.revocations.refresh() {
        warn!(%error, "cannot read the revocations again; those in force stay");
    }
    let active = state.config.load_full();
    // Many connections may have the same certificate. The key is the whole chain, because another chain
    // may contain a revoked certificate.
    let mut verified = HashMap::new();
    let mut is_welcome = |entry: &Entry| {
        let (facts, Some(chain)) = (entry.facts(), entry.chain()) else {
            return true;
        };
        let client = facts.identity.as_deref();
        if client.is_some_and(|it| state.revocations.find(it, &chain).is_some()) {
            return false;
        }
        if !active.has_listener(&facts) {
            return true;
        }
        let is_good = *verified
            .entry((facts.listener.clone(), Arc::clone(&chain)))
            .or_insert_with(|| active.verify(&facts, &chain).is_ok());
        // The streams of a tunnel have routes, the connection that carries them has none.
        is_good && (active.is_carrier(&facts) || active.route(&facts).is_ok())
    };
    let open = state.ledger.find(&ConnectionFilter::all());
    let unwelcome = open.iter().filter(|entry| !is_welcome(entry));
    unwelcome
        .filter(|entry| entry.end(EndCause::Revoked))
        .count()
}

/// The result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The number of open connections that were told to end, without those that were ending already.
    pub revoked: usize,
}

/// An error with its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Why a configuration cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A setting changed that a running process cannot change.
    #[error("{0} changed; restart to apply it")]
    NeedsRestart(&'static str),
    /// A listener would get the address of another one, for example because it was renamed.
    #[error(
        "listener {listener:?} cannot use {address}, because the open listener {holder:?} has it; \
         keep the name {holder:?}, or restart, or first reload without {holder:?}"
    )]
    AnothersAddress {
        /// The listener that would get the address.
        listener: String,
        /// The address.
        address: Address,
        /// The listener that has the address.
        holder: String,
    },
    /// A new listener cannot be bound, or TLS cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
}
