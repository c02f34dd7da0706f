//! The taker of a connection at the rendezvous: a worker at the gate or in a tunnel, or a handler in this process.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::socket_peercred;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::network_worker::{NetworkWorker, Promise, WorkerHost};
use crate::facts::Facts;
use crate::id::Id;
use crate::limits::Slot;
use crate::rendezvous::wire::ok_line;
use crate::sys::socket::is_hung_up;

/// A claimer, before and after it is told that it has a connection.
#[derive(Debug)]
pub(crate) enum Claimer {
    /// A client of the gate. Its socket is non-blocking and has no answer yet; it becomes the
    /// connection's plaintext. The slot is its place among the gate's clients.
    Worker(UnixStream, Slot),
    /// A worker in a tunnel, whose stream becomes the connection's plaintext.
    Network(Box<NetworkWorker>),
    /// A handler in this process, which gets one end of a socket pair.
    Handler(oneshot::Sender<HandedOver>),
    /// A claimer that was told. The relay owns this end of its stream.
    Answered(Answered),
    /// A worker in a tunnel that was told.
    Promised(Promise),
}

/// Who is at fault when a worker hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Culprit {
    /// A local process, by its id.
    Process(i32),
    /// The host at the other end of a tunnel, by the connection that carries it.
    Tunnel(Id),
}

/// The relay's end of the stream of a claimer that was told.
#[derive(Debug)]
pub(crate) struct Answered {
    stream: UnixStream,
    /// The answer is in the worker's socket. This is the size of the send buffer in bytes, to be
    /// restored once the worker has read the answer. `None` for a handler, which gets its end
    /// directly.
    unread: Option<usize>,
}

/// What an in-process handler gets.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub facts: Facts,
    pub stream: UnixStream,
}

impl Claimer {
    /// Tells the claimer that it has the connection, or returns the claimer if it is gone.
    ///
    /// This does not block: the answer is the first write to the socket, and fits its send buffer.
    pub(crate) fn tell(self, facts: &Facts) -> Result<Self, Self> {
        match self {
            Self::Worker(stream, slot) => match answer(&stream, facts) {
                Ok(buffer) => Ok(Self::Answered(Answered {
                    stream,
                    unread: Some(buffer),
                })),
                Err(_) => Err(Self::Worker(stream, slot)),
            },
            Self::Network(worker) => match worker.tell(facts) {
                Ok(promise) => Ok(Self::Promised(promise)),
                Err(worker) => Err(Self::Network(worker)),
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
                        // The handler is gone, and its sender was consumed.
                        Err(_) => Err(told),
                    }
                }
                Err(_) => Err(Self::Handler(handler)),
            },
            told @ (Self::Answered(_) | Self::Promised(_)) => Err(told),
        }
    }

    /// Whether the claimer still exists.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Worker(stream, _) | Self::Answered(Answered { stream, .. }) => {
                !is_hung_up(stream)
            }
            Self::Network(worker) => !worker.told.is_closed(),
            Self::Promised(_) => true,
            Self::Handler(handler) => !handler.is_closed(),
        }
    }

    /// Whether this is a worker that waits, of this process or tunnel.
    pub(crate) fn is_of(&self, culprit: Culprit) -> bool {
        match (self, culprit) {
            (Self::Worker(stream, _), Culprit::Process(pid)) => process(stream) == Some(pid),
            (Self::Network(worker), Culprit::Tunnel(id)) => worker.host.tunnel == id,
            _ => false,
        }
    }

    /// The host and the backend of a worker in a tunnel that waits.
    pub(crate) fn in_tunnel(&self) -> Option<(&WorkerHost, &str)> {
        match self {
            Self::Network(worker) => Some((&worker.host, &worker.backend)),
            _ => None,
        }
    }

    /// Whether this is a worker in a tunnel that is gone. Unlike [`Self::is_alive`], it makes no system call.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Network(worker) if worker.told.is_closed())
    }
}

impl Answered {
    /// The worker's process id.
    pub(crate) fn process(&self) -> Option<i32> {
        self.unread.and_then(|_| process(&self.stream))
    }

    /// Waits until the claimer has read that it has the connection, and returns its stream.
    ///
    /// Until then no byte of the connection is sent to the claimer. A worker that dies before that
    /// has served nothing, and the connection can go to another one.
    ///
    /// # Errors
    ///
    /// The worker died before it read its answer.
    pub(crate) async fn until_read(self) -> io::Result<tokio::net::UnixStream> {
        let stream = tokio::net::UnixStream::from_std(self.stream)?;
        if let Some(buffer) = self.unread {
            // The send buffer has room for nothing but the answer: the socket turns writable when
            // the answer is read, or when the worker closes.
            stream.writable().await?;
            // Closing with unread bytes causes a reset (unix(7)); closing after reading does not.
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            SockRef::from(&stream).set_send_buffer_size(buffer)?;
        }
        Ok(stream)
    }
}

/// Writes the answer so that the socket is writable again only after the worker has read it.
///
/// A Unix socket counts as writable while its unread bytes, with the kernel's bookkeeping, take up
/// at most a quarter of its send buffer (unix_writable() in the kernel). The buffer is set to the
/// size of the line, or to the minimum, a quarter of which is less than what [`SHORTEST_PIECE`]
/// takes up. Returns the previous size of the buffer in bytes.
fn answer(stream: &UnixStream, facts: &Facts) -> io::Result<usize> {
    let socket = SockRef::from(stream);
    // The kernel reports twice the value that was set (socket(7)).
    let buffer = socket.send_buffer_size()? / 2;
    let mut line = ok_line(facts);
    if line.len() < SHORTEST_PIECE {
        // White space after a JSON text is allowed (RFC 8259 §2).
        line.insert_str(line.len() - 1, &" ".repeat(SHORTEST_PIECE - line.len()));
    }
    // Just enough for the line in one piece: half of the buffer minus 64 (unix(7)).
    socket.set_send_buffer_size(line.len() + 64)?;
    if line.len() <= LONGEST_PIECE {
        write_whole(stream, line.as_bytes())?;
        return Ok(buffer);
    }
    // The kernel splits a long line, and releases each piece when it is read. The last piece could
    // be tiny, so the end of the line is written as a piece of its own.
    let (start, end) = line.as_bytes().split_at(line.len() - SHORTEST_PIECE);
    write_whole(stream, start)?;
    write_whole(stream, end)?;
    socket.set_send_buffer_size(SMALLEST)?;
    Ok(buffer)
}

/// The process id of the peer, from the kernel (SO_PEERCRED).
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

/// For less than 385 bytes current kernels use a small buffer, and four of these fit into the
/// smallest send buffer; the next larger size does not fit four times. See [`answer`].
const SHORTEST_PIECE: usize = 512;

/// Less than the most that current kernels put into one piece.
const LONGEST_PIECE: usize = 32 * 1024;

/// The kernel raises this to its minimum (socket(7)).
const SMALLEST: usize = 0;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::limits::Gauge;

    /// A worker that was told, and its own end.
    fn told(listener: &str) -> (Answered, UnixStream) {
        let (ours, theirs) = pair().expect("a pair");
        let slot = Gauge::new(None).take().expect("unlimited");
        let mut facts = Facts::new("app");
        facts.listener = Some(listener.into());
        match Claimer::Worker(ours, slot).tell(&facts) {
            Ok(Claimer::Answered(told)) => (told, theirs),
            other => panic!("{other:?}"),
        }
    }

    /// Long enough for a wrong readiness to show; a correct implementation never depends on it.
    const MOMENT: Duration = Duration::from_millis(50);

    /// The kernel makes one piece of up to about 36,000 bytes. A longer line ends in a piece of any
    /// length.
    const LENGTHS: [usize; 11] = [
        0, 300, 1_000, 2_000, 4_000, 8_000, 16_000, 36_000, 36_400, 40_000, 100_000,
    ];

    #[tokio::test]
    async fn a_worker_has_the_connection_after_it_has_read_the_whole_answer() {
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
            // The buffer has its old size again: room for far more than an answer.
            assert!(SockRef::from(&stream).send_buffer_size().expect("a size") > 100_000);
        }
    }

    #[tokio::test]
    async fn a_worker_that_dies_before_it_reads_its_answer_has_nothing() {
        let (told, mut theirs) = told("https");
        theirs.read_exact(&mut [0; 100]).expect("a part");
        drop(theirs);
        let error = told.until_read().await.expect_err("unread");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_worker_that_reads_its_answer_and_closes_has_had_the_connection() {
        let (told, mut theirs) = told("https");
        assert!(theirs.read(&mut [0; 4096]).expect("the answer") > 0);
        drop(theirs);
        assert!(told.until_read().await.is_ok());
    }
}
