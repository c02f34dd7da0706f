//! The stream at the backend's end of a relay: a socket, one with TLS, or memory for what is built in.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream};

use super::secure::Secure;
use crate::deadline::Deadline;
use crate::relay::poll_discard;
use crate::sys::either::one_of_streams;
use crate::sys::socket::Socket;
use crate::wire::{Peer, Transmission, poll_read_first};

#[derive(Debug)]
pub(crate) enum Plain {
    Socket(Socket),
    Memory(DuplexStream),
    /// Boxed: most backends have no TLS, and every idle connection has room for this.
    Secure(Box<Secure>),
}

impl Plain {
    /// Closes so that the peer can tell it from an end, where the stream has a way to say so.
    pub(crate) fn reset(self) {
        match self {
            Self::Socket(socket) => socket.reset(),
            Self::Memory(stream) => drop(stream),
            Self::Secure(secure) => secure.into_socket().reset(),
        }
    }

    /// Closes at once; with TLS it says so first, if there is room for that in the socket.
    pub(crate) async fn close(self) {
        if let Self::Secure(mut secure) = self {
            // Whatever it says, the socket is closed next.
            let _ = Deadline::after(Duration::ZERO)
                .bound(secure.shutdown())
                .await;
        }
    }

    /// Whether the backend has refused our certificate.
    pub(crate) fn has_refused_us(&self) -> bool {
        match self {
            Self::Secure(secure) => secure.is_refused(),
            Self::Socket(_) | Self::Memory(_) => false,
        }
    }
}

one_of_streams!(Plain {
    Socket,
    Memory,
    Secure
});

impl Peer for Plain {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_read_vectored(cx, places),
            Self::Memory(_) | Self::Secure(_) => poll_read_first(self, cx, places),
        }
    }

    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Socket(socket) => socket.transmission(),
            Self::Memory(_) => None,
            Self::Secure(secure) => secure.socket().transmission(),
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Secure(secure) => poll_discard(secure.socket(), cx),
            Self::Socket(_) | Self::Memory(_) => Poll::Ready(()),
        }
    }
}
