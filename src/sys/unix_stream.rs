//! A Unix stream whose first write does not wait for the runtime, and whose close can be a reset.

use std::io::{self, IoSliceMut};
use std::mem;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::readv;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net;

use super::queue;
use crate::wire::Transmission;

/// A Unix stream. Everything else behaves as in tokio.
#[derive(Debug)]
pub(crate) struct UnixStream {
    stream: net::UnixStream,
    /// Nothing was written yet, and the runtime may not know yet that there is room.
    is_new: bool,
    peer: Peer,
}

/// What this side expects of the peer.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Any,
    /// It may hang: it has read nothing yet. At the last look, this much memory held unread bytes.
    Unproven {
        unread: u32,
    },
    /// A close has to be a reset for the peer. For that, `withheld` bytes that were read already are
    /// left in the socket.
    ///
    /// If a Unix stream is closed with unread bytes, the kernel resets it: the peer reads what was sent
    /// to it, and then gets `ECONNRESET` instead of the end. There is no other way to signal that a
    /// stream was cut short.
    Warned {
        withheld: u32,
    },
}

impl UnixStream {
    /// A stream that this runtime has just begun to watch. It has room for a write, but the runtime
    /// learns that only in its next turn, and tokio would delay the first write until then.
    pub(crate) fn fresh(stream: net::UnixStream) -> Self {
        Self {
            is_new: true,
            ..Self::from(stream)
        }
    }

    /// A stream of a worker that has to prove that it reads. Until it does, [`Self::transmission`]
    /// reports whether bytes wait for it.
    pub(crate) fn claimed(stream: net::UnixStream) -> Self {
        Self {
            peer: Peer::Unproven { unread: 0 },
            ..Self::from(stream)
        }
    }

    /// From now on a close resets the stream, until [`Self::poll_shutdown`] has told the peer the end.
    /// This works only if the peer has sent bytes since this call.
    ///
    /// # Errors
    ///
    /// The kernel is older than Linux 3.4, or forbids it. Then a close is a clean end.
    pub(crate) fn reset_on_close(&mut self) -> io::Result<()> {
        queue::peek_from(&self.stream, 0)?;
        self.peer = Peer::Warned { withheld: 0 };
        Ok(())
    }

    /// Whether a close would be a reset. Then only [`AsyncRead`] may read, because it leaves a byte in
    /// the socket.
    pub(crate) fn resets_on_close(&self) -> bool {
        matches!(self.peer, Peer::Warned { .. })
    }

    /// Reads, and leaves the last byte in the socket, after the bytes that are `withheld`.
    ///
    /// It costs a second system call and a second copy. The withheld byte keeps its kernel buffer
    /// alive, which counts against the peer's send buffer.
    fn poll_read_withholding(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        withheld: u32,
    ) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let read = loop {
            ready!(self.stream.poll_read_ready(cx))?;
            // Each peek starts where the last one ended.
            let peek = || Ok(recv(self.stream.as_fd(), &mut *room, RecvFlags::PEEK)?.1);
            match self.stream.try_io(Interest::READABLE, peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        if read > 0 {
            // Reads the same bytes into the same place.
            let (mut stale, fresh) = ([0], &mut room[..read - 1]);
            let stale = IoSliceMut::new(&mut stale[..withheld.min(1) as usize]);
            let taken = readv(self.stream.as_fd(), &mut [stale, IoSliceMut::new(fresh)])?;
            let withheld = withheld + read as u32 - taken as u32;
            self.peer = Peer::Warned { withheld };
            buf.advance(read);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the withheld bytes out of the socket, so that a close is a clean end again.
    fn release(&mut self) {
        if let Peer::Warned { mut withheld } = mem::replace(&mut self.peer, Peer::Any) {
            let mut room = [0; 16];
            while withheld > 0
                && let room = &mut room[..withheld.min(16) as usize]
                && let Ok((_, taken @ 1..)) = recv(self.stream.as_fd(), room, RecvFlags::DONTWAIT)
            {
                withheld -= taken as u32;
            }
        }
    }

    /// Whether bytes wait for a peer that has not read its first byte yet.
    pub(crate) fn transmission(&mut self) -> Option<Transmission> {
        let Peer::Unproven { unread: before } = self.peer else {
            return None;
        };
        let unread = queue::unread(&self.stream)?;
        if unread < before {
            self.peer = Peer::Any;
            return None;
        }
        self.peer = Peer::Unproven { unread };
        Some(Transmission {
            // A close destroys none of the bytes.
            is_unacknowledged: false,
            acknowledged: 0,
            is_due: unread > 0,
            silent_for: Duration::MAX,
        })
    }

    fn inner(&mut self) -> Pin<&mut net::UnixStream> {
        Pin::new(&mut self.stream)
    }
}

impl From<net::UnixStream> for UnixStream {
    fn from(stream: net::UnixStream) -> Self {
        Self {
            stream,
            is_new: false,
            peer: Peer::Any,
        }
    }
}

impl Deref for UnixStream {
    type Target = net::UnixStream;

    fn deref(&self) -> &net::UnixStream {
        &self.stream
    }
}

impl AsyncRead for UnixStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.peer {
            Peer::Any | Peer::Unproven { .. } => self.inner().poll_read(cx, buf),
            Peer::Warned { withheld } => self.poll_read_withholding(cx, buf, withheld),
        }
    }
}

impl AsyncWrite for UnixStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let is_new = mem::take(&mut self.is_new);
        match self.inner().poll_write(cx, buf) {
            // If there is no room, the task is woken by the event that is still to come.
            Poll::Pending if is_new => match send(self.as_fd(), buf, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::AGAIN) => Poll::Pending,
                sent => Poll::Ready(Ok(sent?)),
            },
            polled => polled,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner().poll_shutdown(cx))?;
        // The peer was told the end, so a close must not reset any more.
        self.release();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Plain;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Both ends. The runtime has had no turn since.
    fn pair() -> (UnixStream, Plain) {
        let (ours, theirs) = Plain::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        let ours = net::UnixStream::from_std(ours).expect("a runtime");
        (UnixStream::fresh(ours), theirs)
    }

    fn write(stream: &mut UnixStream) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(stream).poll_write(&mut cx, b"words")
    }

    #[tokio::test]
    async fn the_first_write_does_not_wait_for_the_runtime() {
        let (mut ours, _theirs) = pair();
        assert!(matches!(write(&mut ours), Poll::Ready(Ok(5))));
        assert!(write(&mut ours).is_pending(), "the next ones do");
        ours.writable().await.expect("a turn");
        assert!(matches!(write(&mut ours), Poll::Ready(Ok(5))));
    }

    #[tokio::test]
    async fn a_first_write_without_room_waits() {
        let (mut ours, theirs) = pair();
        let filled = std::iter::repeat_with(|| send(ours.as_fd(), &[0; 1024], SendFlags::DONTWAIT));
        let filled: usize = filled.map_while(Result::ok).sum();
        assert!(write(&mut ours).is_pending());
        let reader = std::thread::spawn(move || {
            io::Read::read_exact(&mut &theirs, &mut vec![0; filled]).expect("all of it");
            theirs
        });
        let written = std::future::poll_fn(|cx| Pin::new(&mut ours).poll_write(cx, b"words"));
        assert_eq!(written.await.expect("room"), 5);
        drop(reader.join().expect("no panic"));
    }

    #[tokio::test]
    async fn a_first_write_to_a_closed_peer_is_a_broken_pipe() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let Poll::Ready(Err(error)) = write(&mut ours) else {
            panic!("somebody has them");
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    /// Both ends. Ours resets when it is closed.
    fn resetting() -> (UnixStream, Plain) {
        let (mut ours, theirs) = pair();
        ours.reset_on_close().expect("a kernel that can");
        (ours, theirs)
    }

    async fn read(stream: &mut UnixStream) -> Vec<u8> {
        let mut read = Vec::new();
        stream.read_buf(&mut read).await.expect("no failure");
        read
    }

    #[tokio::test]
    async fn a_close_without_an_end_is_a_reset_after_the_written_bytes() {
        let (mut ours, mut theirs) = resetting();
        theirs.write_all(b"a request").expect("room");
        assert_eq!(read(&mut ours).await, b"a request");
        assert!(write(&mut ours).is_ready());
        drop(ours);
        theirs.read_exact(&mut [0; 5]).expect("what was written");
        let end = theirs.read(&mut [0; 5]).expect_err("not an end");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_close_after_the_end_is_no_reset() {
        let (mut ours, mut theirs) = resetting();
        theirs.write_all(b"a request").expect("room");
        assert_eq!(read(&mut ours).await, b"a request");
        ours.shutdown().await.expect("an open stream");
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 5]).expect("an end"), 0);
    }

    #[tokio::test]
    async fn every_byte_is_read_once_at_any_chunk_size() {
        let (mut ours, theirs) = resetting();
        let words: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        let said = words.clone();
        let writer = std::thread::spawn(move || {
            for (length, piece) in said
                .chunks(40_000)
                .zip([1, 2, 3, 7, 100, 4096, 9999, 40_000])
            {
                length.chunks(piece).for_each(|piece| {
                    (&theirs).write_all(piece).expect("a reader");
                });
            }
            theirs.shutdown(std::net::Shutdown::Write).expect("an end");
            theirs
        });
        let mut heard = Vec::new();
        let mut room = [0; 5000];
        loop {
            let size = 1 + heard.len() % room.len();
            match ours.read(&mut room[..size]).await.expect("no failure") {
                0 => break,
                read => heard.extend_from_slice(&room[..read]),
            }
            assert!(matches!(ours.peer, Peer::Warned { withheld: 1 }));
        }
        assert!(heard == words, "{} bytes", heard.len());
        // The end is read again and again, and the last byte is still withheld for the reset.
        assert_eq!(ours.read(&mut room).await.expect("the end"), 0);
        assert!(matches!(ours.peer, Peer::Warned { withheld: 1 }));
        drop(writer.join().expect("no panic"));
    }
}
