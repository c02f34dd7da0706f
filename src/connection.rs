//! The life of one connection, top to bottom.
//!
//! ```text
//! Socket ─► TLS, one deadline ─► Facts ─► route ─► backend: dialled or claimed
//!                                                     │
//! Record ◄── Outcome ◄── relay ◄── plain stream ◄─────┘
//! ```
//!
//! The function is the state machine: a state is an await point, what it owns are the locals
//! that are alive there, and its cleanup is their order of drop.
//!
//! What a phase needs is boxed: most connections are idle in their relay, and would otherwise hold
//! the room for a handshake.

mod parting;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tracing::debug;

use self::parting::{interrupt, part};
use crate::backend::{Backend, Served, Service, Unserved};
use crate::client::{self, Client, Relaying};
use crate::deadline::{Deadline, Elapsed};
use crate::facts::{Endpoint, Facts};
use crate::ledger::Record;
use crate::limits::{Permit, Slot};
use crate::outcome::Outcome;
use crate::relay::{self, Relay};
use crate::route::{Query, Refusal};
use crate::sys::socket::Socket;
use crate::tls::{self, HandshakeError, Hello, TlsAcceptor};
use crate::worker::Shared;

/// How long each phase may take; `None` is unlimited.
#[derive(Clone, Debug)]
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
    pub socket: Socket,
    pub peer: Option<Endpoint>,
    pub local: Option<Endpoint>,
    /// Room among the open connections; given back when the connection has ended.
    pub permit: Permit,
    /// Room among the pending ones; given back when a backend has it.
    pub pending: Slot,
}

/// What the connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct Front {
    pub name: String,
    /// `None` on a plaintext listener.
    pub tls: Option<TlsAcceptor>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    accepted: Accepted,
    front: Arc<Front>,
    shared: Arc<Shared>,
    record: Record,
) {
    let Accepted {
        socket,
        peer,
        local,
        permit,
        pending,
    } = accepted;
    let mut facts = Box::new(Facts::of(record.id));
    facts.listener = Some(front.name.clone());
    (facts.peer, facts.local) = (peer, local);
    let outcome = live(socket, facts, pending, &front, &shared, &record).await;
    // First: whoever reads that a connection has ended may count on its room.
    drop(permit);
    record.close(outcome);
}

async fn live(
    socket: Socket,
    mut facts: Box<Facts>,
    pending: Slot,
    front: &Front,
    shared: &Shared,
    record: &Record,
) -> Outcome {
    let lifetime = Deadline::after(shared.timeouts.lifetime);
    let budget = Deadline::after(shared.timeouts.handshake).earlier(lifetime);
    let admitted = tokio::select! {
        biased;
        admitted = Box::pin(admit(socket, &mut facts, budget, front, shared)) => admitted,
        () = shared.drain.time_is_up() => return Outcome::Drained,
    };
    let (mut client, backend) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return over(lifetime, Box::pin(refuse(error)).await),
    };
    record.routed(&facts, client.relay_name());

    let budget = Deadline::after(shared.timeouts.backend).earlier(lifetime);
    let served = tokio::select! {
        biased;
        served = Box::pin(backend.obtain(&facts, budget, &shared.rendezvous)) => {
            served.map_err(Outcome::from)
        }
        () = client.left() => return Outcome::ClientGone,
        () = shared.drain.time_is_up() => Err(Outcome::Drained),
    };
    let Served {
        mut stream,
        service,
        lease,
        identity,
    } = match served {
        Ok(served) => served,
        Err(outcome) => {
            Box::pin(client.close()).await;
            return over(lifetime, outcome);
        }
    };
    facts.backend_identity = identity.map(|identity| *identity);
    record.reached(&facts);
    drop((pending, facts));
    // A socket that was just connected is known to be writable after one turn of the event loop. Before
    // it the client's first words would be refused, and a timer be set as for a backend that stalls.
    yield_now().await;

    let relay = Relay {
        settings: shared.timeouts.relay,
        traffic: &record.traffic,
    };
    let relay = within(lifetime, beside(service, client.relay(&mut stream, relay)));
    let outcome = tokio::select! {
        biased;
        end = relay => match end {
            Ok(end) => Box::pin(part(client, stream, end)).await,
            Err(Elapsed) => Box::pin(interrupt(client, stream, Outcome::Lifetime)).await,
        },
        () = shared.drain.time_is_up() => {
            Box::pin(interrupt(client, stream, Outcome::Drained)).await
        }
    };
    drop(lease);
    outcome
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

/// From a socket to a client whose facts are known and whose backend is chosen.
async fn admit<'a>(
    socket: Socket,
    facts: &mut Facts,
    deadline: Deadline,
    front: &Front,
    shared: &'a Shared,
) -> Result<(Client, &'a Backend), HandshakeError<Socket, Refusal>> {
    let choose = |sni: Option<&str>, alpn: Option<&str>| {
        let peer = facts.peer_ip();
        shared.choose(&Query {
            listener: &front.name,
            sni,
            alpn,
            peer,
            identity: None,
        })
    };
    let (client, backend) = match &front.tls {
        None => match choose(None, None) {
            Ok(backend) => (Client::plain(socket), backend),
            Err(refusal) => return Err(HandshakeError::Refused(refusal, socket)),
        },
        Some(acceptor) => {
            let admit = |hello: &Hello<'_>| choose(hello.server_name(), hello.alpn());
            let (secured, backend) = acceptor.accept(socket, deadline, admit).await?;
            facts.tls = Some(secured.facts);
            let client = Client::secured(secured.session)
                .map_err(|socket| HandshakeError::Failed(tls::unknown_suite(), socket))?;
            (client, backend)
        }
    };
    facts.backend = backend.name().to_owned();
    Ok((client, backend))
}

/// Ends a connection that was not admitted, with time for the alert to arrive.
async fn refuse(error: HandshakeError<Socket, Refusal>) -> Outcome {
    let (socket, outcome) = match error {
        HandshakeError::NotTls(socket) => (socket, Outcome::NotTls),
        HandshakeError::Failed(cause, socket) => {
            debug!(%cause, "handshake failed");
            (socket, Outcome::HandshakeFailed)
        }
        HandshakeError::Refused(Refusal::NoRoute, socket) => (socket, Outcome::NoRoute),
        HandshakeError::Refused(Refusal::Denied, socket) => (socket, Outcome::Denied),
        HandshakeError::Gone => return Outcome::ClientGone,
        HandshakeError::TimedOut => return Outcome::HandshakeTimeout,
    };
    client::close(socket).await;
    outcome
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
            Unserved::Expired => Self::Expired,
            Unserved::Drained => Self::Drained,
        }
    }
}

#[cfg(test)]
mod tests {
    /// Idle connections are made of it and of their relay's (src/client.rs): both bounds hold it.
    #[test]
    fn a_connection_is_a_small_future() {
        fn size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(super::serve);
        assert!((1056..=1184).contains(&size), "{size} bytes");
    }
}
