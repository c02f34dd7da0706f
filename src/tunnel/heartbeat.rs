//! Whether the peer of a tunnel is still there: it must answer PING (RFC 9113 §6.7), or send something else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// The questions of a tunnel to its peer. HTTP/2 has one on its way at a time.
pub(super) struct Pings {
    ping: Option<PingPong>,
    is_asked: bool,
}

impl Pings {
    pub(super) fn new(ping: Option<PingPong>) -> Self {
        Self {
            ping,
            is_asked: false,
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Whether the answer to the question on its way has come.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_asked {
            return false;
        }
        let ping = self.ping.as_mut();
        // Also if the tunnel has failed, which the tunnel itself says.
        self.is_asked = ping.is_some_and(|ping| ping.poll_pong(cx).is_pending());
        !self.is_asked
    }

    /// Asks, unless a question is on its way. `false`: none is, because the tunnel has failed.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_asked {
            return true;
        }
        let Some(ping) = &mut self.ping else {
            return false;
        };
        self.is_asked = ping.send_ping(Ping::opaque()).is_ok();
        // The answer has to wake the tunnel. None can be here already.
        self.is_asked = self.is_asked && ping.poll_pong(cx).is_pending();
        self.is_asked
    }
}

/// Asks the peer again and again. A cable that was cut sends no reset, and a tunnel without bytes on their way has
/// nothing that the kernel would miss.
pub(super) struct Heartbeat {
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
    /// How often the peer had sent something when it was asked.
    before: u64,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self {
            timer: Box::pin(sleep(EVERY)),
            is_asked: false,
            before: 0,
        }
    }

    /// Ready when the peer has sent nothing in time. After that it must not be called again.
    ///
    /// `reads` is how often something has arrived. Anything is an answer: on a slow path, the answer proper stands
    /// behind other bytes.
    pub(super) fn poll_missed(
        &mut self,
        cx: &mut Context<'_>,
        reads: u64,
        is_answered: bool,
        pings: &mut Pings,
    ) -> Poll<()> {
        if self.is_asked && is_answered {
            self.is_asked = false;
            self.timer.as_mut().reset(Instant::now() + EVERY);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match self.is_asked {
                true if self.before == reads => return Poll::Ready(()),
                true => {}
                false => self.is_asked = pings.ask(cx),
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
