//! The plain stream at the backend's end of a relay: a socket, or memory for what is built in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::sys::socket::Socket;

#[derive(Debug)]
pub(crate) enum Plain {
    Socket(Socket),
    Memory(DuplexStream),
}

impl Plain {
    /// Closes so that the peer can tell it from an end, where the stream has a way to say so.
    pub(crate) fn reset(self) {
        match self {
            Self::Socket(socket) => socket.reset(),
            Self::Memory(stream) => drop(stream),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Plain::Socket(socket) => {
                let $stream = Pin::new(socket);
                $call
            }
            Plain::Memory(memory) => {
                let $stream = Pin::new(memory);
                $call
            }
        }
    };
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}
