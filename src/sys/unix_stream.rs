//! A Unix stream, whose first write need not wait for the runtime, and which can be closed so that its
//! peer can tell it from an end.

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

/// A Unix stream; what is not here is as tokio has it.
#[derive(Debug)]
pub(crate) struct UnixStream {
    stream: net::UnixStream,
    /// Nothing was written yet, and the runtime may not know that there is room.
    is_new: bool,
    peer: Peer,
}

/// What is minded about the peer.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Any,
    /// It may be hung: it has read nothing yet, and at the last look so much waited for it.
    Unproven {
        unread: u32,
    },
    /// A close is to be a reset for it, and so many bytes that were read are still in the socket.
    ///
    /// The kernel resets a Unix stream that is closed with unread bytes: its peer reads what it was sent,
    /// and then `ECONNRESET` in place of the end. Nothing else says that a stream was cut short.
    Warned {
        withheld: u32,
    },
}

impl UnixStream {
    /// One that this runtime has only begun to watch. It has room, of which the runtime hears with its
    /// next turn; tokio would let the first words wait until then.
    pub(crate) fn fresh(stream: net::UnixStream) -> Self {
        Self {
            is_new: true,
            ..Self::from(stream)
        }
    }

    /// One of a worker that has to show that it reads: until it has, [`Self::transmission`] says for how
    /// long it has not.
    pub(crate) fn claimed(stream: net::UnixStream) -> Self {
        Self {
            peer: Peer::Unproven { unread: 0 },
            ..Self::from(stream)
        }
    }

    /// From now on a close resets the stream, if the peer has said anything since, until
    /// [`Self::poll_shutdown`] has told it the end.
    ///
    /// # Errors
    ///
    /// The kernel is older than Linux 3.4, or forbids it: a close is an end then.
    pub(crate) fn reset_on_close(&mut self) -> io::Result<()> {
        queue::peek_from(&self.stream, 0)?;
        self.peer = Peer::Warned { withheld: 0 };
        Ok(())
    }

    /// Whether a close would be a reset: then it is read by [`AsyncRead`] alone, which leaves a byte.
    pub(crate) fn resets_on_close(&self) -> bool {
        matches!(self.peer, Peer::Warned { .. })
    }

    /// Reads, and leaves the last byte in the socket, behind what is `withheld`.
    ///
    /// It costs a second system call and a second copy. The byte keeps the buffer alive in which it came, of
    /// those that the kernel grants to the peer.
    fn poll_read_withholding(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        withheld: u32,
    ) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let read = loop {
            ready!(self.stream.poll_read_ready(cx))?;
            // Each peek begins where the last one ended.
            let peek = || Ok(recv(self.stream.as_fd(), &mut *room, RecvFlags::PEEK)?.1);
            match self.stream.try_io(Interest::READABLE, peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        if read > 0 {
            // The same bytes into the same place.
            let (mut stale, fresh) = ([0], &mut room[..read - 1]);
            let stale = IoSliceMut::new(&mut stale[..withheld.min(1) as usize]);
            let taken = readv(self.stream.as_fd(), &mut [stale, IoSliceMut::new(fresh)])?;
            let withheld = withheld + read as u32 - taken as u32;
            self.peer = Peer::Warned { withheld };
            buf.advance(read);
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves nothing in the socket that was read, so that a close is an end again.
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

    /// Says of a peer that has yet to read its first byte whether bytes wait for it.
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
            // A close destroys nothing of it.
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
            // Whoever waits is woken by the event that is still to come, should there be no room.
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
        // The peer was told the end: a reset would be a lie.
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

    /// Both ends; the runtime has had no turn since.
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
    async fn the_first_words_do_not_wait_for_the_runtime() {
        let (mut ours, _theirs) = pair();
        assert!(matches!(write(&mut ours), Poll::Ready(Ok(5))));
        assert!(write(&mut ours).is_pending(), "the next ones do");
        ours.writable().await.expect("a turn");
        assert!(matches!(write(&mut ours), Poll::Ready(Ok(5))));
    }

    #[tokio::test]
    async fn first_words_without_room_wait_for_it() {
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
    async fn first_words_to_nobody_are_a_broken_pipe() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let Poll::Ready(Err(error)) = write(&mut ours) else {
            panic!("somebody has them");
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    /// Both ends, of which ours resets when it is closed.
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
    async fn a_close_that_is_no_end_is_a_reset_behind_what_was_written() {
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
    async fn a_close_behind_the_end_is_none() {
        let (mut ours, mut theirs) = resetting();
        theirs.write_all(b"a request").expect("room");
        assert_eq!(read(&mut ours).await, b"a request");
        ours.shutdown().await.expect("an open stream");
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 5]).expect("an end"), 0);
    }

    #[tokio::test]
    async fn every_byte_is_read_once_however_it_comes() {
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
        // The end comes again and again, and the last byte is still to be reset by.
        assert_eq!(ours.read(&mut room).await.expect("the end"), 0);
        assert!(matches!(ours.peer, Peer::Warned { withheld: 1 }));
        drop(writer.join().expect("no panic"));
    }
}
