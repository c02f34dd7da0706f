//! The life of one connection, top to bottom.
//!
//! ```text
//! Socket ─► (PROXY header) ─► TLS, one deadline ─► identity ─► route ─► backend: dialled or claimed
//!                                                     │
//! Record ◄── Outcome ◄── relay ◄── plain stream ◄─────┘
//! ```
//!
//! The function is the state machine: a state is an await point, what it owns are the locals
//! that are alive there, and its cleanup is their order of drop.
//!
//! What a phase needs is boxed: most connections are idle in their relay, and would otherwise hold
//! the room for a handshake.

mod admission;
mod origin;
mod parting;

use std::pin::pin;
use std::sync::Arc;

use self::admission::{Admission, Admitted};
use self::parting::{HURRY, interrupt, part};
use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::backend::{Served, Service, Unserved};
use crate::client::Relaying;
use crate::deadline::{Deadline, Elapsed};
use crate::facts::{Endpoint, Facts};
use crate::ledger::Record;
use crate::limits::{Permit, Place};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;
use crate::relay::Relay;
use crate::sys::socket::Socket;

/// A connection as it comes from its listener.
pub(crate) struct Accepted {
    /// Those of its moment.
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub socket: Socket,
    pub peer: Option<Endpoint>,
    pub local: Option<Endpoint>,
    /// Room among the open connections; given back when the connection has ended.
    pub permit: Permit,
    /// Room among those that no backend has yet.
    pub place: Place,
}

impl Accepted {
    /// A box that is taken apart where it lies would be kept until the connection has ended.
    #[expect(clippy::boxed_local, reason = "to give back the box is what it is for")]
    fn unboxed(self: Box<Self>) -> Self {
        *self
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(accepted: Box<Accepted>, state: Arc<ProxyState>, mut record: Record) {
    let outcome = live(accepted, &state, &mut record).await;
    record.close(outcome);
}

async fn live(accepted: Box<Accepted>, state: &ProxyState, record: &mut Record) -> Outcome {
    let Accepted {
        config,
        listener,
        socket,
        peer,
        local,
        mut permit,
        place,
    } = accepted.unboxed();
    let mut facts = Box::new(Facts::of(record.id));
    facts.listener = Some(listener.name.clone());
    (facts.peer, facts.local) = (peer, local);
    let lifetime = Deadline::after(config.timeouts.lifetime);
    let admission = Admission {
        deadline: Deadline::after(config.timeouts.handshake).earlier(lifetime),
        config: &config,
        listener: &listener,
        state,
        facts: &mut facts,
        permit: &mut permit,
        place,
        record,
    };
    let admitted = tokio::select! {
        biased;
        admitted = Box::pin(admission.admit(socket)) => admitted,
        () = state.drain.time_is_up() => return Outcome::Drained,
    };
    let Admitted {
        mut client,
        backend,
        share,
        pending,
    } = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return over(lifetime, Box::pin(refused.outcome(record)).await),
    };
    record.routed(&facts, client.relay_name());

    let record = &*record;
    let mut called_off = pin!(called_off(state, record));
    let budget = Deadline::after(config.timeouts.backend).earlier(lifetime);
    let obtained = backend.obtain(&facts, budget, &state.rendezvous, called_off.as_mut());
    let served = tokio::select! {
        biased;
        served = Box::pin(obtained) => served.map_err(Outcome::from),
        () = client.left() => return Outcome::ClientGone,
    };
    let Served {
        mut stream,
        service,
        lease,
        identity,
    } = match served {
        Ok(served) => served,
        Err(Outcome::BackendReset) => {
            client.reset();
            return Outcome::BackendReset;
        }
        Err(outcome) => {
            record.unserved(backend.name());
            Box::pin(client.close()).await;
            return over(lifetime, outcome);
        }
    };
    facts.backend_identity = identity.map(|identity| *identity);
    record.reached(&facts);
    let settings = config.timeouts.relay;
    drop((pending, facts, backend, listener, config));

    let relay = Relay {
        settings: &settings,
        traffic: &record.traffic,
    };
    let relay = within(lifetime, beside(service, client.relay(&mut stream, relay)));
    let outcome = tokio::select! {
        biased;
        end = relay => match end {
            Ok(end) => Box::pin(part(client, stream, end)).await,
            Err(Elapsed) => {
                let patience = settings.half_close;
                let outcome = Outcome::Lifetime;
                Box::pin(interrupt(client, stream, &record.traffic, patience, outcome)).await
            }
        },
        outcome = called_off => {
            let patience = Some(HURRY);
            Box::pin(interrupt(client, stream, &record.traffic, patience, outcome)).await
        }
    };
    drop((lease, share));
    outcome
}

/// Ends when the connection may not go on, whatever it is doing, with what that is called.
async fn called_off(state: &ProxyState, record: &Record) -> Outcome {
    if record.known().is_some() {
        // Boxed: most clients are not known, and would hold the room for it.
        return Box::pin(turned_out(state, record)).await;
    }
    state.drain.time_is_up().await;
    Outcome::Drained
}

async fn turned_out(state: &ProxyState, record: &Record) -> Outcome {
    tokio::select! {
        biased;
        () = record.revoked() => Outcome::Revoked,
        () = state.drain.time_is_up() => Outcome::Drained,
    }
}

/// A phase whose budget was cut short by the connection's lifetime ended for that.
fn over(lifetime: Deadline, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::HandshakeTimeout | Outcome::BackendTimeout | Outcome::Expired
            if lifetime.has_passed() =>
        {
            Outcome::Lifetime
        }
        outcome => outcome,
    }
}

/// Runs a built-in service for as long as the relay that feeds it.
fn beside<'a>(service: Option<Service>, mut relay: Relaying<'a>) -> Relaying<'a> {
    let Some(mut service) = service else {
        return relay;
    };
    Box::pin(async move {
        tokio::select! {
            biased;
            end = &mut relay => end,
            () = &mut service => relay.await,
        }
    })
}

/// Bounds the relay by the connection's lifetime, if that has a bound: for most it has none, and
/// they are spared the timer.
fn within<'a>(lifetime: Deadline, relay: Relaying<'a>) -> Relaying<'a> {
    if lifetime == Deadline::NEVER {
        return relay;
    }
    Box::pin(async move { lifetime.bound(relay).await.flatten() })
}

impl From<Unserved> for Outcome {
    fn from(unserved: Unserved) -> Self {
        match unserved {
            Unserved::Refused => Self::BackendRefused,
            Unserved::TimedOut => Self::BackendTimeout,
            Unserved::Reset => Self::BackendReset,
            Unserved::Expired => Self::Expired,
            Unserved::Drained => Self::Drained,
            Unserved::CalledOff(outcome) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    /// Idle connections are made of it and of their relay's (src/client.rs): both bounds hold it.
    #[test]
    fn a_connection_is_a_small_future() {
        fn size<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(super::serve);
        assert!((960..=1088).contains(&size), "{size} bytes");
    }
}
