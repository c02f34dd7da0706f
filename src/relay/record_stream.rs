//! A TLS connection in our record layer as a stream of bytes, for a protocol that is read and written here.
//!
//! Small writes are collected until a flush, and leave in full records, several with one call of the kernel.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::AlertDescription;

use super::drive::{Cause, Fault, OnEnd};
use super::endpoint::{Endpoint, Rest, Then, with_scratch};
use super::records::Records;
use super::write_buffer::WriteBuffer;
use crate::record::{Layout, MOST_HELD};
use crate::traffic::Counter;
use crate::wire::{MOST_PLACES, Peer, Transmission, Wire};

/// A TLS connection after its handshake. It owns memory only for payload that was not read or sent yet.
#[derive(Debug)]
pub(crate) struct RecordStream<IO> {
    records: Records<IO>,
    /// Where records were opened, and which part of it was not read yet. Without such a part, it owns no memory.
    opened: Vec<u8>,
    unread: Range<usize>,
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
            opened: Vec::new(),
            unread: 0..0,
            unsent: Vec::new(),
            filled: 0,
            end: None,
        }
    }

    /// The fatal alert by which the peer has ended the connection.
    pub(crate) fn given_up(&self) -> Option<AlertDescription> {
        self.records.given_up()
    }

    /// Receives records, and opens them where they will be read: a copy of what does not fit into the reader's buffer
    /// would be most of it.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut opened = OPENED.take();
        opened.resize(MOST_HELD, 0);
        let received = with_scratch(|_, pieces| {
            pieces.clear(Layout::PLAIN);
            let then = (self.records).poll_receive(cx, &mut opened, pieces, OnEnd::PassOn);
            then.map(|then| (then, pieces.length()))
        });
        let Poll::Ready((then, length)) = received else {
            OPENED.set(opened);
            return Poll::Pending;
        };
        match then {
            Ok(Then::More) => {}
            Ok(Then::End) => self.end = Some(Ok(())),
            Ok(Then::Failed(fault)) | Err(fault) => self.end = Some(Err(cause(fault))),
        }
        (self.opened, self.unread) = (opened, 0..length);
        self.give_back();
        Poll::Ready(())
    }

    /// Gives the memory back when all of it was read.
    fn give_back(&mut self) {
        if self.unread.is_empty() {
            OPENED.set(std::mem::take(&mut self.opened));
        }
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
        with_no_rest(|rest| self.records.poll_rest(cx, rest))
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
        let sent = with_scratch(|_, pieces| {
            pieces.clear(self.records.layout());
            pieces.add_read(self.filled);
            with_no_rest(|rest| (self.records).send(cx, &mut self.unsent, pieces, rest))
        });
        self.filled = 0;
        ROOM.set(std::mem::take(&mut self.unsent));
        sent
    }
}

/// Without bytes of an earlier read: what is written here is kept here, and counted where it was made.
fn with_no_rest<T>(work: impl FnOnce(&mut Rest<'_>) -> T) -> T {
    work(&mut Rest {
        unsent: &mut WriteBuffer::default(),
        unflushed: &mut false,
        counter: &Counter::default(),
    })
}

/// What is collected before it leaves without a flush: as many records as one call of the kernel takes.
const MOST_UNSENT: usize = MOST_PLACES * (16 * 1024 + 256);

thread_local! {
    /// The memory of `unsent` and of `opened` between two uses: a busy stream would get new memory at each turn, and an
    /// idle one owns none.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OPENED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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

impl<IO: Wire> Peer for RecordStream<IO> {
    fn transmission(&mut self) -> Option<Transmission> {
        self.records.transmission()
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
            if !this.unread.is_empty() {
                let count = this.unread.len().min(buf.remaining());
                buf.put_slice(&this.opened[this.unread.start..][..count]);
                this.unread.start += count;
                this.give_back();
                break;
            }
            match this.end {
                Some(Err(cause)) => return Poll::Ready(Err(error(cause))),
                Some(Ok(())) => break,
                None => ready!(this.poll_open(cx)),
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
