//! The end of a stream of bytes that is no relay: its last bytes arrive before its socket is closed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep};

use super::Peer;

/// How long a peer is waited for; `None` is without a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// That does not acknowledge more than before.
    pub half_close: Option<Duration>,
    /// That is silent, although it owes an acknowledgement.
    pub unacknowledged: Option<Duration>,
}

/// Waits until the peer has all that was written to its stream, and has closed it or is quiet.
///
/// A socket that is closed with unread bytes, or that receives some afterwards, is reset by the kernel, which destroys
/// what the peer has not acknowledged. Protocols like HTTP/2 answer while they read.
///
/// It ends without that when the [`Patience`] with the peer is over.
#[derive(Default)]
pub(crate) struct Delivery {
    is_shut: bool,
    arrival: Arrival,
    /// When the peer last acknowledged something.
    moved: Option<Instant>,
    /// When it had acknowledged everything, and when it last sent something after that.
    complete: Option<Complete>,
    discarded: usize,
}

#[derive(Clone, Copy)]
struct Complete {
    since: Instant,
    heard: Instant,
}

impl Delivery {
    pub(crate) fn poll<S: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        patience: &Patience,
    ) -> Poll<()> {
        if !self.is_shut {
            match Pin::new(&mut *stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.is_shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let before = self.discarded;
        if self.poll_discard(cx, stream).is_ready() {
            return Poll::Ready(());
        }
        let now = Instant::now();
        let moved = self.moved.get_or_insert(now);
        let transmission = stream.transmission();
        let acknowledged = transmission.map_or(0, |it| it.acknowledged);
        if self.arrival.poll(cx, acknowledged) {
            *moved = now;
        }
        let is_over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.duration_since(since) >= limit)
        };
        let is_given_up = match transmission.filter(|it| it.is_unacknowledged) {
            Some(it) => {
                let limit = patience.unacknowledged;
                let is_silent = it.is_due && limit.is_some_and(|limit| it.silent_for >= limit);
                is_silent || is_over(*moved, patience.half_close)
            }
            None if !self.is_shut => is_over(*moved, patience.half_close),
            None => {
                let complete = self.complete.get_or_insert(Complete {
                    since: now,
                    heard: now,
                });
                if self.discarded > before {
                    complete.heard = now;
                }
                is_over(complete.heard, Some(LINGER))
                    || is_over(complete.since, patience.half_close)
            }
        };
        match is_given_up {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Ready when the peer has closed, has failed, or sends as if it had not noticed the end.
    fn poll_discard<S: Peer>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<()> {
        let mut room = [0; 1024];
        while self.discarded < MOST_DISCARDED {
            let mut buffer = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.discarded += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

/// Closes a stream when its peer has everything: see [`Delivery`].
///
/// # Cancel safety
///
/// Dropping the future closes the stream at once.
pub(crate) async fn deliver<S: Peer>(mut stream: S, patience: &Patience) {
    let mut delivery = Delivery::default();
    poll_fn(|cx| delivery.poll(cx, &mut stream, patience)).await;
}

/// Checks repeatedly whether the last bytes have arrived, because there is no event for that.
#[derive(Default)]
pub(crate) struct Arrival(Option<Box<Attempts>>);

struct Attempts {
    timer: Pin<Box<Sleep>>,
    wait: Duration,
    acknowledged: u64,
}

impl Arrival {
    /// Wakes the task when it is time for another check. Returns whether more was acknowledged than
    /// at the last one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, acknowledged: u64) -> bool {
        let attempts = self.0.get_or_insert_with(|| {
            Box::new(Attempts {
                timer: Box::pin(sleep(FIRST_LOOK)),
                wait: FIRST_LOOK,
                acknowledged,
            })
        });
        while attempts.timer.as_mut().poll(cx).is_ready() {
            attempts.wait = (2 * attempts.wait).min(LAST_LOOK);
            attempts
                .timer
                .as_mut()
                .reset(Instant::now() + attempts.wait);
        }
        let moved = attempts.acknowledged != acknowledged;
        attempts.acknowledged = acknowledged;
        moved
    }
}

const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(128);

/// How long a peer that has everything may take to close: enough for a round trip to anywhere and a retransmission.
const LINGER: Duration = Duration::from_secs(1);
/// A peer that sends more has not noticed the end.
const MOST_DISCARDED: usize = 256 * 1024;

#[cfg(test)]
mod tests;
