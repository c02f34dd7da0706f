//! A worker that watches a backend through a tunnel: the lines of the gate, until either side ends.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::interval;
use tracing::debug;

use super::Common;
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::limits::Slot;
use crate::rendezvous::{Event, watching};
use crate::tunnel::{WatchStream, WorkerRequest};

/// Sends what waits now, and then each event. A worker that is too far behind, or takes nothing for too long, is
/// dropped.
pub(super) async fn serve(request: WorkerRequest, common: &Common, _slot: Slot) {
    let Common {
        state,
        host,
        leaving,
    } = common;
    let backend = request.backend.clone();
    // A worker that may not know of connections any more gets no line.
    let may_know = || state.config.load().admit_worker(host, &backend).is_ok();
    let mut changes = state.reloaded.subscribe();
    let forbidden = async {
        // The sender is in `state`.
        while may_know() && changes.changed().await.is_ok() {}
    };
    let Ok(mut stream) = request.watch() else {
        return;
    };
    let (waiting, events) = state.rendezvous.watch(&backend, watching::CAPACITY);
    let watch = Watch {
        stream: &mut stream,
        may_know,
        is_draining: || state.drain.is_started(),
    };
    let told = tokio::select! {
        biased;
        () = forbidden => Ok(()),
        told = watch.tell(waiting, events) => told,
        () = leaving.cancelled() => Ok(()),
    };
    match told {
        Ok(()) => stream.finish(),
        Err(error) => {
            if error.kind() == io::ErrorKind::TimedOut {
                state.ledger.metrics.dropped_watchers.inc();
            }
            debug!(%error, "network watcher gone");
            stream.reset();
        }
    }
}

struct Watch<'a, M, D> {
    stream: &'a mut WatchStream,
    may_know: M,
    is_draining: D,
}

impl<M: Fn() -> bool, D: Fn() -> bool> Watch<'_, M, D> {
    /// Returns `Ok` when the proxy or the backend ends, and a timeout error when the worker is too far behind, or
    /// takes nothing.
    async fn tell(
        mut self,
        waiting: Vec<Arc<Facts>>,
        mut events: mpsc::Receiver<Event>,
    ) -> io::Result<()> {
        for facts in waiting {
            self.send(Event::Offer(facts).line()).await?;
        }
        let mut ping = interval(watching::PING_EVERY);
        ping.reset();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = ping.tick() => {
                    self.send("PING\n".into()).await?;
                    continue;
                }
                _ = self.stream.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            // The end of a reload may come behind the event.
            if !(self.may_know)() {
                return Ok(());
            }
            // The channel of a slow watcher was closed: events are missing.
            if events.is_closed() && !(self.is_draining)() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match event {
                Some(event) => self.send(event.line()).await?,
                None => return Ok(()),
            }
        }
    }

    async fn send(&mut self, line: String) -> io::Result<()> {
        let sent = Deadline::after(watching::PATIENCE)
            .bound(self.stream.send(line))
            .await;
        sent.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }
}
