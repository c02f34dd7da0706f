//! The bytes of a stream, in both directions: what has come with a reader or a loan, what leaves with a copy or as it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{TunnelStream, kind};
use crate::tunnel::payload::{self, Payload};
use crate::wire::{Keep, Lend};

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fill(cx, buf.remaining()))?;
        let before = buf.filled().len();
        // Several small frames make one read.
        while buf.remaining() > 0 && !this.backlog.is_empty() {
            let bytes = this.backlog.first();
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            this.backlog.consume(count);
        }
        this.release(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl Lend for TunnelStream {
    fn poll_lend<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        slices: &mut [IoSlice<'a>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_fill(cx, MOST_LENT))?;
        Poll::Ready(Ok(self.backlog.slices(slices)))
    }

    fn consume(&mut self, count: usize) {
        self.backlog.consume(count);
        self.release(count);
    }

    fn holds(&self) -> bool {
        self.held() > 0
    }
}

impl Keep for TunnelStream {
    fn room(&mut self) -> Vec<u8> {
        payload::room()
    }

    fn keep(&mut self, room: Vec<u8>, length: usize) -> io::Result<()> {
        match length {
            0 => payload::put_back(room),
            _ => self.send(self.queued.payload_in(room, length))?,
        }
        Ok(())
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_capacity(cx))?;
        // More than there is room for at the moment: otherwise the rest of a read would be copied twice.
        let count = buf.len().min(MOST_WRITTEN);
        let payload = this.queued.payload(&buf[..count]);
        this.send(payload)?;
        Poll::Ready(Ok(count))
    }

    /// What was written leaves with the tunnel, which another task drives.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = this.sending()?.send_data(Payload::none(), true);
        Poll::Ready(sent.map_err(|error| kind(&error).into()))
    }
}

/// The longest write: a read of the relay.
const MOST_WRITTEN: usize = 64 * 1024;

/// What is taken of the tunnel for a write to a backend.
const MOST_LENT: usize = 128 * 1024;
