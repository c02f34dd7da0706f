//! Streams with a behaviour that sockets and TLS may have, one habit each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

macro_rules! reads_as_its_inner_stream {
    ($name:ident) => {
        impl<S: Stream> AsyncRead for $name<S> {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
            }
        }
    };
}

macro_rules! ends_as_its_inner_stream {
    () => {
        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().inner).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
        }
    };
}

/// Each read and write is limited to the next of `sizes`.
pub(super) struct Short<S> {
    inner: S,
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl<S> Short<S> {
    pub(super) fn new(inner: S, sizes: Vec<usize>) -> Self {
        let sizes = sizes.into_iter().cycle();
        Self { inner, sizes }
    }

    fn size(&mut self, wanted: usize) -> usize {
        self.sizes.next().map_or(wanted, |size| size.min(wanted))
    }
}

impl<S: Stream> AsyncRead for Short<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut bytes = vec![0; this.size(buf.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Short<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = this.size(bytes.len());
        Pin::new(&mut this.inner).poll_write(cx, &bytes[..size])
    }

    ends_as_its_inner_stream!();
}

/// Is not ready `times` times before each step.
pub(super) struct Stalling<S> {
    inner: S,
    times: usize,
    reading: usize,
    writing: usize,
}

impl<S> Stalling<S> {
    pub(super) fn new(inner: S, times: usize) -> Self {
        Self {
            inner,
            times,
            reading: 0,
            writing: 0,
        }
    }
}

fn stall(done: &mut usize, times: usize, cx: &Context<'_>) -> Poll<()> {
    if *done < times {
        *done += 1;
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    *done = 0;
    Poll::Ready(())
}

impl<S: Stream> AsyncRead for Stalling<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(stall(&mut this.reading, this.times, cx));
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: Stream> AsyncWrite for Stalling<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(stall(&mut this.writing, this.times, cx));
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(stall(&mut this.writing, this.times, cx));
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(stall(&mut this.writing, this.times, cx));
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// Fails with an error of this kind: instead of a read that finds nothing, after this many bytes
/// were written, or at the shutdown.
pub(super) struct Failing<S> {
    pub inner: S,
    pub read_out: Option<io::ErrorKind>,
    pub write_after: Option<(usize, io::ErrorKind)>,
    pub at_shutdown: Option<io::ErrorKind>,
}

impl<S> Failing<S> {
    pub(super) fn never(inner: S) -> Self {
        Self {
            inner,
            read_out: None,
            write_after: None,
            at_shutdown: None,
        }
    }

    pub(super) fn read_out(inner: S, kind: io::ErrorKind) -> Self {
        Self {
            read_out: Some(kind),
            ..Self::never(inner)
        }
    }

    pub(super) fn writing(inner: S, after: usize) -> Self {
        Self {
            write_after: Some((after, io::ErrorKind::BrokenPipe)),
            ..Self::never(inner)
        }
    }
}

impl<S: Stream> AsyncRead for Failing<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        match this.read_out {
            Some(kind) if buf.filled().len() == before => Poll::Ready(Err(kind.into())),
            _ => read,
        }
    }
}

impl<S: Stream> AsyncWrite for Failing<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some((left, kind)) = &mut this.write_after else {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        };
        if *left == 0 {
            return Poll::Ready(Err((*kind).into()));
        }
        let part = &bytes[..bytes.len().min(*left)];
        let taken = ready!(Pin::new(&mut this.inner).poll_write(cx, part))?;
        *left -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.at_shutdown {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut this.inner).poll_shutdown(cx),
        }
    }
}

/// Buffers what is written until it is flushed or full, as TLS does.
pub(super) struct Buffering<S> {
    inner: S,
    kept: Vec<u8>,
    most: usize,
}

impl<S: Stream> Buffering<S> {
    pub(super) fn new(inner: S, most: usize) -> Self {
        let kept = Vec::new();
        Self { inner, kept, most }
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.kept))?;
            self.kept.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }
}

reads_as_its_inner_stream!(Buffering);

impl<S: Stream> AsyncWrite for Buffering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.kept.len() >= this.most {
            ready!(this.poll_empty(cx))?;
        }
        let taken = bytes.len().min(this.most - this.kept.len());
        this.kept.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// Accepts nothing, and is never ready.
pub(super) struct Deaf<S> {
    pub inner: S,
}

reads_as_its_inner_stream!(Deaf);

impl<S: Stream> AsyncWrite for Deaf<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    ends_as_its_inner_stream!();
}

/// Accepts nothing: each write returns 0.
pub(super) struct Full<S> {
    pub inner: S,
}

reads_as_its_inner_stream!(Full);

impl<S: Stream> AsyncWrite for Full<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    ends_as_its_inner_stream!();
}

/// Takes a few bytes at a time, and pauses after that.
pub(super) struct Slow<S> {
    inner: S,
    bytes: usize,
    every: Duration,
    pause: Pin<Box<Sleep>>,
}

impl<S> Slow<S> {
    pub(super) fn new(inner: S, bytes: usize, every: Duration) -> Self {
        Self {
            inner,
            bytes,
            every,
            pause: Box::pin(sleep(Duration::ZERO)),
        }
    }
}

reads_as_its_inner_stream!(Slow);

impl<S: Stream> AsyncWrite for Slow<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.pause.as_mut().poll(cx));
        let few = &bytes[..bytes.len().min(this.bytes)];
        let taken = ready!(Pin::new(&mut this.inner).poll_write(cx, few));
        this.pause.as_mut().reset(Instant::now() + this.every);
        Poll::Ready(taken)
    }

    ends_as_its_inner_stream!();
}
