//! Another configuration for a running proxy: prepared whole, then put in its place at once.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::bind::{self, BoundGate, Fixed, Open};
use super::bind::{bind_gate, bind_listener, warn_if_for_development};
use super::{Running, START, addresses};
use crate::active_config::ActiveConfig;
use crate::address::Address;
use crate::backend::own_sockets;
use crate::config::{Config, Listener};
use crate::gate;
use crate::ledger::{ConnectionFilter, Entry};
use crate::outcome::EndCause;
use crate::proxy::BindError;
use crate::proxy_state::ProxyState;
use crate::worker::Bound;

impl Running {
    /// Serves by another configuration from now on: all of it, or on an error none.
    ///
    /// Open connections keep what they started with. But those whose client has a certificate that
    /// is revoked now, or an identity that no route takes any more, are closed, as
    /// [`Outcome::Revoked`](crate::Outcome::Revoked); not those of a listener that is gone. Workers
    /// stay registered, and go on to wait and watch, for as long as there is a backend of the name
    /// with `to = "gate"`; backends that are configured as before keep what is known of their
    /// addresses' health, and tickets stay good.
    ///
    /// # Errors
    ///
    /// What stands in the way; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// Not safe: what was put in place stays, and clients may not have been looked at again.
    pub async fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        self.fixed.is_as_in(&config)?;
        self.names_are_kept(&config)?;
        let before = self.state.config.load_full();
        let ProxyState {
            tickets,
            drain,
            own,
            ..
        } = &*self.state;
        let active = bind::activate(&config, Some(&before), tickets, drain, own)?;
        let added = self.added(&config)?;
        // Here too none was needed, as long as no backend was claimed.
        let gate = match &self.gate {
            Some(_) => None,
            None => bind_gate(&config)?,
        };
        let doors = self.doors_with(&config, &added, gate.as_ref());
        bind::ensure_no_loop(&config, &doors)?;
        self.change_access(&config)?;

        self.state.limits.change(&config.limits);
        self.state.own.replace(doors);
        if let Some(gate) = gate {
            self.gate = Some(gate.open(&self.state, &self.tasks));
        }
        self.remove(&config, &before);
        self.state.config.store(Arc::new(active));
        send_workers_away(&self.state, &before);
        drop(before);
        for (name, open, sockets) in added {
            for (door, sockets) in self.doors.iter().zip(sockets) {
                for socket in sockets {
                    // It is closed when the proxy drains, and nothing is accepted then.
                    let _ = door.send(socket).await;
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
        // A signature is verified for each certificate: not on a thread that has others to serve.
        let revoked = tokio::task::spawn_blocking(move || revoke(&state)).await;
        let revoked = revoked.unwrap_or_else(|error| {
            warn!(%error, "cannot check whether open connections may stay");
            0
        });
        info!(revoked, "reloaded");
        Ok(Reloaded { revoked })
    }

    /// The address of an open listener is its own until it is closed, and it is closed only when
    /// nothing can fail any more: too late for another to have it.
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

    /// Those of the configuration's listeners that are not open, bound.
    fn added(&self, config: &Config) -> Result<Vec<Added>, BindError> {
        let listeners = config.listeners.iter();
        listeners
            .filter(|listener| self.kept(listener).is_none())
            .map(|listener| {
                let (open, sockets) = bind_listener(listener, config, self.doors.len())?;
                Ok((listener.name.clone(), open, sockets))
            })
            .collect()
    }

    /// The open listener that this one goes on with.
    fn kept(&self, listener: &Listener) -> Option<&Open> {
        let open = self.listeners.get(&listener.name);
        open.filter(|open| open.address == listener.address)
    }

    /// All that is listened on with this configuration.
    fn doors_with(
        &self,
        config: &Config,
        added: &[Added],
        gate: Option<&BoundGate>,
    ) -> Vec<own_sockets::OwnSocket> {
        let kept = config.listeners.iter();
        let kept = kept.filter_map(|it| Some((&it.name, self.kept(it)?)));
        let added = added.iter().map(|(name, open, _)| (name, open));
        let open = self.gate.as_ref().map(|gate| gate.file.path());
        bind::doors(
            kept.chain(added),
            open.or(gate.map(|gate| gate.file.path())),
        )
    }

    /// Lets other users connect to the Unix listeners that stay.
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

    /// Closes the listeners that the configuration has not. Their last connections are served by the
    /// active that has them.
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

/// A listener that a reload brings, with what of it each worker gets.
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
        differs(
            "timeouts.unacknowledged",
            self.unacknowledged == other.unacknowledged,
        )
    }
}

/// Closes the registries that no backend has any more, and lets nobody wait for one. After the other
/// active is in its place: who is sent away and comes again is told how things are now.
fn send_workers_away(state: &ProxyState, before: &ActiveConfig) {
    for (name, backend) in &before.backends {
        if let Some(registry) = backend.registry()
            && gate::send_away(state, name)
        {
            registry.close();
        }
    }
}

/// Tells those to go who would not be let in any more; how many were told so for the first time.
///
/// Who came by a listener that is gone stays: by which certificates and routes it would be judged
/// nobody can say.
fn revoke(state: &ProxyState) -> usize {
    let active = state.config.load_full();
    // Many connections may have one certificate between them; but it may have come with another
    // chain, of which another certificate is revoked.
    let mut verified = HashMap::new();
    let mut is_welcome = |entry: &Entry| {
        let (facts, Some(chain)) = (entry.facts(), entry.chain()) else {
            return true;
        };
        if !active.has_listener(&facts) {
            return true;
        }
        let is_good = *verified
            .entry((facts.listener.clone(), Arc::clone(&chain)))
            .or_insert_with(|| active.verify(&facts, &chain).is_ok());
        is_good && active.route(&facts).is_ok()
    };
    let open = state.ledger.find(&ConnectionFilter::all());
    let unwelcome = open.iter().filter(|entry| !is_welcome(entry));
    unwelcome
        .filter(|entry| entry.end(EndCause::Revoked))
        .count()
}

/// What came of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// How many open connections were told to go, and had not been before.
    pub revoked: usize,
}

/// Why a configuration could not be put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It differs in what a running process cannot change.
    #[error("{0} changed; restart to apply it")]
    NeedsRestart(&'static str),
    /// A listener is to have the address of another, as when it has got another name.
    #[error(
        "listener {listener:?} cannot use {address}, because the open listener {holder:?} has it; \
         keep the name {holder:?}, or restart, or first reload without {holder:?}"
    )]
    AnothersAddress {
        /// The listener that is to have it.
        listener: String,
        /// What it is to have.
        address: Address,
        /// The listener that has it.
        holder: String,
    },
    /// A new listener cannot be bound, or TLS cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
}
