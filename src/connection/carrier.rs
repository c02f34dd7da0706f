//! A connection that carries a tunnel: it accepts the streams, and lives as long as they do.
//!
//! ```text
//! Carrier ─ run ─┬─ a stream ─► accept ─► serve ─► its outcome     any number, beside each other
//!                └─ ended, drained, idle: GOAWAY ─► the last streams ─► Outcome
//! ```
//!
//! A stream is a connection like any other, with its own record, route, backend and relay. Streams move only while
//! the carrier is driven, so it is driven until the last of them has ended.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id as TaskId, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, debug};

use super::termination::Termination;
use super::workers::{self, Workers};
use super::{Accepted, Arrival, Reserved, Stream, accept, close, serve};
use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::client::{self, Transport};
use crate::deadline::{Deadline, HURRY, hurried};
use crate::ledger::{Entry, LedgerRecord};
use crate::outcome::{EndCause, Outcome};
use crate::proxy_state::ProxyState;
use crate::relay::End;
use crate::rendezvous::wire::GateRefusal;
use crate::tunnel::{
    Carried, CarrierError, Opened, Opening, StatusCode, TunnelSettings, WorkerRequest,
};
use crate::wire::deliver;

/// A client that was admitted and brings a tunnel.
pub(super) struct Carrier {
    pub io: client::Carrier,
    pub settings: TunnelSettings,
    /// For streams after the listener was removed.
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub lifetime: Deadline,
    pub reserved: Reserved,
    pub record: LedgerRecord,
}

impl Carrier {
    /// Serves the streams until the tunnel has ended.
    // Boxed as a trait object: a stream is served by the same functions as the carrier.
    pub(super) fn run(
        self: Box<Self>,
        state: Arc<ProxyState>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            let Self {
                mut io,
                settings,
                config,
                listener,
                lifetime,
                reserved,
                mut record,
            } = *self;
            let patience = config.timeouts.relay.into();
            let streams = Streams {
                record: &record,
                config,
                listener,
                workers: Workers::of(&record, &state),
                state,
                tasks: JoinSet::new(),
                entries: HashMap::new(),
            };
            let termination = Box::pin(streams.carry(&mut io, &settings, lifetime)).await;
            record.closing();
            hurried(deliver(io, &patience), record.ended()).await;
            close(record, reserved, &termination)
        })
    }
}

/// The streams of one tunnel.
struct Streams<'a> {
    record: &'a LedgerRecord,
    state: Arc<ProxyState>,
    config: Arc<ActiveConfig>,
    listener: Arc<ListenerConfig>,
    tasks: JoinSet<Outcome>,
    workers: Workers,
    entries: HashMap<TaskId, Arc<Entry>>,
}

/// What has happened to a tunnel.
enum Event {
    Opened(Opening),
    Asked(WorkerRequest),
    WorkersEnded,
    /// Its peer is silent.
    Lost,
    /// `None`: its task has panicked.
    StreamEnded(TaskId, Option<Outcome>),
    /// The peer has closed it, or it has failed.
    TunnelEnded(Termination),
    /// Vestibule has a reason to end it.
    Told(Termination),
    DrainStarted,
    TimeIsUp,
}

impl Streams<'_> {
    async fn carry(
        self,
        io: &mut client::Carrier,
        settings: &TunnelSettings,
        lifetime: Deadline,
    ) -> Termination {
        let preface = Deadline::after(self.config.timeouts.handshake).earlier(lifetime);
        let begun = tokio::select! {
            biased;
            begun = preface.bound(Carried::begin(io, settings)) => begun,
            cause = self.record.ended() => return Termination::Ended(cause),
        };
        match begun {
            Ok(Ok(mut tunnel)) => {
                tunnel.grow_within(&self.state.census.windows);
                self.drive(tunnel, lifetime).await
            }
            Ok(Err(error)) => ended(&error),
            // It has agreed on the protocol, and does not speak it.
            Err(_) => Termination::Relayed(End::Idle),
        }
    }

    async fn drive(
        mut self,
        mut tunnel: Carried<&mut client::Carrier>,
        lifetime: Deadline,
    ) -> Termination {
        let mut stage = Stage {
            is_draining: false,
            is_over: false,
            termination: None,
            cut: None,
            quiet_since: Instant::now(),
        };
        while !(stage.is_over && self.is_empty()) {
            self.record.carries_streams(self.streams());
            match self.next(&mut tunnel, &stage, lifetime).await {
                Event::Opened(opening) if stage.termination.is_some() => {
                    opening.stream.refuse(StatusCode::SERVICE_UNAVAILABLE);
                }
                Event::Opened(opening) => self.open(opening),
                Event::Asked(request) if stage.termination.is_some() => {
                    workers::refuse(request, GateRefusal::Draining);
                }
                Event::Asked(request) => {
                    self.workers.open(request);
                    tunnel.listen_for_a_pulse();
                }
                Event::WorkersEnded => stage.quiet_since = Instant::now(),
                Event::Lost => {
                    stage.termination = Some(Termination::Relayed(End::ClientReset));
                    break;
                }
                Event::StreamEnded(task, outcome) => {
                    self.entries.remove(&task);
                    stage.quiet_since = Instant::now();
                    // To h2, a connection that ends without notice has ended in order.
                    if stage.is_over && outcome == Some(Outcome::ClientTruncated) {
                        stage.termination = Some(Termination::Relayed(End::ClientTruncated));
                    }
                }
                Event::TunnelEnded(termination) => {
                    stage.is_over = true;
                    stage.termination.get_or_insert(termination);
                }
                Event::Told(termination) => {
                    stage.cut = self.told(&termination).map(|time| Instant::now() + time);
                    stage.termination = Some(termination);
                    tunnel.drain();
                }
                Event::DrainStarted => {
                    stage.is_draining = true;
                    tunnel.drain();
                }
                Event::TimeIsUp => break,
            }
        }
        // Without the tunnel, the streams that are left fail at once.
        drop(tunnel);
        self.workers.close().await;
        while self.tasks.join_next().await.is_some() {}
        stage.termination.unwrap_or(Termination::Relayed(End::Done))
    }

    async fn next(
        &mut self,
        tunnel: &mut Carried<&mut client::Carrier>,
        stage: &Stage,
        lifetime: Deadline,
    ) -> Event {
        let is_free = stage.termination.is_none();
        let idle = self.config.timeouts.relay.idle;
        let idle = idle.filter(|_| is_free && self.is_empty());
        tokio::select! {
            biased;
            // Also a tunnel that ends by itself may be killed.
            cause = self.record.ended(), if stage.cut.is_none() => {
                Event::Told(Termination::Ended(cause))
            }
            () = lifetime.passed(), if is_free => Event::Told(Termination::Lifetime),
            () = self.state.drain.started(), if !stage.is_draining => Event::DrainStarted,
            () = until(stage.cut), if stage.cut.is_some() => Event::TimeIsUp,
            Some(ended) = self.tasks.join_next_with_id() => match ended {
                Ok((task, outcome)) => Event::StreamEnded(task, Some(outcome)),
                Err(error) => Event::StreamEnded(error.id(), None),
            },
            next = tunnel.next(), if !stage.is_over => match next {
                Ok(Some(Opened::Client(opening))) => Event::Opened(opening),
                Ok(Some(Opened::Worker(request))) => Event::Asked(request),
                Ok(None) => Event::TunnelEnded(Termination::Relayed(End::Done)),
                Err(CarrierError::Io(io::ErrorKind::TimedOut)) => Event::Lost,
                Err(error) => Event::TunnelEnded(ended(&error)),
            },
            () = self.workers.ended(), if !self.workers.is_empty() => Event::WorkersEnded,
            () = until(idle.map(|idle| stage.quiet_since + idle)), if idle.is_some() => {
                Event::Told(Termination::Relayed(End::Idle))
            }
        }
    }

    /// Tells the streams that the tunnel ends. Returns the time after which those that are left are cut.
    fn told(&mut self, termination: &Termination) -> Option<Duration> {
        match termination {
            Termination::Ended(cause) => {
                self.end_all(*cause);
                self.workers.withdraw();
            }
            // The connections that workers serve are not the tunnel's own, and each has a lifetime.
            _ if !self.workers.is_empty() => {
                self.workers.leave();
                return None;
            }
            _ => {}
        }
        Some(HURRY)
    }

    fn is_empty(&self) -> bool {
        self.streams() == 0
    }

    /// Those of clients and of workers.
    fn streams(&self) -> usize {
        self.tasks.len() + self.workers.len()
    }

    /// Serves a stream as a connection.
    fn open(&mut self, opening: Opening) {
        let Opening { authority, stream } = opening;
        let facts = self.record.facts();
        let latest = self.state.config.load_full();
        let (config, listener) = match latest.listeners.get(&self.listener.name) {
            Some(listener) => (Arc::clone(&latest), Arc::clone(listener)),
            None => (Arc::clone(&self.config), Arc::clone(&self.listener)),
        };
        let arrival = Arrival {
            config,
            listener,
            transport: Transport::Tunnel(Box::new(stream)),
            peer: facts.peer.clone(),
            local: facts.local.as_ref(),
            stream: Some(Stream {
                carrier: self.record,
                authority,
            }),
        };
        let Ok(accepted) = accept(arrival, &self.state) else {
            return;
        };
        let entry = Arc::clone(accepted.record.entry());
        let span = accepted.record.span();
        let served = boxed(accepted, Arc::clone(&self.state)).instrument(span);
        let task = self.tasks.spawn(served);
        self.entries.insert(task.id(), entry);
    }

    /// Ends all streams as the tunnel ends.
    fn end_all(&self, cause: EndCause) {
        for entry in self.entries.values() {
            entry.end(cause);
        }
    }
}

/// How far a tunnel is.
struct Stage {
    is_draining: bool,
    /// The tunnel has ended; its last streams may still deliver bytes to their backends.
    is_over: bool,
    /// Why it ends, once that is known. Nothing new is served then.
    termination: Option<Termination>,
    /// When streams are cut that have not ended by then.
    cut: Option<Instant>,
    /// Since when no stream has ended.
    quiet_since: Instant,
}

/// [`serve`], whose future is not part of its own type.
fn boxed(
    accepted: Box<Accepted>,
    state: Arc<ProxyState>,
) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    Box::pin(serve(accepted, state))
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn ended(error: &CarrierError) -> Termination {
    debug!(%error, "the tunnel has failed");
    Termination::Relayed(match error {
        CarrierError::Io(std::io::ErrorKind::UnexpectedEof) => End::ClientTruncated,
        CarrierError::Io(_) | CarrierError::Protocol(_) => End::ClientReset,
    })
}
