//! A side of a relay with our record layer over its socket: records are opened and sealed here.
//!
//! ```text
//! socket ── recv ─► held + scratch ─ open in place ─► payloads
//!        ◄─ send ── sealed         ◄─ seal in place ─
//! ```
//!
//! It owns memory only for the received part of an incomplete record, and for records that the
//! socket did not accept at once. In the second case, nothing more is read for it until the socket
//! has accepted them.

#[cfg(any(test, fuzzing))]
mod state;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio_rustls::rustls::AlertDescription;

use super::drive::{Cause, Fault, OnEnd};
use super::endpoint::{Endpoint, Rest, Then, poll_discard};
use super::write_buffer::WriteBuffer;
use crate::record::{self, Exhausted, Layer, Layout, MOST_HELD, Pieces, Start};
use crate::traffic::Counter;
use crate::wire::{Transmission, Wire};

#[cfg(any(test, fuzzing))]
pub(crate) use self::state::State as Exported;

/// A TLS connection after its handshake.
#[derive(Debug)]
pub(crate) struct Records<IO> {
    io: IO,
    layer: Layer,
    /// Received bytes that are not a complete record yet.
    held: Vec<u8>,
    /// Sealed records that the socket has not accepted yet.
    sealed: WriteBuffer,
    /// The bytes of payload in `sealed`.
    owed: usize,
}

impl<IO: Wire> Records<IO> {
    /// # Errors
    ///
    /// The record layer does not support the cipher suite.
    pub(crate) fn new(io: IO, start: Start) -> Result<Self, IO> {
        match Layer::new(start) {
            Some((layer, received)) => Ok(Self::of(io, layer, received)),
            None => Err(io),
        }
    }

    fn of(io: IO, layer: Layer, held: Vec<u8>) -> Self {
        Self {
            io,
            layer,
            held,
            sealed: WriteBuffer::default(),
            owed: 0,
        }
    }

    /// Updates keys after fewer records than they may seal.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn set_limit(&mut self, records: u64) {
        self.layer.set_limit(records);
    }

    /// The fatal alert by which the peer has ended the connection, if it has.
    pub(crate) fn given_up(&self) -> Option<AlertDescription> {
        self.layer.given_up()
    }

    pub(crate) fn into_io(self) -> IO {
        self.io
    }

    /// Queues a fatal alert behind what is to be sent. [`Self::close`] sends it.
    pub(crate) fn alert(&mut self, alert: AlertDescription) {
        self.layer.alert(alert, self.sealed.bytes());
    }

    /// Sends `close_notify`, unless a closing alert was sent already, and waits until the socket
    /// has it.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                ready!(self.sealed.poll_write(cx, &mut self.io, |_| {}))?;
                if self.layer.is_mute() {
                    return Poll::Ready(Ok(()));
                }
                self.layer.close_notify(self.sealed.bytes());
            }
        })
        .await
    }

    /// Puts the held bytes and what can be read after them into `buffer`, starting at `from`.
    /// Returns the end position.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        from: usize,
    ) -> Poll<Result<usize, Fault>> {
        let held = from + self.held.len();
        let mut received = held;
        // Complete records are held if they came together with the end of the handshake, or if
        // there was no room for their payload.
        if !self.layer.can_open(&self.held) {
            let mut unfilled = ReadBuf::new(&mut buffer[held..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut unfilled)).map_err(Fault::read)?;
            received += unfilled.filled().len();
            if received == held {
                return Poll::Ready(Err(Fault::Read(Cause::Truncated)));
            }
        }
        if held > from {
            buffer[from..held].copy_from_slice(&self.held);
        }
        Poll::Ready(Ok(received))
    }

    /// Opens all complete records.
    fn open(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        from: usize,
        pieces: &mut Pieces,
    ) -> Then {
        let owed = self.sealed.len();
        let answers = self.sealed.bytes();
        let opened = self.layer.open(buffer, from, pieces, answers);
        self.held.clear();
        match &buffer[opened.rest..] {
            // An idle connection owns no buffer.
            [] => self.held.shrink_to_fit(),
            rest => self.held.extend_from_slice(rest),
        }
        if self.sealed.len() > owed {
            // The other direction must send these, and it may have had its turn already.
            cx.waker().wake_by_ref();
        }
        match opened.then {
            record::Then::More => Then::More,
            record::Then::End => Then::End,
            record::Then::KeysSpent => Then::Failed(Fault::Read(Cause::KeysSpent)),
            record::Then::Refused(_) => {
                // Sends as much of the alert as the socket accepts now; `close` sends the rest.
                let _ = self.sealed.poll_write(cx, &mut self.io, |_| {});
                Then::Failed(Fault::Read(Cause::Reset))
            }
        }
    }

    /// Sends what is sealed.
    fn poll_sealed(&mut self, cx: &mut Context<'_>, counter: &Counter) -> Poll<Result<(), Fault>> {
        let is_last = self.layer.is_mute();
        let sent = match is_last {
            true => {
                let write = |bytes: &_| self.io.poll_write_more(cx, bytes);
                self.sealed.poll_write_by(write, |_| {})
            }
            false => self.sealed.poll_write(cx, &mut self.io, |_| {}),
        };
        let sent = match sent {
            Poll::Ready(Err(error)) if is_last && self.io.is_close_notify_refused(&error) => {
                self.sealed.clear();
                Poll::Ready(())
            }
            sent => sent.map_err(Fault::write)?,
        };
        self.count(counter);
        ready!(sent);
        self.layer.all_was_sent();
        Poll::Ready(Ok(()))
    }

    /// Counts the payload that was sent, also of records that the socket takes in small parts: a peer that reads slowly
    /// is not idle. The payload that is not sent yet is at most as long as the bytes that are left.
    fn count(&mut self, counter: &Counter) {
        let owed = self.owed.min(self.sealed.len());
        if owed < self.owed {
            counter.add(self.owed - owed);
            self.owed = owed;
        }
    }
}

impl<IO: Wire> Endpoint for Records<IO> {
    fn layout(&self) -> Layout {
        self.layer.layout()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &mut Pieces,
        on_end: OnEnd,
    ) -> Poll<Result<Then, Fault>> {
        let from = self.layer.headroom(pieces.layout());
        let end = scratch.len().min(from + MOST_HELD);
        match (
            ready!(self.poll_fill(cx, &mut scratch[..end], from)),
            on_end,
        ) {
            (Ok(end), _) => Poll::Ready(Ok(self.open(cx, &mut scratch[..end], from, pieces))),
            (Err(Fault::Read(Cause::Truncated)), OnEnd::Fail) => {
                Poll::Ready(Err(Fault::Read(Cause::Reset)))
            }
            (Err(fault), _) => Poll::Ready(Err(fault)),
        }
    }

    /// At most one more record.
    fn room(&self, _: usize) -> usize {
        self.held.len() + self.layer.longest()
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        pieces: &Pieces,
        rest: &mut Rest<'_>,
    ) -> Result<(), Fault> {
        let length = self.layer.seal(pieces, scratch, self.sealed.bytes());
        let sealed = &scratch[..length.map_err(keys_spent)?];
        let taken = match self.sealed.is_empty() {
            true => match Pin::new(&mut self.io).poll_write(cx, sealed) {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(error)) => return Err(Fault::write(error)),
                Poll::Pending => 0,
            },
            // A KeyUpdate goes first; the records follow it.
            false => 0,
        };
        *rest.unflushed |= taken > 0;
        match &sealed[taken..] {
            [] => rest.counter.add(pieces.length()),
            left => {
                self.sealed.extend(left);
                self.owed = pieces.length();
                self.count(rest.counter);
            }
        }
        Ok(())
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, rest: &mut Rest<'_>) -> Poll<Result<(), Fault>> {
        if self.sealed.is_empty() && self.owed == 0 && rest.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        *rest.unflushed = true;
        ready!(self.poll_sealed(cx, rest.counter))?;
        if rest.unsent.is_empty() || self.layer.is_mute() {
            return Poll::Ready(Ok(()));
        }
        // Payload that was read before this side existed to send it to.
        let heard = rest.unsent.as_slice();
        let sealed = self.layer.seal_copy(heard, self.sealed.bytes());
        sealed.map_err(keys_spent)?;
        self.owed = heard.len();
        rest.unsent.clear();
        self.poll_sealed(cx, rest.counter)
    }

    fn owes(&self) -> bool {
        !self.sealed.is_empty()
    }

    fn is_mute(&self) -> bool {
        self.layer.is_mute()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket buffers nothing here, but the stream of a program may.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn say_end(&mut self) {
        self.layer.close_notify(self.sealed.bytes());
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn ends_by_close(&self) -> bool {
        self.layer.is_over() && self.io.ends_by_close()
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_discard(&mut self.io, cx))?;
        self.layer.set_over();
        Poll::Ready(Ok(()))
    }

    fn has_failed(&self) -> bool {
        self.io.has_failed()
    }

    fn transmission(&mut self) -> Option<Transmission> {
        self.io.transmission()
    }
}

fn keys_spent(_: Exhausted) -> Fault {
    Fault::Read(Cause::KeysSpent)
}

#[cfg(test)]
mod tests;
