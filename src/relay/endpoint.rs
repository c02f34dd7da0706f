//! One side of a relay: what it reads and how it is written to, with records or without.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::drive::{Fault, OnEnd};
use super::write_buffer::WriteBuffer;
use crate::record::{Layout, MOST_HEADROOM, MOST_HELD, Pieces};
use crate::traffic::Counter;
use crate::wire::Transmission;

/// A client or a backend, as a relay reads it and writes to it.
///
/// The reader leaves payloads in the scratch as the writer wants them, so that records are opened and
/// sealed in place, also between two sides that both have records.
pub(crate) trait Endpoint {
    /// How payloads are to lie for [`Self::send`].
    fn layout(&self) -> Layout;

    /// Reads once into the scratch, or a part of it that is long enough for [`Self::room`]; `pieces`, which
    /// are none yet, have the layout in which the payloads are to lie.
    ///
    /// # Errors
    ///
    /// Nothing was read. A failure behind what was read is [`Then::Failed`].
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &mut Pieces,
        on_end: OnEnd,
    ) -> Poll<Result<Then, Fault>>;

    /// The scratch for a read of about so many bytes.
    fn room(&self, bytes: usize) -> usize;

    /// Makes ready for [`Self::send`]; what has to be sent first is the rest then.
    fn prepare(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Sends what lies in the scratch; what is not taken is kept here or in `rest`.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &Pieces,
        rest: &mut Rest<'_>,
    ) -> Result<(), Fault>;

    /// Sends what is left of earlier reads.
    fn poll_rest(&mut self, cx: &mut Context<'_>, rest: &mut Rest<'_>) -> Poll<Result<(), Fault>>;

    /// Whether something is kept here to be sent.
    fn owes(&self) -> bool {
        false
    }

    /// Whether a closing alert is the last of what is to be sent.
    fn is_mute(&self) -> bool {
        false
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says the end in the stream, where that is not the shutdown alone.
    fn say_end(&mut self) {}

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`Peer::poll_discard`](crate::wire::Peer::poll_discard).
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// As [`Peer::has_failed`](crate::wire::Peer::has_failed).
    fn has_failed(&self) -> bool;

    /// As [`Peer::transmission`](crate::wire::Peer::transmission).
    fn transmission(&mut self) -> Option<Transmission>;
}

/// How it goes on behind what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    More,
    /// The stream has ended in order.
    End,
    Failed(Fault),
}

/// What a writer has not taken of a direction's bytes, and where those are counted that it has.
pub(crate) struct Rest<'a> {
    /// Not sealed.
    pub unsent: &'a mut WriteBuffer,
    /// Written, and perhaps still in a buffer of the writer's.
    pub unflushed: &'a mut bool,
    pub counter: &'a Counter,
}

/// Lends the thread's scratch, and a place to say what is in it. It is lent already where the stream of a
/// program runs another connection while it is read or written: that one gets its own for the moment.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut [u8], &mut Pieces) -> T) -> T {
    SCRATCH.with(|scratch| {
        let mut own;
        let mut lent = scratch.try_borrow_mut();
        let (bytes, pieces) = match &mut lent {
            Ok(lent) => &mut **lent,
            Err(_) => {
                own = new_scratch();
                &mut own
            }
        };
        work(bytes, pieces)
    })
}

/// Reads what a socket still says and drops it; ready when the socket has ended.
pub(crate) fn poll_discard<S>(socket: &mut S, cx: &mut Context<'_>) -> Poll<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    with_scratch(|scratch, _| {
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

const DISCARDS: usize = 2;

thread_local! {
    /// The buffer of a thread, as long as eight full records: bulk transfer costs a third less CPU than
    /// with one.
    static SCRATCH: RefCell<(Box<[u8]>, Pieces)> = RefCell::new(new_scratch());
}

fn new_scratch() -> (Box<[u8]>, Pieces) {
    let bytes = vec![0; MOST_HELD + MOST_HEADROOM];
    (bytes.into_boxed_slice(), Pieces::new(Layout::PLAIN))
}
