//! The relay between any two byte streams.
//!
//! ```text
//! client ── read ─► scratch ── write ─► backend      one [`Pump`] each way;
//!        ◄─ write ── scratch ◄─ read ──              an end is passed on as a shutdown
//! ```
//!
//! The scratch belongs to the thread. A connection owns memory only for bytes that the other
//! side did not take at once, and then it reads no more until it has: that is the backpressure.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::drive::{
    Cause, Direction, Directions, Fault, OnEnd, Progress, Side, State, drive, pump,
};
use super::unsent::Unsent;
use super::{End, Relay};
use crate::traffic::{Counter, Traffic};
use crate::wire::{Peer, Transmission};

/// What a relay keeps of a connection: how far each direction is, and the bytes between the two.
#[derive(Debug, Default)]
pub(crate) struct Joint {
    up: Pump,
    down: Pump,
}

impl Joint {
    /// The client's words, which are not the backend's yet.
    pub(crate) fn heard(&mut self) -> &mut Vec<u8> {
        self.up.unsent.bytes()
    }

    /// The client's connection failed before it had a backend.
    pub(crate) fn client_failed(&mut self, error: io::Error) {
        self.up.state.break_off(error.into());
    }

    /// Whether the client was told that it has had all.
    pub(crate) fn has_told_the_end(&self) -> bool {
        self.down.state.is_closed()
    }

    /// Whether the client has ended its stream in order, and the backend was told.
    pub(crate) fn has_heard_the_end(&self) -> bool {
        self.up.state.is_closed()
    }

    /// Reads no more: another [`Self::join`] delivers what was read.
    pub(crate) fn stop(&mut self) {
        self.up.state.break_off(Cause::Stopped);
        self.down.state.break_off(Cause::Stopped);
    }

    /// Joins two streams until both have ended, one has failed, or nothing moves any more.
    ///
    /// The streams are not closed beyond the shutdowns that their ends called for: how to end a failed
    /// connection is for the caller.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: what was read and not written stays here.
    pub(crate) async fn join<C, B>(
        &mut self,
        client: &mut C,
        backend: &mut B,
        relay: Relay<'_>,
    ) -> End
    where
        C: Peer,
        B: Peer,
    {
        let mut streams = Streams {
            joint: self,
            client,
            backend,
            traffic: relay.traffic,
        };
        drive(&mut streams, relay.settings).await
    }
}

struct Streams<'a, C, B> {
    joint: &'a mut Joint,
    client: &'a mut C,
    backend: &'a mut B,
    traffic: &'a Traffic,
}

impl<C, B> Directions for Streams<'_, C, B>
where
    C: Peer,
    B: Peer,
{
    fn poll_up(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut up = Flow {
            pump: &mut self.joint.up,
            reader: self.client,
            writer: self.backend,
            counter: &self.traffic.from_client,
        };
        pump(&mut up, cx, on_end)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<()> {
        let mut down = Flow {
            pump: &mut self.joint.down,
            reader: self.backend,
            writer: self.client,
            counter: &self.traffic.to_client,
        };
        pump(&mut down, cx, on_end)
    }

    fn states(&mut self) -> (&mut State, &mut State) {
        (&mut self.joint.up.state, &mut self.joint.down.state)
    }

    fn progress(&self) -> Progress {
        Progress {
            up_is_blocked: !self.joint.up.unsent.is_empty(),
            moved: self.traffic.from_client.get() + self.traffic.to_client.get(),
        }
    }

    fn client_has_failed(&self) -> bool {
        self.client.has_failed()
    }

    fn transmission(&mut self, side: Side) -> Option<Transmission> {
        match side {
            Side::Client => self.client.transmission(),
            Side::Backend => self.backend.transmission(),
        }
    }
}

/// What one direction keeps.
#[derive(Debug, Default)]
struct Pump {
    state: State,
    unsent: Unsent,
    /// Written, and perhaps still in a buffer of the writer's.
    unflushed: bool,
}

/// One direction at work.
struct Flow<'a, R, W> {
    pump: &'a mut Pump,
    reader: &'a mut R,
    writer: &'a mut W,
    counter: &'a Counter,
}

impl<R: Peer, W: Peer> Direction for Flow<'_, R, W> {
    const SHARE: usize = 16;

    fn state(&mut self) -> &mut State {
        &mut self.pump.state
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Pump {
            unsent, unflushed, ..
        } = &mut *self.pump;
        let sent = unsent.poll_write(cx, self.writer, |taken| {
            *unflushed = true;
            self.counter.add(taken);
        });
        sent.map_err(Fault::write)
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *self.reader).poll_read(cx, &mut buffer)).map_err(Fault::read)?;
            let bytes = buffer.filled();
            if bytes.is_empty() && on_end == OnEnd::Fail {
                return Poll::Ready(Err(Fault::Read(Cause::Reset)));
            }
            if bytes.is_empty() {
                self.pump.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            let taken = match Pin::new(&mut *self.writer).poll_write(cx, bytes) {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::write(error))),
                Poll::Pending => 0,
            };
            self.pump.unflushed |= taken > 0;
            self.counter.add(taken);
            self.pump.unsent.extend(&bytes[taken..]);
            Poll::Ready(Ok(()))
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pump.unflushed {
            ready!(Pin::new(&mut *self.writer).poll_flush(cx))?;
            self.pump.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.writer).poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reader.poll_discard(cx)
    }

    fn forget(&mut self) {
        self.pump.unsent.clear();
    }
}

/// Reads what a socket still says and drops it; ready when the socket has ended.
pub(crate) fn poll_discard<S>(socket: &mut S, cx: &mut Context<'_>) -> Poll<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    SCRATCH.with_borrow_mut(|scratch| {
        for _ in 0..DISCARDS {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // Should it have failed, the other direction says so.
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

const DISCARDS: usize = 4;

thread_local! {
    /// 64 KiB: bulk transfer costs a third less CPU than with 16 KiB, and it is one a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

#[cfg(test)]
mod tests;
