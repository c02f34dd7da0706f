//! A Unix stream, whose first write need not wait for the runtime.

use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net;

use super::queue;
use crate::wire::Transmission;

/// A Unix stream; what is not here is as tokio has it.
#[derive(Debug)]
pub(crate) struct UnixStream {
    stream: net::UnixStream,
    /// Nothing was written yet, and the runtime may not know that there is room.
    is_new: bool,
    reader: Reader,
}

/// What is known of a peer that may be hung.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// It is not looked at.
    Trusted,
    /// It has read nothing yet; at the last look so much waited for it.
    Unproven { unread: u32 },
}

impl UnixStream {
    /// One that this runtime has only begun to watch. It has room, of which the runtime hears with its
    /// next turn; tokio would let the first words wait until then.
    pub(crate) fn fresh(stream: net::UnixStream) -> Self {
        Self {
            stream,
            is_new: true,
            reader: Reader::Trusted,
        }
    }

    /// One of a worker that has to show that it reads: until it has, [`Self::transmission`] says for how
    /// long it has not.
    pub(crate) fn claimed(stream: net::UnixStream) -> Self {
        Self {
            stream,
            is_new: false,
            reader: Reader::Unproven { unread: 0 },
        }
    }

    /// Says of a peer that has yet to read its first byte whether bytes wait for it.
    pub(crate) fn transmission(&mut self) -> Option<Transmission> {
        let Reader::Unproven { unread: before } = self.reader else {
            return None;
        };
        let unread = queue::unread(&self.stream)?;
        if unread < before {
            self.reader = Reader::Trusted;
            return None;
        }
        self.reader = Reader::Unproven { unread };
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
            reader: Reader::Trusted,
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
        self.inner().poll_read(cx, buf)
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
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Plain;
    use std::task::Waker;

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
}
