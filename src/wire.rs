//! The stream of a peer and the socket under it, as TLS and the relay use them.

mod delivery;

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::delivery::{Arrival, Delivery, Patience, deliver};

/// A peer of a relay. The methods ask the socket under the stream. The defaults are for streams without
/// a socket.
pub(crate) trait Peer: AsyncRead + AsyncWrite + Unpin {
    /// Whether the connection is known to have failed, without reading from it.
    fn has_failed(&self) -> bool {
        false
    }

    /// What was sent and not yet acknowledged. `None` if a close destroys no bytes that were sent.
    fn transmission(&mut self) -> Option<Transmission> {
        None
    }

    /// Reads into the places, one after the other, in a single call. Returns the number of bytes; 0 is
    /// the end of the stream. The default fills only the first place.
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        poll_read_first(self, cx, places)
    }

    /// Takes bytes that have arrived while nobody reads them, if the stream would otherwise keep them in a costly
    /// form. They are read later. The task is woken when there are more to take.
    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The same stream, if its reader can have its bytes without a copy.
    fn lender(&mut self) -> Option<&mut dyn Lend> {
        None
    }

    /// The same stream, if it can keep the memory that a read has filled instead of a copy.
    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        None
    }

    /// Ready when the stream takes bytes. Others would have to be copied, so none are read for it before that.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Reads and drops what the socket still delivers after the end of the stream. Ready when the
    /// socket has ended as well. An error: the peer has given up its answer too.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }
}

/// A stream that keeps what it has received until somebody has used it.
pub(crate) trait Lend {
    /// The next bytes: the first so many slices. None of them is empty. Ready with 0 at the end of the stream.
    fn poll_lend<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        slices: &mut [IoSlice<'a>],
    ) -> Poll<io::Result<usize>>;

    /// Drops as many of the bytes that were lent last.
    fn consume(&mut self, count: usize);

    /// Whether it has bytes that were not consumed.
    fn holds(&self) -> bool;
}

/// A stream that keeps the memory that was filled for it until it has sent the bytes.
pub(crate) trait Keep {
    /// Memory for a read.
    fn room(&mut self) -> Vec<u8>;

    /// Takes the memory back, and sends the first `length` bytes of it. Only after [`Peer::poll_room`] was ready.
    fn keep(&mut self, room: Vec<u8>, length: usize) -> io::Result<()>;
}

/// Fills only the first place.
pub(crate) fn poll_read_first<S: AsyncRead + Unpin + ?Sized>(
    stream: &mut S,
    cx: &mut Context<'_>,
    mut places: Places<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(places.first());
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Where one read puts its bytes: places of the same length in a buffer, with gaps between them.
///
/// Most attempts to read find no bytes in the socket, so the list for readv(2) is made only when there are some.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// Exactly as long as the places and their gaps.
    buffer: &'a mut [u8],
    /// Bytes before each place.
    before: usize,
    length: usize,
    /// Bytes from the start of one place to the start of the next.
    stride: usize,
}

impl<'a> Places<'a> {
    /// As many places of `length` bytes as fit, at most [`MOST_PLACES`], each with this many bytes before and
    /// after it.
    pub(crate) fn new(buffer: &'a mut [u8], before: usize, length: usize, after: usize) -> Self {
        let stride = before + length + after;
        let used = buffer.len().min(MOST_PLACES * stride);
        Self {
            buffer: &mut buffer[..used],
            before,
            length,
            stride,
        }
    }

    /// The first place.
    pub(crate) fn first(&mut self) -> &mut [u8] {
        &mut self.buffer[self.before..][..self.length]
    }

    /// The bytes that all places together can take.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len() / self.stride * self.length
    }

    /// All of them, for readv(2); those that do not fit are empty.
    pub(crate) fn all(&mut self) -> [IoSliceMut<'_>; MOST_PLACES] {
        let mut places = self.buffer.chunks_exact_mut(self.stride);
        std::array::from_fn(|_| match places.next() {
            Some(place) => IoSliceMut::new(&mut place[self.before..][..self.length]),
            None => IoSliceMut::new(&mut []),
        })
    }
}

/// The number of records that one read can fill.
pub(crate) const MOST_PLACES: usize = 8;

/// The state of the bytes that a socket was given to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transmission {
    /// Some bytes, or the end, are not acknowledged.
    pub is_unacknowledged: bool,
    /// The number of acknowledged bytes.
    pub acknowledged: u64,
    /// The peer owes an acknowledgement: of bytes, or of a window probe.
    pub is_due: bool,
    /// Time since the last acknowledgement.
    pub silent_for: Duration,
}

/// What TLS needs from the stream under it.
pub(crate) trait Wire: Peer {
    /// Whether a peer that has left had read everything that was sent to it.
    fn was_read_out(&self) -> bool;

    /// Whether the write of a `close_notify` failed only because the peer had read everything and then
    /// closed. A Unix socket refuses the `close_notify` with a broken pipe; TCP would have accepted it.
    fn is_close_notify_refused(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::BrokenPipe && self.was_read_out()
    }

    /// The error of a TLS shutdown. `NotConnected` if [`Self::is_close_notify_refused`], so that the
    /// relay does not take it for a peer that has left bytes unread.
    fn shutdown_error(&self, error: io::Error) -> io::Error {
        match self.is_close_notify_refused(&error) {
            true => io::ErrorKind::NotConnected.into(),
            false => error,
        }
    }

    /// Whether a close tells the peer the end as a shutdown does, if the peer has ended too and nothing
    /// of it is unread.
    fn ends_by_close(&self) -> bool {
        false
    }

    /// Writes bytes that may wait for those that follow, or for the end, to leave in one segment with
    /// them. They wait for 200 ms at most.
    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }
}

impl Peer for tokio::io::DuplexStream {}

#[cfg(any(test, fuzzing))]
impl Wire for tokio::io::DuplexStream {
    fn was_read_out(&self) -> bool {
        false
    }
}

/// Copies bytes into the places, one after the other, for streams that are not sockets.
#[cfg(any(test, fuzzing))]
pub(crate) fn scatter(mut bytes: &[u8], mut places: Places<'_>) {
    for mut place in places.all() {
        let (ours, others) = bytes.split_at(bytes.len().min(place.len()));
        place[..ours.len()].copy_from_slice(ours);
        bytes = others;
    }
}
