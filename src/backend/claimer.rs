//! Who comes to the rendezvous for a connection: a worker at the gate, or a handler in-process.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::socket_peercred;
use socket2::SockRef;
use tokio::sync::oneshot;

use crate::facts::Facts;
use crate::limits::Slot;
use crate::rendezvous::wire::ok_line;
use crate::sys::socket::is_hung_up;

/// A claimer, before and after it was told that a connection is its own.
#[derive(Debug)]
pub(crate) enum Claimer {
    /// A client of the gate. Its socket, non-blocking and with its answer yet to come, is to
    /// become the connection's plaintext; its slot is its place among the gate's clients.
    Worker(UnixStream, Slot),
    /// A handler in this process, which gets one end of a socket pair.
    Handler(oneshot::Sender<HandedOver>),
    /// It has been told; this end of its stream is the relay's.
    Answered(Answered),
}

/// The relay's end of the stream of a claimer that has been told.
#[derive(Debug)]
pub(crate) struct Answered {
    stream: UnixStream,
    /// The worker's answer is in its socket, which may send so many bytes at a time once the
    /// worker has read it. `None` for a handler, which was given its end directly.
    unread: Option<usize>,
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
    /// Does not block: the answer is the first thing that is written to its socket, whose buffer
    /// is made for it.
    pub(crate) fn tell(self, facts: &Facts) -> Result<Self, Self> {
        match self {
            Self::Worker(stream, slot) => match answer(&stream, facts) {
                Ok(buffer) => Ok(Self::Answered(Answered {
                    stream,
                    unread: Some(buffer),
                })),
                Err(_) => Err(Self::Worker(stream, slot)),
            },
            Self::Handler(handler) => match pair() {
                Ok((ours, theirs)) => {
                    let handed = HandedOver {
                        facts: facts.clone(),
                        stream: theirs,
                    };
                    let told = Self::Answered(Answered {
                        stream: ours,
                        unread: None,
                    });
                    match handler.send(handed) {
                        Ok(()) => Ok(told),
                        // The handler is gone, and its sender is used up.
                        Err(_) => Err(told),
                    }
                }
                Err(_) => Err(Self::Handler(handler)),
            },
            told @ Self::Answered(_) => Err(told),
        }
    }

    /// Whether somebody is still there to be told.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Worker(stream, _) | Self::Answered(Answered { stream, .. }) => {
                !is_hung_up(stream)
            }
            Self::Handler(handler) => !handler.is_closed(),
        }
    }

    /// Whether this is a worker of that process.
    pub(crate) fn is_of(&self, pid: i32) -> bool {
        match self {
            Self::Worker(stream, _) => process(stream) == Some(pid),
            Self::Handler(_) | Self::Answered(_) => false,
        }
    }

    /// The relay's end, once told.
    pub(crate) fn into_answered(self) -> Option<Answered> {
        match self {
            Self::Answered(told) => Some(told),
            Self::Worker(..) | Self::Handler(_) => None,
        }
    }
}

impl Answered {
    /// The worker's process.
    pub(crate) fn process(&self) -> Option<i32> {
        self.unread.and_then(|_| process(&self.stream))
    }

    /// Waits until the claimer has read that the connection is its own, and gives its stream.
    ///
    /// Until then not a byte of the connection is sent to it. So a worker that dies before it
    /// knew has served nothing, and the connection can go to another.
    ///
    /// # Errors
    ///
    /// The worker died without having read its answer.
    pub(crate) async fn until_read(self) -> io::Result<tokio::net::UnixStream> {
        let stream = tokio::net::UnixStream::from_std(self.stream)?;
        if let Some(buffer) = self.unread {
            // The socket has room for nothing but the answer: it is writable once that was
            // read, or when the worker has closed.
            stream.writable().await?;
            // Closing over unread bytes is a reset (unix(7)); closing after reading is not.
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            SockRef::from(&stream).set_send_buffer_size(buffer)?;
        }
        Ok(stream)
    }
}

/// Writes the answer in such a way that the socket is writable again when it was read.
///
/// A Unix socket counts as writable while a quarter of its send buffer holds all that its peer has
/// not read (unix_writable() in the kernel), with the kernel's own bookkeeping counted in. The
/// buffer is made just large enough for the line, or is the smallest there is, of which a quarter
/// is less than what [`SHORTEST_PIECE`] takes up. Returns the buffer's size from before.
fn answer(stream: &UnixStream, facts: &Facts) -> io::Result<usize> {
    let socket = SockRef::from(stream);
    // The kernel reports double of what is set (socket(7)).
    let buffer = socket.send_buffer_size()? / 2;
    let mut line = ok_line(facts);
    if line.len() < SHORTEST_PIECE {
        // White space after a JSON text is part of it (RFC 8259 §2).
        line.insert_str(line.len() - 1, &" ".repeat(SHORTEST_PIECE - line.len()));
    }
    // Just enough to take the line in one piece: half of the buffer less 64 (unix(7)).
    socket.set_send_buffer_size(line.len() + 64)?;
    if line.len() <= LONGEST_PIECE {
        write_whole(stream, line.as_bytes())?;
        return Ok(buffer);
    }
    // The kernel parts it, and forgets each piece that was read. The last one could be next to
    // nothing: the end is one of its own.
    let (start, end) = line.as_bytes().split_at(line.len() - SHORTEST_PIECE);
    write_whole(stream, start)?;
    write_whole(stream, end)?;
    socket.set_send_buffer_size(SMALLEST)?;
    Ok(buffer)
}

/// Who connected, as the kernel says it.
fn process(stream: &UnixStream) -> Option<i32> {
    let credentials = socket_peercred(stream).ok()?;
    Some(credentials.pid.as_raw_nonzero().get())
}

fn write_whole(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// With less than 385 bytes current kernels use a small buffer, four of which fit the smallest
/// send buffer; the next larger does not. See [`answer`].
const SHORTEST_PIECE: usize = 512;

/// Less than what current kernels put into one piece.
const LONGEST_PIECE: usize = 32 * 1024;

/// The kernel makes it the least that it allows (socket(7)).
const SMALLEST: usize = 0;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::limits::Gauge;

    /// A worker that has been told, and its own end.
    fn told(listener: &str) -> (Answered, UnixStream) {
        let (ours, theirs) = pair().expect("a pair");
        let slot = Gauge::new(None).take().expect("unlimited");
        let mut facts = Facts::new("app");
        facts.listener = Some(listener.into());
        let told = Claimer::Worker(ours, slot).tell(&facts);
        (told.expect("told").into_answered().expect("told"), theirs)
    }

    /// Long enough for a wrong readiness to show; it decides nothing when all is right.
    const MOMENT: Duration = Duration::from_millis(50);

    /// Of up to some 36,000 bytes the kernel makes one piece, and of more a last one of any length.
    const LENGTHS: [usize; 11] = [
        0, 300, 1_000, 2_000, 4_000, 8_000, 16_000, 36_000, 36_400, 40_000, 100_000,
    ];

    #[tokio::test]
    async fn a_worker_has_the_connection_once_it_has_read_the_whole_answer() {
        for length in LENGTHS {
            let (told, mut theirs) = told(&"x".repeat(length));
            let mut until_read = std::pin::pin!(told.until_read());
            let unread = timeout(MOMENT, &mut until_read).await;
            assert!(unread.is_err(), "nothing of {length} read");
            let mut answer = vec![0; length + 1_000];
            let part = theirs.read(&mut answer[..length.max(500)]).expect("a part");
            let unread = timeout(MOMENT, &mut until_read).await;
            assert!(unread.is_err(), "{part} of {length} read");
            let whole = part + theirs.read(&mut answer[part..]).expect("the rest");
            assert_eq!(answer[whole - 1], b'\n');
            let stream = until_read.await.expect("all read");
            // The buffer is as it was: room for far more than an answer.
            assert!(SockRef::from(&stream).send_buffer_size().expect("a size") > 100_000);
        }
    }

    #[tokio::test]
    async fn a_worker_that_dies_over_its_unread_answer_has_nothing() {
        let (told, mut theirs) = told("https");
        theirs.read_exact(&mut [0; 100]).expect("a part");
        drop(theirs);
        let error = told.until_read().await.expect_err("unread");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_worker_that_read_its_answer_and_closed_has_had_the_connection() {
        let (told, mut theirs) = told("https");
        assert!(theirs.read(&mut [0; 4096]).expect("the answer") > 0);
        drop(theirs);
        assert!(told.until_read().await.is_ok());
    }
}
