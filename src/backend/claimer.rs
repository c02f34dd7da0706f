//! Who comes to the rendezvous for a connection: a worker at the gate, or a handler in-process.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use tokio::sync::oneshot;

use crate::facts::Facts;
use crate::limits::Slot;
use crate::rendezvous::wire::ok_line;
use crate::sys::unix::is_hung_up;

/// A claimer, before and after it was told that a connection is its own.
#[derive(Debug)]
pub(crate) enum Claimer {
    /// A client of the gate. Its socket, non-blocking and with its answer yet to come, is to
    /// become the connection's plaintext; its slot is its place among the gate's clients.
    Worker(UnixStream, Slot),
    /// A handler in this process, which gets one end of a socket pair.
    Handler(oneshot::Sender<HandedOver>),
    /// It has been told; this end of its stream is the relay's.
    Told(UnixStream),
}

/// What an in-process handler gets.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub facts: Facts,
    pub stream: UnixStream,
}

impl Claimer {
    /// Tells the claimer that the connection is its own; gives it back if it is gone.
    ///
    /// Does not block: the answer is less than a kilobyte, and the first thing that is written
    /// to a socket with room for two hundred.
    pub(crate) fn tell(self, facts: &Facts) -> Result<Self, Self> {
        match self {
            Self::Worker(mut stream, slot) => {
                let line = ok_line(facts);
                match stream.write(line.as_bytes()) {
                    Ok(written) if written == line.len() => Ok(Self::Told(stream)),
                    _ => Err(Self::Worker(stream, slot)),
                }
            }
            Self::Handler(handler) => match pair() {
                Ok((ours, theirs)) => {
                    let handed = HandedOver {
                        facts: facts.clone(),
                        stream: theirs,
                    };
                    match handler.send(handed) {
                        Ok(()) => Ok(Self::Told(ours)),
                        // The handler is gone, and its sender is used up.
                        Err(_) => Err(Self::Told(ours)),
                    }
                }
                Err(_) => Err(Self::Handler(handler)),
            },
            Self::Told(stream) => Err(Self::Told(stream)),
        }
    }

    /// Whether somebody is still there to be told.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Worker(stream, _) | Self::Told(stream) => !is_hung_up(stream),
            Self::Handler(handler) => !handler.is_closed(),
        }
    }

    /// The relay's end, once told.
    pub(crate) fn into_stream(self) -> Option<UnixStream> {
        match self {
            Self::Told(stream) => Some(stream),
            Self::Worker(..) | Self::Handler(_) => None,
        }
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours, theirs))
}
