//! What serves connections: one accept loop a listener, and what they all share.
//!
//! Each worker is one thread with one runtime; a connection never leaves it. Embedded, and under
//! test, the same code runs on the caller's runtime.

use std::os::unix;
use std::sync::Arc;
use std::{io, net, thread};

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::backend::claimer::Claimer;
use crate::backend::{Backend, Backends};
use crate::connection::{Front, Timeouts};
use crate::drain::Drain;
use crate::facts::Endpoint;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::listener::{Complaint, Listener, Source};
use crate::rendezvous::Rendezvous;
use crate::route::{Query, Refusal, Routes};
use crate::sys::descriptors::Reserve;

/// What all connections of a proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub routes: Routes,
    pub backends: Backends,
    pub rendezvous: Rendezvous<Claimer>,
    pub ledger: Arc<Ledger>,
    pub drain: Drain,
    pub reserve: Reserve,
    pub complaint: Complaint,
}

impl Shared {
    pub(crate) fn choose(&self, query: &Query<'_>) -> Result<&Backend, Refusal> {
        let name = self.routes.choose(query)?;
        // The configuration has checked that every route's backend exists.
        self.backends
            .get(name)
            .map(Arc::as_ref)
            .ok_or(Refusal::NoRoute)
    }
}

/// A bound listener that no runtime has yet.
#[derive(Debug)]
pub(crate) struct Bound {
    pub socket: Socket,
    pub front: Arc<Front>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    /// With the address that its connections connect to, where that is the same for all.
    Tcp(net::TcpListener, Option<Endpoint>),
    Unix(unix::net::UnixListener, Endpoint),
}

/// The listeners of one worker, on the runtime that it was made on.
#[derive(Debug)]
pub(crate) struct Worker {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

impl Worker {
    /// # Errors
    ///
    /// The runtime cannot watch a socket.
    pub(crate) fn new(bound: Vec<Bound>, shared: Arc<Shared>) -> io::Result<Self> {
        let listeners = bound
            .into_iter()
            .map(|Bound { socket, front }| {
                let source = match socket {
                    Socket::Tcp(socket, local) => {
                        Source::Tcp(TcpListener::from_std(socket)?, local)
                    }
                    Socket::Unix(socket, local) => {
                        Source::Unix(UnixListener::from_std(socket)?, local)
                    }
                };
                Ok(Listener { source, front })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { listeners, shared })
    }

    /// Accepts until the drain, then waits until every connection has ended.
    pub(crate) async fn run(self) {
        let connections = TaskTracker::new();
        for listener in self.listeners {
            let shared = Arc::clone(&self.shared);
            connections.spawn(listener.run(shared, connections.clone()));
        }
        connections.close();
        connections.wait().await;
    }
}

/// A worker on a thread of its own, waiting to start.
///
/// Dropping it before it was started ends the thread.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    go: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl WorkerThread {
    /// Makes the thread, its runtime and its listeners, so that starting it cannot fail.
    pub(crate) async fn spawn(
        index: usize,
        bound: Vec<Bound>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let (ready, is_ready) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let life = async move {
            let worker = match Worker::new(bound, shared) {
                Ok(worker) => worker,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            // If nobody listens the proxy was dropped, and nobody says go either.
            let _ = ready.send(Ok(()));
            if may_go.await.is_ok() {
                worker.run().await;
            }
            let _ = end.send(());
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || runtime.block_on(life))?;
        is_ready
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))?;
        Ok(Self { go, ended })
    }

    /// Lets the worker accept; ends when it has.
    pub(crate) async fn start(self) {
        let _ = self.go.send(());
        // An error means that the thread is gone, which is an end too.
        let _ = self.ended.await;
    }
}
