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

use super::drive::{Directions, Fault, OnEnd, Progress, State, drive};
use super::unsent::Unsent;
use super::{End, Relay};
use crate::traffic::Counter;

/// Joins two streams until both have ended, one has failed, or nothing moves any more.
///
/// `early` are bytes that were read from the client already. The streams are not closed beyond
/// the shutdowns that their ends called for: how to end a failed connection is for the caller.
/// `has_failed` says whether the client's connection is known to have failed, without a read.
///
/// # Cancel safety
///
/// Dropping the future loses the bytes that were read and not written; both streams stay
/// usable.
pub(crate) async fn join<C, B>(
    client: &mut C,
    backend: &mut B,
    early: Vec<u8>,
    relay: Relay<'_>,
    has_failed: impl Fn(&C) -> bool,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut streams = Streams {
        up: Pump::new(early, &relay.traffic.from_client),
        down: Pump::new(Vec::new(), &relay.traffic.to_client),
        client,
        backend,
        has_failed,
    };
    drive(&mut streams, relay.settings).await
}

struct Streams<'a, C, B, F> {
    up: Pump<'a>,
    down: Pump<'a>,
    client: &'a mut C,
    backend: &'a mut B,
    has_failed: F,
}

impl<C, B, F> Directions for Streams<'_, C, B, F>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
    F: Fn(&C) -> bool,
{
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.up.poll(cx, self.client, self.backend, OnEnd::PassOn)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, on_end: OnEnd) -> Poll<Result<(), Fault>> {
        self.down.poll(cx, self.backend, self.client, on_end)
    }

    fn progress(&self) -> Progress {
        Progress {
            up_is_closed: self.up.state == State::Closed,
            down_is_closed: self.down.state == State::Closed,
            up_is_blocked: !self.up.unsent.is_empty(),
            moved: self.up.counter.get() + self.down.counter.get(),
        }
    }

    fn client_has_failed(&self) -> bool {
        (self.has_failed)(self.client)
    }
}

/// One direction: bytes first, then the end.
struct Pump<'a> {
    state: State,
    unsent: Unsent,
    /// Written, and perhaps still in a buffer of the writer's.
    unflushed: bool,
    counter: &'a Counter,
}

impl<'a> Pump<'a> {
    fn new(unsent: Vec<u8>, counter: &'a Counter) -> Self {
        Self {
            state: State::Open,
            unsent: unsent.into(),
            unflushed: false,
            counter,
        }
    }

    /// Moves what can be moved, but no more than a share of it at a time.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        on_end: OnEnd,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let moved = ready!(self.pump(cx, reader, writer, on_end));
        if let Err(Fault::Write(answer)) = moved {
            self.state = State::Refused(answer);
            self.unsent.clear();
        }
        Poll::Ready(moved)
    }

    fn pump<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        on_end: OnEnd,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..SHARE {
            ready!(self.poll_send(cx, writer)).map_err(Fault::write)?;
            match self.state {
                State::Open => match self.poll_move(cx, reader, writer, on_end)? {
                    Poll::Ready(()) => {}
                    Poll::Pending => {
                        // Flush before parking: the peer may be waiting for just these bytes.
                        ready!(self.poll_flush(cx, writer)).map_err(Fault::write)?;
                        return Poll::Pending;
                    }
                },
                State::Ending => {
                    // Apart, so that an error below is about the end and not about bytes.
                    ready!(self.poll_flush(cx, writer)).map_err(Fault::write)?;
                    self.state = State::Closing;
                }
                State::Closing => {
                    match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                        Ok(()) => {}
                        // It has gone since; if that cut its own stream short, the other
                        // direction says so.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        Err(error) => return Poll::Ready(Err(Fault::write(error))),
                    }
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
                State::Refused(answer) => return Poll::Ready(Err(Fault::Write(answer))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and writes what came; what the writer does not take is kept.
    fn poll_move<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        on_end: OnEnd,
    ) -> Result<Poll<()>, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(reader).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Fault::Read(error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let bytes = buffer.filled();
            if bytes.is_empty() && on_end == OnEnd::Fail {
                return Err(Fault::Read(io::ErrorKind::ConnectionReset.into()));
            }
            if bytes.is_empty() {
                self.state = State::Ending;
                return Ok(Poll::Ready(()));
            }
            let taken = match Pin::new(writer).poll_write(cx, bytes) {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(error)) => return Err(Fault::write(error)),
                Poll::Pending => 0,
            };
            self.count(taken);
            self.unsent.extend(&bytes[taken..]);
            Ok(Poll::Ready(()))
        })
    }

    /// Writes what is left of an earlier read.
    fn poll_send<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        let Self {
            unsent,
            unflushed,
            counter,
            ..
        } = self;
        unsent.poll_write(cx, writer, |taken| {
            *unflushed = true;
            counter.add(taken);
        })
    }

    fn poll_flush<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, taken: usize) {
        self.unflushed |= taken > 0;
        self.counter.add(taken);
    }
}

/// Reads in a row. A direction that went on for as long as it can would use up the task's whole
/// cooperative budget at each turn, and the other one would never move.
const SHARE: usize = 16;

thread_local! {
    /// 64 KiB: bulk transfer costs a third less CPU than with 16 KiB, and it is one a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into_boxed_slice());
}

#[cfg(test)]
mod tests;
