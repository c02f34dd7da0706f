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
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::quiet::{Phase, Quiet, Stalled};
use super::{Answer, End, Settings};
use crate::traffic::{Counter, Traffic};

/// What a relay goes by, and where it counts.
#[derive(Clone, Copy)]
pub(crate) struct Relay<'a> {
    pub settings: Settings,
    pub traffic: &'a Traffic,
}

impl Relay<'_> {
    /// Joins two streams until both have ended, one has failed, or nothing moves any more.
    ///
    /// `early` are bytes that were read from the client already. The streams are not closed beyond
    /// the shutdowns that their ends called for: how to end a failed connection is for the caller.
    ///
    /// While the backend takes nothing the client is not read, and a reset of it would not be
    /// heard: `has_failed` is then asked once a second.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the bytes that were read and not written; both streams stay
    /// usable.
    pub(crate) async fn join<C, B>(
        self,
        client: &mut C,
        backend: &mut B,
        early: Vec<u8>,
        has_failed: impl Fn(&C) -> bool,
    ) -> End
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let mut up = Pump::new(early, &self.traffic.from_client);
        let mut down = Pump::new(Vec::new(), &self.traffic.to_client);
        let mut quiet = pin!(Quiet::new(self.settings));
        let mut stalled = Stalled::default();
        poll_fn(|cx| {
            let moved = up.moved() + down.moved();
            if let Poll::Ready(end) = poll_both(cx, (&mut up, client), (&mut down, backend)) {
                return Poll::Ready(end);
            }
            if stalled.is_due(cx, up.is_blocked()) && has_failed(client) {
                return Poll::Ready(End::ClientReset);
            }
            let phase = match (up.is_closed(), down.is_closed()) {
                (true, true) => return Poll::Ready(End::Done),
                (false, false) => Phase::Open,
                (true, false) | (false, true) => Phase::HalfClosed,
            };
            let moved = up.moved() + down.moved() != moved;
            quiet.as_mut().poll(cx, phase, moved)
        })
        .await
    }
}

/// Moves what can be moved both ways. Ready when that ends the relay.
fn poll_both<C, B>(
    cx: &mut Context<'_>,
    (up, client): (&mut Pump<'_>, &mut C),
    (down, backend): (&mut Pump<'_>, &mut B),
) -> Poll<End>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // A backend that reads no more may still have an answer on its way; only the other direction
    // can say when that is over.
    let refused = match up.poll(cx, client, backend) {
        Poll::Ready(Err(Fault::Read(error))) => return Poll::Ready(client_fault(&error)),
        Poll::Ready(Err(Fault::Write(answer))) => Some(answer),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    };
    if refused == Some(Answer::Broken) {
        // The write has taken the socket's error with it: to a read it looks like an end.
        down.on_end = OnEnd::Fail;
    }
    match (down.poll(cx, backend, client), refused) {
        (Poll::Ready(Err(Fault::Read(_))), _) => Poll::Ready(End::BackendReset(Answer::Broken)),
        (Poll::Ready(Err(Fault::Write(_))), _) => Poll::Ready(End::ClientReset),
        (Poll::Ready(Ok(())), Some(answer)) => Poll::Ready(End::BackendReset(answer)),
        (Poll::Ready(Ok(())), None) | (Poll::Pending, _) => Poll::Pending,
    }
}

/// One direction: bytes first, then the end.
struct Pump<'a> {
    state: State,
    on_end: OnEnd,
    /// Read, and not taken by the writer yet.
    unsent: Vec<u8>,
    sent: usize,
    /// Written, and perhaps still in a buffer of the writer's.
    unflushed: bool,
    counter: &'a Counter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reader has ended; the writer is yet to be told.
    Ending,
    Closed,
    /// The writer failed. Nothing is read any more.
    Refused(Answer),
}

/// What the reader's end means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnEnd {
    PassOn,
    /// Its connection is known to have failed.
    Fail,
}

/// Which end of a direction failed.
enum Fault {
    Read(io::Error),
    /// With what it says of the answer, if it is the backend that reads no more.
    Write(Answer),
}

impl Fault {
    /// A broken pipe is what a socket says whose peer had ended its own stream in order; any other
    /// failure may have cut it short.
    fn write(error: io::Error) -> Self {
        Self::Write(match error.kind() {
            io::ErrorKind::BrokenPipe => Answer::Whole,
            _ => Answer::Broken,
        })
    }
}

impl<'a> Pump<'a> {
    fn new(unsent: Vec<u8>, counter: &'a Counter) -> Self {
        Self {
            state: State::Open,
            on_end: OnEnd::PassOn,
            unsent,
            sent: 0,
            unflushed: false,
            counter,
        }
    }

    fn moved(&self) -> u64 {
        self.counter.get()
    }

    fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the writer has not taken what was read.
    fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Moves what can be moved, but no more than a share of it at a time.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let moved = ready!(self.pump(cx, reader, writer));
        if let Err(Fault::Write(answer)) = moved {
            self.state = State::Refused(answer);
            self.unsent = Vec::new();
        }
        Poll::Ready(moved)
    }

    fn pump<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..SHARE {
            ready!(self.poll_send(cx, writer)).map_err(Fault::write)?;
            match self.state {
                State::Open => match self.poll_move(cx, reader, writer)? {
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
            if bytes.is_empty() && self.on_end == OnEnd::Fail {
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
            self.unsent.extend_from_slice(&bytes[taken..]);
            Ok(Poll::Ready(()))
        })
    }

    /// Writes what is left of an earlier read, and gives its memory back.
    fn poll_send<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.sent < self.unsent.len() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.unsent[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => {
                    self.sent += taken;
                    self.count(taken);
                }
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
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

/// TLS that ends without `close_notify` is reported by rustls as an unexpected end of file.
fn client_fault(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => End::ClientTruncated,
        _ => End::ClientReset,
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
