//! The connection under a tunnel, whose frames leave together.
//!
//! ```text
//! h2 ─ frame, flush, frame, flush … ─► Gathered ─ one flush at the end of the turn ─► records ─► socket
//! ```
//!
//! h2 flushes after each frame of data. Each of them would be a record and a call of the kernel of its own. h2 also
//! reads and writes as long as it can. Here a turn is limited: meanwhile neither the streams of the tunnel nor other
//! connections of the thread move, and frames that the streams could not take yet cost memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Delivery, Patience, Peer};

/// A connection for h2. Its flushes wait for [`Turn::poll_end`].
pub(super) struct Gathered<IO>(Arc<Mutex<Inner<IO>>>);

/// The other handle to the connection, for the task that drives h2: the only one that uses either.
pub(super) struct Turn<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    flushes: Flushes,
    /// The bytes of this turn.
    read: usize,
    written: usize,
    reads: u64,
    received: u64,
    /// The error of a flush that h2 was not told.
    failed: Option<io::ErrorKind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flushes {
    /// While the tunnel begins, nobody ends its turns.
    AtOnce,
    Later,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Gathered<IO> {
    pub(super) fn new(io: IO) -> (Self, Turn<IO>) {
        let inner = Arc::new(Mutex::new(Inner {
            io,
            flushes: Flushes::AtOnce,
            read: 0,
            written: 0,
            reads: 0,
            received: 0,
            failed: None,
        }));
        (Self(Arc::clone(&inner)), Turn(inner))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Turn<IO> {
    /// From now on, frames leave at the end of each turn.
    pub(super) fn begin(&self) {
        lock(&self.0).flushes = Flushes::Later;
    }

    /// How often something has arrived, and how many bytes that were.
    pub(super) fn arrived(&self) -> (u64, u64) {
        let inner = lock(&self.0);
        (inner.reads, inner.received)
    }

    /// Sends what h2 has written. If that fails, h2 has to be polled again, which then fails with the same error.
    ///
    /// Pending: the task is woken when the connection has room again, and has to call this again.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let mut inner = lock(&self.0);
        (inner.read, inner.written) = (0, 0);
        if inner.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut inner.io).poll_flush(cx)).map_err(|error| {
            inner.failed = Some(error.kind());
            Failed
        })?;
        Poll::Ready(Ok(()))
    }
}

impl<IO: Peer> Turn<IO> {
    /// Ready when the peer has all that was written, or the connection has failed.
    pub(super) fn poll_delivered(
        &self,
        cx: &mut Context<'_>,
        delivery: &mut Delivery,
        patience: &Patience,
    ) -> Poll<()> {
        let mut inner = lock(&self.0);
        match inner.failed {
            Some(_) => Poll::Ready(()),
            None => delivery.poll(cx, &mut inner.io, patience),
        }
    }
}

/// The connection cannot be written.
pub(super) struct Failed;

impl<IO: Unpin> Inner<IO> {
    fn io(&mut self) -> io::Result<Pin<&mut IO>> {
        match self.failed {
            Some(kind) => Err(kind.into()),
            None => Ok(Pin::new(&mut self.io)),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(poll_share(inner.read, cx));
        let before = buf.filled().len();
        ready!(inner.io()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        inner.read += count;
        inner.received += count as u64;
        inner.reads += 1;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        ready!(poll_share(inner.written, cx));
        let count = ready!(inner.io()?.poll_write_vectored(cx, bufs))?;
        inner.written += count;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        match inner.flushes {
            Flushes::AtOnce => inner.io()?.poll_flush(cx),
            Flushes::Later => Poll::Ready(inner.io().map(drop)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.io()?.poll_flush(cx))?;
        inner.io()?.poll_shutdown(cx)
    }
}

/// Pending when a turn has had its share: the others have theirs, and then it goes on.
fn poll_share(moved: usize, cx: &Context<'_>) -> Poll<()> {
    if moved < SHARE {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// In each direction; about 100 µs.
const SHARE: usize = 256 * 1024;

/// The state is whole at every moment, also if a thread has panicked here.
fn lock<IO>(inner: &Mutex<Inner<IO>>) -> MutexGuard<'_, Inner<IO>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
