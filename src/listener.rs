//! The accept loop: admits connections before any work is done for them, and waits when descriptors
//! run out.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::active_config::ActiveConfig;
use crate::client::Transport;
use crate::connection::{Arrival, accept, serve};
use crate::facts::Endpoint;
use crate::ledger::NoRoom;
use crate::proxy_state::ProxyState;
use crate::sys::descriptors::{exhausted, is_exhausted};
use crate::sys::socket::Socket;

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub source: Source,
    /// The key of its configuration in [`ActiveConfig`].
    pub name: Arc<str>,
    /// Stops this listener before a drain, when a reload removes it.
    pub stop: Arc<Stop>,
}

/// Stops one listener on all workers.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    /// The configuration for its last connections: the latest one does not have this listener any
    /// more.
    config: OnceLock<Arc<ActiveConfig>>,
}

impl Stop {
    /// Stops the listener. `config` is the last configuration that has it.
    pub(crate) fn stop(&self, config: &Arc<ActiveConfig>) {
        let _ = self.config.set(Arc::clone(config));
        self.token.cancel();
    }
}

#[derive(Debug)]
pub(crate) enum Source {
    /// With the address that clients connect to, if it is the same for all connections.
    Tcp(TcpListener, Option<Endpoint>),
    Unix(UnixListener, Endpoint),
}

/// A connection as the kernel returned it.
struct Incoming {
    socket: Socket,
    peer: Option<Endpoint>,
}

impl Listener {
    /// Accepts until a drain starts or a reload stops the listener, and then takes the connections
    /// that the kernel has queued. It ends for no other reason.
    pub(crate) async fn run(self, state: Arc<ProxyState>, connections: TaskTracker) {
        let mut are_scarce = false;
        let mut taken: usize = 0;
        // Made once: each would take shared locks for every connection.
        let mut draining = pin!(state.drain.started());
        let mut stopped = pin!(self.stop.token.cancelled());
        loop {
            if taken.is_multiple_of(AT_A_TIME) {
                // Lets the tasks run for the existing connections and for events that came
                // meanwhile.
                yield_now().await;
            }
            taken = taken.wrapping_add(1);
            let arrival = tokio::select! {
                biased;
                () = &mut draining => break,
                () = &mut stopped => break,
                arrival = self.accept(&state, &mut are_scarce) => arrival,
            };
            match arrival {
                Ok(arrival) => self.admit(arrival, &state, &connections),
                Err(error) if is_exhausted(&error) => {
                    state.complaint.say(&self.name, &error);
                    are_scarce = true;
                    self.turn_away_if_full(&state);
                    sleep(BACK_OFF).await;
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    state.complaint.say(&self.name, &error);
                    sleep(BACK_OFF).await;
                }
            }
        }
        self.take_queued(&state, &connections).await;
    }

    /// Takes the connections in the kernel's queue, which a close of the listener would reset. It
    /// does not wait for later ones.
    async fn take_queued(&self, state: &Arc<ProxyState>, connections: &TaskTracker) {
        for _ in 0..LAST_ROUNDS {
            // Lets the runtime poll the socket, so that it sees connections that have come.
            yield_now().await;
            let mut taken = 0;
            while taken < AT_A_TIME
                && let Some(arrival) = poll_once(self.source.accept()).await
            {
                taken += 1;
                match arrival {
                    Ok(arrival) => self.admit(arrival, state, connections),
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => return state.complaint.say(&self.name, &error),
                }
            }
            if taken == 0 {
                return;
            }
        }
    }

    /// Accepts the next connection. While descriptors `are_scarce`, it leaves the reserved
    /// descriptor free: otherwise a connection would hold that one for as long as it is open, and
    /// the gate could not answer. The flag is cleared when no connection waits.
    async fn accept(&self, state: &ProxyState, are_scarce: &mut bool) -> io::Result<Incoming> {
        let mut next = pin!(self.source.accept());
        poll_fn(|cx| {
            if !*are_scarce {
                return next.as_mut().poll(cx);
            }
            let polled = state.reserve.beside(|| next.as_mut().poll(cx));
            let polled = polled.unwrap_or_else(|| Poll::Ready(Err(exhausted())));
            *are_scarce = polled.is_ready();
            polled
        })
        .await
    }

    /// Takes the connection, or closes it before any work is done for it.
    fn admit(&self, incoming: Incoming, state: &Arc<ProxyState>, connections: &TaskTracker) {
        let mut config = state.config.load_full();
        if let (false, Some(last)) = (
            config.listeners.contains_key(&*self.name),
            self.stop.config.get(),
        ) {
            config = Arc::clone(last);
        }
        // A reload stops a listener before it activates a configuration without it.
        let Some(listener) = config.listeners.get(&*self.name).map(Arc::clone) else {
            return;
        };
        let arrival = Arrival {
            config,
            listener,
            transport: Transport::Socket(incoming.socket),
            peer: incoming.peer,
            local: match &self.source {
                Source::Tcp(_, local) => local.as_ref(),
                Source::Unix(_, local) => Some(local),
            },
            stream: None,
        };
        if let Ok(accepted) = accept(arrival, state) {
            let span = accepted.record.span();
            connections.spawn(serve(accepted, Arc::clone(state)).instrument(span));
        }
    }

    /// At the limit, accepts the waiting connections and closes them at once. If no descriptor is
    /// free, the reserve provides one. The number in one go is bounded by tokio's budget for a
    /// task.
    fn turn_away_if_full(&self, state: &ProxyState) {
        if !state.limits.is_full() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        state.reserve.instead(|| {
            while state.limits.is_full()
                && let Poll::Ready(Ok(arrival)) = pin!(self.source.accept()).poll(&mut cx)
            {
                let peer = arrival.peer.as_ref();
                let full = NoRoom::Limit("limits.connections");
                state.ledger.refused(&self.name, peer, full);
            }
        });
    }
}

impl Source {
    /// # Cancel safety
    ///
    /// Cancel safe like the `accept` of tokio's listeners: no connection is lost.
    async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Incoming {
                    socket: Socket::Tcp(stream),
                    peer: Some(Endpoint::Tcp(peer)),
                })
            }
            Self::Unix(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                let peer = peer
                    .as_pathname()
                    .map(|path| Endpoint::Unix(path.to_owned()));
                Ok(Incoming {
                    socket: Socket::Unix(stream.into()),
                    peer,
                })
            }
        }
    }
}

/// The result of `future` if it is ready now.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Errors of the one connection that was about to be accepted (accept(2)). The next one may
/// succeed.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | HostUnreachable | NetworkUnreachable
    )
}

/// The number of connections that are accepted in one go. Each costs about 20 µs, and unknown
/// clients cause that work.
const AT_A_TIME: usize = 8;

/// More than the kernel queues for a listener (src/sys/tcp.rs).
const LAST_ROUNDS: usize = 1024;

/// Short enough to be unnoticed, long enough to avoid a busy loop.
const BACK_OFF: Duration = Duration::from_millis(50);
