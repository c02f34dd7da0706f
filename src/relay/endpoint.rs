//! One side of a relay, with or without records: how it is read and written.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::drive::{Cause, Fault, OnEnd};
use super::write_buffer::WriteBuffer;
use crate::record::{Layout, MOST_HEADROOM, MOST_HELD, Pieces};
use crate::traffic::Counter;
use crate::wire::{Keep, Lend, Transmission};

/// A client or a backend as the relay reads and writes it.
///
/// The reader leaves payloads in the scratch in the layout of the writer. So records are opened and
/// sealed in place, even between two sides with records.
pub(crate) trait Endpoint {
    /// The layout of payloads for [`Self::send`].
    fn layout(&self) -> Layout;

    /// Reads once into the scratch, or into a part of it that is long enough for [`Self::room`].
    /// `pieces` is empty, and has the layout for the payloads.
    ///
    /// # Errors
    ///
    /// Nothing was read. A failure after some bytes were read is [`Then::Failed`].
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &mut Pieces,
        on_end: OnEnd,
    ) -> Poll<Result<Then, Fault>>;

    /// The size of the scratch for a read of about `bytes` bytes.
    fn room(&self, bytes: usize) -> usize;

    /// Sends the payloads in the scratch. What is not accepted is kept here or in `rest`.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &Pieces,
        rest: &mut Rest<'_>,
    ) -> Result<(), Fault>;

    /// Sends what remains of earlier reads.
    fn poll_rest(&mut self, cx: &mut Context<'_>, rest: &mut Rest<'_>) -> Poll<Result<(), Fault>>;

    /// Whether bytes are kept here that must be sent.
    fn owes(&self) -> bool {
        false
    }

    /// Whether a closing alert was queued, after which nothing may be sent.
    fn is_mute(&self) -> bool {
        false
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Announces the end in the stream, if it needs more than a shutdown.
    fn say_end(&mut self) {}

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether its socket has ended, after all its bytes were delivered, and
    /// [its close tells it the end](crate::wire::Wire::ends_by_close).
    fn ends_by_close(&self) -> bool {
        false
    }

    /// Like [`Peer::poll_absorb`](crate::wire::Peer::poll_absorb).
    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Like [`Peer::lender`](crate::wire::Peer::lender).
    fn lender(&mut self) -> Option<&mut dyn Lend> {
        None
    }

    /// Like [`Peer::keeper`](crate::wire::Peer::keeper).
    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        None
    }

    /// The same side, if it takes payload as it is.
    fn sink(&mut self) -> Option<Pin<&mut dyn AsyncWrite>> {
        None
    }

    /// Like [`Peer::poll_room`](crate::wire::Peer::poll_room).
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Like [`Peer::poll_discard`](crate::wire::Peer::poll_discard).
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Like [`Peer::has_failed`](crate::wire::Peer::has_failed).
    fn has_failed(&self) -> bool;

    /// Like [`Peer::transmission`](crate::wire::Peer::transmission).
    fn transmission(&mut self) -> Option<Transmission>;
}

/// What comes after the bytes of a read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    More,
    /// The stream has ended in order.
    End,
    Failed(Fault),
}

impl Then {
    /// After the end of a stream of payload.
    pub(super) fn at_end(on_end: OnEnd) -> Result<Self, Fault> {
        match on_end {
            OnEnd::PassOn => Ok(Self::End),
            OnEnd::Fail => Err(Fault::Read(Cause::Reset)),
        }
    }
}

/// The bytes of a direction that the writer has not accepted, and the counter for those that it
/// has.
pub(crate) struct Rest<'a> {
    /// Not sealed yet.
    pub unsent: &'a mut WriteBuffer,
    /// Whether bytes that were written may still be in a buffer of the writer.
    pub unflushed: &'a mut bool,
    pub counter: &'a Counter,
}

/// Lends the thread's scratch, and the pieces that describe its content.
///
/// The stream of a program may run another connection while it is read or written. The scratch is lent
/// already then, and that connection gets its own for the moment.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut [u8], &mut Pieces) -> T) -> T {
    SCRATCH.with(|place| {
        let mut scratch = place.take().unwrap_or_else(Scratch::new);
        let result = work(&mut scratch.bytes, &mut scratch.pieces);
        place.set(Some(scratch));
        result
    })
}

/// Reads and discards what still arrives at a socket. Ready when the socket has ended.
pub(crate) fn poll_discard<S>(socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    with_scratch(|scratch, _| {
        for _ in 0..DISCARDS {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // If it has failed, the other direction reports that.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

const DISCARDS: usize = 2;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The buffer of a thread.
struct Scratch {
    /// As long as eight full records: bulk transfer costs a third less CPU than with the length of one.
    bytes: Box<[u8]>,
    pieces: Pieces,
}

impl Scratch {
    #[cold]
    fn new() -> Box<Self> {
        let bytes = vec![0; MOST_HELD + MOST_HEADROOM];
        Box::new(Self {
            bytes: bytes.into_boxed_slice(),
            pieces: Pieces::new(Layout::PLAIN),
        })
    }
}
