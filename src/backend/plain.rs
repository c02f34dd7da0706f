//! The plain stream at the backend's end of a relay: a socket, or memory for what is built in.

use tokio::io::DuplexStream;

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
