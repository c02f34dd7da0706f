//! A connected stream socket, TCP or Unix, with one interface for both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::readv;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::{self, TcpStream};
use tokio::time::sleep;

use super::either::one_of_streams;
use super::queue;
use super::unix_stream::UnixStream;
use crate::facts::Endpoint;
use crate::wire::{Peer, Places, Transmission, Wire, poll_read_first};

/// A TCP or Unix stream.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Closes so that the peer does not take it for a clean end.
    ///
    /// TCP sends a reset and drops what was not sent. The peer of a Unix socket sees a reset only if
    /// this side has unread bytes, and a clean end otherwise; see [`UnixStream::reset_on_close`].
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // Fails only if the peer has reset the connection already.
            let _ = stream.set_zero_linger();
        }
    }

    /// Waits for the first byte, or the end, without taking it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is taken.
    pub(crate) async fn first_byte(&self) -> io::Result<()> {
        // The runtime assumes that a new socket is readable, until a read finds that it is not. So read
        // first.
        match self.receive(&mut [0], RecvFlags::PEEK) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await,
            result => result.map(drop),
        }
    }

    /// Waits for the first bytes, and takes as many of them as are there, at most `most`; none at the
    /// end. It owns no buffer while it waits.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: bytes are taken only when it completes.
    pub(crate) async fn first_bytes(&self, most: usize) -> io::Result<Vec<u8>> {
        loop {
            match self.receive_once(most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                result => return result,
            }
        }
    }

    fn receive_once(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(most);
        let mut is_empty = false;
        let mut receive = |fd: BorrowedFd<'_>| {
            match recv(fd, spare_capacity(&mut bytes), RecvFlags::empty())?.1 {
                // As in `poll_read_vectored`.
                read if 0 < read && read < most => {
                    is_empty = true;
                    Err(io::ErrorKind::WouldBlock.into())
                }
                read => Ok(read),
            }
        };
        let received = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
        };
        match received {
            Err(error) if !is_empty => Err(error),
            Ok(_) | Err(_) => Ok(bytes),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits for bytes and copies them without taking them. Returns their number; 0 is the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is taken.
    pub(crate) async fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.receive(room, RecvFlags::PEEK) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Takes bytes that [`Socket::peek`] has seen.
    pub(crate) fn take(&self, room: &mut [u8]) -> io::Result<usize> {
        self.receive(room, RecvFlags::empty())
    }

    fn receive(&self, room: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let mut receive = |fd: BorrowedFd<'_>| Ok(recv(fd, &mut *room, flags)?.1);
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || receive(stream.as_fd())),
        }
    }

    /// Reads into the places, one after the other. Returns the number of bytes; 0 is the end.
    pub(crate) fn poll_read_vectored(
        &self,
        cx: &mut Context<'_>,
        mut places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = places.room();
        loop {
            let mut rest = None;
            let mut read = |fd: BorrowedFd<'_>| match readv(fd, &mut places.all())? {
                // A short read: the socket is empty now. WouldBlock tells tokio so, as tokio's own
                // reads do. Then the next read waits for more bytes instead of a system call that finds
                // none.
                read if 0 < read && read < room => {
                    rest = Some(read);
                    Err(io::ErrorKind::WouldBlock.into())
                }
                read => Ok(read),
            };
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd()))
                }
            };
            match (result, rest) {
                (_, Some(read)) => return Poll::Ready(Ok(read)),
                (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => {}
                (result, None) => return Poll::Ready(result),
            }
        }
    }

    /// Writes bytes that TCP sends in one segment with those that follow, or with its FIN, or after 200
    /// ms at the latest (`MSG_MORE`, send(2)).
    pub(crate) fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(stream) = self else {
            return Pin::new(self).poll_write(cx, bytes);
        };
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let write = || Ok(send(stream.as_fd(), bytes, flags)?);
            match stream.try_io(Interest::WRITABLE, write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// What was sent and not yet acknowledged. A Unix socket has delivered all that it accepted; it
    /// reports only whether a claimer reads at all.
    pub(crate) fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Tcp(stream) => queue::of_tcp(stream),
            Self::Unix(stream) => stream.transmission(),
        }
    }

    /// Whether the socket has an error to report, such as a reset.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(stream) => condition(stream).contains(PollFlags::ERR),
            Self::Unix(stream) => condition(&**stream).contains(PollFlags::ERR),
        }
    }

    /// Whether a peer that has left had read everything that was sent to it.
    ///
    /// A Unix socket knows: otherwise it has a pending error. TCP does not know, so the answer is
    /// false.
    pub(crate) fn was_read_out(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(stream) => matches!(stream.take_error(), Ok(None)),
        }
    }

    pub(crate) fn local(&self) -> Option<Endpoint> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(Endpoint::Tcp),
            Self::Unix(stream) => unix_endpoint(stream.local_addr()),
        }
    }
}

impl Peer for Socket {
    fn has_failed(&self) -> bool {
        Self::has_failed(self)
    }

    fn transmission(&mut self) -> Option<Transmission> {
        Self::transmission(self)
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) if stream.resets_on_close() => poll_read_first(self, cx, places),
            Self::Tcp(_) | Self::Unix(_) => Self::poll_read_vectored(self, cx, places),
        }
    }
}

impl Wire for Socket {
    fn was_read_out(&self) -> bool {
        Self::was_read_out(self)
    }

    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write_more(self, cx, bytes)
    }
}

/// Whether the peer of a Unix stream has closed it completely. A peer that closed only its writing side
/// may still read.
pub(crate) fn is_hung_up(stream: impl AsFd) -> bool {
    condition(stream).contains(PollFlags::HUP)
}

/// Completes when the peer of a Unix stream has closed it completely. tokio has no separate event for
/// that, so this polls every second.
pub(crate) async fn hung_up(stream: &net::UnixStream) {
    while !is_hung_up(stream) {
        sleep(LOOK_EVERY).await;
    }
}

/// The conditions of a socket that poll(2) reports always.
fn condition(socket: impl AsFd) -> PollFlags {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&now)) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

fn unix_endpoint(address: io::Result<tokio::net::unix::SocketAddr>) -> Option<Endpoint> {
    Some(Endpoint::Unix(address.ok()?.as_pathname()?.to_owned()))
}

one_of_streams!(Socket { Tcp, Unix });

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_half_close_is_no_hang_up() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(!is_hung_up(&ours));
        theirs
            .shutdown(std::net::Shutdown::Write)
            .expect("a half-close");
        assert!(!is_hung_up(&ours));
        drop(theirs);
        assert!(is_hung_up(&ours));
    }
}
