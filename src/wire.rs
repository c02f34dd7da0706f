//! A client's socket, as far as TLS cares.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

/// What TLS asks of the stream under it.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Whether the connection is known to have failed, without reading from it.
    fn has_failed(&self) -> bool;

    /// Whether a peer that is gone had read all that it was sent.
    fn was_read_out(&self) -> bool;

    /// Writes bytes that may wait for those that follow, or for the end, to go in one segment with
    /// them; a fifth of a second at most.
    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }
}

#[cfg(any(test, fuzzing))]
impl Wire for tokio::io::DuplexStream {
    fn has_failed(&self) -> bool {
        false
    }

    fn was_read_out(&self) -> bool {
        false
    }
}
