//! The life of one connection, top to bottom.
//!
//! ```text
//! Accepted ─ admit ─► Admitted ─ establish ─► Established ─ run ─► Termination ─► Outcome
//!  a stream   │        a client    │           client, backend,  │
//!             │        and where   │           places, record    ├─► told to both sides
//!             │        it may go   │                             └─► the record is closed
//!             └────────────────────┴─► Failed ─ end ─► Termination ─► Outcome
//! ```
//!
//! Each stage is a value that the next one consumes. A stage owns its resources and releases them
//! when it is dropped. Other parts of the program see a connection in the [ledger](crate::ledger),
//! and may end it in any stage.

mod accept;
mod admission;
mod asked;
mod carrier;
mod measures;
mod proxy_header;
mod teardown;
mod termination;
mod workers;

use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::accept::{Accepted, Arrival, Stream, accept};
use self::admission::{Entered, admit};
use self::carrier::Carrier;
use self::teardown::{Remains, Unfinished, dismiss, interrupt, part};
use self::termination::Termination;
#[cfg(any(test, fuzzing))]
pub(crate) use self::workers::Workers;
use crate::active_config::Timeouts;
use crate::backend::{ActiveBackend, Lease, Served, Service, Upstream};
use crate::client::{Client, Relaying};
use crate::deadline::{Deadline, Elapsed};
use crate::ledger::LedgerRecord;
use crate::limits::{IdentityShare, Permit, Place};
use crate::outcome::{EndCause, Outcome};
use crate::proxy_state::ProxyState;
use crate::relay::{Answer, End, InactivityTimeouts, Relay};

/// A client that was admitted, and the backend that its route chose.
struct Admitted {
    client: Client,
    backend: Arc<ActiveBackend>,
    timeouts: Timeouts,
    lifetime: Deadline,
    /// Its place among the connections that wait for a backend.
    _place: Place,
    reserved: Reserved,
    record: LedgerRecord,
}

/// A client and the backend that serves it: the whole connection while its bytes move.
///
/// Nothing in it depends on the source of the connection, or on the configuration that admitted it.
struct Established {
    client: Unfinished<Client>,
    backend: Unfinished<Upstream>,
    /// A built-in backend, which must run beside the relay.
    service: Option<Service>,
    timeouts: InactivityTimeouts,
    lifetime: Deadline,
    reserved: Reserved,
    record: LedgerRecord,
}

/// A connection that ends before its relay.
struct Failed {
    remains: Remains,
    termination: Termination,
    reserved: Reserved,
    record: LedgerRecord,
}

/// The limits that a connection counts against. They are released before the record is closed: a
/// reader who sees that a connection has ended finds room for another one.
struct Reserved {
    permit: Permit,
    /// Its place among the connections of its client's identity.
    _share: Option<IdentityShare>,
    /// Its place among the connections to its backend's address.
    _lease: Option<Lease>,
}

/// Serves one connection to its end, and returns the outcome.
///
/// Each stage is a box of its own size: most connections are idle in their relay, and one box for
/// all stages would keep the memory of the handshake.
pub(crate) async fn serve(accepted: Box<Accepted>, state: Arc<ProxyState>) -> Outcome {
    match Box::pin(establish(accepted, state)).await {
        Ok(established) => established.run().await,
        Err(outcome) => outcome,
    }
}

/// # Errors
///
/// The outcome of a connection that has no relay: it ended before, or it carried a tunnel.
async fn establish(
    accepted: Box<Accepted>,
    state: Arc<ProxyState>,
) -> Result<Box<Established>, Outcome> {
    let failed = match Box::pin(admit(accepted, &state)).await {
        Ok(Entered::Client(admitted)) => match Box::pin(admitted.establish(&state)).await {
            Ok(established) => return Ok(established),
            Err(failed) => failed,
        },
        Ok(Entered::Carrier(carrier)) => return Err(carrier.run(state).await),
        Err(failed) => failed,
    };
    Err(Box::pin(failed.end()).await)
}

impl Admitted {
    async fn establish(
        mut self: Box<Self>,
        state: &ProxyState,
    ) -> Result<Box<Established>, Box<Failed>> {
        match self.obtain(state).await {
            Ok(served) => Ok(Box::new(self.established(served))),
            Err(termination) => Err(Box::new(Failed {
                remains: Remains::Client(self.client),
                termination,
                reserved: self.reserved,
                record: self.record,
            })),
        }
    }

    /// Finds a backend for the client, and counts how the wait for it ended.
    async fn obtain(&mut self, state: &ProxyState) -> Result<Served, Termination> {
        let began = Instant::now();
        let obtained = self.wait(state).await;
        let metrics = state.ledger.metrics.backend(self.backend.name());
        measures::resolved(&metrics, &obtained, began.elapsed());
        obtained
    }

    /// Waits for a backend. The client may leave meanwhile.
    async fn wait(&mut self, state: &ProxyState) -> Result<Served, Termination> {
        let facts = self.record.facts();
        let budget = Deadline::after(self.timeouts.backend).earlier(self.lifetime);
        let ended = self.record.ended();
        let obtained = self
            .backend
            .obtain(&facts, budget, &state.rendezvous, ended);
        tokio::select! {
            biased;
            served = Box::pin(obtained) => served.map_err(Termination::Unserved),
            () = self.client.left() => Err(Termination::ClientGone),
        }
    }

    fn established(self: Box<Self>, served: Served) -> Established {
        let Served {
            stream,
            service,
            lease,
            identity,
            dial: _,
        } = served;
        let mut record = self.record;
        record.reached(stream.side_name(), identity);
        if let Some(lease) = &lease {
            settle(&mut record, lease);
        }
        let mut client = self.client;
        client.welcome();
        Established {
            client: Unfinished::new(client),
            backend: Unfinished::new(stream),
            service,
            timeouts: self.timeouts.relay,
            lifetime: self.lifetime,
            reserved: Reserved {
                _lease: lease,
                ..self.reserved
            },
            record,
        }
    }
}

/// Records the address that serves the connection, so that an order for the address ends it. Ends it if
/// there was one since the address was chosen: that one did not find it.
fn settle(record: &mut LedgerRecord, lease: &Lease) {
    record.served_at(lease.number());
    if lease.is_overtaken() {
        record.entry().end(EndCause::AddressDown);
    }
}

impl Established {
    /// Moves bytes until the connection ends, and tells both sides how it ended.
    async fn run(mut self: Box<Self>) -> Outcome {
        let Self {
            client,
            backend,
            service,
            timeouts,
            lifetime,
            record,
            ..
        } = &mut *self;
        let relay = Relay {
            settings: timeouts,
            traffic: record.traffic(),
        };
        let relay = beside(service.take(), client.side().relay(backend.side(), relay));
        let end = tokio::select! {
            biased;
            end = within(*lifetime, relay) => end.map_err(|Elapsed| Interruption::Lifetime),
            cause = record.ended() => Err(Interruption::Ended(cause)),
        };
        Box::pin(self.end(end)).await
    }

    async fn end(self: Box<Self>, end: Result<End, Interruption>) -> Outcome {
        // In this order: what is dropped here, in reverse, is given back before the record is closed.
        let Self {
            mut record,
            reserved,
            client,
            mut backend,
            timeouts,
            ..
        } = *self;
        record.closing();
        let client = client.finish();
        let termination = match end {
            Ok(end) => {
                let termination = ended(end, &mut backend);
                part(client, backend, end).await;
                termination
            }
            Err(interruption) => {
                interrupt(client, backend, &record, timeouts.half_close).await;
                match interruption {
                    Interruption::Lifetime => Termination::Lifetime,
                    Interruption::Ended(cause) => Termination::Ended(cause),
                }
            }
        };
        close(record, reserved, &termination)
    }
}

/// Why a relay is stopped before its own end. It is smaller than a [`Termination`], because every
/// relay has room for one.
enum Interruption {
    Lifetime,
    Ended(EndCause),
}

impl Failed {
    /// Tells the client why its connection ends, and waits a short time for that to arrive.
    async fn end(self: Box<Self>) -> Outcome {
        let Self {
            mut record,
            reserved,
            remains,
            termination,
        } = *self;
        record.closing();
        record.span().in_scope(|| termination.log());
        dismiss(remains, &termination).await;
        close(record, reserved, &termination)
    }
}

fn close(record: LedgerRecord, reserved: Reserved, termination: &Termination) -> Outcome {
    let detail = termination.detail(&record.facts().backend);
    let outcome = termination.outcome();
    drop(reserved);
    record.close(outcome, detail);
    outcome
}

/// In TLS 1.3 a backend refuses our certificate after the handshake, possibly after the first bytes
/// of payload.
fn ended(end: End, backend: &mut Unfinished<Upstream>) -> Termination {
    match end {
        End::BackendReset(Answer::Broken) if backend.side().has_refused_us() => {
            Termination::BackendRefused
        }
        end => Termination::Relayed(end),
    }
}

/// Runs a built-in service beside the relay that feeds it, until the relay ends.
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

/// Bounds the relay by the connection's lifetime. Most connections have no such bound, and then
/// there is no timer.
fn within<'a>(lifetime: Deadline, relay: Relaying<'a>) -> Relaying<'a> {
    if lifetime.is_never() {
        return relay;
    }
    Box::pin(async move { lifetime.bound(relay).await.flatten() })
}

#[cfg(test)]
mod tests;
