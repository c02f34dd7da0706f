//! A TLS connection in our record layer as a stream of bytes, for a protocol that is read and written here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::AlertDescription;

use super::drive::{Cause, Fault, OnEnd};
use super::endpoint::{Endpoint, Rest, Then, with_scratch};
use super::records::Records;
use super::write_buffer::WriteBuffer;
use crate::record::Layout;
use crate::traffic::Counter;
use crate::wire::Wire;

/// A TLS connection after its handshake. It owns memory only for payload that was not read or sent yet.
#[derive(Debug)]
pub(crate) struct RecordStream<IO> {
    records: Records<IO>,
    /// Opened, and not read yet.
    unread: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// Written, and not sealed yet.
    unsent: WriteBuffer,
    /// How the peer's stream has ended: in order, or with a failure.
    end: Option<Result<(), Cause>>,
}

impl<IO: Wire> RecordStream<IO> {
    pub(crate) fn new(records: Records<IO>) -> Self {
        Self {
            records,
            unread: Vec::new(),
            read: 0,
            unsent: WriteBuffer::default(),
            end: None,
        }
    }

    pub(crate) fn into_io(self) -> IO {
        self.records.into_io()
    }

    /// The fatal alert by which the peer has ended the connection.
    pub(crate) fn given_up(&self) -> Option<AlertDescription> {
        self.records.given_up()
    }

    /// Reads records into the caller's buffer, and what does not fit into `unread`.
    fn poll_open(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        with_scratch(|scratch, pieces| {
            pieces.clear(Layout::PLAIN);
            let then = ready!(
                self.records
                    .poll_receive(cx, scratch, pieces, OnEnd::PassOn)
            );
            let opened = &scratch[..pieces.length()];
            let (fits, rest) = opened.split_at(opened.len().min(buf.remaining()));
            buf.put_slice(fits);
            self.unread.extend_from_slice(rest);
            match then {
                Ok(Then::More) => {}
                Ok(Then::End) => self.end = Some(Ok(())),
                Ok(Then::Failed(fault)) | Err(fault) => self.end = Some(Err(cause(fault))),
            }
            Poll::Ready(())
        })
    }

    /// Seals and sends what was written.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut unflushed, counter) = (false, Counter::default());
        let mut rest = Rest {
            unsent: &mut self.unsent,
            unflushed: &mut unflushed,
            counter: &counter,
        };
        let sent = ready!(self.records.poll_rest(cx, &mut rest));
        Poll::Ready(sent.map_err(|fault| error(cause(fault))))
    }
}

/// The room for what is written at a time: as much as one read of the scratch.
const MOST_UNSENT: usize = 64 * 1024;

fn cause(fault: Fault) -> Cause {
    match fault {
        Fault::Read(cause) => cause,
        Fault::Write(_) => Cause::Reset,
    }
}

fn error(cause: Cause) -> io::Error {
    match cause {
        Cause::Truncated => io::ErrorKind::UnexpectedEof.into(),
        Cause::Reset | Cause::KeysSpent | Cause::Stopped => io::ErrorKind::ConnectionReset.into(),
    }
}

impl<IO: Wire> AsyncRead for RecordStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        while buf.filled().len() == before && buf.remaining() > 0 {
            if this.read < this.unread.len() {
                let unread = &this.unread[this.read..];
                let count = unread.len().min(buf.remaining());
                buf.put_slice(&unread[..count]);
                this.read += count;
                if this.read == this.unread.len() {
                    (this.unread, this.read) = (Vec::new(), 0);
                }
                break;
            }
            match this.end {
                Some(Err(cause)) => return Poll::Ready(Err(error(cause))),
                Some(Ok(())) => break,
                None => ready!(this.poll_open(cx, buf)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Wire> AsyncWrite for RecordStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// All of it goes into as few records as possible, with one call of the kernel.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let mut taken = 0;
        for buf in bufs {
            let count = buf.len().min(MOST_UNSENT - taken);
            this.unsent.extend(&buf[..count]);
            taken += count;
        }
        // What the socket does not take now is sent by the next write or flush.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        this.records.poll_flush(cx)
    }

    /// Sends `close_notify`.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        // Without an effect if it was said before.
        this.records.say_end();
        ready!(this.poll_send(cx))?;
        this.records.poll_shutdown(cx)
    }
}
