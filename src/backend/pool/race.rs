//! Parallel connects to several addresses of a backend; the first that succeeds wins.
//!
//! The next connect starts 250 ms after the last one, or at once when that has failed (RFC 8305
//! §5). An address that drops packets delays a connection by a quarter of a second instead of using
//! up its time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Lease;
use crate::backend::dial_error::DialError;
use crate::backend::tunnels::Berth;
use crate::sys::socket::Socket;

/// How a connect ended.
pub(super) type Connected = Result<Link, DialError>;

/// The way to an address.
pub(super) enum Link {
    Socket(Socket),
    /// A place in a tunnel, for a stream.
    Tunnel(Berth),
}

type Connect = Pin<Box<dyn Future<Output = Connected> + Send>>;

#[derive(Default)]
pub(super) struct Race {
    attempts: Vec<Attempt>,
    /// Whether an attempt has failed, so that the time spent on waiting for the others could be
    /// used for a retry.
    pub has_failed: bool,
}

struct Attempt {
    lease: Lease,
    connect: Connect,
    begun: Instant,
    is_late: bool,
}

impl Race {
    pub(super) fn begin(&mut self, lease: Lease, connect: Connect) {
        self.attempts.push(Attempt {
            lease,
            connect,
            begun: Instant::now(),
            is_late: false,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.attempts.len()
    }

    /// Waits for an attempt to end. Returns `None` if it is time to start the next one, or if no
    /// attempt is in progress.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: attempts continue with the next call.
    pub(super) async fn next(&mut self) -> Option<(Lease, Connected)> {
        let due = self.attempts.last()?.begun + STAGGER;
        tokio::select! {
            biased;
            ended = self.ended() => Some(ended),
            () = sleep_until(due) => None,
        }
    }

    /// Waits for an attempt to end. Never returns if there is none.
    pub(super) async fn ended(&mut self) -> (Lease, Connected) {
        poll_fn(|cx| {
            for index in 0..self.attempts.len() {
                if let Poll::Ready(socket) = self.attempts[index].connect.as_mut().poll(cx) {
                    let attempt = self.attempts.swap_remove(index);
                    return Poll::Ready((attempt.lease, socket));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The addresses that have not answered within [`STAGGER`]. Each is returned once.
    pub(super) fn late(&mut self) -> impl Iterator<Item = &Lease> {
        let is_late = |it: &&mut Attempt| !it.is_late && it.begun.elapsed() >= STAGGER;
        self.attempts.iter_mut().filter(is_late).map(|attempt| {
            attempt.is_late = true;
            &attempt.lease
        })
    }

    /// Gives up all attempts. Returns the addresses that [`Self::late`] has not returned.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Lease> {
        let given_up = std::mem::take(&mut self.attempts).into_iter();
        given_up.filter(|it| !it.is_late).map(|it| it.lease)
    }
}

/// RFC 8305 §5: the recommended delay between two attempts.
pub(super) const STAGGER: Duration = Duration::from_millis(250);
