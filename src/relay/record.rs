//! The relay of a TLS client whose records are opened and sealed here, between the two sockets.
//!
//! ```text
//! client ── recv ─► open in place ── write ─► backend       one scratch buffer,
//!        ◄─ send ── seal in place ◄── readv ──              which belongs to the thread
//! ```
//!
//! rustls does the handshake and leaves; what remains of TLS is a [`RecordStream`]: two keys, two
//! sequence numbers, and what RFC 8446 and RFC 5246 want of whoever has them. It is plain data, which
//! can be exported in one process and imported in another.
//!
//! A connection owns memory only for the part of a record that has come so far, and for bytes that
//! the other side did not take at once; then it reads no more until it has.

mod aead;
mod cipher;
mod inbound;
mod join;
mod keys;
mod outbound;
#[cfg(any(test, fuzzing))]
mod state;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{AlertDescription, ExtractedSecrets};

use self::cipher::{Exhausted, HEADER, Header, MAX_PAYLOAD, OVERHEAD, Version};
use self::inbound::{Answer, Inbound, Received, Refusal};
use self::join::Joined;
use self::keys::Keys;
pub(crate) use self::keys::Secret;
use self::outbound::{Outbound, RECORDS};
#[cfg(any(test, fuzzing))]
pub(crate) use self::state::State as Exported;
use super::drive::{Cause, Fault, OnEnd, State, drive};
use super::unsent::Unsent;
use super::{End, Relay};
use crate::traffic::Counter;
pub(crate) use crate::wire::{Peer, Wire};

/// A stream that can read into one place after the other in a single step.
pub(crate) trait ReadVectored: Peer {
    /// How many bytes were read; 0 is the end. One that cannot do it fills the first place alone.
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = places.first_mut().map_or(&mut [][..], |place| place);
        let mut buffer = ReadBuf::new(first);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

/// Fills one place after the other, for streams that are not the system's.
#[cfg(any(test, fuzzing))]
pub(crate) fn scatter(mut bytes: &[u8], places: &mut [IoSliceMut<'_>]) {
    for place in places {
        let (ours, others) = bytes.split_at(bytes.len().min(place.len()));
        place[..ours.len()].copy_from_slice(ours);
        bytes = others;
    }
}

/// The traffic secrets of TLS 1.3 (RFC 8446 §7.1); without them keys cannot be updated.
#[derive(Default)]
pub(crate) struct TrafficSecrets {
    pub client: Secret,
    pub server: Secret,
}

/// A TLS connection past its handshake, in the place of the server.
#[derive(Debug)]
pub(crate) struct RecordStream<IO> {
    io: IO,
    inbound: Inbound,
    outbound: Outbound,
    up: State,
    down: State,
    /// Received, and not a whole record yet.
    held: Vec<u8>,
    /// Opened, and not taken by the backend yet.
    opened: Unsent,
    /// Sealed, and not taken by the socket yet.
    sealed: Unsent,
    /// How many of the backend's bytes `sealed` has.
    owed: usize,
    /// `sealed` has a KeyUpdate that asks for none: one answers for all that are asked for meanwhile.
    updating: bool,
    /// The client was asked for new keys and has not sent any yet.
    asked: bool,
}

/// What came of listening to a client that nobody serves yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It said something, and may have closed its side after it.
    Words,
    /// It closed without a word, or failed.
    Nothing,
}

impl<IO: Wire> RecordStream<IO> {
    /// Takes over from rustls. `traffic` is there in TLS 1.3 and in no other version; `received` is
    /// what the client has sent after its handshake, [`MOST_HELD`] bytes at most.
    ///
    /// # Errors
    ///
    /// The secrets are of no suite that is known here.
    pub(crate) fn new(
        io: IO,
        secrets: &ExtractedSecrets,
        traffic: Option<TrafficSecrets>,
        received: Vec<u8>,
    ) -> Result<Self, IO> {
        let (client, server) = match traffic {
            Some(TrafficSecrets { client, server }) => (Some(client), Some(server)),
            None => (None, None),
        };
        let keys = (
            Keys::new(&secrets.rx, client),
            Keys::new(&secrets.tx, server),
        );
        let (Some(theirs), Some(ours)) = keys else {
            return Err(io);
        };
        Ok(Self {
            io,
            inbound: Inbound::new(theirs),
            outbound: Outbound::new(ours),
            up: State::Open,
            down: State::Open,
            held: received,
            opened: Unsent::default(),
            sealed: Unsent::default(),
            owed: 0,
            updating: false,
            asked: false,
        })
    }

    /// Changes keys after fewer records than they could seal.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn set_limit(&mut self, records: u64) {
        self.outbound.limit = records;
    }

    pub(crate) fn into_io(self) -> IO {
        self.io
    }

    /// Joins client and backend until both have ended, one has failed, or nothing moves any more.
    ///
    /// The sockets are not closed beyond the shutdowns that their ends called for: how to end a
    /// failed connection is for the caller.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: what was read and not written stays in the stream.
    pub(crate) async fn join<B>(&mut self, backend: &mut B, relay: Relay<'_>) -> End
    where
        B: ReadVectored,
    {
        let mut joined = Joined {
            client: self,
            backend,
            traffic: relay.traffic,
        };
        drive(&mut joined, relay.settings).await
    }

    /// Reads what the client says until it has ended or said `enough` bytes; a record more at most
    /// is kept, and the next one sealed.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost: what was heard stays in the stream.
    pub(crate) async fn hear(&mut self, enough: usize) -> Heard {
        poll_fn(|cx| {
            while self.up == State::Open && self.opened.len() < enough {
                if let Err(Fault::Read(cause)) = ready!(self.poll_hear(cx)) {
                    self.up.break_off(cause);
                }
            }
            Poll::Ready(match self.opened.is_empty() {
                true => Heard::Nothing,
                false => Heard::Words,
            })
        })
        .await
    }

    /// Whether the client has ended its stream in order, and the backend was told.
    pub(crate) fn has_heard_the_end(&self) -> bool {
        self.up.is_closed()
    }

    /// Reads no more: another [`Self::join`] delivers what was read.
    pub(crate) fn stop(&mut self) {
        self.up.break_off(Cause::Stopped);
        self.down.break_off(Cause::Stopped);
    }

    /// Puts a fatal alert behind what is to be sent; [`Self::close`] sends it.
    pub(crate) fn alert(&mut self, alert: AlertDescription) {
        // Keys that can seal no alert either leave nothing to say.
        let _ = self.outbound.fatal(alert, self.sealed.bytes());
        // It is the last word, whoever has it (RFC 8446 §6.2).
        self.down = State::Closing;
    }

    /// Says `close_notify`, unless a last alert was sent already, and waits until the socket has it.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                ready!(self.sealed.poll_write(cx, &mut self.io, |_| {}))?;
                if !self.may_speak() {
                    return Poll::Ready(Ok(()));
                }
                self.close_notify();
            }
        })
        .await
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = self.held.len() + HEADER + self.inbound.keys.suite.longest();
            let room = room.min(scratch.len());
            let received = ready!(self.poll_fill(cx, &mut scratch[..room]))?;
            let (opened, fault) = self.open(cx, &mut scratch[..received]);
            self.opened.extend(&scratch[..opened]);
            Poll::Ready(fault)
        })
    }

    /// Reads once, opens what came, and writes it; what the backend does not take is kept.
    fn poll_receive<B>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        counter: &Counter,
    ) -> Poll<Result<(), Fault>>
    where
        B: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let received = ready!(self.poll_fill(cx, scratch))?;
            let (opened, fault) = self.open(cx, &mut scratch[..received]);
            if opened > 0 {
                let bytes = &scratch[..opened];
                let taken = match Pin::new(backend).poll_write(cx, bytes) {
                    Poll::Ready(Ok(taken)) => taken,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::write(error))),
                    Poll::Pending => 0,
                };
                counter.add(taken);
                self.opened.extend(&bytes[taken..]);
            }
            Poll::Ready(fault)
        })
    }

    /// Puts what is held and what can be read behind it into `buffer`; how long that is.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Fault>> {
        let held = self.held.len();
        let mut received = held;
        // Whole records are held only when they came with the end of the handshake.
        let is_whole = Header::of_whole_record(&self.held, self.inbound.keys.suite);
        if matches!(is_whole, Ok(None)) {
            let mut unfilled = ReadBuf::new(&mut buffer[held..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut unfilled)).map_err(Fault::read)?;
            received += unfilled.filled().len();
            if received == held {
                return Poll::Ready(Err(Fault::Read(Cause::Truncated)));
            }
        }
        buffer[..held].copy_from_slice(&self.held);
        Poll::Ready(Ok(received))
    }

    /// Opens all whole records; how many bytes of `buffer` are the backend's then, and whether that
    /// was the last of them.
    fn open(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> (usize, Result<(), Fault>) {
        let mut length = 0;
        let mut at = 0;
        let end = loop {
            match self.open_one(buffer, length, &mut at) {
                Ok(Some(Received::Data(bytes))) => length += bytes,
                Ok(Some(Received::CloseNotify)) => {
                    self.up = State::Ending;
                    at = buffer.len();
                    break Ok(());
                }
                Ok(Some(received)) => {
                    if let Err(Exhausted) = self.respond(received) {
                        break Err(Fault::Read(Cause::KeysSpent));
                    }
                }
                Ok(None) => break Ok(()),
                Err(refusal) => break Err(self.refuse(cx, refusal)),
            }
        };
        self.held.clear();
        match &buffer[at..] {
            // An idle connection owns no buffer.
            [] => self.held.shrink_to_fit(),
            rest => self.held.extend_from_slice(rest),
        }
        (length, end)
    }

    /// Opens the record at `at`, which moves behind it, to `length`.
    fn open_one(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        at: &mut usize,
    ) -> Result<Option<Received>, Refusal> {
        let suite = self.inbound.keys.suite;
        let Some(header) = Header::of_whole_record(&buffer[*at..], suite)? else {
            return Ok(None);
        };
        let start = *at - length;
        *at += header.record_length();
        let buffer = &mut buffer[length..*at];
        self.inbound.receive(header, buffer, start).map(Some)
    }

    /// Does what a message of the record layer calls for.
    fn respond(&mut self, received: Received) -> Result<(), Exhausted> {
        match received {
            Received::KeyUpdate(answer) => {
                self.asked = false;
                if answer == Answer::Requested && !self.updating && self.may_speak() {
                    self.update_keys(Answer::NotRequested)?;
                }
            }
            Received::Renegotiation if self.may_speak() => {
                self.outbound.no_renegotiation(self.sealed.bytes())?;
            }
            Received::Renegotiation
            | Received::Data(_)
            | Received::Nothing
            | Received::CloseNotify => {}
        }
        Ok(())
    }

    /// Tells the client what it did wrong, as far as the socket takes it now; the rest goes out with
    /// [`Self::close`].
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: Refusal) -> Fault {
        let alert = match refusal {
            Refusal::Broken(alert) | Refusal::Given(alert) => alert,
        };
        if matches!(refusal, Refusal::Broken(_)) && self.may_speak() {
            self.alert(alert);
            let _ = self.sealed.poll_write(cx, &mut self.io, |_| {});
        }
        // A fatal alert is the last word, whoever has it (RFC 8446 §6.2).
        self.down = State::Closing;
        Fault::Read(Cause::Reset)
    }

    /// Reads once and sends it in records; what the socket does not take is kept.
    fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut B,
        counter: &Counter,
        on_end: OnEnd,
    ) -> Poll<Result<(), Fault>>
    where
        B: ReadVectored,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut places = self.outbound.places(scratch);
            let read = ready!(backend.poll_read_vectored(cx, &mut places)).map_err(Fault::read)?;
            if read == 0 && on_end == OnEnd::Fail {
                return Poll::Ready(Err(Fault::Read(Cause::Reset)));
            }
            if read == 0 {
                self.down = State::Ending;
                return Poll::Ready(Ok(()));
            }
            let sealed = match self.outbound.data(read, scratch) {
                Ok(length) => &scratch[..length],
                Err(Exhausted) => return Poll::Ready(Err(Fault::Read(Cause::KeysSpent))),
            };
            let taken = match Pin::new(&mut self.io).poll_write(cx, sealed) {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::write(error))),
                Poll::Pending => 0,
            };
            match &sealed[taken..] {
                [] => counter.add(read),
                rest => {
                    self.sealed.extend(rest);
                    self.owed = read;
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Sends what is left of earlier records.
    fn poll_send_rest(
        &mut self,
        cx: &mut Context<'_>,
        counter: &Counter,
    ) -> Poll<Result<(), Fault>> {
        let sent = match self.down {
            State::Closing => {
                let write = |bytes: &_| self.io.poll_write_more(cx, bytes);
                self.sealed.poll_write_by(write, |_| {})
            }
            _ => self.sealed.poll_write(cx, &mut self.io, |_| {}),
        };
        match ready!(sent) {
            Ok(()) => {}
            // It took everything and left; what a Unix socket refuses is our close_notify alone.
            // TCP would have taken that as well.
            Err(error)
                if self.down == State::Closing
                    && error.kind() == io::ErrorKind::BrokenPipe
                    && self.io.was_read_out() =>
            {
                self.down = State::Closed;
                self.sealed.clear();
            }
            Err(error) => return Poll::Ready(Err(Fault::write(error))),
        }
        self.updating = false;
        if self.owed > 0 {
            counter.add(std::mem::take(&mut self.owed));
        }
        Poll::Ready(Ok(()))
    }

    /// Changes the keys that are near the end of what they may seal, and asks the client to change
    /// its own: many never do by themselves.
    fn keep_keys_fresh(&mut self) -> Result<(), Exhausted> {
        let has_next = self.outbound.keys.suite.version == Version::Tls13;
        let received = self.inbound.keys.cipher.sequence();
        if has_next && received >= self.outbound.limit && !self.asked {
            self.asked = true;
            self.update_keys(Answer::Requested)
        } else if self.outbound.must_update(RECORDS) {
            self.update_keys(Answer::NotRequested)
        } else {
            Ok(())
        }
    }

    fn update_keys(&mut self, answer: Answer) -> Result<(), Exhausted> {
        // One that asks answers nothing: when two such cross, each side sends an answer as well
        // (RFC 8446 §4.6.3).
        self.updating |= answer == Answer::NotRequested;
        self.outbound.key_update(answer, self.sealed.bytes())
    }

    fn close_notify(&mut self) {
        // If the keys are spent the client learns of the end as of a truncation, which it is.
        let _ = self.outbound.close_notify(self.sealed.bytes());
        self.down = State::Closing;
    }

    /// Nothing follows a closing alert of ours (RFC 8446 §6.1).
    fn may_speak(&self) -> bool {
        self.down != State::Closing && !self.down.is_closed()
    }
}

thread_local! {
    /// The buffer of a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_HELD].into_boxed_slice());
}

/// How much may be received and not be opened yet.
pub(crate) const MOST_HELD: usize = RECORDS * (MAX_PAYLOAD + OVERHEAD);

#[cfg(test)]
mod tests;
