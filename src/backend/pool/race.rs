//! Connects that are under way to several addresses of a backend, of which the first that succeeds is taken.
//!
//! The next one begins 250 ms after the last, or at once when that has failed (RFC 8305 §5): an address
//! that drops packets costs a connection a quarter of a second, and not its time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Lease;
use crate::backend::dial_error::DialError;
use crate::sys::socket::Socket;

/// How a connect ended.
pub(super) type Connected = Result<Socket, DialError>;

type Connect = Pin<Box<dyn Future<Output = Connected> + Send>>;

#[derive(Default)]
pub(super) struct Race {
    attempts: Vec<Attempt>,
    /// Whether one has failed, so that a wait for the others is a wait that a retry could use.
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

    /// Waits for an attempt to end; `None` if it is time for the next one, or there is none.
    ///
    /// # Cancel safety
    ///
    /// Attempts go on with the next call.
    pub(super) async fn next(&mut self) -> Option<(Lease, Connected)> {
        let due = self.attempts.last()?.begun + STAGGER;
        tokio::select! {
            biased;
            ended = self.ended() => Some(ended),
            () = sleep_until(due) => None,
        }
    }

    /// Waits for an attempt to end, for ever if there is none.
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

    /// Those that have not answered in the time that another one had. Each is told once.
    pub(super) fn late(&mut self) -> impl Iterator<Item = &Lease> {
        let is_late = |it: &&mut Attempt| !it.is_late && it.begun.elapsed() >= STAGGER;
        self.attempts.iter_mut().filter(is_late).map(|attempt| {
            attempt.is_late = true;
            &attempt.lease
        })
    }

    /// Gives up all attempts.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Lease> {
        let given_up = std::mem::take(&mut self.attempts).into_iter();
        given_up.filter(|it| !it.is_late).map(|it| it.lease)
    }
}

/// RFC 8305 §5: the recommended delay between two attempts.
pub(super) const STAGGER: Duration = Duration::from_millis(250);
