//! Whether the peer of a tunnel is still there: it must answer PING (RFC 9113 §6.7), or send something else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Asks the peer again and again. A cable that was cut sends no reset, and a tunnel without bytes on their way has
/// nothing that the kernel would miss.
pub(super) struct Heartbeat {
    ping: PingPong,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
    /// How often the peer had sent something when it was asked.
    before: u64,
}

impl Heartbeat {
    pub(super) fn new(ping: PingPong) -> Self {
        Self {
            ping,
            timer: Box::pin(sleep(EVERY)),
            is_asked: false,
            before: 0,
        }
    }

    /// Ready when the peer has sent nothing in time. After that it must not be called again.
    ///
    /// `reads` is how often something has arrived. Anything is an answer: on a slow path, the answer proper stands
    /// behind other bytes.
    pub(super) fn poll_missed(&mut self, cx: &mut Context<'_>, reads: u64) -> Poll<()> {
        loop {
            if self.is_asked && self.ping.poll_pong(cx).is_ready() {
                // Also if the tunnel has failed, which the tunnel itself says.
                self.is_asked = false;
                self.timer.as_mut().reset(Instant::now() + EVERY);
            }
            ready!(self.timer.as_mut().poll(cx));
            match self.is_asked {
                true if self.before == reads => return Poll::Ready(()),
                true => {}
                false => self.is_asked = self.ping.send_ping(Ping::opaque()).is_ok(),
            }
            self.before = reads;
            self.timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

/// The time between an answer and the next question.
const EVERY: Duration = Duration::from_secs(5);
/// With [`EVERY`], a peer without a cable is noticed within 10 s.
const PATIENCE: Duration = Duration::from_secs(5);
