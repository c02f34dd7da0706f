//! The workers that come through one tunnel.
//!
//! ```text
//! request ─ enter ─┬─ accept, claim: told ─► 200, facts ─► the zero byte ─► its stream goes to the connection
//!                  ├─ watch: 200, lines
//!                  └─ a refusal
//! ```
//!
//! A stream of a worker is no connection: the connection that it serves is. It moves only while its tunnel is driven,
//! so it counts among the streams of the tunnel until it has ended.

mod watch;

use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug};

use crate::backend::claimer::Claimer;
use crate::backend::network_worker::{NetworkWorker, Told, WorkerHost};
use crate::ledger::LedgerRecord;
use crate::limits::Slot;
use crate::proxy_state::{Counted, ProxyState};
use crate::rendezvous::Accepted;
use crate::rendezvous::wire::{GateRefusal, TunnelRequest};
use crate::tunnel::{StatusCode, WorkerRequest};

/// The streams of workers in one tunnel.
pub(crate) struct Workers {
    common: Common,
    span: Span,
    tasks: JoinSet<Parting>,
    /// While there is a stream.
    counted: Option<Counted>,
}

/// How a stream has left the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// Before it was told anything: its place in the queue is still taken.
    Queued,
    Resolved,
}

/// What the streams of one tunnel share.
#[derive(Clone)]
struct Common {
    state: Arc<ProxyState>,
    host: Arc<WorkerHost>,
    /// The tunnel takes no more connections.
    leaving: CancellationToken,
}

/// A request that was accepted.
enum Entered {
    /// The worker waits for a connection, or was told that it has one.
    Offered(oneshot::Receiver<Told>),
    Watching(Slot),
}

impl Workers {
    pub(crate) fn of(carrier: &LedgerRecord, state: &Arc<ProxyState>) -> Self {
        let facts = carrier.facts();
        let host = WorkerHost {
            tunnel: facts.id,
            listener: facts.listener.clone().unwrap_or_default(),
            identity: facts.identity.clone(),
        };
        Self {
            common: Common {
                state: Arc::clone(state),
                host: Arc::new(host),
                leaving: CancellationToken::new(),
            },
            span: carrier.span(),
            tasks: JoinSet::new(),
            counted: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Accepts or refuses a request.
    pub(crate) fn open(&mut self, request: WorkerRequest) {
        let entered = match self.enter(&request) {
            Ok(entered) => entered,
            Err(refusal) => return refuse(request, refusal),
        };
        let counts = &self.common.state.network_workers;
        self.counted
            .get_or_insert_with(|| Counted::new(&counts.tunnels));
        let counted = Counted::new(&counts.streams);
        let common = self.common.clone();
        let served = async move {
            let _counted = counted;
            match entered {
                Entered::Offered(told) => offer(request, told, &common).await,
                Entered::Watching(slot) => {
                    watch::serve(request, &common, slot).await;
                    Parting::Resolved
                }
            }
        };
        self.tasks.spawn(served.instrument(self.span.clone()));
    }

    /// What the worker wants, if it may have that.
    fn line(&self, request: &WorkerRequest) -> Result<TunnelRequest, GateRefusal> {
        let line = request.line.as_ref().ok_or(GateRefusal::Malformed);
        let line = line.and_then(|it| TunnelRequest::parse(it.as_bytes()));
        let line = match self.admit(request) {
            // Others do not learn how a request has to look.
            Err(GateRefusal::Forbidden) => return Err(GateRefusal::Forbidden),
            admitted => line.and_then(|line| admitted.map(|()| line))?,
        };
        match line {
            TunnelRequest::Accept | TunnelRequest::Claim(_) if request.has_ended() => {
                Err(GateRefusal::Malformed)
            }
            _ if self.common.state.drain.is_started() => Err(GateRefusal::Draining),
            line => Ok(line),
        }
    }

    fn admit(&self, request: &WorkerRequest) -> Result<(), GateRefusal> {
        let Common { state, host, .. } = &self.common;
        state.config.load().admit_worker(host, &request.backend)
    }

    fn enter(&self, request: &WorkerRequest) -> Result<Entered, GateRefusal> {
        let line = self.line(request)?;
        let Common { state, host, .. } = &self.common;
        let slot = state.gate_places.take().ok_or(GateRefusal::Busy)?;
        let (told, telling) = oneshot::channel();
        let claimer = |slot| {
            Claimer::Network(Box::new(NetworkWorker {
                host: Arc::clone(host),
                backend: request.backend.clone(),
                told,
                _slot: slot,
            }))
        };
        let rendezvous = &state.rendezvous;
        match line {
            TunnelRequest::Watch => return Ok(Entered::Watching(slot)),
            TunnelRequest::Claim(id) => {
                let claimed = rendezvous.claim_of(&request.backend, id, claimer(slot));
                claimed.map_err(|_| match state.drain.is_started() {
                    true => GateRefusal::Draining,
                    false => GateRefusal::Unknown,
                })?;
            }
            TunnelRequest::Accept => match rendezvous.accept(&request.backend, claimer(slot)) {
                Accepted::Matched(_) => {}
                Accepted::Queued => {
                    // A reload on another thread may have refused the waiting workers before this one waited.
                    if let Err(refusal) = self.admit(request) {
                        drop(telling);
                        self.tidy_up();
                        return Err(refusal);
                    }
                }
                Accepted::Drained(_) => return Err(GateRefusal::Draining),
                // Does not happen while `telling` is here.
                Accepted::Gone(_) => return Err(GateRefusal::Unknown),
            },
        }
        Ok(Entered::Offered(telling))
    }

    /// Waits until streams have ended. Never completes while there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) {
        let Some(mut ended) = self.tasks.join_next().await else {
            return pending().await;
        };
        let mut has_left_places = false;
        loop {
            // A task that was aborted may have waited.
            has_left_places |= !matches!(ended, Ok(Parting::Resolved));
            // If the tunnel has failed, all of them end at the same time, and the queues are searched once.
            match self.tasks.try_join_next() {
                Some(next) => ended = next,
                None => break,
            }
        }
        if has_left_places {
            self.tidy_up();
        }
        if self.tasks.is_empty() {
            self.counted = None;
        }
    }

    /// Takes no more connections. The streams that are told already go on.
    pub(super) fn leave(&self) {
        self.common.leaving.cancel();
    }

    /// Takes back every connection that no worker has confirmed.
    pub(super) fn withdraw(&mut self) {
        self.tasks.abort_all();
    }

    /// Ends all of them, when the tunnel has ended.
    pub(crate) async fn close(&mut self) {
        let has_left_places = !self.tasks.is_empty();
        self.tasks.shutdown().await;
        self.counted = None;
        if has_left_places {
            self.tidy_up();
        }
    }

    /// A worker that left while it waited would keep its place among the gate's clients.
    fn tidy_up(&self) {
        let rendezvous = &self.common.state.rendezvous;
        rendezvous.prune(|it| !it.is_abandoned());
    }
}

/// Waits with a worker for a connection, hands its stream over, and waits until the connection has ended.
///
/// If this is dropped before the worker has confirmed, the connection waits for another worker.
async fn offer(
    mut request: WorkerRequest,
    told: oneshot::Receiver<Told>,
    common: &Common,
) -> Parting {
    let told = tokio::select! {
        biased;
        _ = request.gone() => {
            debug!("a worker has left while it waited");
            return Parting::Queued;
        }
        told = told => told,
        () = common.leaving.cancelled() => {
            refuse(request, GateRefusal::Draining);
            return Parting::Queued;
        }
    };
    match told {
        Ok(told) => give(request, told).await,
        Err(_) => common.dismiss(request),
    }
    Parting::Resolved
}

/// Gives a worker the connection that it was told, and waits until that has ended.
async fn give(request: WorkerRequest, told: Told) {
    let Told { facts, mut taken } = told;
    let Ok(mut granted) = request.grant(&facts) else {
        return;
    };
    let confirmed = tokio::select! {
        biased;
        confirmed = granted.confirmed() => confirmed,
        // The client has left, or the time is up.
        () = taken.closed() => return granted.reset(),
    };
    let Ok(unread) = confirmed else {
        return debug!("a worker has left before it had its connection");
    };
    let (held, released) = oneshot::channel();
    let stream = Box::new(granted.into_stream(unread, held));
    if let Err(stream) = taken.send(stream) {
        return stream.reset();
    }
    // An error: it was dropped.
    let _ = released.await;
}

impl Common {
    /// Ends a request that somebody has taken out of the queue.
    fn dismiss(&self, request: WorkerRequest) {
        let config = self.state.config.load();
        match config.admit_worker(&self.host, &request.backend) {
            _ if self.state.drain.is_started() => refuse(request, GateRefusal::Draining),
            Err(refusal) => refuse(request, refusal),
            // Another stream of this tunnel has hung.
            Ok(()) => request.reset(),
        }
    }
}

pub(super) fn refuse(request: WorkerRequest, refusal: GateRefusal) {
    debug!(%refusal, backend = %request.backend.escape_debug(), "network worker refused");
    let status = match refusal {
        GateRefusal::Malformed => StatusCode::BAD_REQUEST,
        GateRefusal::Forbidden => StatusCode::FORBIDDEN,
        GateRefusal::Unknown => StatusCode::NOT_FOUND,
        GateRefusal::Busy => StatusCode::TOO_MANY_REQUESTS,
        GateRefusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    request.refuse(status, refusal.as_str());
}
