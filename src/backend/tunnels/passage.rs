//! A stream in one of our tunnels, as the relay reads and writes it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shelf::Berth;
use crate::tunnel::TunnelStream;
use crate::wire::{Peer, Transmission};

/// A stream and its place in a tunnel. Dropping it before both directions have ended resets the stream.
pub(crate) struct Passage {
    stream: TunnelStream,
    /// Given back after the stream is dropped: then the peer has room for another one. `None` if the tunnel
    /// is not one of a shelf.
    _berth: Option<Berth>,
}

impl Passage {
    pub(in crate::backend) fn new(stream: TunnelStream, berth: Option<Berth>) -> Self {
        Self {
            stream,
            _berth: berth,
        }
    }

    /// Ends the stream so that the peer does not take it for a clean end.
    pub(crate) fn reset(self) {
        self.stream.reset();
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TunnelStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Peer for Passage {
    fn has_failed(&self) -> bool {
        self.stream.has_failed()
    }

    fn transmission(&mut self) -> Option<Transmission> {
        self.stream.transmission()
    }

    /// Never ready: after the end of the answer, what is written has to leave as well. If the server reads nothing more,
    /// the next write says so.
    fn poll_discard(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        self.stream.poll_absorb(cx);
    }
}

impl AsyncRead for Passage {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Passage {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Passage").field(&self.stream).finish()
    }
}
