//! The accept loop: admission before work, and patience when descriptors run out.

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
use crate::proxy_state::ProxyState;
use crate::sys::descriptors::{exhausted, is_exhausted};
use crate::sys::socket::Socket;

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub source: Source,
    /// What is configured for its connections is found by it.
    pub name: Arc<str>,
    /// Ends it before the drain, when a reload has no more use for it.
    pub stop: Arc<Stop>,
}

/// Ends the accepting of one listener, on all workers.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    /// What its last connections are served by: the latest config has nothing for them.
    config: OnceLock<Arc<ActiveConfig>>,
}

impl Stop {
    /// `config` is the last one that has the listener.
    pub(crate) fn stop(&self, config: &Arc<ActiveConfig>) {
        let _ = self.config.set(Arc::clone(config));
        self.token.cancel();
    }
}

#[derive(Debug)]
pub(crate) enum Source {
    /// With the address that its connections connect to, where that is the same for all.
    Tcp(TcpListener, Option<Endpoint>),
    Unix(UnixListener, Endpoint),
}

/// A socket fresh from the kernel.
struct Incoming {
    socket: Socket,
    peer: Option<Endpoint>,
}

impl Listener {
    /// Accepts until the drain starts, or a reload stops it, and whom the kernel has connected by then.
    /// Nothing else ends it.
    pub(crate) async fn run(self, state: Arc<ProxyState>, connections: TaskTracker) {
        let mut are_scarce = false;
        let mut taken: usize = 0;
        loop {
            if taken.is_multiple_of(AT_A_TIME) {
                // Behind the connections that are there, and behind what has come for them meanwhile.
                yield_now().await;
            }
            taken = taken.wrapping_add(1);
            let arrival = tokio::select! {
                biased;
                () = state.drain.started() => break,
                () = self.stop.token.cancelled() => break,
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

    /// Takes in those whom the kernel has connected already: the close of the listener would reset them.
    /// Those who go on coming are not waited for.
    async fn take_queued(&self, state: &Arc<ProxyState>, connections: &TaskTracker) {
        for _ in 0..LAST_ROUNDS {
            // So that the runtime hears of those who have come.
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

    /// The next connection. While descriptors `are_scarce`, which ends when nobody waits, none is
    /// taken but beside the one in reserve: a connection would keep it for as long as it is open, and
    /// the gate would answer nobody.
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

    /// Takes the connection in, or closes it before any work is done for it.
    fn admit(&self, incoming: Incoming, state: &Arc<ProxyState>, connections: &TaskTracker) {
        let mut config = state.config.load_full();
        if let (false, Some(last)) = (
            config.listeners.contains_key(&*self.name),
            self.stop.config.get(),
        ) {
            config = Arc::clone(last);
        }
        // A listener is stopped before a configuration comes that has nothing for it.
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
        };
        if let Ok(accepted) = accept(arrival, state) {
            let span = accepted.record.span();
            connections.spawn(serve(accepted, Arc::clone(state)).instrument(span));
        }
    }

    /// At the limit those who come are closed at once, also when there is no descriptor to accept
    /// them with: that is what the reserve is for. As many in one go as tokio lets a task do.
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
                state.ledger.refused(&self.name, peer, "limits.connections");
            }
        });
    }
}

impl Source {
    /// # Cancel safety
    ///
    /// As that of tokio's listeners: no connection is lost.
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

/// What comes of `future` now, if anything does.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Errors of the one connection that was about to be accepted (accept(2)): the next may be well.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | HostUnreachable | NetworkUnreachable
    )
}

/// Connections that are taken in one go. Each is some 20 µs of work that strangers order.
const AT_A_TIME: usize = 8;

/// Enough for more than the kernel keeps for a listener (src/sys/tcp.rs).
const LAST_ROUNDS: usize = 1024;

/// Short enough not to be noticed, long enough not to spin.
const BACK_OFF: Duration = Duration::from_millis(50);
