//! A TLS connection in our record layer as a stream of bytes, for a protocol that is read and written here.
//!
//! Small writes are collected until a flush, and leave in full records, several with one call of the kernel.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut, Read};
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
use crate::wire::{MOST_PLACES, Wire};

/// A TLS connection after its handshake. It owns memory only for payload that was not read or sent yet.
#[derive(Debug)]
pub(crate) struct RecordStream<IO> {
    records: Records<IO>,
    /// Opened, and not read yet.
    unread: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// Written, and not sealed yet: payloads with room for the records around them.
    unsent: Vec<u8>,
    /// The bytes of payload in it.
    filled: usize,
    /// How the peer's stream has ended: in order, or with a failure.
    end: Option<Result<(), Cause>>,
}

impl<IO: Wire> RecordStream<IO> {
    pub(crate) fn new(records: Records<IO>) -> Self {
        Self {
            records,
            unread: Vec::new(),
            read: 0,
            unsent: Vec::new(),
            filled: 0,
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
            if !rest.is_empty() {
                self.unread = UNREAD.take();
                self.unread.clear();
                self.unread.extend_from_slice(rest);
            }
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
        loop {
            ready!(self.poll_sealed(cx)).map_err(|fault| error(cause(fault)))?;
            // After a closing alert, nothing may be sent.
            if self.filled == 0 || self.records.is_mute() {
                return Poll::Ready(Ok(()));
            }
            let sent = self.seal(cx);
            sent.map_err(|fault| error(cause(fault)))?;
        }
    }

    /// Sends what is sealed.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let (mut unsent, mut unflushed) = (WriteBuffer::default(), false);
        let mut rest = Rest {
            unsent: &mut unsent,
            unflushed: &mut unflushed,
            counter: &Counter::default(),
        };
        self.records.poll_rest(cx, &mut rest)
    }

    /// Takes what there is room for, to where it will be sealed. Returns the number of bytes.
    fn append(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        if self.unsent.is_empty() {
            self.unsent = ROOM.take();
            self.unsent.resize(MOST_UNSENT, 0);
        }
        let mut places = self.records.layout().places(&mut self.unsent);
        let mut free = &mut places.all()[..];
        IoSliceMut::advance_slices(&mut free, self.filled);
        let before = self.filled;
        for buf in bufs {
            let mut bytes = &**buf;
            let count = bytes.read_vectored(free).unwrap_or(0);
            IoSliceMut::advance_slices(&mut free, count);
            self.filled += count;
        }
        self.filled - before
    }

    /// Seals what was written, and sends it as far as the socket takes it.
    fn seal(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let (mut unsent, mut unflushed) = (WriteBuffer::default(), false);
        let mut rest = Rest {
            unsent: &mut unsent,
            unflushed: &mut unflushed,
            counter: &Counter::default(),
        };
        let sent = with_scratch(|_, pieces| {
            pieces.clear(self.records.layout());
            pieces.add_read(self.filled);
            (self.records).send(cx, &mut self.unsent, pieces, &mut rest)
        });
        self.filled = 0;
        ROOM.set(std::mem::take(&mut self.unsent));
        sent
    }
}

/// What is collected before it leaves without a flush: as many records as one call of the kernel takes.
const MOST_UNSENT: usize = MOST_PLACES * (16 * 1024 + 256);

thread_local! {
    /// The memory of `unsent` and of `unread` between two uses: a busy stream would get new memory at each turn, and an
    /// idle one owns none.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static UNREAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

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
                    UNREAD.set(std::mem::take(&mut this.unread));
                    this.read = 0;
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

    /// What was written leaves with the next flush, in as few records as possible, or when much was written.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let taken = this.append(bufs);
            if taken > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            ready!(this.poll_send(cx))?;
        }
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
