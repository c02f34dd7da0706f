//! A peer's stream and the socket under it, as far as TLS and the relay care.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A peer of a relay. What is asked here is asked of the socket under its stream; the defaults are those
/// of a stream that has none.
pub(crate) trait Peer: AsyncRead + AsyncWrite + Unpin {
    /// Whether the connection is known to have failed, without reading from it.
    fn has_failed(&self) -> bool {
        false
    }

    /// What was sent and has not arrived. `None` where a close destroys nothing that was sent.
    fn transmission(&mut self) -> Option<Transmission> {
        None
    }

    /// Reads into one place after the other in a single step: how many bytes, and 0 is the end. A stream that
    /// cannot do it fills the first place alone.
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        poll_read_first(self, cx, places)
    }

    /// Reads and drops what the socket still says after the end of the stream; ready when the socket
    /// has ended as well.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}

/// Fills the first place alone.
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
/// Most reads find a socket without bytes: the list for the system is made when there are some.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// No longer than the places and their gaps.
    buffer: &'a mut [u8],
    /// Bytes before each place.
    before: usize,
    length: usize,
    /// Before one place and the next one begins.
    stride: usize,
}

impl<'a> Places<'a> {
    /// As many places of `length` bytes as fit, [`MOST_PLACES`] at most, each with so many bytes before and
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

    /// How many bytes there is room for.
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

/// How many records are filled in one read.
pub(crate) const MOST_PLACES: usize = 8;

/// How far a socket is with what it was given to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transmission {
    /// Some of it, or the end, is not acknowledged.
    pub is_unacknowledged: bool,
    /// How many bytes are.
    pub acknowledged: u64,
    /// The peer owes an answer: to bytes, or to the question whether it has room for some.
    pub is_due: bool,
    /// Since the peer acknowledged something.
    pub silent_for: Duration,
}

/// What TLS asks of the stream under it.
pub(crate) trait Wire: Peer {
    /// Whether a peer that is gone had read all that it was sent.
    fn was_read_out(&self) -> bool;

    /// Writes bytes that may wait for those that follow, or for the end, to go in one segment with
    /// them; a fifth of a second at most.
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

/// Fills one place after the other, for streams that are not the system's.
#[cfg(any(test, fuzzing))]
pub(crate) fn scatter(mut bytes: &[u8], mut places: Places<'_>) {
    for mut place in places.all() {
        let (ours, others) = bytes.split_at(bytes.len().min(place.len()));
        place[..ours.len()].copy_from_slice(ours);
        bytes = others;
    }
}
