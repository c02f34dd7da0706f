//! Workers, which accept and serve connections: one accept loop for each listener.
//!
//! Each worker is one thread with one runtime, and a connection never leaves it. In an embedding
//! program and in tests the same code runs on the caller's runtime.

use std::future::{Future, poll_fn};
use std::os::unix;
use std::pin::pin;
use std::sync::Arc;
use std::{io, net, thread};

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::facts::Endpoint;
use crate::join::{Share, follow};
use crate::listener::{Listener, Source, Stop};
use crate::proxy_state::ProxyState;
use crate::tls::turns::{self, Rounds};

/// A bound listener without a runtime.
#[derive(Debug)]
pub(crate) struct Bound {
    pub socket: Socket,
    /// The name of the listener.
    pub name: Arc<str>,
    /// Stops this listener alone.
    pub stop: Arc<Stop>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    /// With the address that clients connect to, if it is the same for all connections.
    Tcp(net::TcpListener, Option<Endpoint>),
    Unix(unix::net::UnixListener, Endpoint),
}

/// The listeners of one worker, bound to the current runtime.
#[derive(Debug)]
pub(crate) struct Worker {
    listeners: Vec<Listener>,
    state: Arc<ProxyState>,
    share: Share,
    more: mpsc::Receiver<Bound>,
}

/// Sends listeners that a reload has added to a worker. The channel is bounded; the reload waits
/// when it is full.
pub(crate) type ListenerSender = mpsc::Sender<Bound>;

impl Worker {
    /// # Errors
    ///
    /// The runtime cannot register a socket.
    pub(crate) fn new(
        bound: Vec<Bound>,
        state: Arc<ProxyState>,
        share: Share,
    ) -> io::Result<(Self, ListenerSender)> {
        let listeners = bound
            .into_iter()
            .map(Bound::watched)
            .collect::<io::Result<_>>()?;
        let (door, more) = mpsc::channel(DOOR);
        let worker = Self {
            listeners,
            state,
            share,
            more,
        };
        Ok((worker, door))
    }

    /// Accepts until the drain, and then waits until every connection has ended.
    pub(crate) async fn run(mut self) {
        let connections = TaskTracker::new();
        let state = &self.state;
        let accept = |listener: Listener| {
            connections.spawn(listener.run(Arc::clone(state), connections.clone()));
        };
        self.listeners.into_iter().for_each(accept);
        connections.spawn(follow(Arc::clone(state), self.share, connections.clone()));
        loop {
            let bound = tokio::select! {
                biased;
                () = state.drain.started() => break,
                Some(bound) = self.more.recv() => bound,
            };
            let name = Arc::clone(&bound.name);
            match bound.watched() {
                Ok(listener) => accept(listener),
                Err(error) => {
                    warn!(listener = &*name, %error, "cannot accept connections on a new \
                 listener")
                }
            }
        }
        connections.close();
        connections.wait().await;
        // Their last frames need this runtime.
        self.state.census.emptied().await;
    }
}

impl Bound {
    /// Registers the socket with this thread's runtime.
    fn watched(self) -> io::Result<Listener> {
        let source = match self.socket {
            Socket::Tcp(socket, local) => Source::Tcp(TcpListener::from_std(socket)?, local),
            Socket::Unix(socket, local) => Source::Unix(UnixListener::from_std(socket)?, local),
        };
        Ok(Listener {
            source,
            name: self.name,
            stop: self.stop,
        })
    }
}

const DOOR: usize = 16;

/// A worker on its own thread, ready to start.
///
/// Dropping it before the start ends the thread.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    go: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl WorkerThread {
    /// Creates the thread, its runtime and its listeners, so that the start cannot fail.
    pub(crate) async fn spawn(
        share: Share,
        bound: Vec<Bound>,
        state: Arc<ProxyState>,
    ) -> io::Result<(Self, ListenerSender)> {
        let (ready, is_ready) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let ledger = Arc::clone(&state.ledger);
        let life = async move {
            let worker = match Worker::new(bound, state, share) {
                Ok((worker, door)) => {
                    // If the receiver is gone, the proxy was dropped, and `start` never comes
                    // either.
                    let _ = ready.send(Ok(door));
                    worker
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            if may_go.await.is_ok() {
                with_turns(worker.run()).await;
            }
            let _ = end.send(());
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(turns::woken)
            .build()?;
        ledger.metrics.workers.add(share.index, runtime.metrics());
        thread::Builder::new()
            .name(format!("worker-{}", share.index))
            .spawn(move || runtime.block_on(life))?;
        let door = is_ready
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))?;
        Ok((Self { go, ended }, door))
    }

    /// Lets the worker accept, and waits until it has ended.
    pub(crate) async fn start(self) {
        let _ = self.go.send(());
        // An error means that the thread has ended too.
        let _ = self.ended.await;
    }
}

/// Runs the worker with handshakes that take turns.
async fn with_turns(worker: impl Future<Output = ()>) {
    let mut rounds = Rounds::begin();
    let mut worker = pin!(worker);
    poll_fn(|cx| {
        rounds.poll(cx);
        worker.as_mut().poll(cx)
    })
    .await;
}
