//! Serves a client that watches a backend: one line for each event, until the client, the backend or
//! the proxy ends.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::interval;
use tracing::debug;

use super::registry;
use crate::deadline::Deadline;
use crate::proxy_state::ProxyState;
use crate::rendezvous::Event;
use crate::rendezvous::watching::{CAPACITY, PATIENCE, PING_EVERY};
use crate::sys::socket::hung_up;

/// Sends what waits now, and then each event.
///
/// A client that does not keep up is dropped: the rendezvous drops it when it is [`CAPACITY`] events
/// behind, and this function when it takes nothing for [`PATIENCE`].
pub(super) async fn serve(state: &ProxyState, backend: &str, client: UnixStream) {
    let (mut reader, mut writer) = client.into_split();
    let (waiting, mut events) = state.rendezvous.watch(backend, CAPACITY);
    let is_over = || state.drain.is_started() || registry(state, backend).is_err();
    let tell = async {
        for facts in waiting {
            send(&mut writer, &Event::Offer(facts).line()).await?;
        }
        tell(&mut events, &mut writer, is_over).await
    };
    // The bytes of a watcher have no meaning, but only a read shows that its connection has failed. A
    // watcher that closed its sending side may still listen, until it has closed completely.
    let listen = async {
        let mut chunk = [0; 256];
        loop {
            match reader.read(&mut chunk).await {
                Ok(0) => {
                    hung_up(reader.as_ref()).await;
                    return io::Error::from(io::ErrorKind::ConnectionAborted);
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let ended = tokio::select! {
        told = tell => told,
        error = listen => Err(error),
        () = state.drain.time_is_up() => Ok(()),
    };
    match ended {
        Ok(()) => debug!(backend, "watch ended"),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            state.ledger.metrics.dropped_watchers.inc();
            debug!(backend, "watch overrun");
        }
        Err(error) => debug!(backend, %error, "watch client gone"),
    }
}

/// Returns `Ok` when the proxy or the backend ends, and a timeout error when the watcher is too far
/// behind, or takes nothing.
async fn tell(
    events: &mut mpsc::Receiver<Event>,
    writer: &mut (impl AsyncWriteExt + Unpin),
    is_over: impl Fn() -> bool,
) -> io::Result<()> {
    let mut ping = interval(PING_EVERY);
    ping.reset();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = ping.tick() => {
                send(writer, "PING\n").await?;
                continue;
            }
        };
        // The rendezvous has closed the channel of a slow watcher. The events that are left are old,
        // and those after them are missing.
        if events.is_closed() && !is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match event {
            Some(event) => send(writer, &event.line()).await?,
            None => return Ok(()),
        }
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), line: &str) -> io::Result<()> {
    let written = Deadline::after(PATIENCE)
        .bound(writer.write_all(line.as_bytes()))
        .await;
    written.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    use super::*;
    use crate::id::Id;
    use crate::rendezvous::Resolution;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watcher_hears_a_ping_every_fifteen_seconds() {
        let (sender, mut events) = mpsc::channel(1);
        let (mut theirs, mut ours) = tokio::io::duplex(64);
        let began = Instant::now();
        let listen = async {
            for number in 1..=3 {
                let mut line = [0; 5];
                theirs.read_exact(&mut line).await.expect("a line");
                assert_eq!(&line, b"PING\n");
                assert_eq!(began.elapsed(), number * Duration::from_secs(15));
            }
            drop(sender);
        };
        let (told, ()) = tokio::join!(tell(&mut events, &mut ours, || true), listen);
        told.expect("the proxy ended it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_takes_nothing_is_dropped_in_time() {
        let (sender, mut events) = mpsc::channel(4);
        let _still_told = sender.clone();
        let (_theirs, mut ours) = tokio::io::duplex(8);
        let event = Event::Gone(Id::random(), Resolution::Expired);
        sender.send(event).await.expect("room");
        let began = Instant::now();
        let error = tell(&mut events, &mut ours, || false)
            .await
            .expect_err("stuck");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
