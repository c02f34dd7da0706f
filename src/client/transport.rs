//! The transport of a client's bytes: a socket, or a stream that a program has brought.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::facts::Endpoint;
use crate::sys::either::one_of_streams;
use crate::sys::socket::Socket;
use crate::tunnel::{StatusCode, TunnelStream};
use crate::wire::{Keep, Lend, Peer, Places, Transmission, Wire, poll_read_first};

#[derive(Debug)]
pub(crate) enum Transport {
    Socket(Socket),
    Stream(Box<ForeignStream>),
    Tunnel(Box<TunnelStream>),
}

impl Transport {
    pub(crate) fn stream(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self::Stream(Box::new(ForeignStream {
            io: Box::pin(io),
            seen: Vec::new(),
        }))
    }

    /// Waits for the first byte, or the end, without taking it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is taken.
    async fn first_byte(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.first_byte().await,
            Self::Stream(stream) => poll_fn(|cx| stream.poll_see(cx)).await,
            // It has no handshake that could begin.
            Self::Tunnel(_) => Ok(()),
        }
    }

    /// Waits for the first byte, or the end. If `most` bytes may be taken, and it costs no memory before
    /// they are there, it takes what has come, so that no second system call has to.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: bytes are taken only when it completes.
    pub(crate) async fn first_bytes(&mut self, most: Option<usize>) -> io::Result<Vec<u8>> {
        if let (Self::Socket(socket), Some(most)) = (&self, most) {
            return socket.first_bytes(most).await;
        }
        self.first_byte().await.map(|()| Vec::new())
    }

    /// Waits for bytes and copies them without taking them. Returns their number; 0 is the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is taken.
    pub(crate) async fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.peek(room).await,
            Self::Stream(stream) => {
                poll_fn(|cx| stream.poll_see(cx)).await?;
                let (seen, _) = stream.seen.split_at(stream.seen.len().min(room.len()));
                room[..seen.len()].copy_from_slice(seen);
                Ok(seen.len())
            }
            Self::Tunnel(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes bytes that [`Self::peek`] has seen.
    pub(crate) fn take_seen(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.take(room),
            Self::Stream(stream) => Ok(stream.take(room)),
            Self::Tunnel(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Closes with a reset, so that the peer does not take it for a clean end. A program's stream is
    /// dropped: it has no reset.
    pub(crate) fn reset(self) {
        match self {
            Self::Socket(socket) => socket.reset(),
            Self::Stream(stream) => drop(stream),
            Self::Tunnel(stream) => stream.reset(),
        }
    }

    /// Tells the peer why nobody serves it, if it can be told.
    pub(crate) fn turn_away(self, status: StatusCode) {
        if let Self::Tunnel(stream) = self {
            stream.refuse(status);
        }
    }

    /// Whether it is a connection that a front offers, and that was not taken yet.
    pub(crate) fn is_offered(&self) -> bool {
        matches!(self, Self::Tunnel(stream) if stream.is_offered())
    }

    /// Ends a connection that a front offers, so that it does not come back.
    pub(crate) async fn take_and_reset(self) {
        match self {
            Self::Tunnel(stream) => stream.take_and_reset().await,
            Self::Socket(_) | Self::Stream(_) => {}
        }
    }

    pub(crate) fn local(&self) -> Option<Endpoint> {
        match self {
            Self::Socket(socket) => socket.local(),
            Self::Stream(_) | Self::Tunnel(_) => None,
        }
    }
}

one_of_streams!(Transport {
    Socket,
    Stream,
    Tunnel
});

impl Peer for Transport {
    fn has_failed(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.has_failed(),
            Self::Stream(_) => false,
            Self::Tunnel(stream) => stream.has_failed(),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tunnel(stream) => stream.poll_room(cx),
            Self::Socket(_) | Self::Stream(_) => Poll::Ready(()),
        }
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        if let Self::Tunnel(stream) = self {
            stream.poll_absorb(cx);
        }
    }

    fn lender(&mut self) -> Option<&mut dyn Lend> {
        match self {
            Self::Tunnel(stream) => stream.lender(),
            Self::Socket(_) | Self::Stream(_) => None,
        }
    }

    fn keeper(&mut self) -> Option<&mut dyn Keep> {
        match self {
            Self::Tunnel(stream) => stream.keeper(),
            Self::Socket(_) | Self::Stream(_) => None,
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(_) | Self::Stream(_) => Poll::Ready(Ok(())),
            Self::Tunnel(stream) => stream.poll_discard(cx),
        }
    }

    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Socket(socket) => socket.transmission(),
            Self::Stream(_) => None,
            Self::Tunnel(stream) => stream.transmission(),
        }
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => Peer::poll_read_vectored(socket, cx, places),
            Self::Stream(stream) => poll_read_first(stream, cx, places),
            Self::Tunnel(stream) => poll_read_first(&mut **stream, cx, places),
        }
    }
}

impl Wire for Transport {
    fn ends_by_close(&self) -> bool {
        matches!(self, Self::Socket(Socket::Tcp(_)))
    }

    fn was_read_out(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.was_read_out(),
            Self::Stream(_) | Self::Tunnel(_) => false,
        }
    }

    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_write_more(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// A stream that a program has brought. It can be read and written; nothing else is known of it.
pub(crate) struct ForeignStream {
    io: Pin<Box<dyn ReadWrite>>,
    /// Bytes that were read for `peek` and not taken yet.
    seen: Vec<u8>,
}

trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

impl ForeignStream {
    /// Ready when there are bytes to look at, or at the end.
    fn poll_see(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            let mut room = [0; SEEN];
            let mut unfilled = ReadBuf::new(&mut room);
            ready!(self.io.as_mut().poll_read(cx, &mut unfilled))?;
            self.seen.extend_from_slice(unfilled.filled());
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, room: &mut [u8]) -> usize {
        let count = self.seen.len().min(room.len());
        room[..count].copy_from_slice(&self.seen[..count]);
        self.seen.drain(..count);
        if self.seen.is_empty() {
            // An idle connection owns no buffer.
            self.seen = Vec::new();
        }
        count
    }
}

impl fmt::Debug for ForeignStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignStream").finish_non_exhaustive()
    }
}

impl AsyncRead for ForeignStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return self.io.as_mut().poll_read(cx, buf);
        }
        let room = buf.initialize_unfilled();
        let count = self.take(room);
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ForeignStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(cx)
    }
}

/// Longer than most PROXY protocol headers.
const SEEN: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn peeked_bytes_are_read_first() {
        let (ours, mut theirs) = duplex(64);
        let mut transport = Transport::stream(ours);
        theirs.write_all(b"header and bytes").await.expect("room");
        transport.first_byte().await.expect("a byte");
        let mut room = [0; 6];
        assert_eq!(transport.peek(&mut room).await.expect("bytes"), 6);
        assert_eq!(transport.take_seen(&mut room).expect("bytes"), 6);
        assert_eq!(&room, b"header");
        drop(theirs);
        let mut rest = Vec::new();
        transport.read_to_end(&mut rest).await.expect("the rest");
        assert_eq!(rest, b" and bytes");
        assert_eq!(transport.peek(&mut room).await.expect("the end"), 0);
    }
}
