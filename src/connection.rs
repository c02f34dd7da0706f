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
use std::time::Duration;

use self::admission::{Admission, Admitted};
use self::parting::{HURRY, interrupt, part};
use crate::backend::{Served, Service, Unserved};
use crate::client::Relaying;
use crate::deadline::{Deadline, Elapsed};
use crate::facts::{Endpoint, Facts};
use crate::ledger::Record;
use crate::limits::{Begins, Permit, Place};
use crate::outcome::Outcome;
use crate::proxy_protocol::Trusted;
use crate::relay::{self, Relay};
use crate::setup::Setup;
use crate::sys::socket::Socket;
use crate::tls::TlsAcceptor;
use crate::worker::Shared;

/// How long each phase may take; `None` is unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From accept to the end of the handshake.
    pub handshake: Option<Duration>,
    /// From the end of the handshake until a backend has it.
    pub backend: Option<Duration>,
    pub relay: relay::Settings,
    /// From accept to the end.
    pub lifetime: Option<Duration>,
}

/// A connection as it comes from its listener.
pub(crate) struct Accepted {
    /// Those of its moment.
    pub setup: Arc<Setup>,
    pub front: Arc<Front>,
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

/// What the connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct Front {
    pub name: String,
    /// `None` on a plaintext listener.
    pub tls: Option<TlsAcceptor>,
    /// The load balancers, of which each connection begins with a PROXY protocol header.
    pub proxies: Option<Trusted>,
}

impl Front {
    /// What a client does first, once it is known who that is.
    pub(crate) fn begins(&self) -> Begins {
        match self.tls {
            Some(_) => Begins::WithHandshake,
            None => Begins::Otherwise,
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(accepted: Box<Accepted>, shared: Arc<Shared>, mut record: Record) {
    let outcome = live(accepted, &shared, &mut record).await;
    record.close(outcome);
}

async fn live(accepted: Box<Accepted>, shared: &Shared, record: &mut Record) -> Outcome {
    let Accepted {
        setup,
        front,
        socket,
        peer,
        local,
        mut permit,
        place,
    } = accepted.unboxed();
    let mut facts = Box::new(Facts::of(record.id));
    facts.listener = Some(front.name.clone());
    (facts.peer, facts.local) = (peer, local);
    let lifetime = Deadline::after(setup.timeouts.lifetime);
    let admission = Admission {
        deadline: Deadline::after(setup.timeouts.handshake).earlier(lifetime),
        setup: &setup,
        front: &front,
        shared,
        facts: &mut facts,
        permit: &mut permit,
        place,
        record,
    };
    let admitted = tokio::select! {
        biased;
        admitted = Box::pin(admission.admit(socket)) => admitted,
        () = shared.drain.time_is_up() => return Outcome::Drained,
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
    let mut called_off = pin!(called_off(shared, record));
    let budget = Deadline::after(setup.timeouts.backend).earlier(lifetime);
    let obtained = backend.obtain(&facts, budget, &shared.rendezvous, called_off.as_mut());
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
    let settings = setup.timeouts.relay;
    drop((pending, facts, backend, front, setup));

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
async fn called_off(shared: &Shared, record: &Record) -> Outcome {
    if record.known().is_some() {
        // Boxed: most clients are not known, and would hold the room for it.
        return Box::pin(turned_out(shared, record)).await;
    }
    shared.drain.time_is_up().await;
    Outcome::Drained
}

async fn turned_out(shared: &Shared, record: &Record) -> Outcome {
    tokio::select! {
        biased;
        () = record.revoked() => Outcome::Revoked,
        () = shared.drain.time_is_up() => Outcome::Drained,
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
