//! The backend's side of a connection: our own TLS records, or a stream of payload, which is a
//! socket, TLS in rustls, or memory for a built-in backend.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream};

use super::secure::{SecureRecords, SecureStream, Secured};
use super::tunnels::passage::Passage;
use crate::deadline::Deadline;
use crate::relay::poll_discard;
use crate::sys::either::one_of_streams;
use crate::sys::socket::Socket;
use crate::wire::{Peer, Places, Transmission, poll_read_first};

#[derive(Debug)]
pub(crate) enum Upstream {
    Clear(Clear),
    /// Boxed: most backends have no TLS, and every idle connection would have room for it.
    Records(Box<SecureRecords>),
}

#[derive(Debug)]
pub(crate) enum Clear {
    Socket(Socket),
    Memory(DuplexStream),
    /// Boxed for the same reason.
    Secure(Box<SecureStream>),
    Tunnel(Box<Passage>),
}

impl From<Socket> for Upstream {
    fn from(socket: Socket) -> Self {
        Self::Clear(Clear::Socket(socket))
    }
}

impl From<DuplexStream> for Upstream {
    fn from(stream: DuplexStream) -> Self {
        Self::Clear(Clear::Memory(stream))
    }
}

impl From<Passage> for Upstream {
    fn from(passage: Passage) -> Self {
        Self::Clear(Clear::Tunnel(Box::new(passage)))
    }
}

impl From<Secured> for Upstream {
    fn from(secured: Secured) -> Self {
        match secured {
            Secured::Records(secure) => Self::Records(secure),
            Secured::Stream(secure) => Self::Clear(Clear::Secure(secure)),
        }
    }
}

impl Upstream {
    /// The kind of this side of the relay, as the log names it.
    pub(crate) fn side_name(&self) -> &'static str {
        match self {
            Self::Records(_) => "record",
            Self::Clear(Clear::Secure(_)) => "stream",
            Self::Clear(Clear::Tunnel(_)) => "tunnel",
            Self::Clear(Clear::Socket(_) | Clear::Memory(_)) => "plain",
        }
    }

    /// Closes with a reset, which the peer can tell from an orderly end, if this kind of stream has
    /// one.
    pub(crate) fn reset(self) {
        match self {
            Self::Records(secure) => secure.into_socket().reset(),
            Self::Clear(Clear::Socket(socket)) => socket.reset(),
            Self::Clear(Clear::Secure(secure)) => secure.into_socket().reset(),
            Self::Clear(Clear::Memory(stream)) => drop(stream),
            Self::Clear(Clear::Tunnel(passage)) => passage.reset(),
        }
    }

    /// Closes at once. With TLS, sends close_notify first if the socket has room for it.
    pub(crate) async fn close(self) {
        let goodbye = Deadline::after(Duration::ZERO);
        // An error here changes nothing: the socket is closed next.
        match self {
            Self::Records(mut secure) => {
                let _ = goodbye.bound(secure.records().close()).await;
            }
            Self::Clear(Clear::Secure(mut secure)) => {
                let _ = goodbye.bound(secure.shutdown()).await;
            }
            Self::Clear(Clear::Socket(_) | Clear::Memory(_) | Clear::Tunnel(_)) => {}
        }
    }

    /// Whether the backend has refused our certificate.
    pub(crate) fn has_refused_us(&self) -> bool {
        match self {
            Self::Records(secure) => secure.is_refused(),
            Self::Clear(stream) => stream.has_refused_us(),
        }
    }
}

impl Clear {
    /// Whether the backend has refused our certificate.
    pub(crate) fn has_refused_us(&self) -> bool {
        match self {
            Self::Secure(secure) => secure.is_refused(),
            Self::Socket(_) | Self::Memory(_) | Self::Tunnel(_) => false,
        }
    }
}

one_of_streams!(Clear {
    Socket,
    Memory,
    Secure,
    Tunnel
});

impl Peer for Clear {
    fn has_failed(&self) -> bool {
        match self {
            Self::Tunnel(passage) => passage.has_failed(),
            Self::Socket(_) | Self::Memory(_) | Self::Secure(_) => false,
        }
    }

    fn poll_absorb(&mut self, cx: &mut Context<'_>) {
        if let Self::Tunnel(passage) = self {
            passage.poll_absorb(cx);
        }
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => Peer::poll_read_vectored(socket, cx, places),
            Self::Memory(_) | Self::Secure(_) | Self::Tunnel(_) => {
                poll_read_first(self, cx, places)
            }
        }
    }

    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Socket(socket) => socket.transmission(),
            Self::Memory(_) => None,
            Self::Tunnel(passage) => passage.transmission(),
            Self::Secure(secure) => secure.socket().transmission(),
        }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Secure(secure) => poll_discard(secure.socket(), cx),
            Self::Tunnel(passage) => passage.poll_discard(cx),
            Self::Socket(_) | Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }
}
