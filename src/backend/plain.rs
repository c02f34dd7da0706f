//! The plain stream at the backend's end of a relay: a socket, or memory for what is built in.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll};

use tokio::io::DuplexStream;

use crate::relay::record::ReadVectored;
use crate::sys::either::one_of_streams;
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

one_of_streams!(Plain { Socket, Memory });

impl ReadVectored for Plain {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(socket) => socket.poll_read_vectored(cx, places),
            Self::Memory(stream) => stream.poll_read_vectored(cx, places),
        }
    }
}

impl ReadVectored for DuplexStream {}
